"""Downloads from a local server that behaves well or in many ways badly: resumed, checked, atomic, one at a time."""

import errno
import hashlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.networks import download as module
from no_time_to_train.networks.checkpoints import read_checkpoint
from no_time_to_train.networks.download import download
from no_time_to_train.networks.registry import CHECKPOINTS, download_command, list_checkpoints
from tests.conftest import Capture, Patch
from tests.web import serving

NAME = "sam2_hiera_tiny"
FILE = "sam2_hiera_tiny.pt"


def checkpoint(seed: int) -> bytes:
    """A real checkpoint of about 80 kB."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.arange(20_000.0) + seed}, buffer)
    return buffer.getvalue()


@dataclass
class Site:
    """What the server sends, how it misbehaves, and what it was asked for.

    Attributes:
        url: Address of the file.
        content: The file.
        content_type: Its Content-Type.
        etag: Its ETag.
        statuses: Errors that answer the first requests.
        cuts: Bytes after which the first bodies are cut off.
        supports_if_range: Whether If-Range is obeyed.
        shift: How many bytes too late the server goes on with a file.
        missing: Bytes that Content-Length claims in addition to those sent.
        gate: The server waits for this event in the middle of a body.
        ranges: The Range header of each request so far.
    """

    url: str = ""
    content: bytes = field(default_factory=lambda: checkpoint(0))
    content_type: str = "application/octet-stream"
    etag: str = '"one"'
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    supports_if_range: bool = True
    shift: int = 0
    missing: int = 0
    gate: threading.Event | None = None
    ranges: list[str | None] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        if self.statuses:
            return request.send_error(self.statuses.pop(0))
        begin, total = 0, len(self.content) + self.missing
        fresh = request.headers.get("If-Range") == self.etag or not self.supports_if_range
        if asked and fresh:
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + self.shift
            span = f"{begin}-{total - 1}" if begin < total else "*"
            request.send_response(206 if begin < total else 416)
            request.send_header("Content-Range", f"bytes {span}/{total}")
        else:
            request.send_response(200)
        request.send_header("Content-Type", self.content_type)
        request.send_header("Content-Length", str(total - begin))
        request.send_header("ETag", self.etag)
        request.end_headers()
        body = self.content[begin:][: self.cuts.pop(0) if self.cuts else None]
        request.wfile.write(body[: len(body) // 2])
        if self.gate:
            self.gate.wait(5)
        with suppress(ConnectionError):  # the client may have disconnected while the server waited
            request.wfile.write(body[len(body) // 2 :])  # HTTP/1.0 then closes the connection


@pytest.fixture
def site(monkeypatch: Patch) -> Iterator[Site]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    site = Site()
    with serving(site.answer) as address:
        site.url = f"{address}/{FILE}"
        yield site


def begin(site: Site, folder: Path, size: int, monkeypatch: Patch) -> None:
    """Leave the first ``size`` bytes in the folder, as a failed download does."""
    site.cuts = [size]
    with monkeypatch.context() as patch:
        patch.setattr(module, "ATTEMPTS", 1)
        with pytest.raises(UserError, match="received so far are kept"):
            download(NAME, folder, site.url)
    assert (folder / f"{FILE}.part").stat().st_size == size
    assert not (folder / FILE).exists()
    site.ranges.clear()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_shows_its_progress_and_leaves_only_the_checkpoint(
    site: Site, tmp_path: Path, capsys: Capture
) -> None:
    path = download(NAME, tmp_path / "new" / "folder", site.url)
    assert path == tmp_path / "new" / "folder" / FILE
    assert path.read_bytes() == site.content
    assert torch.equal(read_checkpoint(path)["weight"], torch.arange(20_000.0))
    assert names(path.parent) == [FILE]
    bar = capsys.readouterr().err
    assert all(part in bar for part in (FILE, "100%", "B/s"))


def test_an_interrupted_download_resumes_as_often_as_it_brings_new_bytes(site: Site, tmp_path: Path) -> None:
    site.cuts = [10_000] * 7
    assert download(NAME, tmp_path, site.url).read_bytes() == site.content
    assert site.ranges == [None, *(f"bytes={10_000 * n}-" for n in range(1, 8))]
    assert len(site.ranges) > module.ATTEMPTS


def test_a_stalled_connection_counts_as_interrupted(site: Site, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    site.gate = threading.Event()
    with pytest.raises(UserError, match="timed out"):
        download(NAME, tmp_path, site.url)
    site.gate.set()


OTHER = {"content": checkpoint(1), "etag": '"two"'}
OTHER_VERSION = {**OTHER, "supports_if_range": False}


@pytest.mark.parametrize(
    ("change", "requests"), [({}, ["bytes=40000-"]), (OTHER_VERSION, ["bytes=40000-", None]), (OTHER, ["bytes=40000-"])]
)
def test_a_later_call_resumes_an_earlier_download_but_joins_no_parts_of_two_versions(
    site: Site, tmp_path: Path, monkeypatch: Patch, change: dict[str, Any], requests: list[str | None]
) -> None:
    begin(site, tmp_path, 40_000, monkeypatch)
    vars(site).update(change)
    assert download(NAME, tmp_path, site.url).read_bytes() == site.content
    assert site.ranges[:1] == requests[:1]
    assert names(tmp_path) == [FILE]


def test_a_server_that_goes_on_elsewhere_is_asked_for_the_whole_file(
    site: Site, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    begin(site, tmp_path, 40_000, monkeypatch)
    site.shift, site.cuts = 10, [1000] * 10
    with pytest.raises(UserError, match=r"the server does not go on at byte 1000; .* same command again, or"):
        download(NAME, tmp_path, site.url)
    assert names(tmp_path) == [], "no bytes are kept, and none are said to be"
    site.cuts = [40_000]
    assert download(NAME, tmp_path, site.url).read_bytes() == site.content
    assert site.ranges[-3:] == [None, "bytes=40000-", None]
    assert "has changed" not in capsys.readouterr().out


@pytest.mark.parametrize("more", [b"", b"more"])
def test_a_complete_part_is_put_in_place_and_one_longer_than_the_file_is_discarded(
    site: Site, tmp_path: Path, more: bytes
) -> None:
    (tmp_path / f"{FILE}.part").write_bytes(site.content + more)
    (tmp_path / f"{FILE}.etag").write_text(site.etag)
    assert download(NAME, tmp_path, site.url).read_bytes() == site.content
    assert site.ranges[0] == f"bytes={len(site.content + more)}-"  # answered 416
    assert len(site.ranges) == 1 + bool(more)


def test_a_web_page_leaves_no_file_and_keeps_the_part(site: Site, tmp_path: Path, monkeypatch: Patch) -> None:
    begin(site, tmp_path, 40_000, monkeypatch)
    site.content, site.content_type, site.etag = b"<html>Please log in</html>", "text/html; charset=utf-8", '"page"'
    with pytest.raises(UserError, match="a web page came instead of the file; if your network asks for a login"):
        download(NAME, tmp_path, site.url)
    assert names(tmp_path) == [f"{FILE}.etag", f"{FILE}.part"]
    assert (tmp_path / f"{FILE}.part").stat().st_size == 40_000


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"content": b"<html>Not a checkpoint</html>"}, "29 bytes .* do not open as a checkpoint and were deleted"),
        ({"content": b""}, "0 bytes .* do not open as a checkpoint and were deleted"),
        ({"content": checkpoint(0)[:9999]}, "9999 bytes .* do not open as a checkpoint and were deleted"),
        ({"missing": -1000}, "do not open as a checkpoint"),  # the Content-Length is too small
        ({"statuses": [404]}, f"HTTP 404 .*download the file another way and save it as .*{FILE}$"),
        ({"url": "http://127.0.0.1:9/x.pt"}, "Connection refused.*check the connection"),
        ({"url": "file:///x.pt"}, "must begin with http"),
    ],
)
def test_what_is_no_checkpoint_leaves_no_file_and_is_not_asked_for_again(
    site: Site, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    vars(site).update(change)
    with pytest.raises(UserError, match=complaint) as caught:
        download(NAME, tmp_path, site.url)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []
    assert len(site.ranges) <= 1


def test_a_server_error_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 500]
    assert download(NAME, tmp_path, site.url).read_bytes() == site.content


def test_an_existing_file_is_not_downloaded_again(site: Site, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / FILE).write_bytes(checkpoint(7))
    (tmp_path / f"{FILE}.etag").write_text(site.etag)  # of a process that was killed when all was done
    assert download(NAME, tmp_path, site.url).read_bytes() == checkpoint(7)
    assert (site.ranges, names(tmp_path)) == ([], [FILE])
    assert "is already there" in capsys.readouterr().out


def test_a_broken_existing_file_is_reported_and_not_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(site.content[:5000])
    with pytest.raises(UserError, match="delete this file and run the same command again"):
        download(NAME, tmp_path, site.url)
    assert (tmp_path / FILE).stat().st_size == 5000


def test_a_full_disk_is_noticed_before_the_download(site: Site, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"no space for .* free some space or choose another folder"):
        download(NAME, tmp_path, site.url)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_created_is_reported(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file.*choose another folder"):
        download(NAME, tmp_path / "file", site.url)


def test_a_part_that_another_user_left_is_named(site: Site, tmp_path: Path, monkeypatch: Patch) -> None:
    part = str(tmp_path / f"{NAME}.pt.part")
    refused = PermissionError(errno.EACCES, "Permission denied", part)
    monkeypatch.setattr(module, "_fetch", Mock(side_effect=refused))
    with pytest.raises(
        UserError, match=rf"cannot write {re.escape(part)}: Permission denied; free some space, delete that file"
    ):
        download(NAME, tmp_path, site.url)


def test_of_two_downloads_at_once_the_second_waits(site: Site, tmp_path: Path, capsys: Capture) -> None:
    site.gate = threading.Event()
    with ThreadPoolExecutor(2) as pool:  # the lock excludes threads in the same way as processes
        both = [pool.submit(download, NAME, tmp_path, site.url) for _ in range(2)]
        threading.Timer(0.3, site.gate.set).start()
        paths = [one.result(timeout=10) for one in both]
    assert paths == [tmp_path / FILE] * 2
    assert paths[0].read_bytes() == site.content
    assert len(site.ranges) == 1
    assert names(tmp_path) == [FILE]
    assert "waiting for it" in capsys.readouterr().out


def test_when_the_first_download_fails_the_waiting_one_continues(site: Site, tmp_path: Path) -> None:
    good, site.content, site.gate = site.content, b"junk", threading.Event()

    def repair() -> None:
        site.content = good
        site.gate.set()

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(download, NAME, tmp_path, site.url) for _ in range(2)]
        threading.Timer(0.3, repair).start()
        errors = [one.exception(timeout=10) for one in both]
    assert [type(error) for error in errors if error] == [UserError]
    assert (tmp_path / FILE).read_bytes() == good
    assert names(tmp_path) == [FILE]


def test_the_list_names_every_checkpoint_once() -> None:
    lines = list_checkpoints().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CHECKPOINTS)
    assert "dinov2_vitl14            1218 MB  DINOv2 ViT-L/14" in lines
    assert len({one.url for one in CHECKPOINTS.values()}) == len({one.file_name for one in CHECKPOINTS.values()}) == 19


def test_an_official_file_has_a_command_that_downloads_it() -> None:
    assert download_command("checkpoints/dinov2_vitl14_pretrain.pth") == "no-time-to-train download dinov2_vitl14"
    command = "no-time-to-train download sam2.1_hiera_base_plus --folder '/my data'"
    assert download_command("/my data/sam2.1_hiera_base_plus.pt") == command
    assert download_command("checkpoints/my_own.pt") is None


@pytest.mark.parametrize("differs", [False, True])
def test_a_file_that_differs_from_the_public_copies_is_kept_with_a_notice(
    site: Site, tmp_path: Path, monkeypatch: Patch, differs: bool
) -> None:
    digest = hashlib.sha256(site.content).hexdigest()
    known = replace(CHECKPOINTS[NAME], size=len(site.content), sha256="0" * 64 if differs else digest)
    monkeypatch.setitem(CHECKPOINTS, NAME, known)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = download(NAME, tmp_path, site.url)
    assert path.read_bytes() == site.content
    texts = [str(one.message) for one in caught if issubclass(one.category, UserNotice)]
    assert len(texts) == differs
    assert all(digest in text and "0" * 64 in text for text in texts)
