"""What stands between the network and Gradio: who is answered, what is accepted, and what no answer may do."""

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradio.routes import App, ORJSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from no_time_to_train_extras.server.addresses import HEADERS, foreign_reason
from no_time_to_train_extras.server.request_parts import Guesses, next_part, refusal

#: Bytes of a call, and of uploads and pictures in the temporary folder together.
LARGEST_CALL, LARGEST_TEMPORARY = 4 * 2**20, 2 * 2**30

#: Seconds after which an upload and a picture are removed, and those between two looks.
OLD, YOUNG, LOOKS = 600.0, 60.0, 10.0

#: Where calls that wait for no queue would go.
DIRECT = ("/gradio_api/run/", "/gradio_api/api/")

#: The part of the temporary folder that is not removed: one small picture for each photo.
THUMBNAILS = "thumbnails"

#: Where calls are sent to, with values in their order or by name, and files.
CALL, BY_NAME, UPLOAD = "/gradio_api/call/", "/gradio_api/call/v2/", "/gradio_api/upload"

#: Where the addresses of ``serve`` are.
API = "/api"


class GuardedApp(App):
    """Gradio's server behind checks of every request.

    Args:
        host: The address that it listens on.
        temporary: The folder of uploads and pictures.
        check_call: Returns what is wrong with the values of a call of an endpoint; empty where nothing is.
        api: What answers below ``API``, with checks of its own; None for nothing.
    """

    def __init__(
        self, host: str, temporary: Path, check_call: Callable[[str, Any], str], api: ASGIApp | None = None
    ) -> None:
        super().__init__(default_response_class=ORJSONResponse)
        self.address, self.temporary, self.check_call, self.api = host, temporary, check_call, api
        self.guesses = Guesses()
        self.incoming, self.looked = 0, 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            return await super().__call__(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        if self.api is not None and f"{scope['path']}/".startswith(f"{API}/"):
            return await self.api({**scope, "root_path": API}, receive, send)
        request = Request(self, scope, receive, send)
        try:
            self.check(scope["path"], scope["method"], Headers(scope=scope), request.client)
            self.remove_old()
            if scope["method"] == "POST" and scope["path"].startswith(CALL) and not scope["path"].startswith(BY_NAME):
                await request.check_call()
            await super().__call__(scope, request.receive, request.send)
            if not request.answered:
                raise ValueError(scope["path"])
        except Exception as error:  # what the server does not answer itself; it would print a traceback
            await request.fail(error)
        finally:
            self.incoming -= request.uploaded

    def check(self, path: str, method: str, headers: Headers, client: str) -> None:
        """Refuse a request that another page sent, or that guesses passwords."""
        if reason := foreign_reason(headers, self.address, "this app"):
            raise HTTPException(403, reason)
        if path.startswith(DIRECT):
            raise HTTPException(404, f"call {CALL}NAME")
        if path.rstrip("/") == "/login" and method == "POST":
            self.guesses.check(client)
            self.guesses.add(client)  # taken back if it is right: guesses may come at the same time

    def remove_old(self) -> None:
        """Remove pictures that a browser has seen, and uploads that nobody used; sooner where all are large."""
        now = time.time()
        if now - self.looked < LOOKS:
            return
        self.looked = now
        files = self.files()
        total = sum(state.st_size for _, state in files)
        for path, state in sorted(files, key=lambda one: one[1].st_mtime):
            is_upload = path.parent == self.temporary or str(path) in self.get_blocks().upload_file_set
            oldest = OLD if is_upload and total < LARGEST_TEMPORARY // 2 else YOUNG
            if now - state.st_mtime > oldest:
                path.unlink(missing_ok=True)
                total -= state.st_size

    def files(self) -> list[tuple[Path, Any]]:
        """The temporary files, each with its state."""
        found = []
        for path in self.temporary.rglob("*"):
            if self.temporary / THUMBNAILS not in path.parents and path.is_file():
                with suppress(FileNotFoundError):  # an upload has been stored at this moment
                    found.append((path, path.lstat()))
        return found


class Request:
    """One request: what is received is counted, and what is sent is looked through."""

    def __init__(self, app: GuardedApp, scope: Any, receive: Any, send: Any) -> None:
        self.app, self.scope, self.from_client, self.to_client = app, scope, receive, send
        self.client: str = (scope.get("client") or [""])[0]
        self.begin: float | None = None
        self.received = self.uploaded = self.held = 0
        self.read: list[Any] = []
        self.complete = scope["method"] in ("GET", "HEAD")
        self.answered = False

    async def receive(self) -> Any:
        """The next part of the request, unless it is too slow or too large."""
        if self.read:
            return self.read.pop(0)
        return await (self.from_client() if self.complete else self.next_part())

    async def next_part(self) -> Any:
        """Receive the next part."""
        self.begin = self.begin or time.monotonic()
        part, size, self.complete = await next_part(self.from_client, self.begin, self.received)
        self.received += size
        if self.scope["path"].startswith(UPLOAD):
            if not self.uploaded:
                self.held = sum(state.st_size for _, state in self.app.files())
            self.uploaded, self.app.incoming = self.uploaded + size, self.app.incoming + size
            if self.held + self.app.incoming > LARGEST_TEMPORARY:
                raise HTTPException(413, "too many uploads at once: try again in some minutes")
        elif self.received > LARGEST_CALL:
            raise HTTPException(413, f"a call has at most {LARGEST_CALL} bytes")
        return part

    async def check_call(self) -> None:
        """Check the values of a call before it waits in the queue."""
        while not self.complete:
            self.read.append(await self.next_part())
        try:
            values = json.loads(b"".join(part.get("body", b"") for part in self.read))["data"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise HTTPException(400, 'a call is JSON: {"data": [...]}') from None
        problem = self.app.check_call(self.scope["path"].removeprefix(CALL).strip("/"), values)
        if problem:
            raise HTTPException(400, problem)

    async def send(self, message: Any) -> None:
        """Send a part of the answer; one that says nothing is left to :meth:`fail`."""
        if message["type"] == "http.response.start" and message["status"] != 500:
            if self.scope["path"].rstrip("/") == "/login" and message["status"] == 200:
                self.app.guesses.take_back(self.client)
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            if not self.complete:  # the rest is not waited for
                headers["connection"] = "close"
            cookies = headers.getlist("set-cookie")
            del headers["set-cookie"]
            for cookie in cookies:
                headers.append("set-cookie", re.sub(r"; *samesite=[^;]*", "", cookie, flags=re.I) + "; SameSite=Strict")
            self.answered = True
        if self.answered:
            await self.to_client(message)

    async def fail(self, error: Exception) -> None:
        """Answer a request that is refused, or that the server did not understand, in one line."""
        if self.answered:
            with suppress(RuntimeError):  # it may be complete
                await self.to_client({"type": "http.response.body", "body": b""})
            return
        status, reason = 400, f"this is no call of the app: {type(error).__name__} {error}"
        if isinstance(error, HTTPException):
            status, reason = error.status_code, error.detail
        await JSONResponse(refusal(reason), status, {**HEADERS, "connection": "close"})(
            self.scope, self.from_client, self.to_client
        )
