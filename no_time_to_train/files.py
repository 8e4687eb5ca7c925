"""Files: read with clear errors, written atomically, and identified by their content."""

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from no_time_to_train.errors import UserError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that replaces ``path`` when the block succeeds and is deleted when it fails.

    Readers see either the old content or the complete new one. Missing folders are created.

    Raises:
        UserError: The folder cannot be written to, or the disk is full. The old content of ``path`` remains.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove the temporary files that killed processes left while they wrote ``path``.

    Call it only while no other process can be writing ``path``.
    """
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        leftover.unlink(missing_ok=True)


def remove_leftovers_in(folder: str | Path) -> None:
    """Remove the temporary files that killed processes left in a folder and its subfolders.

    Call it only while no other process can be writing there.
    """
    for leftover in Path(folder).rglob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing, unreadable, or not valid JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"file not found: {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def write_json(path: str | Path, content: Any, indent: int | None = 1) -> None:
    """Write a JSON file atomically.

    Args:
        path: The file.
        content: Any value that JSON can hold.
        indent: Spaces per level; None writes everything on one line, as suits large files.

    Raises:
        UserError: See :func:`atomic_write`.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(content, ensure_ascii=False, indent=indent).encode() + b"\n")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content in hexadecimal digits.

    The result is remembered until the file changes, so that a checkpoint of gigabytes is read once.

    Raises:
        OSError: The file cannot be read.
    """
    stat = Path(path).stat()
    return _sha256(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def sha256_if_readable(path: str | Path) -> str | None:
    """The SHA-256 of a file's content, or None where it cannot be read; the code that opens it reports that."""
    try:
        return sha256(path)
    except OSError:
        return None


@lru_cache(maxsize=16)
def _sha256(path: str | Path, *state: int) -> str:
    """The hash of a file in this state."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
