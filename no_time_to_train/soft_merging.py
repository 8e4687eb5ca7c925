"""Semantic-aware soft merging: what lies in a better mask of its class and looks like it loses score (stage 3, 8)."""

import torch
from torch import Tensor

#: Pixels of all masks together that are multiplied at once, to bound memory: 2**27 float32 are 512 MiB.
CHUNK_ELEMENTS = 2**27


def intersections(regions: Tensor) -> Tensor:
    """Pixels that each two regions share: float [n, n], whole numbers, exact to 2**24, from bool [n, H, W]."""
    pixels = regions.flatten(1)
    total = pixels.new_zeros(len(pixels), len(pixels), dtype=torch.float32)
    for chunk in pixels.split(max(CHUNK_ELEMENTS // max(len(pixels), 1), 1), dim=1):
        chunk = chunk.float()
        total += chunk @ chunk.T
    return total


def soft_merge(scores: Tensor, classes: Tensor, regions: Tensor, vectors: Tensor, exponent: float = 0.5) -> Tensor:
    """Lower the score of each mask by how much of it a better-ranked one of its class covers and resembles.

    Args:
        scores: float [n], of masks in descending rank.
        classes: int64 [n].
        regions: bool [n, H, W], none empty.
        vectors: float [n, D] mask vectors, L2-normalised.
        exponent: of the share left uncovered.

    Returns:
        float [n]: ``scores * (1 - overlap) ** exponent``, where overlap is the largest, over better-ranked masks j of
        the class, of |M_i and M_j| / |M_i| times the cosine of their vectors, clamped at 0.
    """
    merged = scores.clone()
    for class_index in classes.unique():
        members = (classes == class_index).nonzero()[:, 0]
        shared = intersections(regions[members])
        overlap = shared / shared.diagonal()[:, None] * (vectors[members] @ vectors[members].T).clamp(min=0)
        overlap = overlap.tril(diagonal=-1).amax(dim=1)
        merged[members] *= (1 - overlap).clamp(min=0) ** exponent
    return merged
