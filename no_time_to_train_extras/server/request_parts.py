"""What the servers of this package do with a request: take it part by part, and refuse it in one line."""

import asyncio
import hmac
import os
import time
from collections import deque
from typing import Any

import uvicorn.config
from fastapi import HTTPException  # which its routes let pass, unlike that of Starlette
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from no_time_to_train.errors import one_line

#: Seconds that a request may take before its first bytes count, and bytes per second from then on.
PATIENCE, SLOWEST = 10.0, 10_000

#: Characters of a message: it may quote what it was sent.
LONGEST = 300

#: Wrong passwords of a client that are answered in this many seconds.
GUESSES, WHILE = 10, 60.0


async def next_part(receive: Any, begin: float, received: int) -> tuple[Any, int, bool]:
    """Receive the next part of a request.

    Args:
        begin: When the request began, as of ``time.monotonic``.
        received: The bytes of it so far.

    Returns:
        The part, its bytes, and whether it is the last one.

    Raises:
        HTTPException: 408 where the request is sent too slowly.
    """
    try:
        part = await asyncio.wait_for(receive(), begin + PATIENCE + received / SLOWEST - time.monotonic())
    except asyncio.TimeoutError:
        raise HTTPException(408, "the request was sent too slowly") from None
    return part, len(part.get("body", b"")), not part.get("more_body")


def refusal(reason: str) -> dict[str, str]:
    """The content of the answer to a request that is refused, in one line."""
    return {"detail": one_line(reason)[:LONGEST]}


class Guesses:
    """The wrong passwords of the last minute, each as its time and its client's address."""

    def __init__(self) -> None:
        self.wrong: deque[tuple[float, str]] = deque(maxlen=10_000)

    def check(self, client: str) -> None:
        """Refuse a client that has sent too many.

        Raises:
            HTTPException: 429.
        """
        while self.wrong and self.wrong[0][0] < time.monotonic() - WHILE:
            self.wrong.popleft()
        if sum(one == client for _, one in self.wrong) >= GUESSES:
            raise HTTPException(429, "too many wrong passwords: wait a minute", {"retry-after": "60"})

    def add(self, client: str) -> None:
        """Count a wrong one."""
        self.wrong.append((time.monotonic(), client))

    def take_back(self, client: str) -> None:
        """Count one wrong one less."""
        if last := next((one for one in reversed(self.wrong) if one[1] == client), None):
            self.wrong.remove(last)

    def is_right(self, client: str, given: str, expected: str) -> bool:
        """Whether a client has sent the right password or token; one that is wrong and not empty counts.

        Raises:
            HTTPException: 429.
        """
        self.check(client)
        right = hmac.compare_digest(given.encode(), expected.encode())
        if given and not right:
            self.add(client)
        return right


class ImpatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # uvicorn chooses the class when it runs
    """HTTP as uvicorn speaks it, to clients that do not take more than ``PATIENCE`` seconds for the headers."""

    def connection_made(self, transport: Any) -> None:
        """Begin to watch a client."""
        super().connection_made(transport)
        self.loop.call_later(PATIENCE, self.look, None)

    def look(self, before: Any) -> None:
        """End the connection where no request has begun since the last look, when none was being answered."""
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self.cycle is before:
            self.transport.close()
        elif not self.transport.is_closing():
            self.loop.call_later(PATIENCE, self.look, self.cycle if waits else self)


def guard_clients() -> None:
    """Have the servers that uvicorn runs in this process use :class:`ImpatientProtocol`, and a client's own address.

    uvicorn takes it from ``X-Forwarded-For``, which a program on this computer that guesses passwords can send, too.
    """
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")  # uvicorn's variable: the proxies that are trusted
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{ImpatientProtocol.__name__}"
