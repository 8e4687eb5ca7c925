"""Checks of prepared files: whether annotation files are the published ones, and whether images are missing."""

from pathlib import Path
from typing import Any

from no_time_to_train.data.coco import check_sections
from no_time_to_train.data.names import check_file_name
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json


def read_annotations(path: Path, counts: dict[str, int], subset: bool) -> dict[str, Any]:
    """Read a COCO annotation file and compare its numbers of entries with the published ones.

    Args:
        counts: The published number of entries per section (``images``, ``annotations``).
    """
    data: dict[str, Any] = read_json(path)
    check_sections(data, path)
    if "annotations" not in data:
        raise UserError(f"{path} is not a COCO annotation file: it needs a list 'annotations'")
    for image in data["images"]:
        try:
            check_file_name(image["file_name"])
        except ValueError as error:
            raise UserError(f"{path}: image {image['id']}: {error}") from error
    for section, expected in counts.items():
        found = len(data[section])
        if found != expected and not subset:
            raise UserError(
                f"{path} has {found:,} {section} instead of {expected:,}: delete it and run the same command again, "
                "or accept it with --subset"
            )
    return data


def annotations_problem(path: Path, counts: dict[str, int], subset: bool) -> str | None:
    """What a step says about an annotation file: that it is missing, or None."""
    if not path.is_file():
        return f"{path} is missing"
    read_annotations(path, counts, subset)
    return None


def missing_message(missing: list[str], total: int, folder: Path) -> str | None:
    """What a step says about missing images, or None where none is missing.

    Args:
        missing: File names of the missing images.
    """
    if not missing:
        return None
    return f"{len(missing):,} of {total:,} images are missing in {folder}, the first is {missing[0]}"
