"""Names in annotations, of classes and of image files: cleaned or refused where they are read."""

import os
import re
import unicodedata
import warnings
from collections.abc import Iterable
from pathlib import Path

from no_time_to_train.errors import UserError, UserNotice

#: The longest name of a class, in characters.
LONGEST_NAME = 200

#: The longest part of a path and the longest path that systems allow, in bytes.
LONGEST_PART, LONGEST_PATH = 255, 4095

#: What is removed around a name: spaces, and characters without a width such as the mark at the beginning of a file.
AROUND = r"[\s\ufeff\u200b\u200e\u200f\u2060]+"


def clean_class_name(name: object) -> str:
    """The name of a class without spaces around it.

    Raises:
        ValueError: It is not text, blank, too long, or has a character that is no text: a control character, or half
            of a surrogate pair, which no file can hold.
    """
    if not isinstance(name, str):
        raise ValueError(f"the name of a class is {name!r}, not text")
    cleaned = re.sub(f"^{AROUND}|{AROUND}$", "", name)
    if not cleaned:
        raise ValueError(f"the name of a class is blank: {name!r}")
    if len(cleaned) > LONGEST_NAME:
        raise ValueError(f"the name of a class has {len(cleaned)} characters, more than {LONGEST_NAME}")
    if not _is_text(cleaned):
        raise ValueError(f"the name of a class has a control character or is not Unicode: {name!a}")
    return cleaned


def clean_class_names(names: Iterable[object], where: str | Path) -> dict[str, str]:
    """The names of classes in a file without spaces around them; a :class:`UserNotice` names those that had some.

    Args:
        names: The names as they are in the file.
        where: The file or folder, for messages.

    Returns:
        The cleaned name by the name in the file.
    """
    try:
        cleaned = {str(name): clean_class_name(name) for name in names}
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    changed = [name for name, clean in cleaned.items() if clean != name]
    if changed:
        some = ", ".join([*map(repr, changed[:5]), *["..."] * (len(changed) > 5)])
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


def _is_text(name: str) -> bool:
    """Whether a name has no control character, no lone surrogate, and no separator of lines."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)
