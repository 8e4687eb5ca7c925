"""Names of classes and of image files: cleaned or refused where they are read, and unique where they are written."""

import hashlib
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from no_time_to_train.errors import UserError, UserNotice, first_of

#: The longest name of a class, in characters.
LONGEST_NAME = 200

#: The longest part of a path and the longest path that systems allow, in bytes.
LONGEST_PART, LONGEST_PATH = 255, 4095

#: The longest part of a path and the longest path that are written, in bytes. The names of files that are written for
#: an image get a number and a suffix, and lie in the folder of the results.
LONGEST_WRITTEN_PART, LONGEST_WRITTEN_PATH = 200, 1000

#: What counts as the suffix of a name: ``.jpg``, but not ``.001``.
SUFFIX = r"\.[A-Za-z][A-Za-z0-9]{1,4}$"

#: What names of files are written without: everywhere, and on Windows, where they would name a stream or a device.
UNWRITABLE = r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]"
UNWRITABLE_ON_WINDOWS = (
    UNWRITABLE + r"""|[<>:"|?*]|[. ]+(?=/|$)|(?<![^/])(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?=[. ]*([./]|$))"""
)

#: What is removed around a name: spaces, and characters without a width such as the mark at the beginning of a file.
AROUND = r"[\s\ufeff\u200b\u200e\u200f\u2060]+"


def composed(name: str) -> str:
    """A name with its accents in one encoding (NFC): names of folders that were made on a Mac have another."""
    return unicodedata.normalize("NFC", name)


def as_known(name: str, known: Collection[str]) -> str:
    """A name as it is where it is among those that are known, else :func:`composed`, as they usually are."""
    return name if name in known else composed(name)


def clean_class_name(name: object) -> str:
    """The name of a class without spaces around it, :func:`composed`.

    Raises:
        ValueError: It is not text, blank, too long, or has a character that is no text: a control character, or half
            of a surrogate pair, which no file can hold.
    """
    if not isinstance(name, str):
        raise ValueError(f"the name of a class is {name!r}, not text")
    cleaned = re.sub(f"^{AROUND}|{AROUND}$", "", composed(name))
    if not cleaned:
        raise ValueError(f"the name of a class is blank: {name!r}")
    if len(cleaned) > LONGEST_NAME:
        raise ValueError(f"the name of a class has {len(cleaned)} characters, more than {LONGEST_NAME}")
    if not is_printable(cleaned):
        raise ValueError(f"the name of a class has a control character or is not Unicode: {name!a}")
    return cleaned


def clean_class_names(names: Iterable[object], where: str | Path) -> dict[str, str]:
    """The names of classes in a file without spaces around them; a :class:`UserNotice` names those that had some.

    Args:
        names: The names as they are in the file.

    Returns:
        The cleaned name by the name in the file.
    """
    try:
        cleaned = {str(name): clean_class_name(name) for name in names}
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    changed = [name for name, clean in cleaned.items() if clean != composed(name)]
    if changed:
        some = first_of([repr(name) for name in changed], 5)
        warnings.warn(f"{where}: spaces around the names of classes are ignored: {some}", UserNotice, stacklevel=3)
    return cleaned


def check_file_name(name: str) -> None:
    """Check that text can be the name of a file.

    Bytes that are not UTF-8 are allowed, in the form in which Python lists them.

    Raises:
        ValueError: It cannot.
    """
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        encoded = b"\0"
    if re.search(rb"[\0-\x1f\x7f]", encoded):
        raise ValueError(f"the file name {name!a} has a control character or is not Unicode")
    if len(encoded) > LONGEST_PATH or max(map(len, re.split(rb"[/\\]", encoded))) > LONGEST_PART:
        raise ValueError(f"the file name {name[:40]}... is longer than names of files can be")


def is_printable(name: str) -> bool:
    """Whether a text has no control character, no lone surrogate, no separator of lines, and all of it fits XML."""
    bad = ("Cc", "Cs", "Zl", "Zp")
    return not any(unicodedata.category(character) in bad or character in "\ufffe\uffff" for character in name)


def clean_name(name: str) -> str:
    """A file name as a relative path that stays inside its folder, and that every file and page can contain.

    Bytes that are not UTF-8 and control characters are written as in a URL: ``%FF``. Long names are cut, and get a part
    of their hash.

    Args:
        name: A path of any system: it may be absolute, begin with a drive, or contain ``..``.

    Returns:
        A path with slashes, without a drive, a root, ``.`` or ``..``.
    """
    parts = re.sub(r"^[A-Za-z]:", "", name.replace("\\", "/")).split("/")
    return clean_characters("/".join(part for part in parts if part.strip() not in ("", ".", "..")) or "image")


def clean_characters(path: str) -> str:
    """A relative path whose parts every file and page can contain, and that is not too long; see :func:`clean_name`.

    Args:
        path: The path, with slashes.
    """
    written = re.sub(UNWRITABLE_ON_WINDOWS if os.name == "nt" else UNWRITABLE, _as_in_url, path)
    cleaned = "/".join(_cut(part) for part in written.split("/"))
    return cleaned if len(cleaned.encode()) <= LONGEST_WRITTEN_PATH else f"{_hash(path)}/{cleaned.rpartition('/')[2]}"


def unique_names(names: Sequence[str]) -> list[str]:
    """Names that differ: a second ``photo.jpg`` becomes ``photo_2.jpg``.

    Names that some systems take for the same file count as equal: those that differ only in case, or in how an accent
    is encoded. So do the name of a file and that of a folder.

    Args:
        names: Relative paths. The first of equal names stays as it is.
    """
    return _unique(names, lambda name, number: str(_numbered(PurePosixPath(name), number)), _folders(names))


def unique_stems(names: Sequence[str], taken: Iterable[str] = (), folders: Iterable[str] = ()) -> list[str]:
    """Names without their suffixes that differ: after ``photo.jpg``, ``photo.png`` becomes ``photo_2``.

    No stem with a suffix is a folder of the names.

    Args:
        taken: Stems that none of them may have.
        folders: Folders that there will be besides those of the names.
    """
    stems = [re.sub(SUFFIX, "", name) for name in names]
    like_files = {folder for folder in {*_folders(names), *folders} if re.search(SUFFIX, folder)}
    taken = {*taken, *(re.sub(SUFFIX, "", folder) for folder in like_files)}
    return _unique(stems, lambda stem, number: f"{stem}_{number}", taken)


def _numbered(path: PurePosixPath, number: int) -> PurePosixPath:
    return path.with_name(f"{path.stem}_{number}{path.suffix}")


def _unique(names: Sequence[str], numbered: Callable[[str, int], str], taken: Iterable[str]) -> list[str]:
    """The names, those that another name or ``taken`` has with the first number that makes them unique."""
    used = {_key(name) for name in taken}
    unique: list[str | None] = []
    for name in names:
        unique.append(None if _key(name) in used else name)
        used.add(_key(name))
    numbers: Counter[str] = Counter()  # of equal names, so that the search for the next one is short
    for index, name in enumerate(names):
        while unique[index] is None:
            numbers[name] += 1
            candidate = numbered(name, numbers[name] + 1)
            if _key(candidate) not in used:
                used.add(_key(candidate))
                unique[index] = candidate
    return [name for name in unique if name is not None]


def _key(name: str) -> str:
    """What is equal for names that some systems take for the same file."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _folders(names: Iterable[str]) -> set[str]:
    """The folders of relative paths, with the folders that these are in."""
    return {str(folder) for name in names for folder in PurePosixPath(name).parents}


def _as_in_url(character: re.Match[str]) -> str:
    """A character as in a URL; a lone surrogate, which stands for a byte of a file name, as this byte."""
    return "".join(f"%{byte:02X}" for byte in character[0].encode("utf-8", "surrogateescape"))


def _cut(part: str) -> str:
    """A part of a path that is too long, with a part of its hash in the place of its end; its suffix stays."""
    if len(part.encode()) <= LONGEST_WRITTEN_PART:
        return part
    suffix = re.search(SUFFIX, part)
    end = f"~{_hash(part)}{suffix[0] if suffix else ''}"
    return part.encode()[: LONGEST_WRITTEN_PART - len(end)].decode(errors="ignore") + end


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
