"""Leave-one-out: what a memory finds in an image without the shots that were taken from that image."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from no_time_to_train.method.encoder import without_autocast
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import classify_and_merge, score
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
    proposals: DescribedProposals,
    bank: MemoryBank,
    left_out: Collection[int],
    settings: Settings,
    only: int | None = None,
) -> Ranked:
    """Find the instances of an image with a memory from which some shots are left out.

    Args:
        proposals: The proposals of the image. They do not depend on the memory, except with guided prompts.
        bank: The whole memory, which is not changed.
        left_out: The numbers of the shots that are left out, in [0, M). A class without any other positive shot finds
            nothing.
        settings: The method's numbers.
        only: Find only the instances of this class, in less time; its index in the whole memory.

    Returns:
        Tensors on the CPU.
    """
    nothing = Ranked(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    part = bank.keep_references([shot for shot in range(len(bank)) if shot not in left_out])
    if part is None:
        return nothing
    whole = torch.tensor([bank.categories.index(category) for category in part.categories])
    assert part.prototypes is not None
    device = proposals.vectors.device
    prototypes, negatives = part.prototypes.to(device), part.negatives and part.negatives.to(device)
    with without_autocast(proposals.vectors):
        rows = torch.arange(len(proposals), device=device)
        if only is not None:
            named = score(proposals, prototypes, settings, negatives)
            rows = named.rows[whole.to(device)[named.classes] == only].sort().values
            if not len(rows):
                return nothing
        candidates, _ = classify_and_merge(proposals[rows], prototypes, settings, negatives)
    best = candidates.scores.argsort(descending=True, stable=True)
    classes = whole[candidates.classes[best].cpu()]
    if only is not None:
        best, classes = best[(classes == only).to(device)], classes[classes == only]
    best = best[: settings.max_instances]
    return Ranked(rows[candidates.rows[best]].cpu(), classes[: len(best)], candidates.scores[best].cpu())
