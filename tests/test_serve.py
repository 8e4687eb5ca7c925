"""``serve``: other programs send images over HTTP, and get COCO."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as rle

from no_time_to_train.data.instances import coco_content
from tests.attacks.test_cases import cases_in
from tests.conftest import Patch, Photo, nano_segmenter
from tests.web import free_port

pytest.importorskip("fastapi", reason="the server's extra is not installed")

import httpx
import uvicorn

from no_time_to_train_extras.server import request_guard, request_parts
from no_time_to_train_extras.server.addresses import is_loopback, plain_host
from no_time_to_train_extras.server.compute_queue import ComputeQueue
from no_time_to_train_extras.server.http_api import build_api
from no_time_to_train_extras.server.request_guard import Metrics, RequestGuard
from no_time_to_train_extras.server.serve_command import check_token
from no_time_to_train_extras.server.service import Service

CAPACITY, LARGEST, TOKEN = 8, 200_000, "a token"


def call(url: str, path: str, body: bytes | None = None, files: Any = None, **headers: str) -> httpx.Response:
    """Send a request: a body, or files of a form; keywords are its headers, with ``_`` for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    method = "GET" if body is None and files is None else "POST"
    sent: Any = {"content": body, "files": files, "headers": named, "timeout": 60}
    return httpx.request(method, url + path, **sent, trust_env=False, verify=False)


@contextmanager
def running(guard: RequestGuard) -> Iterator[str]:
    """Serve in a thread; the value is the address."""
    server = uvicorn.Server(uvicorn.Config(guard, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def service(photo: Photo) -> Service:
    segmenter = nano_segmenter(5)
    segmenter.add_reference("thing", photo.path, photo.mask_path)
    things = segmenter.memory
    segmenter.set_memory(None)
    segmenter.add_reference("box", photo.path, box=(10, 10, 60, 60))
    return Service(segmenter, {"things": things, "boxes": segmenter.memory}, 0.0, ComputeQueue(CAPACITY))


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    metrics = Metrics()
    with running(RequestGuard(build_api(service, metrics), "127.0.0.1", None, LARGEST, metrics)) as address:
        yield address


@pytest.fixture(scope="module")
def content(photo: Photo) -> bytes:
    return photo.path.read_bytes()


@pytest.fixture(scope="module")
def expected(service: Service, photo: Photo, url: str) -> Any:
    """What the segmenter finds in the photo with the memory ``things``, as COCO."""
    service.segmenter.set_memory(service.memories["things"])
    found = service.segmenter.segment(photo.path, threshold=0)
    assert len(found) > 1
    return json.loads(json.dumps(coco_content([("", found)])))


@contextmanager
def busy(service: Service, images: int) -> Iterator[None]:
    """Let a number of images be computed until the block ends."""
    end = threading.Event()
    service.queue.submit(images, end.wait)
    try:
        yield
    finally:
        end.set()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_images_of_a_form_are_numbered_in_their_order(url: str, content: bytes, expected: Any) -> None:
    found = call(url, "/segment", files=[("image", (name, content)) for name in ("b.png", "a.png")]).json()
    assert [(image["id"], image["file_name"]) for image in found["images"]] == [(1, "b.png"), (2, "a.png")]
    count = len(expected["annotations"])
    assert [one["image_id"] for one in found["annotations"]] == [1] * count + [2] * count
    assert [one["id"] for one in found["annotations"]] == list(range(1, 2 * count + 1))


def test_a_request_chooses_the_memory_and_the_threshold(url: str, content: bytes, expected: Any) -> None:
    scores = [one["score"] for one in expected["annotations"]]
    found = call(url, f"/segment?threshold={scores[0]}", content).json()
    assert [one["score"] for one in found["annotations"]] == [score for score in scores if score >= scores[0]]
    assert call(url, "/segment?memory=boxes", content).json()["categories"] == [{"id": 1, "name": "box"}]
    detail = call(url, "/segment?memory=thing", content).json()["detail"]
    assert detail == "there is no memory 'thing'; did you mean 'things'?"


def test_memories_are_listed_with_their_classes(url: str) -> None:
    names = {one["name"]: one["classes"] for one in call(url, "/memories").json()}
    assert names == {
        "things": [{"id": 1, "name": "thing", "references": 1}],
        "boxes": [{"id": 1, "name": "box", "references": 1}],
    }


@pytest.mark.parametrize("case", cases_in("serve_requests"))
def test_what_cannot_be_answered_is_refused_in_one_line(url: str, case: dict[str, Any]) -> None:
    answer = call(url, case["path"], case["body"].encode(), **case["headers"])
    assert answer.status_code == case["status"]
    assert case["refused"] in answer.json()["detail"]


def test_a_body_that_is_too_large_is_refused(url: str) -> None:
    answer = call(url, "/segment", b"x" * (LARGEST + 1))
    assert (answer.status_code, answer.json()["detail"]) == (413, f"a request has at most {LARGEST} bytes")


def test_an_image_with_too_many_pixels_is_refused(url: str, content: bytes, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    answer = call(url, "/segment", content)
    assert answer.status_code == 400
    assert "it has 10800 pixels, the limit is 1000" in answer.json()["detail"]


def test_a_body_without_a_length_is_counted_as_it_comes(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("POST", "/segment", iter([b"x" * LARGEST, b"x"]), encode_chunked=True)
    assert connection.getresponse().status == 413


@pytest.mark.parametrize("path", [b"/segment", b"/v1/predict"])
def test_a_body_that_comes_too_slowly_is_given_up(path: bytes, url: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(request_parts, "PATIENCE", 0.1)
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as client:
        client.sendall(b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx" % path)
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def test_a_token_of_a_file_has_no_new_line_at_its_end(monkeypatch: Patch) -> None:
    monkeypatch.setenv("NO_TIME_TO_TRAIN_TOKEN", f"{TOKEN}\n")
    assert check_token("127.0.0.1", None, no_token=False) == TOKEN


@pytest.mark.parametrize(
    ("host", "plain", "own"),
    [
        ("127.1", "127.0.0.1", True), ("0x7f.2", "127.0.0.2", True), ("localhost", "localhost", True),
        ("[::1]", "::1", True), ("0:0:0:0:0:0:0:1", "::1", True), ("0", "0.0.0.0", False), ("", "", False),
        ("192.0.2.1", "192.0.2.1", False),
    ],
)  # fmt: skip
def test_an_address_lets_others_in_by_where_it_leads(host: str, plain: str, own: bool) -> None:
    assert (plain_host(host), is_loopback(plain)) == (plain, own)


def test_monitors_may_ask_for_the_head_of_an_answer(url: str) -> None:
    for path, status in (("/", 200), ("/health", 200), ("/metrics", 200), ("/segment", 405)):
        answer = httpx.head(url + path, trust_env=False)
        assert (answer.status_code, answer.content) == (status, b"")


def test_the_token_is_needed_for_everything_but_the_description_and_the_health(
    service: Service, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(os, "environ", {key: value for key, value in os.environ.items() if "FORWARDED" not in key})
    metrics = Metrics()
    request_parts.guard_clients()
    with running(RequestGuard(build_api(service, metrics), "127.0.0.1", TOKEN, LARGEST, metrics)) as url:
        assert call(url, "/memories").status_code == 401
        assert call(url, "/memories", Authorization="Bearer another").status_code == 401
        assert call(url, "/memories", Authorization=f"Bearer {TOKEN}").status_code == 200
        assert call(url, "/memories", Authorization=f"bearer {TOKEN}").status_code == 200
        assert call(url, "/memories", Token=TOKEN).status_code == 200  # as X-AnyLabeling sends it
        assert [call(url, path).status_code for path in request_guard.OPEN] == [200, 200, 200]
        for number in range(20):  # as from another address each time
            forwarded = {"X_Forwarded_For": f"10.0.0.{number}"}
            guessed = call(url, "/memories", Authorization=f"Bearer {number}", **forwarded)
        assert (guessed.status_code, guessed.headers["retry-after"]) == (429, "60")
        assert call(url, "/memories", Authorization=f"Bearer {TOKEN}").status_code == 429


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_token_may_have_letters_beyond_ascii(encoding: str, service: Service) -> None:
    metrics = Metrics()
    with running(RequestGuard(build_api(service, metrics), "127.0.0.1", "gehéim", LARGEST, metrics)) as url:
        named = {b"authorization": "Bearer gehéim".encode(encoding)}
        assert httpx.get(f"{url}/memories", headers=named, trust_env=False).status_code == 200


def test_it_answers_while_it_computes_and_says_when_to_come_again(url: str, service: Service, content: bytes) -> None:
    with busy(service, CAPACITY):
        assert call(url, "/health").json()["waiting"] == CAPACITY
        answer = call(url, "/segment", content)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
    wait_until(lambda: service.queue.waiting == 0)
    assert call(url, "/segment", content).status_code == 200
    files = [("image", ("a.png", content))] * (CAPACITY + 1)
    assert call(url, "/segment", files=files).status_code == 400  # it never has room for these


def test_an_image_whose_sender_has_left_is_not_computed(url: str, service: Service, content: bytes) -> None:
    done = service.queue.images
    with busy(service, 1):
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        connection.request("POST", "/segment", content)
        wait_until(lambda: service.queue.waiting == 2)
        connection.close()
        wait_until(lambda: service.queue.waiting == 1)
    wait_until(lambda: service.queue.waiting == 0)
    assert service.queue.images == done + 1


def test_a_client_that_leaves_while_it_sends_is_no_error_of_the_server(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as client:
        client.sendall(b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
    wait_until(lambda: b'path="/segment",status="499"' in call(url, "/metrics").content)
    assert not caplog.records


def test_an_image_that_waits_when_the_queue_is_closed_is_refused(service: Service, content: bytes) -> None:
    closing = replace(service, queue=ComputeQueue(2))
    metrics = Metrics()
    with (
        running(RequestGuard(build_api(closing, metrics), "127.0.0.1", None, LARGEST, metrics)) as address,
        busy(closing, 1),
        ThreadPoolExecutor(1) as program,
    ):
        answer = program.submit(call, address, "/segment", content)
        wait_until(lambda: closing.queue.waiting == 2)
        closing.queue.thread.shutdown(wait=False, cancel_futures=True)
        assert (answer.result().status_code, answer.result().json()) == (503, {"detail": "the server ends"})


def test_twenty_programs_at_once_lose_nothing(url: str, service: Service, content: bytes, expected: Any) -> None:
    refused = []

    def send(number: int) -> Any:
        while (answer := call(url, "/segment", content)).status_code == 429:
            refused.append(number)
            assert service.queue.waiting <= CAPACITY
            time.sleep(0.2)
        return answer.json()

    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(send, range(20)))
    assert answers == [expected] * 20
    assert len(set(refused)) > 0


def test_metrics_count_requests_and_images(url: str, service: Service, content: bytes) -> None:
    def values() -> dict[str, float]:
        lines = call(url, "/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    before = values()
    call(url, "/segment", content)
    call(url, "/nowhere/<b>", b"x")
    after = values()
    segmented = 'no_time_to_train_requests_total{path="/segment",status="200"}'
    unknown = 'no_time_to_train_requests_total{path="other",status="404"}'
    for name in (segmented, unknown, "no_time_to_train_images_total"):
        assert after[name] == before.get(name, 0) + 1
    assert after["no_time_to_train_answer_seconds_count"] == after['no_time_to_train_answer_seconds_bucket{le="+Inf"}']


def test_the_page_shows_every_address_and_loads_nothing(url: str) -> None:
    page = call(url, "/").text
    for path in call(url, "/openapi.json").json()["paths"]:
        assert f" {path}</h2>" in page
    assert "src=" not in page
    assert "<link" not in page


def drawn(shapes: list[dict[str, Any]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """What X-AnyLabeling draws: polygons with their outlines."""
    picture = Image.new("1", size)
    for shape in shapes:
        assert shape["points"][0] == shape["points"][-1], "it takes this as the end of the polygon"
        ImageDraw.Draw(picture).polygon([(x, y) for x, y in shape["points"]], outline=1, fill=1)
    return np.asarray(picture)


def predict(url: str, content: bytes, **params: Any) -> Any:
    """What X-AnyLabeling's remote server answers with the first of its models."""
    model = next(iter(call(url, "/v1/models").json()["data"]))
    image = "data:image/png;base64," + base64.b64encode(content).decode()
    sent = json.dumps({"model": model, "image": image, "params": params}).encode()
    answer = call(url, "/v1/predict", sent, Content_Type="application/json")
    assert answer.json()["success"] is True
    return answer.json()["data"]


def test_x_anylabeling_gets_the_objects_as_polygons(url: str, content: bytes, expected: Any) -> None:
    best = expected["annotations"][0]
    shapes = predict(url, content, conf_threshold=best["score"], epsilon_factor=0)["shapes"]
    assert {(shape["label"], shape["score"]) for shape in shapes} == {("thing", best["score"])}
    mask = rle.decode(best["segmentation"]).astype(bool)
    assert (drawn(shapes, mask.shape[::-1]) != mask).sum() <= 2  # specks of one or two pixels are left out
    fewer = predict(url, content, conf_threshold=best["score"], epsilon_factor=0.05)["shapes"]
    assert sum(len(shape["points"]) for shape in fewer) < sum(len(shape["points"]) for shape in shapes)


def test_x_anylabeling_gets_the_object_of_a_box(url: str, service: Service, photo: Photo, content: bytes) -> None:
    ys, xs = np.nonzero(photo.mask)
    corners = [float(value) for value in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
    found = predict(url, content, marks=[{"type": "rectangle", "label": 1, "data": corners}])
    assert {shape["label"] for shape in found["shapes"]} == {"AUTOLABEL_OBJECT"}
    assert found["replace"] is False
    mask = drawn(found["shapes"], photo.mask.shape[::-1])
    assert (mask & photo.mask).sum() > 0.7 * (mask | photo.mask).sum()
    backwards = corners[2:] + corners[:2]  # a person draws it from any corner
    assert predict(url, content, marks=[{"type": "rectangle", "label": 1, "data": backwards}]) == found


@pytest.mark.parametrize(
    ("marks", "detail"),
    [
        ([{"type": "point", "label": 1, "data": [-50, 5]}], "point -50,5 (x,y) lies outside the 120x90 image"),
        ([{"type": "point", "label": 1, "data": [1e300, 5]}], "is not x, y"),
        ([{"type": "rectangle", "label": 1, "data": [20, 20, 20, 20]}], "ends before it begins"),
        ([{"type": "point", "label": 1, "data": [5, 5]}] * 1001, "at most 1000 items"),
    ],
)
def test_x_anylabeling_is_told_what_is_wrong_with_a_point_or_a_box(
    url: str, content: bytes, marks: list[Any], detail: str
) -> None:
    sent = {"model": "things", "image": base64.b64encode(content).decode(), "params": {"marks": marks}}
    answer = call(url, "/v1/predict", json.dumps(sent).encode(), Content_Type="application/json")
    assert answer.status_code == 400
    assert detail in answer.json()["detail"]


@contextmanager
def started(photo: Photo, **pipes: Any) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command in a process of its own, once it answers, and its address."""
    port = free_port()
    options = f"--nano --device cpu --points-per-side 5 --threshold 0 --port {port} --reference {photo.reference()}"
    command = [sys.executable, "-m", "no_time_to_train", "serve", *options.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_TIME_TO_TRAIN_TOKEN": TOKEN}
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **pipes) as server:
        assert server.stdout.readline() == f"memories: references; open {url} to see what it answers\n"
        while True:
            try:
                assert call(url, "/memories").status_code == 401
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        yield server, url
        server.wait(timeout=30)


def test_a_server_that_is_stopped_answers_what_it_has_accepted(photo: Photo, content: bytes) -> None:
    with started(photo) as (server, url), ThreadPoolExecutor(6) as clients:
        sent = [clients.submit(call, url, "/segment", content, Token=TOKEN) for _ in range(6)]
        wait_until(lambda: call(url, "/health").json()["waiting"] + sum(one.done() for one in sent) >= 6)
        server.send_signal(signal.SIGTERM)
        assert [one.result().status_code for one in sent] == [200] * 6
    with pytest.raises(httpx.ConnectError):
        call(url, "/health")


def test_ctrl_c_twice_ends_a_server_without_a_traceback(photo: Photo) -> None:
    with started(photo, stderr=subprocess.PIPE) as (server, _):
        for _ in range(2):
            server.send_signal(signal.SIGINT)
            time.sleep(0.03)
        assert "Traceback" not in server.communicate(timeout=30)[1]
