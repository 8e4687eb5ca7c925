"""The memory bank: one vector a reference instance, one prototype a class (stages 1 and 2).

A checkpoint holds the bank and what it was made with, never the networks' weights.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from no_time_to_train.data.coco import Category
from no_time_to_train.data.reference_sets import ReferenceSet
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write

FORMAT = "no-time-to-train memory bank 1"


def instance_vector(tokens: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of a reference's patch tokens: [D] from tokens [P, D] and mask weights [P] in [0, 1]."""
    return weights @ tokens / weights.sum()


@dataclass
class MemoryBank:
    """The references of C classes with room for N shots each, features D wide.

    Attributes:
        categories: the classes, by ascending category id.
        vectors: float32 [C, N, D], the instance vectors; zero in empty slots.
        weights: float32 [C, N], the sum of each instance's mask weights; 0 marks an empty slot.
        prototypes: float32 [C, D], what proposals are compared with; None before stage 2.
        made_with: the encoder's name and input size, the context ratio: what else the vectors depend on.
        references: the reference set that the vectors come from; empty where they are not from a COCO file.
        crops: category id -> the picture of each of its shots as PNG, uint8 [bytes], transparent outside the mask;
            empty where the pictures were not kept.
    """

    categories: list[Category]
    vectors: Tensor
    weights: Tensor
    prototypes: Tensor | None = None
    made_with: dict[str, Any] = field(default_factory=dict)
    references: ReferenceSet = field(default_factory=dict)
    crops: dict[int, list[Tensor]] = field(default_factory=dict)

    @classmethod
    def empty(cls, categories: list[Category], length: int, dim: int) -> "MemoryBank":
        """A bank of ``length`` empty slots a class for vectors ``dim`` wide."""
        return cls(categories, torch.zeros(len(categories), length, dim), torch.zeros(len(categories), length))

    @property
    def counts(self) -> Tensor:
        """Filled slots of each class: int64 [C]."""
        return (self.weights > 0).sum(dim=1)

    def insert(self, class_index: int, slot: int, vector: Tensor, weight: Tensor) -> None:
        """Fill a slot with an instance vector [D] and the sum of its mask weights (a positive scalar)."""
        self.vectors[class_index, slot] = vector
        self.weights[class_index, slot] = weight

    def postprocess(self) -> None:
        """Stage 2: a class's prototype is the plain mean of its filled slots, not normalised."""
        empty = [category.name for category, count in zip(self.categories, self.counts, strict=True) if not count]
        if empty:
            raise UserError(f"the memory holds no reference of class {empty[0]!r}: fill it first")
        self.prototypes = self.vectors.sum(dim=1) / self.counts[:, None]

    @property
    def class_averages(self) -> Tensor:
        """Each class's mean token weighted by mask area over all its shots: float32 [C, D]."""
        return (self.vectors * self.weights[..., None]).sum(dim=1) / self.weights.sum(dim=1, keepdim=True)

    def save(self, path: str | Path) -> None:
        """Write the checkpoint; it appears whole or not at all."""
        content = {**vars(self), "format": FORMAT, "categories": [asdict(category) for category in self.categories]}
        with atomic_write(path) as file:
            torch.save(content, file)

    @classmethod
    def load(cls, path: str | Path) -> "MemoryBank":
        """Read a checkpoint with ``weights_only=True``.

        Raises:
            UserError: the file is missing, unreadable, or no memory bank.
        """
        if not Path(path).is_file():
            raise UserError(f"memory not found: {path}; the stage before this one writes it (--out_path)")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling what is no checkpoint may raise anything at all
            raise UserError(f"memory {path} cannot be read: it is truncated, or not a memory bank") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise UserError(f"{path} is not a memory bank of this version ({FORMAT!r})")
        try:
            content["categories"] = [Category(**category) for category in content["categories"]]
            bank = cls(**content)
            bank.check_sound()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"memory {path} is damaged: {error}") from error
        return bank

    def check_sound(self) -> None:
        """Raise a ValueError where shapes do not fit together or a number is not finite."""
        classes, length, dim = self.vectors.shape
        shapes = {"vectors": (classes, length, dim), "weights": (classes, length), "prototypes": (classes, dim)}
        if len(self.categories) != classes:
            raise ValueError(f"it has {len(self.categories)} categories, and vectors of {classes}")
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tensor is None and name == "prototypes":
                continue
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                raise ValueError(f"its {name} are {tensor.dtype} {list(tensor.shape)}, not float32 {list(shape)}")
            if not tensor.isfinite().all():
                raise ValueError(f"its {name} are not all finite")

    def check_fits(self, path: str | Path, made_with: dict[str, Any], categories: list[Category]) -> None:
        """Raise a UserError that says what differs where the bank was made for other settings or classes.

        Args:
            path: where the bank was read, for the message.
            made_with: settings of this run; those the bank does not record are not compared.
            categories: classes of this run; empty: whatever the bank has.
        """
        for key, value in made_with.items():
            if self.made_with.get(key, value) != value:
                raise UserError(f"memory {path} was made with {key} {self.made_with[key]!r}, this run has {value!r}")
        if categories and categories != self.categories:
            ours, theirs = set(categories), set(self.categories)
            difference = min((ours ^ theirs), key=lambda category: category.id)
            owner = "only the memory" if difference in theirs else "only this run"
            raise UserError(
                f"memory {path} holds {len(theirs)} classes, this run has {len(ours)}: {owner} has "
                f"{difference.name!r} (id {difference.id})"
            )
