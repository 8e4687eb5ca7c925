"""Prototypes that the names of their classes join."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.data.memory_files import NAMES
from no_time_to_train.errors import UserError
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train_extras.class_names.text_tower import TEXT_TOWERS, TextTower


def mix(prototypes: Tensor, texts: Tensor, weight: float) -> Tensor:
    """Prototypes, float32 [C, D], with the vectors of their names, float32 [C, D], both scaled to length 1."""
    return (1 - weight) * F.normalize(prototypes, dim=1) + weight * F.normalize(texts, dim=1)


class Names(NamedTuple):
    """Names as a second cue.

    Attributes:
        tower: What gives the vectors of names.
        weight: How much a name counts, in (0, 1]; references count one minus this.
    """

    tower: TextTower
    weight: float

    def join(self, prototypes: Tensor, labels: Sequence[str]) -> Tensor:
        """The prototypes of classes, float32 [C, D], with what their names say."""
        return mix(prototypes, self.tower.embed(labels).to(prototypes.device), self.weight)

    def memory(self, labels: Sequence[str], made_with: dict[str, Any]) -> MemoryBank:
        """A memory of classes that have a name only, whose vector takes the place of a reference.

        Args:
            made_with: What the vectors of references depend on.
        """
        categories = [Category(number, label) for number, label in enumerate(labels, start=1)]
        bank = MemoryBank.empty(categories, self.tower.width)
        for index, vector in enumerate(self.tower.embed(labels)):
            bank.add(index, vector, torch.tensor(1.0))
        bank.postprocess()
        bank.made_with = {**made_with, NAMES: "only"}
        return bank


def build_names(
    segmenter: Segmenter, encoder_name: str, weight: float, model: str | Path | None, device: torch.device
) -> Names:
    """Load the text tower that fits an encoder.

    Args:
        encoder_name: The network name of the segmenter's encoder.
        weight: In (0, 1], as in :class:`Names`.
        model: A folder or a name on the hub; None takes the one that belongs to the encoder.
    """
    if encoder_name not in TEXT_TOWERS:
        raise UserError(
            f"names need an encoder that shares a space with texts, one of {', '.join(TEXT_TOWERS)}: this run has "
            f"{encoder_name}"
        )
    if segmenter.encoder.debias:
        raise UserError("names need debias 0: texts have no directions of positions")
    tower = TextTower(model or TEXT_TOWERS[encoder_name], device)
    if tower.width != segmenter.encoder.dim:
        raise UserError(
            f"the text tower gives vectors of {tower.width} numbers and {encoder_name} of {segmenter.encoder.dim}: "
            "give the model of the same size"
        )
    return Names(tower, weight)
