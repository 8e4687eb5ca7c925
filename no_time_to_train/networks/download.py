"""Fetch files, the official checkpoints by name: resumed where cut, in place only once complete and readable."""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from no_time_to_train.errors import UserError
from no_time_to_train.networks.registry import CHECKPOINTS, FOLDER

ATTEMPTS = 4  # requests in a row that may bring nothing new before the download is given up
PAUSE = 1.0  # seconds before the second of them, doubled for each further one
TIMEOUT = 30.0  # seconds without a byte after which the connection counts as cut
CHUNK = 1 << 20  # bytes read at a time


class _Interrupted(Exception):
    """The server brought less than the whole file; another request may bring the rest."""


def download(name: str, folder: str | Path = FOLDER, url: str | None = None) -> Path:
    """Download a checkpoint unless it is there, and return its path.

    What has arrived is kept in ``<file>.part`` (with the server's tag of that version in ``<file>.etag``), from which
    this call or a later one goes on; both are gone once the file is in place. A second process that wants the same
    file waits for the first.

    Args:
        name: a name of ``CHECKPOINTS``.
        folder: where to put it; made if missing.
        url: HTTP(S) address to fetch it from instead of the official one.

    Raises:
        UserError: the name is unknown, the file cannot be fetched or written, its length is wrong, or it does not
            open as a checkpoint. Then no file of the final name has been made.
    """
    if name not in CHECKPOINTS:
        raise UserError(f"no checkpoint is called {name!r}; choose one of {', '.join(CHECKPOINTS)}")
    checkpoint = CHECKPOINTS[name]
    return fetch_file(url or checkpoint.url, Path(folder) / checkpoint.file_name, _check_checkpoint, "a checkpoint")


def _check_checkpoint(path: Path) -> None:
    from no_time_to_train.networks.checkpoints import read_checkpoint

    read_checkpoint(path)


def fetch_file(url: str, target: Path, check: Callable[[Path], object], kind: str) -> Path:
    """Download a file unless it is there, and return its path; see :func:`download`.

    Args:
        url: HTTP(S) address.
        target: where to put it; its folder is made if missing.
        check: opens a file, and raises a UserError if it is not whole or not what it should be.
        kind: what ``check`` takes it for, for messages: "a checkpoint".

    Raises:
        UserError: the file cannot be fetched or written, its length is wrong, or ``check`` refuses it. Then no file of
            the final name has been made.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"cannot download {url!r}: the address must begin with http:// or https://")
    part, etag = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.etag")
    try:
        if not _is_there(target, check):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _exclusive(part, etag) as file:
                if not _is_there(target, check):  # another process may have brought it while this one waited
                    _fetch(url, file, etag, target)
                    _refuse_unless(check, file, url, target, kind)
                    part.replace(target)
                    print(f"{target} is complete")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; make room there or choose another folder") from error
    return target


def _is_there(target: Path, check: Callable[[Path], object]) -> bool:
    """Whether ``target`` exists and opens. A UserError if it exists and does not open."""
    if not target.exists():
        return False
    try:
        check(target)
    except UserError as error:
        raise UserError(f"{error}; delete this file and run the same command again") from error
    print(f"{target} is already there")
    return True


def _refuse_unless(check: Callable[[Path], object], part: BinaryIO, url: str, target: Path, kind: str) -> None:
    """Empty ``part`` and raise a UserError if it does not open."""
    try:
        check(Path(part.name))
    except UserError as error:
        size = part.seek(0, os.SEEK_END)
        part.truncate(0)
        raise UserError(
            f"the {size} bytes from {url} do not open as {kind} and were deleted; "
            f"run the same command again, or fetch the file another way and save it as {target}"
        ) from error


@contextmanager
def _exclusive(part: Path, etag: Path) -> Iterator[BinaryIO]:
    """Open ``part`` for reading and appending, alone among all processes; remove it at the end if it is empty."""
    while True:
        with part.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another process is downloading {part}: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            named = None
            with suppress(FileNotFoundError):
                named = part.stat()
            if not named or not os.path.samestat(named, os.fstat(file.fileno())):
                continue  # the other process renamed or removed the file that this one waited for
            try:
                yield file
            finally:
                if os.fstat(file.fileno()).st_size == 0:
                    part.unlink(missing_ok=True)
                if not part.exists():
                    etag.unlink(missing_ok=True)
            return


def _fetch(url: str, part: BinaryIO, etag: Path, target: Path) -> None:
    """Complete ``part`` from ``url``, in as many requests as bring anything new."""
    most = failures = 0
    while True:
        try:
            _request(url, part, etag, target)
            break
        except _Interrupted as error:
            size = part.seek(0, os.SEEK_END)
            failures = 1 if size > most else failures + 1
            most = max(most, size)
            if failures == ATTEMPTS:
                raise UserError(
                    f"cannot download {url}: {error}; check the connection and run the same command again (what has "
                    f"arrived is kept), or fetch the file another way and save it as {target}"
                ) from error
            pause = PAUSE * 2 ** (failures - 1)
            print(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)
    part.flush()
    os.fsync(part.fileno())


def _request(url: str, part: BinaryIO, etag: Path, target: Path) -> None:
    """Append to ``part`` what it lacks, or all anew if the server cannot go on; _Interrupted if that is not all."""
    have = part.seek(0, os.SEEK_END)  # bytes
    version = etag.read_text() if have and etag.exists() else ""
    headers = {"User-Agent": "no-time-to-train"}
    if version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    with _network():
        try:
            response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            if error.code >= 500:
                raise _Interrupted(f"the server answered HTTP {error.code} {error.reason}") from error
            if error.code != 416:
                raise UserError(
                    f"cannot download {url}: the server answered HTTP {error.code} {error.reason}; "
                    f"fetch the file another way and save it as {target}"
                ) from error
            response = error  # nothing lies beyond what is there
    with response:
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
        begin, total = (int(span[1] or span[2]), int(span[2])) if span else (None, None)
        if response.status == 200:
            if response.headers.get_content_type() == "text/html":
                raise UserError(
                    f"cannot download {url}: a web page came instead of the file; if your network asks for a login "
                    "or a proxy, see to that and run the same command again"
                )
            have, total = 0, response.length
            part.truncate(0)
            etag.write_text(_version(response.headers))
        elif begin != have or _version(response.headers) not in ("", version):
            part.truncate(0)
            raise _Interrupted("the file on the server is not the one that was begun")
        if total is not None and shutil.disk_usage(target.parent).free < total - have:
            raise UserError(f"no room for {(total - have) / 1e6:.0f} MB in {target.parent}: make room or change folder")
        with tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=target.name) as bar:
            while response.status != 416:
                with _network():
                    block = response.read(CHUNK)
                if not block:
                    break
                have += part.write(block)
                bar.update(len(block))
    if total is not None and have != total:
        raise _Interrupted(f"the connection ended after {have} of {total} bytes")


@contextmanager
def _network() -> Iterator[None]:
    """Turn any failure of the connection into _Interrupted: among OSErrors, only those of the disk are left."""
    try:
        yield
    except (OSError, HTTPException) as error:
        raise _Interrupted(f"the connection failed ({getattr(error, 'reason', None) or error!r})") from error


def _version(headers: Message) -> str:
    """What If-Range may name: the strong ETag, else the date of the last change, else nothing."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
