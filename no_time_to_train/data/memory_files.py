"""Memory files: a memory bank and what it was made with, never the networks' weights."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write
from no_time_to_train.method.memory_bank import Category, MemoryBank

#: Stored in every file. Changed when older readers would misread a new file.
FORMAT = "no-time-to-train memory bank 2"

#: The format of version 0.1: slots padded to [C, N, D], references and crops by category id.
FORMAT_1 = "no-time-to-train memory bank 1"


def save_memory(bank: MemoryBank, path: str | Path) -> None:
    """Write a memory file atomically.

    Raises:
        UserError: The file cannot be written.
    """
    content = {**vars(bank), "format": FORMAT, "categories": [asdict(category) for category in bank.categories]}
    with atomic_write(path) as file:
        torch.save(content, file)


def load_memory(path: str | Path) -> MemoryBank:
    """Read a memory file of this version or of version 0.1. Reading it cannot run code (``weights_only=True``).

    Raises:
        UserError: The file is missing, unreadable, damaged, or not a memory bank.
    """
    if not Path(path).is_file():
        raise UserError(f"memory not found: {path}; fill_memory and segment --save-memory write memories")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a file that is not a checkpoint can raise anything
        raise UserError(f"memory {path} cannot be read: it is truncated, or not a memory bank") from error
    file_format = content.pop("format", None) if isinstance(content, dict) else None
    if file_format not in (FORMAT, FORMAT_1):
        raise UserError(f"{path} is not a memory bank of this version ({FORMAT!r})")
    try:
        content["categories"] = [Category(**category) for category in content["categories"]]
        bank = MemoryBank(**(content if file_format == FORMAT else _from_format_1(content)))
        _check(bank)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"memory {path} is damaged: {error}") from error
    return bank


def check_fits(bank: MemoryBank, path: str | Path, made_with: dict[str, Any], categories: list[Category]) -> None:
    """Check that a memory was made with the encoder and for the classes of this run.

    Args:
        bank: The memory.
        path: Where it was read, for messages.
        made_with: This run's settings; those that the bank does not record are not compared.
        categories: This run's classes; an empty list accepts any.

    Raises:
        UserError: Something differs; the message names it.
    """
    for key, value in made_with.items():
        if bank.made_with.get(key, value) != value:
            raise UserError(f"memory {path} was made with {key} {bank.made_with[key]!r}, this run has {value!r}")
    if categories and categories != bank.categories:
        ours, theirs = set(categories), set(bank.categories)
        difference = min((ours ^ theirs), key=lambda category: category.id)
        owner = "only the memory" if difference in theirs else "only this run"
        raise UserError(
            f"memory {path} holds {len(theirs)} classes, this run has {len(ours)}: {owner} has "
            f"{difference.name!r} (id {difference.id})"
        )


def join_memories(banks: dict[Path, MemoryBank]) -> MemoryBank:
    """Join memories; see ``MemoryBank.join``.

    Args:
        banks: By the path that each was read from.

    Raises:
        UserError: Two were made with different encoders or settings.
    """
    (first, bank), *others = banks.items()
    for path, other in others:
        for key in sorted(bank.made_with.keys() | other.made_with.keys()):
            ours, theirs = bank.made_with.get(key), other.made_with.get(key)
            if ours != theirs:
                raise UserError(
                    f"memory {path} was made with {key} {theirs!r}, {first} with {ours!r}: make one of them again"
                )
    return MemoryBank.join(list(banks.values()))


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of a memory bank from a file of version 0.1."""
    vectors, weights = content["vectors"], content["weights"]
    filled = weights > 0
    class_index, slot = filled.nonzero(as_tuple=True)
    ids = [content["categories"][index].id for index in class_index.tolist()]
    numbers = (filled.cumsum(dim=1) - 1)[class_index, slot].tolist()  # of each shot within its class

    def per_shot(by_category: dict[int, list[Any]]) -> list[Any]:
        lists = [by_category.get(category_id, []) for category_id in ids]
        return [entries[n] if n < len(entries) else None for entries, n in zip(lists, numbers, strict=True)]

    return {
        "categories": content["categories"],
        "vectors": vectors[class_index, slot],
        "class_index": class_index,
        "weights": weights[class_index, slot],
        "prototypes": content.get("prototypes"),
        "made_with": content.get("made_with", {}),
        "sources": per_shot(content.get("references", {})),
        "crops": per_shot(content.get("crops", {})),
    }


def _check(bank: MemoryBank) -> None:
    """Raise a ValueError where shapes do not fit together or a number is not finite."""
    shots, dim = bank.vectors.shape
    classes = len(bank.categories)
    expected = {"vectors": (shots, dim), "weights": (shots,), "prototypes": (classes, dim)}
    for name, shape in expected.items():
        tensor = getattr(bank, name)
        if tensor is None and name == "prototypes":
            continue
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise ValueError(f"its {name} are {tensor.dtype} {list(tensor.shape)}, not float32 {list(shape)}")
        if not tensor.isfinite().all():
            raise ValueError(f"its {name} are not all finite")
    index = bank.class_index
    if tuple(index.shape) != (shots,) or index.dtype != torch.int64 or not ((index >= 0) & (index < classes)).all():
        raise ValueError(f"its class_index does not give each of {shots} shots one of {classes} categories")
    if len(bank.sources) != shots or len(bank.crops) != shots:
        raise ValueError(f"it has {len(bank.sources)} sources and {len(bank.crops)} crops of {shots} shots")
