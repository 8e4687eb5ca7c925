"""Files by the hash of their content. Those of large files are remembered in the cache folder of the user."""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json, real_path, write_json

#: The hashes of files from this size in bytes on are remembered, and at most so many: smaller files are read quickly.
LARGE, REMEMBERED = 1 << 24, 100

#: How long after a change a file may change again within the same tick of its disk's clock, in ns.
SETTLED = 2 * 10**9


#: What differs once the content of a file does: its path without links, its size in bytes, when its content and when
#: anything of it was changed in ns, and the numbers of the file and of its disk.
FileState = tuple[str, int, int, int, int, int]


def state_of(path: str | Path) -> FileState:
    """The state of a file; an OSError where it cannot be seen."""
    stat = Path(path).stat()
    return str(real_path(path)), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev


def settled_state(path: str | Path) -> FileState | None:
    """The state of a large file, to be taken before it is read. None where it may change again without a trace."""
    with suppress(OSError):
        state = state_of(path)
        if state[1] >= LARGE and time.time_ns() - max(state[2:4]) > SETTLED:
            return state
    return None


def remembered(state: FileState | None, compute: Callable[[], str], of: str = "") -> str:
    """A hash of a file in a state from :func:`settled_state`, computed once; ``of`` is what was made of the file."""
    if state is None:
        return compute()
    name, now = f"{state[0]} {of}", list(state[1:])
    match _known_hashes().get(name):
        case [*then, str(digest)] if then == now:
            return digest
    digest = compute()
    with suppress(OSError, UserError, RuntimeError):  # it is computed again, then
        if state == state_of(state[0]):
            known = {**_known_hashes(), name: [*now, digest]}
            write_json(_place_of_hashes(), dict([*known.items()][-REMEMBERED:]))
    return digest


def _known_hashes() -> dict[str, Any]:
    """The hashes that were remembered: by path and what is hashed, the numbers of the state and the hash."""
    with suppress(UserError, RuntimeError, ValueError, TypeError):
        return dict(read_json(_place_of_hashes()))
    return {}


def _place_of_hashes() -> Path:
    """Where hashes are remembered; a RuntimeError where the user has no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "no-time-to-train" / "hashes.json"


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content in hexadecimal digits.

    It is remembered until the file changes, and that of a large file by later runs, too, so that a checkpoint of
    gigabytes is read once.

    Raises:
        OSError: The file cannot be read.
    """
    return _sha256(path, state_of(path))


def sha256_if_readable(path: str | Path) -> str | None:
    """The SHA-256 of a file's content, or None where it cannot be read; the code that opens it reports that."""
    try:
        return sha256(path)
    except OSError:
        return None


@lru_cache(maxsize=16)
def _sha256(path: str | Path, state: FileState) -> str:
    """The hash of a file in this state."""

    def compute() -> str:
        digest = hashlib.sha256()
        with Path(path).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    return remembered(settled_state(path), compute)
