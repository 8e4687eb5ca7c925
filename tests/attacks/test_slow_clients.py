"""Clients that send a request byte by byte: the servers end them, and answer the others meanwhile."""

import socket
import threading
import time

import pytest

from tests.conftest import Patch

uvicorn = pytest.importorskip("uvicorn")


async def answer(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["first request", "second request"])
def test_a_client_that_sends_headers_byte_by_byte_is_ended(begun: bytes, monkeypatch: Patch) -> None:
    from no_time_to_train_extras.server import request_parts

    monkeypatch.setattr(request_parts, "PATIENCE", 0.3)
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    request_parts.guard_clients()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(answer, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    with socket.create_connection(listener.getsockname(), timeout=5) as slow:
        slow.sendall(begun)
        assert not begun or slow.recv(1000).startswith(b"HTTP/1.1 204")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_slowly(slow)
    with socket.create_connection(listener.getsockname(), timeout=5) as other:
        other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert other.recv(1000).startswith(b"HTTP/1.1 204")
    server.should_exit = True
    thread.join(5)


def send_slowly(client: socket.socket) -> None:
    for _ in range(400):
        client.sendall(b"G")
        time.sleep(0.05)
