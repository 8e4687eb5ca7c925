"""Download files, and the official checkpoints by name: resumed after an interruption, and put in place atomically.

The functions of huggingface_hub and torch.hub are not used. ``http_get`` sends no If-Range: where the file on the
server has changed, it joins two versions, and torch opens them as one checkpoint. That of torch.hub does not resume.
"""

import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.client import HTTPException, HTTPResponse
from io import BufferedReader, RawIOBase
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import Any
from urllib.error import HTTPError
from urllib.request import FTPHandler, HTTPHandler, HTTPSHandler, Request, build_opener, getproxies, proxy_bypass
from zipfile import ZipFile, is_zipfile

from filelock import FileLock, Timeout
from tqdm import tqdm

from no_time_to_train.errors import UserError, UserNotice, one_line
from no_time_to_train.file_hashes import sha256
from no_time_to_train.files import check_readable, new_folder, replace_durably, sync
from no_time_to_train.networks.registry import CHECKPOINTS, FOLDER, Checkpoint

ATTEMPTS = 4  # consecutive requests without any new byte after which the download fails
PAUSE = 1.0  # seconds before the second of them, doubled before each further one
TIMEOUT = 30.0  # seconds without a byte after which a connection counts as interrupted
PERIOD, SLOWEST = 20.0, 500  # seconds in which at least so many bytes per second must arrive
CHUNK = 1 << 20  # bytes read at once
RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]+|\*)/([0-9]{1,18})")  # a Content-Range: first byte and total
VERSION = re.compile(r"[ -~]{1,1000}")  # a version of a file that a header may contain


class _Interrupted(Exception):
    """The server sent less than the complete file. Another request may bring the rest."""


class _Metered(RawIOBase):
    """All that a server sends, unless it is too slow."""

    def __init__(self, raw: Any) -> None:
        self.raw, self.began, self.received = raw, float("inf"), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self.raw.readinto(buffer)
        self.began, self.received = min(self.began, time.monotonic()), self.received + count
        if time.monotonic() > self.began + PERIOD:
            if self.received < SLOWEST * PERIOD:
                raise UserError(f"the server sends less than {SLOWEST} bytes per second; try later, or another way")
            self.began, self.received = time.monotonic(), 0
        return count


class _Answer(HTTPResponse):
    """An answer that is metered, from its first byte on."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fp = BufferedReader(_Metered(self.fp.detach()))


class _Web(HTTPHandler, HTTPSHandler, FTPHandler):
    """Opens addresses of the web only; urllib follows redirects to FTP, too."""

    def do_open(self, http_class: Any, req: Request, **options: Any) -> Any:
        metered: Any = type("Metered", (http_class,), {"response_class": _Answer})
        return super().do_open(metered, req, **options)

    def ftp_open(self, req: Request) -> Any:
        raise UserError(f"the server leads to {req.full_url}, which is no address of the web")


urlopen = build_opener(_Web).open


def download(name: str, folder: str | Path = FOLDER, url: str | None = None) -> Path:
    """Download an official checkpoint, unless it is already there.

    An interrupted download resumes; see :func:`fetch_file`.

    Args:
        name: Checkpoint name, a key of ``CHECKPOINTS``.
        url: HTTP(S) address to download from instead of the official one.
    """
    if name not in CHECKPOINTS:
        raise UserError(f"no checkpoint is called {name!r}; choose one of {', '.join(CHECKPOINTS)}")
    checkpoint = CHECKPOINTS[name]
    target = Path(folder) / checkpoint.file_name
    is_new = not target.exists()
    fetch_file(url or checkpoint.url, target, _check_checkpoint, "a checkpoint")
    if is_new:
        _compare_with_public_copies(target, checkpoint)
    return target


def _compare_with_public_copies(path: Path, checkpoint: Checkpoint) -> None:
    """Say where a file differs from the public copies of it, and keep it: its authors may have published another."""
    if checkpoint.sha256 is None:
        return
    found = path.stat().st_size, sha256(path)
    if found != (checkpoint.size, checkpoint.sha256):
        warnings.warn(
            f"{path} has {found[0]} bytes and the SHA-256 {found[1]}, public copies have {checkpoint.size} and "
            f"{checkpoint.sha256}: delete it and download it again, unless you know why",
            UserNotice,
            stacklevel=3,
        )


def _check_checkpoint(path: Path) -> None:
    from no_time_to_train.networks.checkpoints import read_checkpoint  # needs torch, which other downloads do not

    read_checkpoint(path)
    if is_zipfile(path):
        with ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise UserError(f"{path} is damaged: the checksum of {broken} is another")


def fetch_file(url: str, target: Path, check: Callable[[Path], object], kind: str) -> Path:
    """Download a file, unless it is already there.

    The received bytes are kept in ``<target>.part``, and the server's tag for this version of the file in
    ``<target>.etag``. With them, this call or a later one resumes an interrupted download. A second process that
    downloads the same file waits for the first one. On success, ``target`` is all that remains.

    Args:
        url: HTTP(S) address.
        target: Where to put the file. Its folder is created if it does not exist.
        check: Opens a file, and raises a UserError if it is incomplete or not what it should be.
        kind: What ``check`` expects, for messages, such as "a checkpoint".

    Returns:
        ``target``.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"cannot download {url!r}: the address must begin with http:// or https://")
    part, etag = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.etag")
    try:
        if not _is_there(target, check):
            with new_folder(target.parent), _exclusive(target):
                if not _is_there(target, check):  # another process may have downloaded it while this one waited
                    for path in (part, etag):
                        if path.is_symlink() or (path.exists() and not path.is_file()):
                            raise UserError(f"cannot write {path}: it is a link or no file: delete it")
                    try:
                        _fetch(url, part, etag, target)
                        _check_or_delete(check, part, url, target, kind)
                        replace_durably(part, target)
                    finally:
                        _remove_useless(part, etag)
                    print(f"{target} is complete")
        else:
            with suppress(OSError):  # a process that was killed after the rename has left the tag
                _remove_useless(part, etag)
    except OSError as error:
        file = error.filename or target  # it may be what an earlier download of another user has left
        advice = "free some space, delete that file, or choose another folder"
        raise UserError(f"cannot write {file}: {error.strerror}; {advice}") from error
    return target


def _is_there(target: Path, check: Callable[[Path], object]) -> bool:
    """Whether ``target`` exists and passes the check."""
    if not target.exists():
        return False
    check_readable(target)
    try:
        check(target)
    except UserError as error:
        raise UserError(f"{error}; delete this file and run the same command again") from error
    print(f"{target} is already there")
    return True


def _check_or_delete(check: Callable[[Path], object], part: Path, url: str, target: Path, kind: str) -> None:
    """Check a complete download, and delete it if it does not pass."""
    try:
        check(part)
    except UserError as error:
        size = part.stat().st_size
        part.unlink()
        raise UserError(
            f"the {size} bytes from {url} do not open as {kind} and were deleted; "
            f"run the same command again, or download the file another way and save it as {target}"
        ) from error


def _remove_useless(part: Path, etag: Path) -> None:
    """Remove an empty ``part``, and the tag of a ``part`` that does not exist."""
    if part.exists() and part.stat().st_size == 0:
        part.unlink()
    if not part.exists():
        etag.unlink(missing_ok=True)


@contextmanager
def _exclusive(target: Path) -> Iterator[None]:
    """Let one process at a time download ``target``."""
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"another process is downloading {target}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        # A process that locks the removed file finds the target complete, or else notices that the file is gone and
        # locks a new one. Old versions of filelock (3.16) may miss that. Then two processes can write the same part,
        # which the comparison of its size with the server's reveals.
        with suppress(OSError):  # Windows does not remove an open file, but filelock removes it there
            path.unlink()
        lock.release()


def _fetch(url: str, part: Path, etag: Path, target: Path) -> None:
    """Complete ``part`` from ``url``, in as many requests as bring new bytes."""
    most = failures = 0
    while True:
        try:
            _request(url, part, etag, target)
            return
        except _Interrupted as error:
            size, version = _begun(part, etag)
            failures = 1 if size > most else failures + 1
            most = max(most, size)
            if failures == ATTEMPTS:
                kept = " (the bytes received so far are kept)" if version else ""
                raise UserError(
                    f"cannot download {url}: {error}; check the connection and run the same command again{kept}, "
                    f"or download the file another way and save it as {target}"
                ) from error
            pause = PAUSE * 2 ** (failures - 1)
            print(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)


def _begun(part: Path, etag: Path) -> tuple[int, str]:
    """How many bytes there are, and of which version of the file: nothing where they cannot be resumed."""
    have = part.stat().st_size if part.exists() else 0
    return have, _valid_version(etag.read_text("ascii", "replace")) if have and etag.exists() else ""


def _request(url: str, part: Path, etag: Path, target: Path) -> None:
    """Append to ``part`` the bytes that it lacks, or replace its content if the server cannot resume."""
    have, version = _begun(part, etag)
    headers = {"User-Agent": "no-time-to-train"}
    if version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    with _network(url):
        try:
            response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            if error.code >= 500:
                raise _Interrupted(f"the server answered {_answer(error)}") from error
            if error.code != 416:
                raise UserError(
                    f"the server answered {_answer(error)}; download the file another way and save it as {target}"
                ) from error
            response = error  # the server has no bytes after those in ``part``
    with response, part.open("ab") as file:
        span = RANGE.fullmatch(response.headers.get("Content-Range", ""))
        begin, total = (int(span[1] or span[2]), int(span[2])) if span else (None, None)
        if response.status == 200:
            if response.headers.get_content_type() == "text/html":
                raise UserError(
                    f"cannot download {url}: a web page came instead of the file; if your network asks for a login "
                    "or a proxy, see to that and run the same command again"
                )
            have, total = 0, None if response.length is None else min(response.length, 10**18)
            file.truncate(0)
            etag.write_text(_version(response.headers), "ascii")
        elif (changed := _version(response.headers) not in ("", version)) or begin != have:
            file.truncate(0)
            reason = "the file on the server has changed since the download began"
            raise _Interrupted(reason if changed else f"the server does not go on at byte {have}")
        if total is not None and shutil.disk_usage(target.parent).free < total - have:
            raise UserError(
                f"no space for {(total - have) / 1e6:.0f} MB in {target.parent}; "
                "free some space or choose another folder"
            )
        with tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=target.name) as bar:
            left = CHUNK if total is None else total - have
            while response.status != 416 and left > 0:
                with _network(url):
                    block = response.read1(min(CHUNK, left))
                if not block:
                    break
                bar.update(file.write(block))
                left -= len(block) if total is not None else 0
        file.flush()
        sync(file.fileno(), part)
    size = part.stat().st_size
    if total is not None and size != total:
        raise _Interrupted(f"the connection ended after {size} of {total} bytes")


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Raise any failure of the connection as _Interrupted, so that every other OSError is one of the disk."""
    try:
        yield
    except UserError as error:
        raise UserError(f"cannot download {url}: {error}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, SSLCertVerificationError):  # it is not another one at the next try
            advice = "is the clock right, and does SSL_CERT_FILE name the authority of a proxy of yours?"
            raise UserError(f"cannot download {url}: {reason.verify_message}; {advice}") from error
        asked = Request(url)
        proxy = "" if proxy_bypass(asked.host) else getproxies().get(asked.type, "").rpartition("@")[2]  # no password
        raise _Interrupted(f"the connection{' to the proxy ' * bool(proxy)}{proxy} failed ({reason!r})") from error
    except ValueError as error:
        raise UserError(f"cannot download {url}: the address is not valid ({one_line(error)})") from error


def _answer(error: HTTPError) -> str:
    """A server's answer in one line, such as ``HTTP 404 Not Found``."""
    return f"HTTP {error.code} {one_line(' '.join(str(error.reason).split()))}"


def _version(headers: Message) -> str:
    """What If-Range may name: the strong ETag, or else the date of the last change, or else nothing."""
    tag = str(headers.get("ETag", ""))
    return _valid_version(tag if tag and not tag.startswith("W/") else str(headers.get("Last-Modified", "")))


def _valid_version(version: str) -> str:
    """A version that a header may contain; nothing in the place of any other."""
    return version if VERSION.fullmatch(version) else ""
