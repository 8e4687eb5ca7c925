"""What the shots of a class become: the paper's prototype (docs/method.md, 2), or an alternative."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.settings import PrototypeKind


class Prototypes(NamedTuple):
    """What masks are compared with.

    Attributes:
        vectors: float32 [P, D], not normalized.
        classes: int64 [P] in [0, C), the class of each. Each class has at least one.
    """

    vectors: Tensor
    classes: Tensor

    @classmethod
    def one_per_class(cls, vectors: Tensor) -> "Prototypes":
        """The prototypes of C classes from their vectors, float32 [C, D]."""
        return cls(vectors, torch.arange(len(vectors), device=vectors.device))


def prototypes_of(bank: MemoryBank, kind: PrototypeKind = "mean") -> Prototypes:
    """The prototypes of a post-processed memory.

    Args:
        bank: The memory.
        kind: ``mean`` is the paper's: the plain mean of the positive shots of a class. ``normalized_mean`` gives each
            shot the length 1 before. ``best_shot`` makes each shot a prototype, so that a mask is compared with the
            shot that it is most similar to.
    """
    assert bank.prototypes is not None
    if kind == "best_shot":
        return Prototypes(bank.vectors[~bank.negative], bank.class_index[~bank.negative])
    if kind == "normalized_mean":
        return Prototypes.one_per_class(bank.mean_per_class(F.normalize(bank.vectors, dim=1)))
    return Prototypes.one_per_class(bank.prototypes)


def per_class(similarity: Tensor, classes: Tensor) -> Tensor:
    """The similarity to each class: that to its most similar prototype.

    Args:
        similarity: float [n, P], the similarity to each prototype.
        classes: int64 [P] in [0, C), the class of each prototype; each class has at least one.

    Returns:
        float [n, C].
    """
    count = int(classes.max()) + 1
    best = similarity.new_full((len(similarity), count), -torch.inf)
    return best.scatter_reduce_(1, classes.expand(len(similarity), -1), similarity, "amax")
