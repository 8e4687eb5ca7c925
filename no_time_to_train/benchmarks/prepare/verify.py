"""Whether an annotation file is the published one, and whether its images are there."""

from pathlib import Path
from typing import Any

from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json


def read_counted(path: Path, counts: dict[str, int], subset: bool) -> dict[str, Any]:
    """Read an annotation file whose sections, such as ``images``, should have the numbers of entries in ``counts``.

    Raises:
        UserError: it is missing, broken, or has other numbers and ``subset`` is not set.
    """
    data = read_json(path)
    for section in ("images", "annotations"):
        if not isinstance(data, dict) or not isinstance(data.get(section), list):
            raise UserError(f"{path} is not a COCO annotation file: it needs a list {section!r}")
    for section, expected in counts.items():
        found = len(data[section])
        if found != expected and not subset:
            raise UserError(
                f"{path} has {found:,} {section} instead of {expected:,}: delete it and run the same command again, "
                "or give --subset if that is meant"
            )
    return data


def missing_file(path: Path, counts: dict[str, int], subset: bool) -> str | None:
    """What a step says of an annotation file; see :func:`read_counted`."""
    if not path.is_file():
        return f"{path} is not there"
    read_counted(path, counts, subset)
    return None


def missing_images(names: list[str], folder: Path) -> list[str]:
    """Those of the images that are not in the folder."""
    return [name for name in names if not (folder / name).is_file()]


def say_missing(missing: list[str], total: int, folder: Path) -> str | None:
    """A line of how many of ``total`` images are missing and the first of them; None if none is."""
    if not missing:
        return None
    return f"{len(missing):,} of {total:,} images are missing in {folder}, the first {missing[0]}"
