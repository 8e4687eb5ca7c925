"""Memory files: a memory bank and what it was made with, never the networks' weights."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from io import BytesIO
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.data.names import LONGEST_NAME, composed, is_printable
from no_time_to_train.data.reference_sets import check_pickle
from no_time_to_train.errors import UserError, UserNotice, plural, raise_if_refused
from no_time_to_train.file_hashes import sha256_if_readable
from no_time_to_train.files import atomic_write, check_memories
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.networks.checkpoints import encoder_width, is_plain, load_pickle

#: Stored in every file. Changed when older readers would misread a new file.
FORMAT = "no-time-to-train memory bank 2"

#: What a memory records whose classes have names and no references.
NAMES = "names"

#: The setting that tells weights of the encoder from others of its name; memories of version 0.2 do not record it.
WEIGHTS = "encoder_weights"

#: Settings that a memory records only where they differ from these values.
USUAL = {"debias": 0, "norm": True, "keep_aspect": False, NAMES: None}

#: The format of version 0.1: slots padded to [C, N, D], references and crops by category id.
FORMAT_1 = "no-time-to-train memory bank 1"

#: Numbers above this are no features of an encoder; sums of their squares could overflow.
LARGEST = 1e9

#: The longest side of a reference's picture in pixels; the encoder's input is 518 by default.
LONGEST_SIDE = 4096

#: The cosine from which two vectors were made from the same object.
SAME = 0.9999

#: How a PNG file begins.
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


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
    check_memories([path])
    try:
        content = load_pickle(path, check_pickle)
    except Exception as error:  # unpickling a file that is not a checkpoint can raise anything
        raise_if_refused(error, path)
        raise UserError(f"memory {path} cannot be read: it is truncated, or not a memory bank") from error
    file_format = content.pop("format", None) if isinstance(content, dict) else None
    if file_format not in (FORMAT, FORMAT_1):
        raise UserError(f"{path} is not a memory bank of this version ({FORMAT!r})")
    try:
        return _bank_from_content(content if file_format == FORMAT else _fields_of_format_1(content))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"memory {path} is damaged: {(str(error).splitlines() or [''])[0]}") from error


def recorded(bank: MemoryBank, path: str | Path, key: str) -> Any:
    """What a memory, which was read from ``path``, records about how it was made, such as the ``encoder``."""
    if key not in bank.made_with:
        raise UserError(f"memory {path} does not record the {key} that it was made with: make it again")
    return bank.made_with[key]


def weights_of(checkpoint: str | Path | None) -> dict[str, str]:
    """What a memory records of the encoder's weights: how the SHA-256 of their file begins."""
    digest = checkpoint and sha256_if_readable(checkpoint)
    return {WEIGHTS: digest[:16]} if digest else {}


def check_fits(bank: MemoryBank, path: str | Path, made_with: dict[str, Any], categories: list[Category]) -> None:
    """Check that a memory, which was read from ``path``, was made with the encoder and for the classes of this run.

    Args:
        made_with: This run's settings, with the name of the encoder; only those that the bank records are compared.
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
        ids = [category.id for classes in (theirs, ours) for category in classes if category.name == difference.name]
        if len(ids) == 2:
            text = f"has {difference.name!r} with the id {ids[0]}, this run with {ids[1]}"
            raise UserError(f"memory {path} {text}: give references and targets the same category ids")
        owner = "only the memory" if difference in theirs else "only this run"
        raise UserError(
            f"memory {path} holds {plural(len(theirs), 'class')}, this run has {len(ours)}: {owner} has "
            f"{difference.name!r} (id {difference.id})"
        )


def join_memories(banks: Sequence[tuple[Path, MemoryBank]]) -> MemoryBank:
    """Join memories, each with the path that it was read from."""
    (first, bank), *others = banks
    for path, other in others:
        for key in sorted(bank.made_with.keys() | other.made_with.keys()):
            ours, theirs = (one.made_with.get(key, USUAL.get(key)) for one in (bank, other))
            if ours != theirs and not (key == WEIGHTS and None in (ours, theirs)):
                raise UserError(f"memory {path} was made with {key} {theirs!r}, {first} with {ours!r}: make one again")
        if bank.vectors.shape[1] != other.vectors.shape[1]:
            raise UserError(f"memory {path} holds vectors of another width than {first}: make one of them again")
    joined = MemoryBank.join([one for _, one in banks])
    notice_repeated(joined)
    return joined


def notice_repeated(bank: MemoryBank) -> None:
    """Say how many references of a class are the same, and how many show both what it is and what it is not."""
    repeated = contrary = 0
    for index in range(len(bank.categories)):
        of_class = bank.class_index == index
        vectors, negative = F.normalize(bank.vectors[of_class], dim=1), bank.negative[of_class]
        same = (vectors @ vectors.T >= SAME).triu(diagonal=1)
        differ = negative[:, None] != negative
        repeated += int((same & ~differ).any(dim=0).sum())
        contrary += int((same & differ).any(dim=0).sum())
    given_twice = "given more than once, and counted as often: leave the copies out"
    given_both = "given both as a reference and as a negative of a class: leave one of them out"
    for count, text in ((repeated, given_twice), (contrary, given_both)):
        if count:
            warnings.warn(f"{plural(count, 'reference')} {text}", UserNotice, stacklevel=3)


def _bank_from_content(content: dict[str, Any]) -> MemoryBank:
    """The memory bank in a file, whose content is checked completely: anything wrong is a ValueError or the like.

    Args:
        content: The fields of a memory bank, with its categories as dicts. The tensors may be parts of an open file;
            those of the bank are copies.
    """
    for key in content.keys() - {field.name for field in fields(MemoryBank)}:
        raise ValueError(f"this version does not know its {short_repr(key)}")
    content = {"prototypes": None, "made_with": {}, "sources": [], "crops": [], **content}
    for key in ("categories", "sources", "crops"):
        if not isinstance(content.get(key), list):
            raise ValueError(f"its {key} are a {type(content.get(key)).__name__}, not a list")
    categories = _categories(content["categories"])
    vectors = _tensor(content.get("vectors"), "vectors")
    if vectors.dim() != 2:
        raise ValueError(f"its vectors are {vectors.dtype} {list(vectors.shape)}, not float32 [shots, width]")
    shots, dim = vectors.shape
    shapes = {"vectors": [shots, dim], "weights": [shots], "prototypes": [len(categories), dim]}
    tensors = {
        name: _floats(content.get(name), name, shape)
        for name, shape in shapes.items()
        if name != "prototypes" or content[name] is not None
    }
    if not (tensors["weights"] > 0).all():
        raise ValueError("its weights are not all positive")
    index = _tensor(content.get("class_index"), "class_index")
    is_plain = index.dtype == torch.int64 and list(index.shape) == [shots]
    if not is_plain or not ((index >= 0) & (index < len(categories))).all():
        raise ValueError(f"its class_index does not give each of {shots} shots one of {len(categories)} categories")
    if "negative" in content:
        negative = _tensor(content["negative"], "negative")
        tensors["negative"] = negative.clone()
        if negative.dtype != torch.bool or list(negative.shape) != [shots]:
            raise ValueError(f"its negative is {negative.dtype} {list(negative.shape)}, not bool [{shots}]")
    bank = MemoryBank(
        categories,
        class_index=index.clone(),
        made_with=_made_with(content["made_with"]),
        sources=content["sources"],
        crops=[_picture(crop, number) for number, crop in enumerate(content["crops"])],
        images=[],
        **tensors,
    )
    if len(bank.sources) != shots or len(bank.crops) != shots:
        raise ValueError(f"it has {len(bank.sources)} sources and {len(bank.crops)} crops of {shots} shots")
    for number, source in enumerate(bank.sources):
        _check_source(source, number)
    return bank


def _fields_of_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of a memory bank from a file of version 0.1; what they hold is not checked."""
    vectors, weights = _tensor(content["vectors"], "vectors"), _tensor(content["weights"], "weights")
    filled = weights > 0
    class_index, slot = filled.nonzero(as_tuple=True)
    ids = [content["categories"][index]["id"] for index in class_index.tolist()]
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


def _categories(entries: list[Any]) -> list[Category]:
    """The classes. Their ids become file names, and their names are printed."""
    categories = []
    if not entries:
        raise ValueError("it has no class")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.keys() != {"id", "name"}:
            raise ValueError(f"its class {number} is not {{'id': ..., 'name': ...}}")
        if type(entry["id"]) is not int or not -(2**63) <= entry["id"] < 2**63:
            raise ValueError(f"its class {number} has the id {short_repr(entry['id'])}, not an integer of 64 bits")
        if not _is_name(entry["name"]) or len(entry["name"]) > LONGEST_NAME:
            name = short_repr(entry["name"])
            raise ValueError(f"its class {number} has the name {name}, not printable text of {LONGEST_NAME} characters")
        categories.append(Category(entry["id"], entry["name"]))
    if len({composed(category.name) for category in categories}) == len(categories):  # else an older file with both
        categories = [Category(category.id, composed(category.name)) for category in categories]
    for key in ("id", "name"):
        (value, count), *_ = [*Counter(getattr(category, key) for category in categories).most_common(1), (None, 0)]
        if count > 1:
            raise ValueError(f"two classes have the {key} {short_repr(value)}")
    return categories


def _tensor(value: Any, name: str) -> Tensor:
    """A plain tensor that is no larger than its file."""
    if not isinstance(value, Tensor):
        raise ValueError(f"its {name} are a {type(value).__name__}, not a tensor")
    if not is_plain(value):
        raise ValueError(f"its {name} are not a plain tensor, or larger than the file")
    return value


def _floats(value: Any, name: str, shape: list[Any]) -> Tensor:
    """A copy of a tensor of float32."""
    tensor = _tensor(value, name)
    if list(tensor.shape) != shape or tensor.dtype != torch.float32:
        raise ValueError(f"its {name} are {tensor.dtype} {list(tensor.shape)}, not float32 {shape}")
    if not (tensor.abs() < LARGEST).all():
        raise ValueError(f"its {name} are not all finite and below {LARGEST:g}")
    return tensor.clone()


def _made_with(made_with: Any) -> dict[str, Any]:
    """Settings by name: texts and numbers."""
    if not isinstance(made_with, dict) or not all(_is_name(key) and _is_scalar(made_with[key]) for key in made_with):
        raise ValueError("its made_with does not hold texts and numbers by name")
    return dict(made_with)


def _check_source(source: Any, number: int) -> None:
    """Check an entry of a reference set; it may be None."""
    if source is None:
        return
    if (
        not isinstance(source, dict)
        or type(source.get("img_id")) not in (int, str)
        or not isinstance(ids := source.get("ann_ids"), list)
        or not ids
        or not all(type(one) is int for one in ids)
        or not all(isinstance(key, str) and (key == "ann_ids" or _is_scalar(source[key])) for key in source)
    ):
        raise ValueError(f"its source {number} is not {{'img_id': ..., 'ann_ids': [...]}}")


def _picture(picture: Any, number: int) -> Tensor | None:
    """A copy of a reference's picture, which may be None."""
    if picture is None:
        return None
    if isinstance(picture, Tensor) and is_plain(picture) and picture.dtype == torch.uint8 and picture.dim() == 1:
        header, end = (bytes(part.tolist()) for part in (picture[:26], picture[-8:]))
        sides = [int.from_bytes(header[start : start + 4], "big") for start in (16, 20)]
        if header.startswith(PNG) and header[24:] == b"\x08\x06" and end[:4] == b"IEND" and max(sides) <= LONGEST_SIDE:
            return picture.clone()
    raise ValueError(f"its picture {number} is no whole PNG with transparency of at most {LONGEST_SIDE} pixels a side")


def _is_name(value: Any) -> bool:
    """Whether a value is a text that can be printed, and is not blank."""
    return isinstance(value, str) and bool(value.strip()) and is_printable(value)


def _is_scalar(value: Any) -> bool:
    """Whether a value is None, a boolean, a finite number or a text."""
    if isinstance(value, str):
        return _is_name(value)
    return value is None or (type(value) in (bool, int, float) and math.isfinite(value) and abs(value) < 2**63)
