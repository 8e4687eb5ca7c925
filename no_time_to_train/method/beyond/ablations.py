"""What the paper's components are compared with: merging without semantics, hard merging, a prototype by area.

The published code has them as options or in comments. ``scripts/coco_ablations.sh`` runs them.
"""

from torch import Tensor

from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.soft_merge import covered_shares, soft_merge


def merge_by_overlap(scores: Tensor, classes: Tensor, masks: Masks, vectors: Tensor, exponent: float = 0.5) -> Tensor:
    """Soft merging without semantics: masks of a class count as alike. The arguments are those of ``soft_merge``."""
    return soft_merge(scores, classes, masks, vectors.new_ones(len(vectors), 1), exponent)


def hard_merge(scores: Tensor, classes: Tensor, masks: Masks, vectors: Tensor, exponent: float = 0.5) -> Tensor:
    """Give masks that one better-ranked mask of their class covers wholly the score 0, and leave the others.

    The arguments are those of ``soft_merge``; vectors and exponent are not used.
    """
    covered = covered_shares(masks).to(scores) * (classes[:, None] == classes)
    return scores * (covered.amax(dim=1) < 1)


def area_weighted_prototypes(bank: MemoryBank) -> Tensor:
    """The prototypes, float32 [C, D], in which a reference weighs as much as the patches that its mask covers."""
    positive = ~bank.negative
    classes, weights = bank.class_index[positive], bank.weights[positive, None]
    sums = bank.vectors.new_zeros(len(bank.categories), bank.vectors.shape[1])
    sums.index_add_(0, classes, weights * bank.vectors[positive])
    return sums / weights.new_zeros(len(bank.categories), 1).index_add_(0, classes, weights)
