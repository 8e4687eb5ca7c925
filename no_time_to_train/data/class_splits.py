"""The paper's class splits, and the classes that a configuration selects from an annotation file."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path

from pycocotools.coco import COCO

from no_time_to_train.errors import UserError, suggest
from no_time_to_train.method.memory_bank import Category

#: LVIS's frequency groups, by the name of the class split: the value of ``frequency`` in LVIS's annotation file.
LVIS_SPLITS = {"lvis_rare": "r", "lvis_common": "c", "lvis_frequent": "f"}


@cache
def class_splits() -> dict[str, list[str]]:
    """The paper's class splits: the class names of each split, by the split's name."""
    splits: dict[str, list[str]] = json.loads((files("no_time_to_train.data") / "class_splits.json").read_text())
    return splits


def select_categories(
    coco: COCO, json_file: str | Path, class_split: str | None = None, cat_names: list[str] | str | None = None
) -> list[Category]:
    """Select the classes that a stage works on: all of the file, those of a split, or some by name.

    Args:
        coco: The annotation file.
        json_file: Its path, for messages.
        class_split: One of the paper's splits, or one of ``LVIS_SPLITS``.
        cat_names: Class names, as a list or separated by commas.

    Returns:
        The classes in ascending order of their category ids.

    Raises:
        UserError: Both are given, a name is unknown, or there are no classes.
    """
    by_name = {category["name"]: int(category["id"]) for category in coco.dataset.get("categories", [])}
    if class_split and cat_names:
        raise UserError("class_split and cat_names both choose the classes: give one of them")
    if class_split in LVIS_SPLITS:
        frequency = LVIS_SPLITS[class_split]
        names = [c["name"] for c in coco.dataset.get("categories", []) if c.get("frequency") == frequency]
        if not names:
            raise UserError(f"{json_file} has no category of frequency {frequency!r}, which {class_split} stands for")
    elif class_split:
        if class_split not in class_splits():
            known = [*class_splits(), *LVIS_SPLITS]
            raise UserError(f"unknown class_split {class_split!r}{suggest(class_split, known)}")
        names = class_splits()[class_split]
    elif cat_names:
        names = cat_names.split(",") if isinstance(cat_names, str) else cat_names
    else:
        names = list(by_name)
    names = [name.strip() for name in names]
    for name in names:
        if name not in by_name:
            raise UserError(f"{json_file} has no class {name!r}{suggest(name, by_name)}")
    if not names:
        raise UserError(f"{json_file} has no categories")
    return sorted((Category(by_name[name], name) for name in set(names)), key=lambda category: category.id)
