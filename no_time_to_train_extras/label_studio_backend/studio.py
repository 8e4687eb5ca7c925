"""Label Studio's API: its tasks, and the images of these tasks."""

import base64
import json
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from no_time_to_train.errors import UserError

#: Seconds that Label Studio may take to answer, tasks that it is asked for at once, and bytes of an image.
PATIENCE, PAGE, LARGEST_IMAGE = 30.0, 100, 2**28

#: What the paths begin with at which Label Studio serves images.
IMAGES = ("/data/", "/storage-data/")

#: How the addresses of files begin that Label Studio opens in the storages of a project.
STORAGES = ("s3", "gs", "azure-blob")


class Unreachable(UserError):
    """Label Studio does not answer at the moment."""


class Token(httpx.Auth):
    """A token of the API: a legacy one is sent as it is, a personal one is exchanged for one that is valid for minutes.

    Args:
        token: As Label Studio shows it.
        refresh: The address where personal tokens are exchanged.
    """

    def __init__(self, token: str, refresh: str) -> None:
        self.token, self.refresh = token, refresh
        self.header = f"Token {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request; where a personal token is no longer valid, get another one."""
        request.headers["Authorization"] = self.header
        response = yield request
        if response.status_code == 401 and self.token.count(".") == 2:
            answer = yield httpx.Request("POST", self.refresh, json={"refresh": self.token})
            if answer.status_code == 200:
                answer.read()  # only this one: the others may be large files
                self.header = f"Bearer {answer.json()['access']}"
                request.headers["Authorization"] = self.header
                yield request


class LabelStudio:
    """One Label Studio. No redirection is followed but that to a project's storage, and nobody else gets the token.

    Args:
        url: Its address.
        token: A token of its API.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        auth = Token(token, f"{self.url}/api/token/refresh")
        self.http = httpx.Client(base_url=self.url, auth=auth, timeout=PATIENCE)

    def check(self) -> None:
        """Check that it can be reached, and that it takes the token."""
        self._get("/api/projects/", page_size=1)

    def tasks(self, project: int, only: int | None = None) -> Iterator[dict[str, Any]]:
        """The tasks of a project, or one of them: each with its ``id``, ``data`` and ``total_annotations``."""
        chosen = {} if only is None else {"selectedItems": {"all": False, "included": [only]}}
        page, left = 1, 1
        while left > 0:
            # For a review, Label Studio asks no backend for predictions first; it would wait for this one.
            query: dict[str, str | int] = {
                "project": project,
                "review": "true",
                "resolve_uri": "false",
                "page": page,
                "page_size": PAGE,
                "query": json.dumps(chosen),
            }
            found = self._get("/api/tasks/", **query) or {"tasks": [], "total": 0}
            yield from found["tasks"]
            page, left = page + 1, found["total"] - page * PAGE

    def annotations(self, task: int) -> list[dict[str, Any]]:
        """The annotations of a task."""
        return self._get(f"/api/tasks/{task}/annotations/") or []

    def image(self, address: str, project: int) -> bytes:
        """The content of the image file at an address that a task of a project names."""
        parts, own = urlsplit(address), urlsplit(self.url)
        if parts.scheme in STORAGES:
            where = base64.urlsafe_b64encode(address.encode()).decode()
            return self._file(self.http, f"/projects/{project}/resolve/?fileuri={where}", address)
        if (parts.scheme or parts.netloc) and (parts.scheme, parts.netloc) != (own.scheme, own.netloc):
            raise UserError(f"image {address} is not fetched, because it is not at {self.url}: upload it there")
        path = parts.path.removeprefix(own.path)
        path = f"/data/{path}" if path.startswith("upload/") else path
        if not path.startswith(IMAGES) or ".." in unquote(path).split("/"):
            raise UserError(f"image {address} is not fetched, because it is no file in Label Studio: upload it there")
        target = f"{quote(path, safe='/%')}?{parts.query}" if parts.query else quote(path, safe="/%")
        return self._file(self.http, target, address)

    def _file(self, client: httpx.Client, target: str, address: str) -> bytes:
        """A file that Label Studio has, or that it gives the address of in a storage, where the token is not sent."""
        content = bytearray()
        try:
            with client.stream("GET", target) as answer:
                if answer.status_code == 303 and client is self.http and urlsplit(address).scheme in STORAGES:
                    with httpx.Client(timeout=PATIENCE) as storage:
                        return self._file(storage, answer.headers["location"], address)
                if answer.status_code != 200:
                    raise UserError(f"image {address} cannot be fetched: the answer is {answer.status_code}")
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > LARGEST_IMAGE:
                        raise UserError(f"image {address} has more than {LARGEST_IMAGE} bytes: make it smaller")
        except httpx.HTTPError as error:
            raise Unreachable(f"image {address} cannot be fetched: {error}") from error
        return bytes(content)

    def _get(self, path: str, **query: str | int) -> Any:
        """The JSON at a path; None where there is nothing."""
        try:
            answer = self.http.get(path, params=query)
            if answer.status_code == 404:
                return None
            if answer.status_code in (401, 403):
                raise UserError(f"Label Studio at {self.url} refuses the token: copy it again from Account & Settings")
            return answer.raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            unread = isinstance(error, json.JSONDecodeError)
            reason = "is that Label Studio? The answer is no JSON" if unread else str(error).partition("\n")[0]
            raise Unreachable(f"Label Studio at {self.url} cannot be asked for {path}: {reason}") from error
