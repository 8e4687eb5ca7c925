"""Memory files: a memory bank and what it was made with, never the networks' weights."""

from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from no_time_to_train.data.memory_content import bank_from_content, fields_of_format_1
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.networks.checkpoints import load_pickle
from no_time_to_train.networks.recognize import encoder_width

#: Stored in every file. Changed when older readers would misread a new file.
FORMAT = "no-time-to-train memory bank 2"

#: Settings that a memory records only where they differ from these values.
USUAL = {"debias": 0}

#: The format of version 0.1: slots padded to [C, N, D], references and crops by category id.
FORMAT_1 = "no-time-to-train memory bank 1"


def save_memory(bank: MemoryBank, path: str | Path) -> None:
    """Write a memory file atomically."""
    content = {**vars(bank), "format": FORMAT, "categories": [asdict(category) for category in bank.categories]}
    del content["images"]
    if bank.negatives is None:
        del content["negative"]
    archive = BytesIO()  # torch raises its own error where it meets a full disk
    torch.save(content, archive)
    with atomic_write(path) as file:
        file.write(archive.getbuffer())


def load_memory(path: str | Path) -> MemoryBank:
    """Read a memory file of this version or of version 0.1. Reading it cannot run code (``weights_only=True``)."""
    if not Path(path).is_file():
        raise UserError(f"memory not found: {path}; fill_memory and segment --save-memory write memories")
    try:
        content = load_pickle(path)
    except Exception as error:  # unpickling a file that is not a checkpoint can raise anything
        raise UserError(f"memory {path} cannot be read: it is truncated, or not a memory bank") from error
    file_format = content.pop("format", None) if isinstance(content, dict) else None
    if file_format not in (FORMAT, FORMAT_1):
        raise UserError(f"{path} is not a memory bank of this version ({FORMAT!r})")
    try:
        return bank_from_content(content if file_format == FORMAT else fields_of_format_1(content))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"memory {path} is damaged: {(str(error).splitlines() or [''])[0]}") from error


def recorded(bank: MemoryBank, path: str | Path, key: str) -> Any:
    """What a memory records about how it was made.

    Args:
        bank: The memory.
        path: Where it was read, for messages.
        key: The setting, such as ``encoder``.
    """
    if key not in bank.made_with:
        raise UserError(f"memory {path} does not record the {key} that it was made with: make it again")
    return bank.made_with[key]


def check_fits(bank: MemoryBank, path: str | Path, made_with: dict[str, Any], categories: list[Category]) -> None:
    """Check that a memory was made with the encoder and for the classes of this run.

    Args:
        bank: The memory.
        path: Where it was read, for messages.
        made_with: This run's settings, the name of the encoder among them; those that the bank does not record are not
            compared.
        categories: This run's classes; an empty list accepts any.
    """
    for key, value in {**USUAL, **made_with}.items():
        made = bank.made_with.get(key, USUAL.get(key, value))
        if made != value:
            raise UserError(f"memory {path} was made with {key} {made!r}, this run has {value!r}")
    width = encoder_width(made_with["encoder"])
    if width is not None and bank.vectors.shape[1] != width:
        raise UserError(
            f"memory {path} holds vectors of {bank.vectors.shape[1]} numbers, {made_with['encoder']} gives {width}: "
            "make it again"
        )
    if categories and categories != bank.categories:
        ours, theirs = set(categories), set(bank.categories)
        if ours == theirs:
            raise UserError(f"memory {path} holds the classes in another order than that of their ids: make it again")
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
    """
    (first, bank), *others = banks.items()
    for path, other in others:
        for key in sorted(bank.made_with.keys() | other.made_with.keys()):
            ours, theirs = (one.made_with.get(key, USUAL.get(key)) for one in (bank, other))
            if ours != theirs:
                raise UserError(
                    f"memory {path} was made with {key} {theirs!r}, {first} with {ours!r}: make one of them again"
                )
        if bank.vectors.shape[1] != other.vectors.shape[1]:
            raise UserError(f"memory {path} holds vectors of another width than {first}: make one of them again")
    return MemoryBank.join(list(banks.values()))
