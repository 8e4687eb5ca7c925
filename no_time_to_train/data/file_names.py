"""Names of images, and of the files that are written for them: relative, inside their folder, and unique."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

#: What counts as the suffix of a name: ``.jpg``, but not ``.001``.
SUFFIX = r"\.[A-Za-z][A-Za-z0-9]{1,4}$"


def clean_name(name: str) -> str:
    """A file name from an annotation as a relative path that stays inside its folder.

    Args:
        name: A path of any system: it may be absolute, begin with a drive, or contain ``..``.

    Returns:
        A path with slashes, without a drive, a root, ``.`` or ``..``.
    """
    parts = re.sub(r"^[A-Za-z]:", "", name.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part.strip() not in ("", ".", "..")) or "image"


def unique_names(names: Sequence[str]) -> list[str]:
    """Names that differ: a second ``photo.jpg`` becomes ``photo_2.jpg``.

    Names that differ only in case count as equal, because some systems take them for the same file.

    Args:
        names: Relative paths. The first of equal names stays as it is.
    """
    return _unique(names, lambda name, number: str(_numbered(PurePosixPath(name), number)))


def unique_stems(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Names without their suffixes that differ: after ``photo.jpg``, ``photo.png`` becomes ``photo_2``.

    Args:
        names: See :func:`unique_names`.
        taken: Stems that none of them may have.
    """
    stems = [re.sub(SUFFIX, "", name) for name in names]
    return _unique(stems, lambda stem, number: f"{stem}_{number}", taken)


def _numbered(path: PurePosixPath, number: int) -> PurePosixPath:
    return path.with_name(f"{path.stem}_{number}{path.suffix}")


def _unique(names: Sequence[str], numbered: Callable[[str, int], str], taken: Iterable[str] = ()) -> list[str]:
    """The names, those that another name or ``taken`` has with the first number that makes them unique."""
    used = {name.casefold() for name in taken}
    unique: list[str | None] = []
    for name in names:
        unique.append(None if name.casefold() in used else name)
        used.add(name.casefold())
    for index, name in enumerate(names):
        number = 2
        while unique[index] is None:
            candidate = numbered(name, number)
            if candidate.casefold() not in used:
                used.add(candidate.casefold())
                unique[index] = candidate
            number += 1
    return [name for name in unique if name is not None]
