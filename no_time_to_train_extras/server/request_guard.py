"""What stands between the network and the API: who is answered, how much is accepted, and what is counted."""

import re
import time
from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from typing import Any

import fastapi
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from no_time_to_train_extras.server.addresses import HEADERS, foreign_reason
from no_time_to_train_extras.server.request_parts import Guesses, next_part, refusal

#: Where no token is needed: nothing there tells anything of a memory or an image.
OPEN = ("/", "/health", "/openapi.json")

#: Bytes of all requests together that are not answered yet.
MOST_BYTES = 2**30

#: Upper ends of the ranges of seconds in which answers are counted.
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counts requests, in the text format of Prometheus."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.ranges, self.seconds = [0] * (len(SECONDS) + 1), 0.0

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self.requests[path, status] += 1
        if status == 200:
            self.ranges[bisect_left(SECONDS, seconds)] += 1
            self.seconds += seconds

    def text(self, gauges: dict[str, float]) -> str:
        """All counts, and further values by their names."""
        lines = ["# TYPE no_time_to_train_requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'no_time_to_train_requests_total{{path="{path}",status="{status}"}} {count}')
        name, total = "no_time_to_train_answer_seconds", 0
        lines.append(f"# TYPE {name} histogram")
        for end, count in zip((*SECONDS, "+Inf"), self.ranges, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{end}"}} {total}')
        lines += [f"{name}_sum {self.seconds:.6f}", f"{name}_count {total}"]
        for name, value in gauges.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE no_time_to_train_{name} {kind}", f"no_time_to_train_{name} {value}"]
        return "\n".join(lines) + "\n"


class RequestGuard:
    """An API behind checks of every request.

    Args:
        api: The application.
        host: The address that the server listens on.
        token: What a request must have as ``Authorization: Bearer TOKEN`` or ``Token: TOKEN``; None asks for nothing.
        largest: The most bytes of a request.
        metrics: Where requests are counted.
    """

    def __init__(self, api: ASGIApp, host: str, token: str | None, largest: int, metrics: Metrics) -> None:
        self.api, self.host, self.token, self.largest, self.metrics = api, host, token, largest, metrics
        self.held, self.guesses = 0, Guesses()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self.api(scope, receive, send)
        if scope["method"] == "HEAD":  # as monitors ask; the server leaves out the body of the answer
            scope = {**scope, "method": "GET"}
        body, begin, status = Body(self, receive), time.monotonic(), 500

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if not body.complete and scope["method"] == "POST":  # the rest is not waited for
                    headers["connection"] = "close"
            await send(message)

        try:
            self.check(scope)
            await self.api(scope, body.receive, sending)
        except HTTPException as error:
            await refuse(error)(scope, receive, sending)
        except ClientDisconnect:  # in the middle of its request
            status = 499
        finally:
            self.held -= body.size
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count(route, status, time.monotonic() - begin)

    def check(self, scope: Any) -> None:
        """Refuse a request that another page sent, that has no token, or that is too large."""
        path, headers = scope["path"].removeprefix(scope.get("root_path", "")) or "/", Headers(scope=scope)
        if reason := foreign_reason(headers, self.host, "this server"):
            raise HTTPException(403, reason)
        given = re.sub("^bearer ", "", headers.get("authorization", ""), flags=re.I) or headers.get("token", "")
        with suppress(UnicodeError):  # some clients send UTF-8, others Latin-1, as which headers are read
            given = given.encode("latin-1").decode()
        client = (scope.get("client") or [""])[0]
        if self.token and path not in OPEN and not self.guesses.is_right(client, given, self.token):
            reason = "this needs the token: send Authorization: Bearer TOKEN"
            raise HTTPException(401, reason, {"www-authenticate": "Bearer"})
        size = headers.get("content-length", "0")
        if not size.isdecimal() or int(size) > self.largest:
            raise HTTPException(413, f"a request has at most {self.largest} bytes")


class Body:
    """The body of a request, which is counted as it is received."""

    def __init__(self, guard: RequestGuard, receive: Any) -> None:
        self.guard, self.from_client, self.begin = guard, receive, time.monotonic()
        self.size, self.complete = 0, False

    async def receive(self) -> Any:
        """The next part, unless it is too slow, or there is too much of it."""
        if self.complete:
            return await self.from_client()
        # FastAPI lets its own exceptions pass, but not those of Starlette.
        part, size, self.complete = await next_part(self.from_client, self.begin, self.size)
        self.size += size
        self.guard.held += size
        if self.size > self.guard.largest:
            raise fastapi.HTTPException(413, f"a request has at most {self.guard.largest} bytes")
        if self.guard.held > MOST_BYTES:
            raise fastapi.HTTPException(429, "too many images are being sent: try again later", {"retry-after": "1"})
        return part


def refuse(error: HTTPException) -> JSONResponse:
    """The answer to a request that is refused, in one line."""
    return JSONResponse(refusal(error.detail), error.status_code, error.headers)
