"""Negative references: what a class is not lowers its scores (docs/method.md, 3.5)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: How far a negative may be ahead of the prototype before the score falls to 1/e: the published code's sigma.
NEGATIVE_SCALE = 0.8


class Negatives(NamedTuple):
    """The negative shots of a memory.

    Attributes:
        vectors: float32 [K, D], one vector per negative shot, not normalized.
        classes: int64 [K] in [0, C), the class that each is not.
    """

    vectors: Tensor
    classes: Tensor


def lower_by_negatives(similarity: Tensor, vectors: Tensor, negatives: Negatives) -> Tensor:
    """Lower the similarities to a class where one of its negatives is more similar than its prototype.

    Args:
        similarity: float [n, C] in [0, 1], the similarity of each mask to each class.
        vectors: float [n, D], the vectors of the masks, L2-normalized.
        negatives: The negative shots. A class without any keeps its similarities.

    Returns:
        float [n, C] in [0, 1].
    """
    cosines = vectors @ F.normalize(negatives.vectors, dim=1).T
    classes = negatives.classes.expand(len(vectors), -1)
    nearest = torch.zeros_like(similarity).scatter_reduce_(1, classes, cosines, "amax")
    return similarity * torch.exp(-(nearest - similarity).clamp(min=0) / NEGATIVE_SCALE)
