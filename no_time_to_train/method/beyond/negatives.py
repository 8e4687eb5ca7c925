"""Negative references: what a class is not lowers its scores (docs/method.md, 3.5)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: How far a negative may be ahead of the prototype before the score falls to 1/e: the published code's sigma.
NEGATIVE_SCALE = 0.8


class Negatives(NamedTuple):
    """The negative references of a memory.

    Attributes:
        vectors: float32 [K, D], one vector per negative reference, not normalized.
        classes: int64 [K] in [0, C), the class that each is not.
    """

    vectors: Tensor
    classes: Tensor

    def to(self, device: torch.device) -> "Negatives":
        """The same on a device."""
        return Negatives(self.vectors.to(device), self.classes.to(device))

    def lower(self, similarity: Tensor, vectors: Tensor) -> Tensor:
        """Lower the similarities to a class where one of its negatives is more similar than its prototype.

        Args:
            similarity: float [n, C] in [0, 1]; those to a class without negatives stay.
            vectors: float [n, D], the vectors of the masks, L2-normalized.
        """
        cosines = vectors @ F.normalize(self.vectors, dim=1).T
        classes = self.classes.expand(len(vectors), -1)
        nearest = torch.zeros_like(similarity).scatter_reduce_(1, classes, cosines, "amax")
        return similarity * torch.exp(-(nearest - similarity).clamp(min=0) / NEGATIVE_SCALE)
