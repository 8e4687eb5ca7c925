"""Semantic-aware soft merging: masks that a better, similar mask covers lose score (docs/method.md, 3.8)."""

import numpy as np
import torch
from torch import Tensor

from no_time_to_train.method.fast.masks import Masks


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
    merged = scores.clone()
    for class_index in classes.unique():
        members = (classes == class_index).nonzero()[:, 0]
        covered = covered_shares(masks[members]).to(scores)
        alike = (vectors[members] @ vectors[members].T).clamp(min=0)
        overlap = (covered * alike).amax(dim=1)
        merged[members] *= (1 - overlap).clamp(min=0) ** exponent
    return merged


def covered_shares(masks: Masks) -> Tensor:
    """The share of mask i that the better-ranked mask j covers, and 0 where j is not better: float64 [n, n]."""
    shared = masks.intersections()
    return torch.from_numpy(shared / np.diagonal(shared)[:, None].clip(min=1)).tril(diagonal=-1)
