"""Servers and left files that lie about a download: it ends with the file or with an error of one line, and stops."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch

from no_time_to_train.errors import UserError
from no_time_to_train.networks import download as module
from no_time_to_train.networks.download import fetch_file
from tests.attacks.test_cases import cases_in
from tests.conftest import Capture, Patch
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
def answers(monkeypatch: Patch) -> Iterator[Answers]:
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


def answer_of(case: dict[str, Any]) -> bytes:
    """The bytes of an answer; a header may repeat a text: [before, text, times, after]."""
    if "raw" in case:
        return case["raw"].encode("latin-1")
    headers = [one if isinstance(one, str) else one[0] + one[1] * one[2] + one[3] for one in case.get("headers", [])]
    lines = [one.encode("latin-1") for one in headers * case.get("times", 1)]
    body = case["body"].encode() if "body" in case else CONTENT
    made = response(*lines, status=case.get("status", "200 OK").encode(), body=body)
    return made.replace(b"HTTP/1.1", case.get("http", "HTTP/1.1").encode())


#: Answers that are odd, but deliver the complete file, and those that never lead to it.
CASES = [pytest.param(case, id=case["case"]) for case in cases_in("downloads")]


@pytest.mark.parametrize("case", CASES)
def test_an_odd_answer_is_enough_or_an_error(case: dict[str, Any], answers: Answers, tmp_path: Path) -> None:
    answers.first = answer_of(case)
    if "refused" not in case:
        assert fetch(answers, tmp_path / "file") == CONTENT
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        return
    with pytest.raises(UserError, match=re.escape(case["refused"])) as caught:
        fetch(answers, tmp_path / "file")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "file").exists()


HALF = CONTENT[:1024]
PARTIAL = b"206 Partial Content"
TAG = b'ETag: "one"'


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
    with pytest.raises(UserError, match=r"cannot write .*file|file cannot be read: Is a directory"):
        fetch(answers, tmp_path / "file")


@pytest.mark.parametrize("host", ["", "[::1", "a b", "127.0.0.1:port", "127.0.0.1:99999", "a..b", "127.0.0.1:9/é"])
def test_a_broken_address_is_reported(host: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with pytest.raises(UserError, match="cannot download"):
        fetch_file(f"http://{host}/x", tmp_path / "file", check, "the file")


@pytest.mark.parametrize(("given", "said"), [("http://me:secret@127.0.0.1:9", "127.0.0.1:9"), ("127.0.0.1:9",) * 2])
def test_a_proxy_that_does_not_answer_is_named_without_its_password(
    given: str, said: str, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setenv("https_proxy", given)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(UserError, match=rf"the connection to the proxy {said} failed \(ConnectionRefused") as caught:
        fetch_file("https://localhost:9/x", tmp_path / "file", check, "the file")
    assert "secret" not in f"{caught.value}{capsys.readouterr()}"
    monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(UserError, match=r"the connection failed \(ConnectionRefused"):
        fetch_file("https://localhost:9/x", tmp_path / "file", check, "the file")


@pytest.mark.parametrize("ending", ["part", "etag"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_in_the_way_is_refused_and_stays(ending: str, kind: str, answers: Answers, tmp_path: Path) -> None:
    answers.first = response(b'ETag: "a"', b"Content-Length: 2048")
    path, other = tmp_path / f"file.{ending}", tmp_path / "other"
    other.write_bytes(b"mine")
    path.symlink_to(other) if kind == "link" else os.mkfifo(path)
    with pytest.raises(UserError, match=rf"cannot write .*file\.{ending}: it is a link or no file: delete it"):
        fetch(answers, tmp_path / "file")
    assert other.read_bytes() == b"mine"
    assert not answers.requests


def test_a_very_slow_server_is_left(answers: Answers, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "SLOWEST", float("inf"))
    monkeypatch.setattr(module, "PERIOD", 1e-9)
    answers.first = response(b'ETag: "a"', b"Content-Length: 2048")
    with pytest.raises(UserError, match="the server sends less than inf bytes per second; try later"):
        fetch(answers, tmp_path / "file")


@pytest.mark.parametrize(
    "begun", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;"]
)
def test_a_server_whose_headers_or_chunks_come_byte_by_byte_is_left(
    begun: bytes, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(module, "PERIOD", 0.3)

    def answer(request: BaseHTTPRequestHandler) -> None:
        with suppress(ConnectionError):
            request.wfile.write(begun)
            for _ in range(100):
                request.wfile.write(b"a")
                time.sleep(0.05)

    with serving(answer) as url, pytest.raises(UserError, match="the server sends less than 500 bytes per second"):
        fetch_file(f"{url}/file", tmp_path / "file", check, "the file")


def test_a_redirect_to_ftp_asks_no_ftp_server(answers: Answers, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ftp:
        ftp.settimeout(0)
        answers.first = response(b"Location: ftp://127.0.0.1:%d/file" % ftp.getsockname()[1], status=b"302 Found")
        with pytest.raises(UserError, match=r"cannot download .*: the server leads to ftp://"):
            fetch(answers, tmp_path / "file")
        with pytest.raises(BlockingIOError):
            ftp.accept()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
def test_a_server_whose_certificate_is_not_trusted_is_asked_once_and_sent_nothing(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ["-subj", "/CN=me", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names], check=True, capture_output=True
    )
    context, asked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                asked.append(client)
                with suppress(OSError), client, context.wrap_socket(client, server_side=True) as connection:
                    asked.append(connection.recv(1))

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UserError, match="certificate; is the clock right"):
            fetch_file(f"https://127.0.0.1:{server.getsockname()[1]}/x", tmp_path / "new" / "x", check, "the file")
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(asked) == 1
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(9).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: the checksum of weights/data/0 is another"):
        module._check_checkpoint(path)
