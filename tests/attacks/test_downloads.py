"""Servers and left files that lie about a download: it ends with the file or with an error of one line, and stops."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch

from no_time_to_train.errors import UserError
from no_time_to_train.networks import download as module
from no_time_to_train.networks.download import fetch_file
from tests.web import serving

CONTENT = bytes(range(256)) * 8


@dataclass
class Answers:
    """What the server sends, as raw bytes, to the first and to each further request."""

    url: str = ""
    first: bytes = b""
    later: bytes | None = None
    requests: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        content = self.first if not self.requests or self.later is None else self.later
        self.requests.append(str(request.headers))
        with suppress(ConnectionError):
            request.wfile.write(content)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "TIMEOUT", 2.0)
    answers = Answers()
    with serving(answers.answer) as address:
        answers.url = f"{address}/file"
        yield answers


def response(*headers: bytes, status: bytes = b"200 OK", body: bytes = CONTENT) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


def check(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise UserError("it is not the file")


def fetch(answers: Answers, target: Path) -> bytes:
    return fetch_file(answers.url, target, check, "the file").read_bytes()


#: Answers that are odd, but deliver the complete file.
COMPLETE: dict[str, bytes] = {
    "no Content-Length": response(),
    "Content-Length is a text": response(b"Content-Length: many"),
    "Content-Length is negative": response(b"Content-Length: -1"),
    "Content-Length has 5,000 digits": response(b"Content-Length: " + b"9" * 5000),
    "ETag in two lines": response(b'ETag: "a', b' b"', b"Content-Length: 2048"),
    "ETag of bytes": response(b'ETag: "\xff\xfe\x80"', b"Content-Length: 2048"),
    "ETag of 60,000 characters": response(b'ETag: "' + b"a" * 60_000 + b'"', b"Content-Length: 2048"),
    "ETag without quotes": response(b"ETag: one", b"Content-Length: 2048"),
    "Content-Type is broken": response(b"Content-Type: ;;;=", b"Content-Length: 2048"),
    "Content-Range in a complete answer": response(b"Content-Range: bytes 7-9/10", b"Content-Length: 2048"),
    "Last-Modified of bytes": response(b"Last-Modified: \xff\xfe", b"Content-Length: 2048"),
    "an older HTTP": response(b"Content-Length: 2048").replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("answer", COMPLETE.values(), ids=COMPLETE.keys())
def test_an_odd_answer_with_the_file_is_enough(answer: bytes, answers: Answers, tmp_path: Path) -> None:
    answers.first = answer
    assert fetch(answers, tmp_path / "file") == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


HALF = CONTENT[:1024]
PARTIAL = b"206 Partial Content"
TAG = b'ETag: "one"'

#: After half of the file came: answers to the request for the other half that lead to the file in the end.
RESUMED: dict[str, bytes] = {
    "the other half": response(TAG, b"Content-Range: bytes 1024-2047/2048", status=PARTIAL, body=CONTENT[1024:]),
    "all of it": response(TAG, b"Content-Length: 2048"),
    "another version": response(b'ETag: "two"', b"Content-Length: 2048"),
}


@pytest.mark.parametrize("answer", RESUMED.values(), ids=RESUMED.keys())
def test_half_a_file_is_completed_or_replaced(answer: bytes, answers: Answers, tmp_path: Path) -> None:
    answers.first, answers.later = response(TAG, b"Content-Length: 2048", body=HALF), answer
    assert fetch(answers, tmp_path / "file") == CONTENT
    assert "bytes=1024-" in answers.requests[1]


#: Answers that never lead to the file.
REFUSED: dict[str, tuple[bytes, str]] = {
    "not HTTP": (b"220 ftp.example.org ready\r\n", "the connection failed"),
    "nothing": (b"", "the connection failed"),
    "a header line of 100 kB": (response(b"X: " + b"a" * 100_000), "the connection failed"),
    "a thousand headers": (response(*[b"X: a"] * 1000), "the connection failed"),
    "Content-Length of 10**30": (response(b"Content-Length: 1" + b"0" * 30), "no space"),
    "Content-Length of 400 digits": (response(b"Content-Length: " + b"9" * 400), "no space"),
    "Content-Length too large": (response(b"Content-Length: 4096"), "ended after 2048 of 4096"),
    "a chunk of a broken length": (response(b"Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n"), "connection failed"),
    "a part that was not asked for": (response(b"Content-Range: bytes 9-99/100", status=PARTIAL), "has changed"),
    "a part of a broken range": (response(b"Content-Range: bytes x-y/z", status=PARTIAL), "has changed"),
    "a part of 5,000 digits": (response(b"Content-Range: bytes 0-1/" + b"9" * 5000, status=PARTIAL), "has changed"),
    "a part without a range": (response(status=PARTIAL), "has changed"),
    "no content": (response(status=b"204 No Content", body=b""), "has changed"),
    "a reason with an escape sequence": (response(status=b"403 \x1b[2J\x07go away"), "HTTP 403"),
    "a redirect to itself": (response(b"Location: /file", status=b"302 Found"), "HTTP 302"),
    "a redirect to a file": (response(b"Location: file:///etc/passwd", status=b"302 Found"), "HTTP 302"),
    "a redirect to a broken address": (response(b"Location: http://[::1", status=b"302 Found"), "cannot download"),
    "a redirect to nowhere": (response(status=b"302 Found"), "HTTP 302"),
    "a login page": (response(b"Content-Type: text/html"), "a web page came"),
    "another file": (response(body=b"something else"), "do not open as the file"),
}


@pytest.mark.parametrize(("answer", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_an_answer_without_the_file_is_an_error(
    answer: bytes, complaint: str, answers: Answers, tmp_path: Path
) -> None:
    answers.first = answer
    with pytest.raises(UserError) as caught:
        fetch(answers, tmp_path / "file")
    assert complaint in str(caught.value)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "file").exists()


def test_a_body_that_exceeds_its_range_is_not_written(answers: Answers, tmp_path: Path) -> None:
    """The server promises 1,024 bytes and sends without an end, as far as the test can."""
    answers.first = response(TAG, b"Content-Length: 2048", body=HALF)
    answers.later = response(TAG, b"Content-Range: bytes 1024-2047/2048", status=PARTIAL, body=CONTENT[1024:] * 999)
    assert fetch(answers, tmp_path / "file") == CONTENT


#: The tags that an earlier download left with half of the file.
LEFT: dict[str, bytes | None] = {
    "no file": None,
    "bytes": b"\xff\xfe\x00",
    "line breaks": b'"one"\r\nX-Evil: yes\r\n',
    "letters of other scripts": '"één"'.encode(),
    "nothing": b"",
    "a megabyte": b"a" * 2**20,
}


@pytest.mark.parametrize("tag", LEFT.values(), ids=LEFT.keys())
def test_a_broken_tag_of_an_earlier_download_starts_again(tag: bytes | None, answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(HALF)
    if tag is not None:
        (tmp_path / "file.etag").write_bytes(tag)
    answers.first = response(TAG, b"Content-Length: 2048")
    assert fetch(answers, tmp_path / "file") == CONTENT
    assert "Evil" not in answers.requests[0]
    assert "Range" not in answers.requests[0]


@pytest.mark.parametrize("name", ["file.part", "file.etag", "file"])
def test_a_folder_in_the_place_of_a_file_is_reported(name: str, answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(HALF)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    answers.first = response(TAG, b"Content-Length: 2048")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        fetch(answers, tmp_path / "file")


@pytest.mark.parametrize("host", ["", "[::1", "a b", "127.0.0.1:port", "127.0.0.1:99999", "a..b", "127.0.0.1:9/é"])
def test_a_broken_address_is_reported(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with pytest.raises(UserError, match="cannot download"):
        fetch_file(f"http://{host}/x", tmp_path / "file", check, "the file")


@pytest.mark.parametrize("ending", ["part", "etag"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_in_the_way_of_a_download_is_refused_and_stays(
    ending: str, kind: str, answers: Answers, tmp_path: Path
) -> None:
    answers.first = response(b'ETag: "a"', b"Content-Length: 2048")
    path, other = tmp_path / f"file.{ending}", tmp_path / "other"
    other.write_bytes(b"mine")
    path.symlink_to(other) if kind == "link" else os.mkfifo(path)
    with pytest.raises(UserError, match=rf"cannot write .*file\.{ending}: it is a link or no file: delete it"):
        fetch(answers, tmp_path / "file")
    assert other.read_bytes() == b"mine"
    assert not answers.requests


def test_a_server_that_sends_nearly_nothing_is_left(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOWEST", float("inf"))
    monkeypatch.setattr(module, "PERIOD", 1e-9)
    answers.first = response(b'ETag: "a"', b"Content-Length: 2048")
    with pytest.raises(UserError, match="the server sends less than inf bytes per second; try later"):
        fetch(answers, tmp_path / "file")


def test_a_checkpoint_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(9).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: the checksum of weights/data/0 is another"):
        module._check_checkpoint(path)
