"""The content of memory files: checked completely before it becomes a memory bank."""

import math
import unicodedata
from collections import Counter
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.networks.checkpoints import is_plain

#: Numbers above this are no features of an encoder; sums of their squares could overflow.
LARGEST = 1e9

#: The longest side of a reference's picture in pixels; the encoder's input is 518 by default.
LONGEST_SIDE = 4096

#: How a PNG file begins.
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def bank_from_content(content: dict[str, Any]) -> MemoryBank:
    """Make a memory bank of a file's content.

    Args:
        content: The fields of a memory bank, with its categories as dicts. The tensors may be parts of an open file;
            those of the bank are copies.

    Raises:
        ValueError: A field is missing, unknown or of another type, shapes do not fit together, a number is not finite,
            or a tensor is larger than the file.
    """
    for key in content.keys() - {field.name for field in fields(MemoryBank)}:
        raise ValueError(f"this version does not know its {key!r}")
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
    in_range = (index >= 0) & (index < len(categories))
    if list(index.shape) != [shots] or index.dtype != torch.int64 or not in_range.all():
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


def fields_of_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of a memory bank from a file of version 0.1.

    Raises:
        ValueError: See :func:`bank_from_content`. What the fields hold is not checked.
    """
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
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.keys() != {"id", "name"}:
            raise ValueError(f"its class {number} is not {{'id': ..., 'name': ...}}")
        if type(entry["id"]) is not int or not -(2**63) <= entry["id"] < 2**63:
            raise ValueError(f"its class {number} has the id {entry['id']!r:.99}, not an integer of 64 bits")
        if not _is_text(entry["name"]):
            raise ValueError(f"its class {number} has the name {entry['name']!r:.99}, not a printable text")
        categories.append(Category(entry["id"], entry["name"]))
    for key in ("id", "name"):
        (value, count), *_ = [*Counter(getattr(category, key) for category in categories).most_common(1), (None, 0)]
        if count > 1:
            raise ValueError(f"two classes have the {key} {value!r}")
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
    if not isinstance(made_with, dict) or not all(_is_text(key) and _is_scalar(made_with[key]) for key in made_with):
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
        header = bytes(picture[:26].tolist())
        sides = [int.from_bytes(header[start : start + 4], "big") for start in (16, 20)]
        if header.startswith(PNG) and header[24:] == b"\x08\x06" and max(sides) <= LONGEST_SIDE:
            return picture.clone()
    raise ValueError(
        f"its picture {number} is not a PNG file with transparency of at most {LONGEST_SIDE} pixels a side"
    )


def _is_text(value: Any) -> bool:
    """Whether a value is a text that can be printed: not empty, without control characters and halves of characters."""
    if not isinstance(value, str) or not value.strip():
        return False
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value)


def _is_scalar(value: Any) -> bool:
    """Whether a value is None, a boolean, a finite number or a text."""
    if isinstance(value, str):
        return _is_text(value)
    return value is None or (type(value) in (bool, int, float) and math.isfinite(value) and abs(value) < 2**63)
