"""Leave-one-out: what a memory finds in an image without the shots that were taken from that image."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.negatives import Negatives
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.prototypes import Prototypes, prototypes_of
from no_time_to_train.method.segmenter import name_and_merge, without_autocast
from no_time_to_train.method.settings import Settings


class Ranked(NamedTuple):
    """The instances of an image, in descending order of score, as ``Segmenter.match_and_merge`` returns them.

    Attributes:
        rows: int64 [n], the proposal that each is.
        classes: int64 [n], the class of each, as its index in the whole memory.
        scores: float32 [n].
    """

    rows: Tensor
    classes: Tensor
    scores: Tensor


@torch.inference_mode()
def rank_without(
    proposals: DescribedProposals, bank: MemoryBank, left_out: Collection[int], settings: Settings
) -> Ranked:
    """Find the instances of an image with a memory from which some shots are left out.

    Args:
        proposals: The proposals of the image. They do not depend on the memory, except with guided prompts.
        bank: The whole memory, which is not changed.
        left_out: The numbers of the shots that are left out, in [0, M). A class without any other positive shot finds
            nothing.
        settings: The method's numbers.

    Returns:
        Tensors on the CPU.
    """
    part = bank.keep_shots([shot for shot in range(len(bank)) if shot not in left_out])
    if part is None:
        return Ranked(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    device, negatives = proposals.vectors.device, part.negatives
    with without_autocast(proposals.vectors):
        candidates, _ = name_and_merge(
            proposals,
            Prototypes(*(tensor.to(device) for tensor in prototypes_of(part, settings.prototype))),
            settings,
            None if negatives is None else Negatives(*(tensor.to(device) for tensor in negatives)),
        )
    best = candidates.scores.argsort(descending=True, stable=True)[: settings.max_instances]
    whole = torch.tensor([bank.categories.index(category) for category in part.categories])
    return Ranked(candidates.rows[best].cpu(), whole[candidates.classes[best].cpu()], candidates.scores[best].cpu())
