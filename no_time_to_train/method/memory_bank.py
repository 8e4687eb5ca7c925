"""The memory bank: one vector per reference instance (stage 1), one prototype per class (stage 2)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from itertools import count as count_from
from typing import Any

import torch
from torch import Tensor

from no_time_to_train.errors import UserError, suggest
from no_time_to_train.method.beyond.negatives import Negatives


@dataclass(frozen=True)
class Category:
    """A class."""

    id: int
    name: str


#: The attributes of a memory that have an entry for each reference.
PER_REFERENCE = ("vectors", "class_index", "weights", "sources", "crops", "negative", "images")


@dataclass
class MemoryBank:
    """The references of C classes: M in all, described by vectors of width D.

    A negative reference shows what a class is not. Each class needs at least one positive reference.

    Attributes:
        categories: The classes in ascending order of their ids.
        vectors: float32 [M, D], one vector per reference, not normalized.
        class_index: int64 [M] in [0, C), the class of each reference.
        weights: float32 [M], the sum of each reference's mask weights; positive.
        prototypes: float32 [C, D], what proposals are compared with, not normalized; None before stage 2.
        made_with: What the vectors depend on besides the references, such as the encoder's name and input size.
        sources: For each reference, the entry of the reference set that it was made from; None where there is no set.
        crops: For each reference, its picture as a PNG file, uint8 [bytes], transparent outside the mask; None where no
            picture was kept.
        negative: bool [M], whether each reference is a negative one of its class. Default: none is.
        images: For each reference, the image that it was taken from with its mask there, for leave-one-out; None where
            that is not known. Memory files do not have them.
    """

    categories: list[Category]
    vectors: Tensor
    class_index: Tensor
    weights: Tensor
    prototypes: Tensor | None = None
    made_with: dict[str, Any] = field(default_factory=dict)
    sources: list[Any] = field(default_factory=list)
    crops: list[Any] = field(default_factory=list)
    negative: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    images: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sources = self.sources or [None] * len(self)
        self.crops = self.crops or [None] * len(self)
        self.images = self.images or [None] * len(self)
        if not len(self.negative):
            self.negative = torch.zeros(len(self), dtype=torch.bool)

    @classmethod
    def empty(cls, categories: list[Category], dim: int) -> "MemoryBank":
        """A bank without references, for vectors of width ``dim``."""
        return cls(categories, torch.zeros(0, dim), torch.zeros(0, dtype=torch.int64), torch.zeros(0))

    def __len__(self) -> int:
        """M, the number of references, positive and negative."""
        return len(self.vectors)

    def __repr__(self) -> str:
        counts = zip(self.categories, self.counts.tolist(), self.negative_counts.tolist(), strict=True)
        counted = [f"{c.name}: {n}" + (f" and {negatives} negative" if negatives else "") for c, n, negatives in counts]
        return f"MemoryBank({{{', '.join(counted)}}})"

    @property
    def counts(self) -> Tensor:
        """The number of positive references per class: int64 [C]."""
        return torch.bincount(self.class_index[~self.negative], minlength=len(self.categories))

    @property
    def negative_counts(self) -> Tensor:
        """The number of negative references per class: int64 [C]."""
        return torch.bincount(self.class_index[self.negative], minlength=len(self.categories))

    @property
    def negatives(self) -> Negatives | None:
        """The negative references; None where there are none."""
        negative = self.negative
        return Negatives(self.vectors[negative], self.class_index[negative]) if negative.any() else None

    def postprocess(self) -> None:
        """Stage 2: the prototype of a class is the plain mean of its positive references' vectors, not normalized."""
        for category, count in zip(self.categories, self.counts.tolist(), strict=True):
            if not count:
                raise UserError(f"the memory holds no reference of class {category.name!r}: fill it first")
        positive = ~self.negative
        sums = self.vectors.new_zeros(len(self.categories), self.vectors.shape[1])
        sums.index_add_(0, self.class_index[positive], self.vectors[positive])
        self.prototypes = sums / self.counts[:, None]

    def add(
        self,
        class_index: int,
        vector: Tensor,
        weight: Tensor,
        source: dict[str, Any] | None = None,
        crop: Tensor | None = None,
        negative: bool = False,
        image: Any = None,
    ) -> None:
        """Add one reference. Prototypes are out of date until :meth:`postprocess` is called.

        Args:
            class_index: Its class, in [0, C).
            vector: float32 [D], from ``fill_memory.instance_vector``.
            weight: float32 scalar, the sum of its mask weights.
            negative: Whether it shows what the class is not.
        """
        self.vectors = torch.cat([self.vectors, vector[None]])
        self.class_index = torch.cat([self.class_index, torch.tensor([class_index])])
        self.weights = torch.cat([self.weights, weight[None]])
        self.sources.append(source)
        self.crops.append(crop)
        self.images.append(image)
        self.negative = torch.cat([self.negative, torch.tensor([negative])])
        self.prototypes = None

    def references_of(self, class_index: int) -> list[int]:
        """The numbers of the positive references of one class, in [0, M)."""
        return ((self.class_index == class_index) & ~self.negative).nonzero()[:, 0].tolist()

    def crops_of(self, class_index: int) -> list[Tensor]:
        """The pictures that were kept of one class's positive references."""
        return [self.crops[one] for one in self.references_of(class_index) if self.crops[one] is not None]

    @classmethod
    def join(cls, banks: Sequence["MemoryBank"]) -> "MemoryBank":
        """One post-processed bank with the references of all, which were made with the same encoder and settings.

        Classes of the same name become one class. A class whose id is taken gets the next free id.
        """
        merged: dict[str, Category] = {}
        taken: set[int] = set()
        for category in (category for bank in banks for category in bank.categories):
            if category.name not in merged:
                free = category.id if category.id not in taken else free_id(taken)
                merged[category.name] = Category(free, category.name)
                taken.add(free)
        index = {name: position for position, name in enumerate(merged)}
        class_index = [index[bank.categories[i].name] for bank in banks for i in bank.class_index.tolist()]
        parts = {name: [getattr(bank, name) for bank in banks] for name in PER_REFERENCE}
        every: dict[str, Any] = {
            name: torch.cat(part) if isinstance(part[0], Tensor) else [*chain(*part)] for name, part in parts.items()
        }
        every["class_index"] = torch.tensor(class_index, dtype=torch.int64)
        joined = cls(list(merged.values()), made_with=banks[0].made_with, **every)
        return joined._with_categories(joined.categories)

    def renumber(self, ids: dict[str, int]) -> "MemoryBank":
        """The same bank with the given category ids, by class name. Other classes get the ids after the largest one."""
        names = [category.name for category in self.categories]
        ids = dict(ids)
        for name in names:
            if name not in ids:
                ids[name] = free_id(ids.values())
        return self._with_categories([Category(ids[name], name) for name in names])

    def remove(self, names: Sequence[str]) -> "MemoryBank":
        """The same bank without the classes of these names."""
        known = [category.name for category in self.categories]
        for name in names:
            if name not in known:
                raise UserError(f"the memory has no class {name!r}{suggest(name, known)}")
        kept = [category if category.name not in names else None for category in self.categories]
        if not any(kept):
            raise UserError("no class would be left: delete the file instead")
        return self._with_categories(kept)

    def keep_references(self, references: Sequence[int]) -> "MemoryBank | None":
        """The same bank with only some of its references, given by their numbers in [0, M).

        Classes without a positive reference among them are left out; None where no class has one.
        """
        part = self._choose(torch.tensor(sorted(references), dtype=torch.int64))
        counts = part.counts.tolist()
        categories = [category if count else None for category, count in zip(self.categories, counts, strict=True)]
        return part._with_categories(categories) if any(categories) else None

    def without(self, reference: int) -> "MemoryBank | None":
        """The same bank without one reference, and its class where no other is left; None where no class is left."""
        return self.keep_references([other for other in range(len(self)) if other != reference])

    def _choose(self, chosen: Tensor) -> "MemoryBank":
        """The same bank with some of its references, int64 [m], in this order. Prototypes and categories stay."""
        rows, every = chosen.tolist(), {name: getattr(self, name) for name in PER_REFERENCE}
        kept: dict[str, Any] = {
            name: of[chosen] if isinstance(of, Tensor) else [of[row] for row in rows] for name, of in every.items()
        }
        return replace(self, **kept)

    def _with_categories(self, categories: Sequence[Category | None]) -> "MemoryBank":
        """A post-processed bank whose classes are replaced one by one; None removes a class and its references."""
        ordered = sorted(filter(None, categories), key=lambda category: category.id)
        places: dict[Category | None, int] = {category: place for place, category in enumerate(ordered)}
        new_index = torch.tensor([places.get(category, -1) for category in categories])
        class_index = new_index[self.class_index]
        order = class_index.argsort(stable=True)
        order = order[class_index[order] >= 0]
        bank = replace(self._choose(order), categories=ordered, class_index=class_index[order])
        bank.postprocess()
        return bank


def free_id(taken: Collection[int]) -> int:
    """The category id after the largest one; where that has more than 64 bits, the first free one."""
    return next(one for one in chain([max(taken, default=0) + 1], count_from(1)) if one < 2**63 and one not in taken)
