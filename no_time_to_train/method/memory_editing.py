"""Joining memories and removing classes: a class is added without the others' pictures, or even their memory."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from no_time_to_train.data.coco import Category, closest
from no_time_to_train.data.reference_sets import Shot
from no_time_to_train.errors import UserError
from no_time_to_train.method.memory_bank import MemoryBank


@dataclass
class ClassMemory:
    """What a memory holds of one class: n shots, features D wide.

    Attributes:
        category: the class.
        vectors: float32 [n, D], the instance vectors.
        weights: float32 [n], the sum of each instance's mask weights.
        references: the shots in the reference set, if they come from one.
        crops: the shots' pictures as PNG, if they were kept.
    """

    category: Category
    vectors: Tensor
    weights: Tensor
    references: list[Shot]
    crops: list[Tensor]


def split(bank: MemoryBank) -> list[ClassMemory]:
    """A memory's classes, without their empty slots."""
    classes = []
    for category, vectors, weights in zip(bank.categories, bank.vectors, bank.weights, strict=True):
        filled = weights > 0
        references, crops = bank.references.get(category.id, []), bank.crops.get(category.id, [])
        classes.append(ClassMemory(category, vectors[filled], weights[filled], references, crops))
    return classes


def join(classes: list[ClassMemory], made_with: dict[str, Any]) -> MemoryBank:
    """A post-processed memory of these classes.

    Classes of the same name become one, which has the shots of all. A class whose id is taken gets the next free one.
    """
    joined: dict[str, ClassMemory] = {}
    for one in classes:
        known = joined.get(one.category.name)
        if known is None:
            taken = {other.category.id for other in joined.values()}
            free = one.category.id if one.category.id not in taken else max(taken) + 1
            joined[one.category.name] = replace(one, category=Category(free, one.category.name))
        else:
            joined[one.category.name] = ClassMemory(
                known.category,
                torch.cat([known.vectors, one.vectors]),
                torch.cat([known.weights, one.weights]),
                known.references + one.references,
                known.crops + one.crops,
            )
    ordered = sorted(joined.values(), key=lambda one: one.category.id)
    length, dim = max(len(one.weights) for one in ordered), ordered[0].vectors.shape[1]
    bank = MemoryBank.empty([one.category for one in ordered], length, dim)
    for index, one in enumerate(ordered):
        bank.vectors[index, : len(one.weights)] = one.vectors
        bank.weights[index, : len(one.weights)] = one.weights
    bank.made_with = made_with
    bank.references = {one.category.id: one.references for one in ordered if one.references}
    bank.crops = {one.category.id: one.crops for one in ordered if one.crops}
    bank.postprocess()
    return bank


def merge(banks: dict[Path, MemoryBank]) -> MemoryBank:
    """Join memories, by the path that each was read from.

    Raises:
        UserError: two were made with different encoders or settings.
    """
    (first, bank), *others = banks.items()
    for path, other in others:
        for key in sorted(bank.made_with.keys() | other.made_with.keys()):
            ours, theirs = bank.made_with.get(key), other.made_with.get(key)
            if ours != theirs:
                raise UserError(
                    f"memory {path} was made with {key} {theirs!r}, {first} with {ours!r}: make one of them anew"
                )
    return join([one for bank in banks.values() for one in split(bank)], bank.made_with)


def renumber(bank: MemoryBank, ids: dict[str, int]) -> MemoryBank:
    """A memory whose classes have these category ids, by name; the others get free ones."""
    classes = split(bank)
    listed = [
        replace(one, category=Category(ids[one.category.name], one.category.name))
        for one in classes
        if one.category.name in ids
    ]
    first = max(ids.values(), default=0) + 1
    others = [one for one in classes if one.category.name not in ids]
    free = [replace(one, category=Category(first + i, one.category.name)) for i, one in enumerate(others)]
    return join([*listed, *free], bank.made_with)


def remove(bank: MemoryBank, names: list[str]) -> MemoryBank:
    """A memory without these classes.

    Raises:
        UserError: there is no such class, or none would be left.
    """
    known = [category.name for category in bank.categories]
    for name in names:
        if name not in known:
            raise UserError(f"the memory has no class {name!r}{closest(name, known)}")
    kept = [one for one in split(bank) if one.category.name not in names]
    if not kept:
        raise UserError("no class would be left: delete the file instead")
    return join(kept, bank.made_with)
