"""Guided prompts, an addition to the paper: only points of the grid that resemble the memory's classes are decoded.

The paper decodes a mask at every point of a grid, whatever the references show. Most of these masks are on things that
resemble no reference, and the decoder takes most of the time of an image. :func:`choose_points` drops such points
before they are decoded, by the similarity of the image's patch tokens to the prototypes. Everything after the decoder
is the paper's.

The constants, and the defaults of the threshold and of the budget in ``settings.py``, were tuned on drawn scenes of the
seeds 777 and 1000 to 1009 with the nano networks. docs/experiments.md has the figures on other seeds, which
``python -m timing.guided`` prints.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.encoder import check_finite, without_autocast
from no_time_to_train.method.mask_proposals import MaskProposer, Seen, point_grid
from no_time_to_train.method.proposals import Proposals

#: How much larger the divisor of similarity plus 1 is from one level of the grid to the next. With one class, the AP of
#: the tuning scenes is 0.2 lower at 0, because similar points that lie close together use up the budget, and 0.9 lower
#: at 0.3, because fewer points reach the threshold.
LEVEL_STEP = 0.1

#: Where the memory has several classes, the budget is this many times as large. More classes find similar points nearly
#: everywhere, so the budget does not grow further.
SEVERAL_CLASSES = 2


def propose_guided(proposer: MaskProposer, seen: Seen) -> Proposals:
    """The proposals at those points of the grid that :func:`choose_points` chooses."""
    assert seen.prototypes is not None
    image, features, settings = seen.image, seen.features, seen.settings
    prototypes = check_finite(seen.prototypes, "the memory", "file")
    points = point_grid(settings.points_per_side, proposer.size).to(image.device)
    with without_autocast(image):
        chosen = choose_points(
            features, prototypes, points, proposer.size, settings.prompt_threshold, settings.prompt_budget
        )
    if not len(chosen):
        side = proposer.size // 4
        return Proposals(features.new_zeros(0, side, side), features.new_zeros(0))
    return proposer.decode(*proposer.encode(image), points[chosen])


def choose_points(
    features: Tensor, prototypes: Tensor, points: Tensor, size: int, threshold: float, budget: float
) -> Tensor:
    """The points of a grid that are worth decoding.

    1. Similarity: the mean patch token of the image is subtracted from its tokens and from the prototypes; then the
       cosine similarity of each token to the most similar prototype is taken. What all patches of an image share says
       nothing about where an object is.
    2. It is interpolated at the points.
    3. Coverage: (similarity + 1) is divided by (1 + ``LEVEL_STEP`` * level). The level of a point is 0 on every fourth
       row and column of the grid, 1 on every other second one, 2 on the centers of their squares, and 3 elsewhere. So
       of equally similar points those are chosen first that lie far apart.
    4. The points with at least the threshold remain, and of them the highest, as many as the budget allows. Ties are
       broken by the points' order.

    Args:
        features: float [D, g, g], the image's feature map, not normalized.
        prototypes: float [C, D], not normalized. Negative references play no role.
        points: float [n * n, 2], (x, y) in pixels of a square of this size, from ``mask_proposals.point_grid``.
        threshold: In [-1, 1]; -1 keeps all points.
        budget: The largest share of the points in [0, 1], if there is one class, but at least one point.

    Returns:
        int64 [m], the chosen points in ascending order; none where no point reaches the threshold.
    """
    distance = 1 + LEVEL_STEP * levels(len(points)).to(points)
    priority = (1 + similarity(features, prototypes, points, size)) / distance
    share = min(budget * (SEVERAL_CLASSES if len(prototypes) > 1 else 1), 1)
    best = priority.argsort(descending=True, stable=True)[: max(int(share * len(points)), 1)]
    return best[priority[best] >= 1 + threshold].sort().values


def similarity(features: Tensor, prototypes: Tensor, points: Tensor, size: int) -> Tensor:
    """Steps 1 and 2 of :func:`choose_points`: float [n * n] in [-1, 1]."""
    tokens = features.flatten(1).T
    mean = tokens.mean(dim=0)
    cosines = F.normalize(prototypes - mean, dim=1) @ F.normalize(tokens - mean, dim=1).T  # [C, g * g]
    best = cosines.amax(dim=0).clamp(-1, 1).view(1, 1, *features.shape[1:])
    places = (points / size * 2 - 1).view(1, 1, -1, 2)
    if best.device.type == "mps":  # which has no border padding before torch 2.13: these places have the same values
        edge = 1 - 1 / places.new_tensor(features.shape[:0:-1])
        return F.grid_sample(best, places.clamp(-edge, edge), "bilinear", "zeros", align_corners=False).flatten()
    return F.grid_sample(best, places, "bilinear", "border", align_corners=False).flatten()


def levels(count: int) -> Tensor:
    """The level of each of n * n points of a square grid, int64 in [0, 3]; see :func:`choose_points`."""
    index = torch.arange(math.isqrt(count))
    row, column = index[:, None], index
    level = torch.where((row + column) % 2 == 0, 2, 3)
    level[::2, ::2] = 1
    level[::4, ::4] = 0
    return level.flatten()
