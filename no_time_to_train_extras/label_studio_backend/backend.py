"""The server that Label Studio asks: the endpoints of its machine learning backends, and a thread that works ahead.

``GET /health``, ``POST /setup``, ``POST /predict`` and ``POST /webhook`` are what Label Studio calls. A webhook carries
no password. So nothing of it is believed: it only says which tasks to read again from Label Studio.
"""

import base64
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Condition, RLock, Thread
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.errors import UserError, one_line
from no_time_to_train.pipeline.proposal_cache import hash_networks, proposals_depend_on
from no_time_to_train_extras.label_studio_backend.labeling_config import LabelingConfig
from no_time_to_train_extras.label_studio_backend.studio import LabelStudio, Unreachable
from no_time_to_train_extras.label_studio_backend.studio_project import StudioProject
from no_time_to_train_extras.server.addresses import is_loopback, url_of
from no_time_to_train_extras.server.request_guard import Metrics, RequestGuard
from no_time_to_train_extras.server.request_parts import LONGEST, Guesses, guard_clients

#: Seconds after which Label Studio gives up a setup (3) or a prediction (100); an answer takes less.
SETUP, PREDICT = 2.0, 60.0

#: Bytes of a request, tasks of a project that are read one by one, requests at once, and seconds until what failed is
#: tried again.
LARGEST, WAITING, AT_ONCE, PAUSE = 2**26, 50, 32, 10.0

Json = dict[str, Any]


class Backend:
    """All projects. One thread computes at a time: that of a request, or the one that works ahead.

    Args:
        segmenter: The networks. Its memory, if it has one, holds classes to begin with.
        folder: Each project has a folder in it.
        threshold: The lowest score of a predicted region.
    """

    def __init__(self, segmenter: ReferenceSegmenter, studio: LabelStudio, folder: Path, threshold: float) -> None:
        self.segmenter, self.studio, self.folder, self.threshold = segmenter, studio, folder, threshold
        self.loaded = segmenter.memory
        self.projects: dict[int, StudioProject] = {}
        settings, precision = segmenter.segmenter.settings, segmenter.precision
        self.made_with = proposals_depend_on(hash_networks(segmenter.segmenter), settings, precision)
        self.state, self.opening, self.networks = Condition(), RLock(), RLock()
        self.changed: dict[tuple[int, int | None], int] = {}  # how often a task of a project has changed; None: all
        self.ahead: dict[tuple[int, int], Json] = {}  # tasks whose proposals may be missing
        self.asked, self.closed = 0, False
        self.thread = Thread(target=self._work, name="references", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """End the thread."""
        with self.state:
            self.closed = True
            self.state.notify_all()
        self.thread.join(PAUSE)

    # What Label Studio calls.

    def setup(self, body: Json) -> Json:
        """Label Studio was connected, or asks for the version that its predictions will have."""
        number, project = self._project(body.get("project"), body.get("schema"))
        self._settle(number, SETUP)
        return {"model_version": project.version}

    def predict(self, body: Json) -> Json:
        """Predict tasks, or make a mask from what a person draws in one task.

        Tasks for which there is no time have no prediction; they are computed meanwhile, and may be asked for again.
        """
        end = time.monotonic() + PREDICT
        number, project = self._project(body.get("project"), body.get("label_config"))
        tasks, context = body.get("tasks") or [], (body.get("params") or {}).get("context") or {}
        with self.state:
            self.asked += 1
        try:
            if drawn := context.get("result"):
                with self.networks:
                    return {"results": [project.interact(tasks[0], drawn)], "model_version": project.version}
            self._settle(number, PREDICT)
            results = [self._predict(number, project, one, end) for one in tasks]
            return {"results": results, "model_version": project.version}
        finally:
            with self.state:
                self.asked -= 1
                self.state.notify_all()

    def webhook(self, body: Json) -> Json:
        """Something has happened in a project."""
        project, action = body.get("project"), str(body.get("action"))
        number = project.get("id") if isinstance(project, dict) else None
        known = self.projects.get(number) if isinstance(number, int) else None
        if known is None or not isinstance(number, int):
            return {"status": "not set up"}
        listed = body.get("tasks") if action.startswith("TASKS") else [body.get("task")]
        tasks = [one.get("id") for one in listed or [] if isinstance(one, dict)]
        if action.startswith("ANNOTATIONS"):  # several: deleted, or created
            several = [one for one in body.get("annotations") or [] if isinstance(one, dict)]
            tasks = [one.get("task", known.tasks_of.get(str(one.get("id")))) for one in several]
        if action == "START_TRAINING":
            tasks = [None]
        elif not re.match("(ANNOTATION|TASK)", action):
            tasks = []
        with self.state:
            waiting = {task for project, task in self.changed if project == number}
            named = {task for task in tasks if task is None or isinstance(task, int)}
            if len(waiting | named) > WAITING:  # some may not be in the project, and all of it is read at once
                self.changed = {key: times for key, times in self.changed.items() if key[0] != number or key[1] is None}
                named = {None}
            for task in named:
                self.changed[number, task] = self.changed.get((number, task), 0) + 1
            self.state.notify_all()
        return {"status": "ok"}

    # What is done.

    def _project(self, name: Any, xml: Any) -> tuple[int, StudioProject]:
        """A project by what Label Studio calls it: its number and the time of its creation."""
        if not re.fullmatch(r"[0-9]{1,18}\.[0-9]{1,18}", str(name)):
            raise UserError(f"project {name!r} is none of Label Studio")
        number, config = int(str(name).partition(".")[0]), LabelingConfig(str(xml))
        with self.opening:  # and not the networks, which may be busy for longer than Label Studio waits
            known = self.projects.get(number)
            folder = self.folder / str(name)
            if known is None or known.folder.parent != folder:
                shared = self.studio, self.segmenter, self.made_with, self.loaded, self.threshold
                known = self.projects[number] = StudioProject(config, folder, *shared)
                with self.state:
                    self.changed[number, None] = 1
                    self.state.notify_all()
            known.config = config
        return number, known

    def _settle(self, number: int, seconds: float) -> None:
        """Wait until no annotation of a project waits to be read."""
        with self.state:
            self.state.wait_for(lambda: not any(project == number for project, _ in self.changed), seconds)

    def _predict(self, number: int, project: StudioProject, task: Json, end: float) -> Any:
        """The prediction for a task; an empty list, which Label Studio passes over, where there is none."""
        try:
            with self.networks:
                entry = project.proposals(task, make=time.monotonic() < end) if project.memory else None
                if entry is not None:
                    return project.predict(entry)
        except Exception as error:  # whatever is in the task: it fails alone
            report(task.get("id"), error)
            return []
        with self.state:
            self.ahead[number, task["id"]] = task
        return []

    def _work(self) -> None:
        """Read what has changed, and then propose masks in the tasks that nobody has opened yet."""
        while True:
            with self.state:
                self.state.wait_for(lambda: self.closed or self.changed or (self.ahead and not self.asked))
                if self.closed:
                    return
                changed = next(iter(self.changed), None)
                number, task = next(iter(self.ahead)) if changed is None else changed
                times = 0 if changed is None else self.changed[changed]
                waiting = None if changed or task is None else self.ahead.pop((number, task))
            try:
                if waiting is None:
                    self._read(number, self.projects[number], task)
                else:
                    with self.networks:
                        self.projects[number].proposals(waiting)
            except Exception as error:  # of any type: nobody would start the thread again
                report(task, error)
                if isinstance(error, Unreachable) and changed:
                    with self.state:
                        self.changed[changed] = self.changed.pop(changed, 1)  # after the other tasks and projects
                        self.state.wait_for(lambda: self.closed, PAUSE)
                    continue
            with self.state:
                if changed and self.changed.get(changed) == times:  # else once more: it has changed meanwhile
                    del self.changed[changed]
                self.state.notify_all()

    def _read(self, number: int, project: StudioProject, only: int | None) -> None:
        """Read one task of a project from Label Studio, or all."""
        listed = {one["id"]: one for one in self.studio.tasks(number, only)}
        annotated = {task for task, one in listed.items() if one["total_annotations"]}
        for task in annotated:
            annotations = self.studio.annotations(task)
            try:
                with self.networks:
                    project.learn(task, listed[task], annotations)
            except Unreachable:
                raise
            except Exception as error:  # whatever is in an annotation
                report(task, error)
        with self.networks:
            project.forget(annotated, only)
        with self.state:
            self.ahead |= {(number, task): {"id": task, "data": one["data"]} for task, one in listed.items()}


def report(task: object, error: Exception) -> None:
    """Say what is wrong with a task, or with the list of all where it is None."""
    text = str(error) if isinstance(error, UserError) else repr(error)
    print(f"{'tasks' if task is None else f'task {task}'}: {one_line(text)}", file=sys.stderr)


def build_app(backend: Backend, login: tuple[str, str] | None) -> FastAPI:
    """The endpoints.

    Args:
        login: User and password that Label Studio must send, except with a webhook.
    """
    app = FastAPI(title="no-time-to-train for Label Studio", docs_url=None, redoc_url=None, openapi_url=None)
    expected = "" if login is None else "Basic " + base64.b64encode(":".join(login).encode()).decode()
    guesses = Guesses()

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        size = request.headers.get("content-length", "" if request.method == "POST" else "0")
        if "origin" in request.headers:  # Label Studio's server sends none
            return refusal(403, "a page in a browser may not use this server")
        if not size.isdecimal() or int(size) > LARGEST:
            return refusal(413, f"a request has at most {LARGEST} bytes, and says how many")
        sent, client = request.headers.get("authorization", ""), request.client.host if request.client else ""
        try:
            if login and request.url.path != "/webhook" and not guesses.is_right(client, sent, expected):
                return refusal(401, "the user name or the password is wrong")
        except HTTPException as error:
            return refusal(error.status_code, error.detail)
        try:
            return await call_next(request)
        except Exception as error:  # of values that Label Studio does not send
            print(f"{request.url.path}: {one_line(repr(error))[:LONGEST]}", file=sys.stderr)
            return refusal(400, f"this is no request of Label Studio: {one_line(repr(error))[:LONGEST]}")

    @app.exception_handler(UserError)
    async def explain(_: Request, error: UserError) -> Response:
        return refusal(400, one_line(error))

    @app.get("/health")
    @app.get("/")
    async def health() -> Json:
        return {"status": "UP", "model_class": "no-time-to-train"}

    @app.post("/setup")
    def setup(body: Annotated[Json, Body()]) -> Json:
        return backend.setup(body)

    @app.post("/predict")
    def predict(body: Annotated[Json, Body()]) -> Json:
        return backend.predict(body)

    @app.post("/webhook", status_code=201)
    def webhook(body: Annotated[Json, Body()]) -> Json:
        return backend.webhook(body)

    return app


def refusal(status: int, reason: str) -> Response:
    """An answer that says what is wrong."""
    return JSONResponse({"error": reason}, status)


class StudioGuard(RequestGuard):
    """What other servers here check, too. Label Studio in a container has a name of its own for this computer."""

    def check(self, scope: Any) -> None:
        """Refuse a request that a name of another page led here, where only this computer is let in."""
        if is_loopback(self.host):
            super().check(scope)


def serve(backend: Backend, host: str, port: int, login: tuple[str, str] | None) -> None:
    """Serve until the process is told to end; requests that were accepted are answered."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port") from error
    print(f"Label Studio: connect a model at {url_of(host, port)} (Settings, Model)", flush=True)
    guard_clients()
    guard = StudioGuard(build_app(backend, login), host, None, LARGEST, Metrics())
    config = uvicorn.Config(guard, log_level="warning", limit_concurrency=AT_ONCE, lifespan="off")
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        backend.close()
