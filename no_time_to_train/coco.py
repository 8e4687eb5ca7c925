"""COCO annotation files: reading, checking, and choosing classes."""

import contextlib
import io
import json
import math
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO

from no_time_to_train.errors import UserError


@dataclass(frozen=True)
class Category:
    """A class: its COCO category id and its name."""

    id: int
    name: str


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a UserError says which file is missing or broken, and where."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"file not found: {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def read_coco(path: str | Path) -> COCO:
    """Read a COCO annotation file.

    ``annotations`` may be absent, as for a test set without ground truth. Fields that evaluation needs and that small
    data sets leave out are filled in: ``iscrowd`` 0, ``area`` of the box.

    Raises:
        UserError: the file is missing, not JSON, or not in COCO's format.
    """
    data = read_json(path)
    required = {
        "images": {"id", "file_name"},
        "categories": {"id", "name"},
        "annotations": {"id", "image_id", "category_id"},
    }
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise UserError(
            f"{path} is not a COCO annotation file: it needs a list 'images' (and 'annotations', 'categories')"
        )
    for section, keys in required.items():
        entries = data.get(section, [])
        if not isinstance(entries, list):
            raise UserError(f"{path} is not a COCO annotation file: {section!r} is not a list")
        for index, entry in enumerate(entries):
            missing = keys - entry.keys() if isinstance(entry, dict) else keys
            if missing:
                raise UserError(f"{path} is not a COCO annotation file: {section}[{index}] lacks {min(missing)!r}")
    for annotation in data.get("annotations", []):
        annotation.setdefault("iscrowd", 0)
        if box := annotation.get("bbox"):
            if not _is_box(box):
                raise UserError(f"{path}: the bbox of annotation {annotation['id']} is not [x, y, w, h] in pixels")
            annotation.setdefault("area", box[2] * box[3])
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco.createIndex()
    return coco


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) and math.isfinite(v) for v in box)


@cache
def class_splits() -> dict[str, list[str]]:
    """The paper's class splits: {split's name: its classes' names}."""
    splits: dict[str, list[str]] = json.loads((files("no_time_to_train") / "class_splits.json").read_text())
    return splits


def split_names(class_split: str) -> list[str]:
    """The names of a split's classes; a UserError lists the closest splits where there is none of that name."""
    if class_split not in class_splits():
        raise UserError(f"class_split: there is no {class_split!r}{closest(class_split, list(class_splits()))}")
    return class_splits()[class_split]


def closest(name: str, names: list[str]) -> str:
    """How a message goes on after an unknown name: the closest known ones, or some of them."""
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; known are {', '.join(sorted(names)[:10])}"


def select_categories(
    coco: COCO, json_file: str | Path, class_split: str | None = None, cat_names: list[str] | str | None = None
) -> list[Category]:
    """The classes a stage works on, by ascending category id.

    Args:
        json_file: the file's path, for messages.
        class_split: name of one of the paper's splits.
        cat_names: names of the classes, a list or separated by commas. Without both: every category of the file.

    Raises:
        UserError: both are given, or a name is unknown.
    """
    by_name = {category["name"]: int(category["id"]) for category in coco.dataset.get("categories", [])}
    if class_split and cat_names:
        raise UserError("class_split and cat_names both choose the classes: give one of them")
    if class_split:
        names = split_names(class_split)
    elif cat_names:
        names = cat_names.split(",") if isinstance(cat_names, str) else cat_names
    else:
        names = list(by_name)
    names = [name.strip() for name in names]
    for name in names:
        if name not in by_name:
            raise UserError(f"{json_file} has no class {name!r}{closest(name, list(by_name))}")
    if not names:
        raise UserError(f"{json_file} has no categories")
    return sorted((Category(by_name[name], name) for name in set(names)), key=lambda category: category.id)


def annotation_mask(annotation: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """The mask of an annotation, polygons or RLE, as bool [height, width]."""
    try:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            encoded = rle.merge(rle.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            encoded = rle.frPyObjects(segmentation, height, width)
        else:
            encoded = segmentation
        mask = rle.decode(encoded).astype(bool)
    except Exception as error:  # pycocotools raises whatever its C code meets
        raise UserError(f"annotation {annotation['id']} has no usable segmentation: {error!r}") from error
    if mask.shape != (height, width):
        raise UserError(
            f"annotation {annotation['id']}: its mask is {mask.shape[1]}x{mask.shape[0]}, its image {width}x{height}"
        )
    return mask
