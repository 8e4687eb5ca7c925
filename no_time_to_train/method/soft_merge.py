"""Semantic-aware soft merging: masks that a better, similar mask covers lose score (docs/method.md, 3.8)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from no_time_to_train.method.fast.packed_masks import Masks


def soft_merge(scores: Tensor, classes: Tensor, masks: Masks, vectors: Tensor, exponent: float = 0.5) -> Tensor:
    """Lower the score of each mask by how much of it a better-ranked mask of its class covers and resembles.

    With M_i the masks and v_i their vectors in descending rank, and j over the masks of i's class ranked before it:

        overlap_i = max_j |M_i and M_j| / |M_i| * max(0, cos(v_i, v_j))
        score_i  <- score_i * (1 - overlap_i) ^ exponent

    Args:
        scores: float [n], in descending rank of the masks.
        classes: int64 [n].
        masks: n masks, none empty.
        vectors: float [n, D] mask vectors, L2-normalized.

    Returns:
        float [n], the new scores.
    """

    def overlap(members: Tensor, covered: Tensor) -> Tensor:
        return (covered.to(scores) * (vectors[members] @ vectors[members].T).clamp(min=0)).amax(dim=1)

    return lower_covered(scores, classes, masks, overlap, exponent)


def lower_covered(
    scores: Tensor, classes: Tensor, masks: Masks, loss: Callable[[Tensor, Tensor], Tensor], exponent: float
) -> Tensor:
    """Lower the score of each mask by what the better-ranked masks of its class cost it.

    Args:
        scores: float [n], in descending rank of the masks.
        classes: int64 [n].
        masks: n masks, none empty.
        loss: Gives what the m masks of one class lose, float [m], from their numbers, int64 [m], and from the share of
            mask i that mask j covers, for j < i, and 0 for the others: float64 [m, m], on the CPU.
        exponent: The scores are multiplied by (1 - loss) ^ exponent.

    Returns:
        float [n], the new scores.
    """
    merged = scores.clone()
    for class_index in classes.unique():
        members = (classes == class_index).nonzero()[:, 0]
        shared = masks[members.cpu().numpy()].intersections()
        covered = torch.from_numpy(shared / np.diagonal(shared)[:, None]).tril(diagonal=-1)
        merged[members] *= (1 - loss(members, covered)).clamp(min=0) ** exponent
    return merged
