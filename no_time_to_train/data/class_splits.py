"""The paper's class splits, and the classes that a configuration selects from an annotation file."""

import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from no_time_to_train.data.names import composed
from no_time_to_train.errors import UserError, UserNotice, suggest
from no_time_to_train.files import read_json

if TYPE_CHECKING:
    from pycocotools.coco import COCO

    from no_time_to_train.method.memory_bank import Category

#: LVIS's frequency groups, by the name of the class split: the value of ``frequency`` in LVIS's annotation file.
LVIS_SPLITS = {"lvis_rare": "r", "lvis_common": "c", "lvis_frequent": "f"}


@cache
def class_splits() -> dict[str, list[str]]:
    """The paper's class splits: the class names of each split, by the split's name."""
    splits: dict[str, list[str]] = read_json(Path(__file__).with_name("class_splits.json"))
    return splits


def select_categories(
    coco: "COCO", json_file: str | Path, class_split: str | None = None, cat_names: list[str] | str | None = None
) -> "list[Category]":
    """Select the classes that a stage works on: all of the file, those of a split, or some by name.

    Where both a split and names are given and differ, the split is used, and a :class:`UserNotice` says so.

    Args:
        class_split: A class split; see :func:`split_names`.
        cat_names: Class names, as a list or separated by commas. Underscores may stand for spaces.

    Returns:
        The classes in ascending order of their category ids.
    """
    from no_time_to_train.method.memory_bank import Category  # which imports torch

    by_name = {category["name"]: int(category["id"]) for category in coco.dataset.get("categories", [])}
    names = list(by_name)
    if class_split:
        names = split_names(class_split, coco, json_file)
    if cat_names:
        listed = cat_names.split(",") if isinstance(cat_names, str) else cat_names
        listed = [_as_in_file(name.strip(), by_name) for name in listed]
        if not class_split:
            names = listed
        elif set(listed) != set(names):
            warnings.warn(
                f"class_split {class_split} and cat_names name different classes: those of class_split are used",
                UserNotice,
                stacklevel=2,
            )
    for name in names:
        if name not in by_name:
            raise UserError(f"{json_file} has no class {name!r}{suggest(name, by_name)}")
    if not names:
        raise UserError(f"{json_file} has no categories")
    return sorted((Category(by_name[name], name) for name in set(names)), key=lambda category: category.id)


def split_names(class_split: str, coco: "COCO", json_file: str | Path) -> list[str]:
    """The class names of a split.

    Args:
        class_split: One of the paper's splits. ``coco`` is another name of ``default_classes``. ``lvis`` is all classes
            of the file; ``lvis_rare``, ``lvis_common`` and ``lvis_frequent`` are LVIS's groups, which the file states.
            Minival has the same classes, so ``lvis_minival``, ``lvis_minival_rare`` and so on mean the same.
    """
    categories = coco.dataset.get("categories", [])
    name = class_split.replace("lvis_minival", "lvis")
    if name == "lvis":
        return [category["name"] for category in categories]
    if name in LVIS_SPLITS:
        frequency = LVIS_SPLITS[name]
        names = [category["name"] for category in categories if category.get("frequency") == frequency]
        if not names:
            raise UserError(f"{json_file} has no category of frequency {frequency!r}, which {class_split} stands for")
        return names
    check_split(class_split)
    return class_splits()["default_classes" if name == "coco" else name]


def check_split(class_split: str | None, cat_names: str | None = None) -> None:
    """Check the options ``--split`` and ``--cat-names`` of a command, before an annotation file is read."""
    if class_split and cat_names:
        raise UserError("--split and --cat-names both choose the classes: leave one of them out")
    lvis = ["lvis", *LVIS_SPLITS]
    known = [*class_splits(), "coco", *lvis, *(one.replace("lvis", "lvis_minival") for one in lvis)]
    if class_split and class_split not in known:
        raise UserError(f"unknown class_split {class_split!r}{suggest(class_split, known, len(known))}")


def _as_in_file(name: str, by_name: dict[str, int]) -> str:
    """A class name as the file has it: underscores are read as spaces where only that is a class."""
    name = composed(name)
    spaced = name.replace("_", " ")
    return spaced if name not in by_name and spaced in by_name else name
