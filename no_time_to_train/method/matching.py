"""Matching: proposals get mask vectors, classes and scores, and rivals of a class are suppressed (stage 3, 5 and 6)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from no_time_to_train.method.soft_merge import PackedMasks

#: Several classes a proposal (``cls_num_per_mask`` -1): those under this share of the best are dropped.
ALL_CLASSES_SHARE = 0.6

#: Candidates that survive to soft merging, over the instances wanted in the end.
CANDIDATES_PER_INSTANCE = 8


@dataclass
class DescribedProposals:
    """The proposals of one image, with all that naming and merging them needs; they do not depend on the references.

    Attributes:
        predicted_iou: float [n], SAM 2's own estimate of each mask's IoU.
        boxes: int64 [n, 4], xyxy of the regions at the size that SAM 2 gives them (256), see :func:`region_boxes`.
        vectors: float [n, D] mask vectors, L2-normalised.
        masks: makes the masks of some of them, int64 [m] in [0, n), at the image's own size. Most proposals are dropped
            before anybody needs their masks.
    """

    predicted_iou: Tensor
    boxes: Tensor
    vectors: Tensor
    masks: Callable[[Tensor], PackedMasks]


@dataclass
class Candidates:
    """Proposals with a class each, in descending predicted IoU.

    Attributes:
        rows: int64 [n], which of the proposals; with several classes a proposal, one may be there more than once.
        scores: float [n] in (0, 1].
        classes: int64 [n] in [0, C).
    """

    rows: Tensor
    scores: Tensor
    classes: Tensor

    def __getitem__(self, index: Tensor) -> "Candidates":
        return Candidates(self.rows[index], self.scores[index], self.classes[index])


def mask_vectors(features: Tensor, regions: Tensor) -> Tensor:
    """Step 5: the mean of the bilinearly upsampled feature map over each region, L2-normalised.

    Summed over a region, upsampling is a weighted sum over the map; so the regions are brought down to the map's size,
    by the transpose of upsampling, rather than the features up to theirs.

    Args:
        features: [D, g, g], tokens as they are.
        regions: bool [n, h, w], none empty.

    Returns:
        [n, D].
    """
    grid = features.shape[1:]
    down_rows, down_columns = (upsampling(*sizes, features) for sizes in zip(grid, regions.shape[1:], strict=True))
    weights = down_rows @ (regions.to(features.dtype) @ down_columns.T)  # [n, g, g]
    means = weights.flatten(1) @ features.flatten(1).T / weights.sum(dim=(1, 2))[:, None]
    return F.normalize(means, dim=1)


def upsampling(short: int, long: int, like: Tensor) -> Tensor:
    """Bilinear upsampling along one axis as a matrix: [short, long], dtype and device of ``like``."""
    return F.interpolate(torch.eye(short, dtype=like.dtype, device=like.device)[None], long, mode="linear")[0]


def classify(vectors: Tensor, prototypes: Tensor, cls_num_per_mask: int = 1) -> tuple[Tensor, Tensor]:
    """Step 5: cosine of every mask vector with the class prototypes, clamped at 0.

    Args:
        vectors: [n, D], L2-normalised.
        prototypes: [C, D], not normalised.
        cls_num_per_mask: k, classes that a proposal keeps; -1: all, with scores under 0.6 of its best set to 0.

    Returns:
        Scores [n, k] in descending order, and class indices, int64 [n, k].
    """
    similarity = (vectors @ F.normalize(prototypes, dim=1).T).clamp(min=0)
    k = len(prototypes) if cls_num_per_mask == -1 else min(cls_num_per_mask, len(prototypes))
    scores, classes = similarity.sort(dim=1, descending=True, stable=True)  # topk leaves the order of ties open
    scores, classes = scores[:, :k], classes[:, :k]
    if cls_num_per_mask == -1:
        scores = scores.where(scores >= ALL_CLASSES_SHARE * scores[:, :1], 0)
    return scores, classes


def region_boxes(regions: Tensor) -> Tensor:
    """Boxes from the pixels' own indices, no +1: int64 [n, 4] xyxy of regions bool [n, h, w], none empty."""

    def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
        occupied = occupied.to(torch.uint8)
        return occupied.argmax(dim=1), occupied.shape[1] - 1 - occupied.flip(1).argmax(dim=1)

    left, right = extent(regions.any(dim=1))
    top, bottom = extent(regions.any(dim=2))
    return torch.stack([left, top, right, bottom], dim=1)


def match(
    proposals: DescribedProposals,
    prototypes: Tensor,
    nms_thr: float = 0.5,
    num_out_instance: int = 100,
    cls_num_per_mask: int = 1,
) -> Candidates:
    """Steps 5 and 6: name the proposals, then keep the best of rivals that have the same class and nearly the same box.

    Rivals are ranked by predicted IoU, not by similarity.

    Args:
        proposals: of one image.
        prototypes: [C, D].
        nms_thr: IoU of boxes above which the lower-ranked rival goes.
        num_out_instance: instances wanted in the end; eight times as many candidates are kept.
        cls_num_per_mask: see :func:`classify`.
    """
    by_iou = proposals.predicted_iou.argsort(descending=True, stable=True)
    scores, classes = classify(proposals.vectors[by_iou], prototypes, cls_num_per_mask)
    rows = by_iou.repeat_interleave(scores.shape[1])
    scores, classes = scores.flatten(), classes.flatten()

    kept = batched_nms(proposals.boxes[rows].to(scores.dtype), proposals.predicted_iou[rows], classes, nms_thr)
    kept = kept.sort().values[: CANDIDATES_PER_INSTANCE * num_out_instance]  # in descending predicted IoU, as ``rows``
    kept = kept[scores[kept] > 0]
    return Candidates(rows[kept], scores[kept], classes[kept])
