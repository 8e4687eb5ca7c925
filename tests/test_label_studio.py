"""``serve label-studio``: a stand-in for Label Studio's API here; tests/test_real_label_studio.py starts a real one."""

import base64
import json
import shutil
import socket
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from no_time_to_train import ReferenceSegmenter, UserError
from no_time_to_train.api.describe_references import ReferenceDescriber
from no_time_to_train.data.label_files.label_studio_files import region_of
from no_time_to_train.data.label_files.labeled_objects import LabeledObject
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.data.reference_forms.label_studio import decode_rle
from no_time_to_train.demo.scenes import NOVEL_CLASSES, Scene, draw_scene
from tests.conftest import Patch, Refusal, iou
from tests.web import free_port, serving

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from no_time_to_train_extras.label_studio_backend import backend as server
from no_time_to_train_extras.label_studio_backend.backend import Backend, StudioGuard, build_app
from no_time_to_train_extras.label_studio_backend.labeling_config import LabelingConfig
from no_time_to_train_extras.label_studio_backend.studio import LabelStudio
from no_time_to_train_extras.server.request_guard import Metrics

#: A personal token is three parts with dots.
TOKEN, PROJECT = "aa.bb.cc", "7.1700000000"
LABELS = "".join(f'<Label value="{one.name}"/>' for one in NOVEL_CLASSES)


def interface(*controls: str) -> str:
    tools = "".join(f'<{one} name="{one[0]}" toName="photo">{LABELS}</{one}>' for one in controls)
    return f'<View><Image name="photo" value="$picture"/>{tools}</View>'


BRUSH = interface("RectangleLabels", "BrushLabels")


class StandIn:
    """Label Studio with a project of two scenes: what it is asked, and what it answers."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.valid, self.asked = url, "", []
        self.scenes: dict[int, Scene] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.annotations: dict[int, list[dict[str, Any]]] = {}
        self.images: dict[str, bytes] = {}
        for number in (1, 2):
            scene = self.scenes[number] = draw_scene(np.random.default_rng(number), NOVEL_CLASSES[:2], (160, 200))
            address, file = f"/data/upload/7/{number}-a b.png", folder / f"{number}.png"
            Image.fromarray(scene.image).save(file)
            self.images[address.replace(" ", "%20")] = file.read_bytes()
            self.tasks[number] = {"id": number, "project": 7, "data": {"picture": address}}
            self.annotations[number] = []

    def answer(self, path: str, authorization: str) -> tuple[int, Any]:
        self.asked.append(path)
        if path == "/api/token/refresh":
            self.valid = "Bearer fresh"
            return 200, {"access": "fresh"}
        if path == "/bucket":
            return (403, {}) if authorization else (200, b"an image")
        if authorization != self.valid:
            return 401, {}
        parts = urlsplit(path)
        if parts.path == "/api/tasks/":
            query = parse_qs(parts.query)
            assert (query["project"], query["review"]) == (["7"], ["true"])
            chosen = json.loads(query["query"][0]).get("selectedItems", {"included": self.tasks})["included"]
            tasks = [{**one, "total_annotations": len(self.annotations[task])} for task, one in self.tasks.items()]
            tasks = [one for one in tasks if one["id"] in chosen]
            return 200, {"total": len(tasks), "tasks": tasks}
        if parts.path.endswith("/annotations/"):
            return 200, self.annotations[int(parts.path.split("/")[3])]
        if parts.path == "/projects/7/resolve/":
            known = base64.urlsafe_b64decode(parts.query.removeprefix("fileuri=")) == b"s3://bucket/a.png"
            return (303, f"{self.url}/bucket") if known else (404, {})
        return (200, self.images[parts.path]) if parts.path in self.images else (200, {})

    def annotate(self, task: int, *kinds: str) -> dict[str, Any]:
        """Annotate the objects of a scene, in turn with the kinds of regions; the body of the webhook."""
        scene, regions = self.scenes[task], []
        for number, (label, mask) in enumerate(zip(scene.labels, scene.masks, strict=True)):
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            one = LabeledObject(NOVEL_CLASSES[label].name, tuple(map(float, box)), mask)
            kind = kinds[number % len(kinds)]
            regions.append(region_of(one, *mask.shape, kind, "B", "photo", number))
        self.annotations[task] = [{"id": 10 * task, "result": regions}]
        return {"action": "ANNOTATION_CREATED", "project": {"id": 7}, "task": {"id": task}}


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[StandIn]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        status, content = one.answer(request.path, request.headers.get("Authorization", ""))
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        request.send_response(status)
        if status == 303:
            request.send_header("Location", json.loads(content))
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    with serving(answer) as url:
        one = StandIn(url, tmp_path)
        yield one


@pytest.fixture
def backend(studio: StandIn, segmenter: ReferenceSegmenter, tmp_path: Path, monkeypatch: Patch) -> Iterator[Backend]:
    monkeypatch.setattr(server, "SETUP", 60.0)  # however slow the computer is
    one = Backend(segmenter, LabelStudio(studio.url, TOKEN), tmp_path / "out", 0.3)
    yield one
    one.close()


def setup(backend: Backend, xml: str = BRUSH) -> str:
    return str(backend.setup({"project": PROJECT, "schema": xml})["model_version"])


def predict(backend: Backend, studio: StandIn, task: int, xml: str = BRUSH, **params: Any) -> Any:
    body = {"project": PROJECT, "label_config": xml, "tasks": [studio.tasks[task]], "params": params}
    return backend.predict(body)["results"][0]


def brush(region: dict[str, Any]) -> np.ndarray:
    height, width = region["original_height"], region["original_width"]
    return decode_rle(region["value"]["rle"], height * width * 4).reshape(height, width, 4)[..., 3] > 127


def test_what_is_annotated_in_one_task_is_found_in_another(backend: Backend, studio: StandIn) -> None:
    assert "0 references" in setup(backend)
    assert predict(backend, studio, 2) == []
    backend.webhook(studio.annotate(1, "brushlabels", "rectanglelabels"))
    found = predict(backend, studio, 2)
    assert found["model_version"] == setup(backend)
    assert f"{len(studio.scenes[1].labels)} references" in found["model_version"]
    scene = studio.scenes[2]
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        same = [one for one in found["result"] if one["value"]["brushlabels"] == [NOVEL_CLASSES[label].name]]
        assert max(iou(brush(one), mask) for one in same) > 0.7
    assert all({"from_name": "B", "to_name": "photo"}.items() <= one.items() for one in found["result"])
    assert found["score"] == pytest.approx(np.mean([one["score"] for one in found["result"]]), abs=1e-4)


def test_a_restart_keeps_the_references_and_the_proposals(
    backend: Backend, studio: StandIn, segmenter: ReferenceSegmenter, monkeypatch: Patch
) -> None:
    studio.annotate(1, "brushlabels")
    setup(backend)
    before = predict(backend, studio, 2)
    backend.close()
    segmenter.set_memory(None)
    monkeypatch.setattr(ReferenceSegmenter, "propose", None)  # no network is asked again
    monkeypatch.setattr(type(segmenter.describer), "describe_prompted", None)
    again = Backend(segmenter, backend.studio, backend.folder, 0.3)
    assert setup(again) == before["model_version"]
    assert predict(again, studio, 2) == before
    again.close()


def test_a_deleted_annotation_is_forgotten(backend: Backend, studio: StandIn) -> None:
    studio.annotate(1, "brushlabels")
    studio.annotate(2, "brushlabels")
    both = setup(backend)
    studio.annotations[2] = []
    backend.webhook({"action": "ANNOTATIONS_DELETED", "project": {"id": 7}, "annotations": [{"id": 20}]})
    assert setup(backend) != both
    assert f"{len(studio.scenes[1].labels)} references" in setup(backend)


def test_of_a_changed_annotation_only_the_new_objects_are_described(
    backend: Backend, studio: StandIn, segmenter: ReferenceSegmenter, monkeypatch: Patch
) -> None:
    body, described = studio.annotate(1, "brushlabels", "rectanglelabels"), []
    describe = ReferenceDescriber.describe_prompted

    def counted(self: ReferenceDescriber, label: str, *more: Any) -> Any:
        described.append(label)
        return describe(self, label, *more)

    monkeypatch.setattr(ReferenceDescriber, "describe_prompted", counted)
    (all_of_them,) = studio.annotations[1]
    studio.annotations[1] = [{**all_of_them, "result": all_of_them["result"][1:]}]
    setup(backend)
    assert len(described) == len(all_of_them["result"]) - 1
    studio.annotations[1] = [all_of_them]
    backend.webhook({**body, "action": "ANNOTATION_UPDATED"})
    setup(backend)
    assert len(described) == len(all_of_them["result"])
    memory = backend.projects[7].memory
    export = backend.folder / "export.json"
    export.write_text(json.dumps([{**studio.tasks[1], "annotations": [all_of_them]}]))
    (backend.folder / "1-a b.png").write_bytes(next(iter(studio.images.values())))
    segmenter.set_memory(None)
    segmenter.add_references(find_references(export).references)
    assert torch.allclose(memory.vectors, segmenter.memory.vectors, atol=1e-4)


def test_an_annotation_that_changes_while_it_is_read_is_read_again(
    backend: Backend, studio: StandIn, monkeypatch: Patch
) -> None:
    body, read = studio.annotate(1, "brushlabels"), backend.studio.annotations

    def change(task: int) -> list[dict[str, Any]]:
        found = read(task)
        if studio.annotations[1]:
            studio.annotations[1] = []
            backend.webhook({**body, "action": "ANNOTATION_UPDATED"})
        return found

    before = setup(backend)
    studio.annotate(1, "brushlabels")
    studio.annotations[1] = studio.annotations[1][:1]
    monkeypatch.setattr(backend.studio, "annotations", change)
    backend.webhook(body)
    assert "0 references" in setup(backend)
    assert "0 references" not in before


def test_a_webhook_is_not_believed(backend: Backend, studio: StandIn) -> None:
    before = setup(backend)
    forged = json.loads(json.dumps(studio.annotate(1, "brushlabels")))
    forged["annotation"], studio.annotations[1] = studio.annotations[1][0], []
    backend.webhook(forged)
    assert setup(backend) == before


@pytest.mark.parametrize("at_once", [True, False])
def test_of_a_webhook_that_names_many_tasks_all_are_read_at_once(
    at_once: bool, backend: Backend, studio: StandIn
) -> None:
    before = setup(backend)
    studio.asked.clear()
    ids = [{"id": number} for number in range(1000, 1500)]
    with backend.networks:  # nothing is read meanwhile
        for tasks in [ids] if at_once else [[one] for one in ids]:
            backend.webhook({"project": {"id": 7}, "action": "TASKS_DELETED", "tasks": tasks})
    assert setup(backend) == before
    assert len(studio.asked) < 100


def test_a_project_that_changes_while_it_is_read_is_read_once_more(backend: Backend, studio: StandIn) -> None:
    setup(backend)
    with backend.networks:  # the reading does not end
        backend.webhook({"project": {"id": 7}, "action": "START_TRAINING"})
        tasks = [{"id": number} for number in range(1000, 1500)]
        backend.webhook({"project": {"id": 7}, "action": "TASKS_DELETED", "tasks": tasks})
        assert backend.changed == {(7, None): 2}


def test_a_task_for_which_there_is_no_time_has_no_prediction_until_it_was_computed(
    backend: Backend, studio: StandIn, monkeypatch: Patch
) -> None:
    studio.annotate(1, "brushlabels")
    setup(backend)
    with backend.networks:  # nothing works ahead
        shutil.rmtree(backend.projects[7].cache.entries.folder, ignore_errors=True)
        monkeypatch.setattr(server, "PREDICT", 0.0)
        assert predict(backend, studio, 2) == []
    monkeypatch.setattr(server, "PREDICT", 60.0)
    assert predict(backend, studio, 2)["result"]


@pytest.mark.parametrize("shown", ["keypointlabels", "rectanglelabels"])
def test_a_smart_click_or_box_gives_the_mask_of_the_object(backend: Backend, studio: StandIn, shown: str) -> None:
    setup(backend)
    mask = max(studio.scenes[1].masks, key=np.sum)
    rows, columns = mask.nonzero()
    size = np.array(mask.shape[::-1])
    if shown == "keypointlabels":
        middle = len(rows) // 2
        (x, y), area = 100 * np.array([columns[middle], rows[middle]]) / size, {"width": 0.4}
    else:
        corners = (columns.min(), rows.min()), (columns.max(), rows.max())
        low, high = (100 * np.array(corner) / size for corner in corners)
        (x, y), area = low, dict(zip(("width", "height"), high - low, strict=True))
    drawn = {"type": shown, "value": {"x": x, "y": y, **area, shown: [NOVEL_CLASSES[0].name]}}
    (region,) = predict(backend, studio, 1, context={"result": [drawn]})["result"]
    (again,) = predict(backend, studio, 1, context={"result": [drawn]})["result"]
    assert len({region["id"], again["id"], "0"}) == 3  # Label Studio replaces a region by one with the same id
    assert region["value"]["brushlabels"] == [NOVEL_CLASSES[0].name]
    assert iou(brush(region), mask) > 0.8
    elsewhere = {"result": [{**drawn, "to_name": "rear"}]}
    assert predict(backend, studio, 1, context=elsewhere)["result"] == [], "it is on another image of the task"


def test_an_image_that_is_no_file_in_label_studio_is_not_fetched(studio: StandIn) -> None:
    elsewhere = [f"{scheme}//elsewhere.example/data/a.png" for scheme in ("http:", "https:", "")]
    others = "/api/users/", "/data/../api/users/", "/data/%2e%2e/api/users/", "data:image/png;base64,aaaa"
    for address in (*elsewhere, *others):
        with pytest.raises(UserError, match="is not fetched"):
            LabelStudio(studio.url, TOKEN).image(address, 7)
    assert studio.asked == []


def test_an_image_in_a_storage_of_the_project_is_fetched_without_the_token(studio: StandIn) -> None:
    api = LabelStudio(studio.url, TOKEN)
    assert api.image("s3://bucket/a.png", 7) == b"an image"
    with pytest.raises(UserError, match=r"image s3://other/a.png cannot be fetched"):
        api.image("s3://other/a.png", 7)


def test_of_an_image_that_is_too_large_no_more_is_kept_than_is_allowed(studio: StandIn, monkeypatch: Patch) -> None:
    monkeypatch.setattr("no_time_to_train_extras.label_studio_backend.studio.LARGEST_IMAGE", 2**20)
    studio.images["/data/upload/7/large.png"] = bytes(2**27)
    tracemalloc.start()
    with pytest.raises(UserError, match="more than 1048576 bytes"):
        LabelStudio(studio.url, TOKEN).image("/data/upload/7/large.png", 7)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_personal_token_is_renewed_when_it_is_no_longer_valid(studio: StandIn) -> None:
    api = LabelStudio(studio.url, TOKEN)
    api.check()
    studio.valid = "Bearer other"
    api.check()
    asked = [path.partition("?")[0] for path in studio.asked]
    assert asked == 2 * ["/api/projects/", "/api/token/refresh", "/api/projects/"]


@pytest.mark.parametrize(
    ("controls", "kind"),
    [
        (("RectangleLabels",), "rectanglelabels"),
        (("RectangleLabels", "PolygonLabels"), "polygonlabels"),
        (("PolygonLabels", "BrushLabels"), "brushlabels"),
    ],
)
def test_an_object_goes_to_the_most_exact_tool_of_the_labeling_interface(controls: tuple[str, ...], kind: str) -> None:
    mask = np.zeros((10, 20), bool)
    mask[2:4, 5:10] = True
    one = LabeledObject(NOVEL_CLASSES[0].name, (5, 2, 10, 4), mask, 0.5)
    region = LabelingConfig(interface(*controls)).region(one, 10, 20)
    assert region["type"] == kind
    corners = {
        "rectanglelabels": {"x": 25, "y": 20, "width": 25, "height": 20, "rotation": 0},
        "polygonlabels": {"points": [[25, 20], [25, 40], [50, 40], [50, 20]], "closed": True},
    }
    assert corners.get(kind, {}).items() <= region["value"].items()
    assert LabelingConfig(interface(*controls)).region(LabeledObject("other", one.box, mask), 10, 20) is None


def test_a_label_with_an_alias_is_known_by_it_and_spelled_as_in_the_interface() -> None:
    label = '<Label value="boat" alias="cafe\u0301"/>'  # annotations have the alias; accents as on a Mac
    tool = f'<BrushLabels name="b" toName="p">{label}</BrushLabels>'
    config = LabelingConfig(f'<View><Image name="p" value="$p"/>{tool}</View>')
    for name, spelled in (("caf\u00e9", "cafe\u0301"), ("boat", "boat")):
        region = config.region(LabeledObject(name, (0, 0, 2, 2), np.ones((2, 2), bool)), 2, 2)
        assert region["value"]["brushlabels"] == [spelled]


def test_regions_of_a_second_image_are_no_references_of_the_first(backend: Backend, studio: StandIn) -> None:
    body = studio.annotate(1, "brushlabels")
    first, *others = studio.annotations[1][0]["result"]
    studio.annotations[1][0]["result"] = [first, *({**one, "to_name": "rear"} for one in others)]
    setup(backend)
    backend.webhook(body)
    assert "1 reference," in predict(backend, studio, 2)["model_version"]


def test_only_label_studio_with_the_password_is_answered(backend: Backend) -> None:
    client, me = TestClient(build_app(backend, ("me", "secret"))), ("me", "secret")
    body = {"project": PROJECT, "schema": BRUSH}
    assert client.post("/setup", json=body).status_code == 401
    assert client.post("/setup", json=body, auth=me).status_code == 200
    assert client.post("/setup", json=body, auth=me, headers={"Origin": "http://a"}).status_code == 403
    assert client.post("/webhook", json={"action": "PROJECT_UPDATED"}).status_code == 201
    assert client.get("/health", auth=me).json()["status"] == "UP"
    wrong = client.post("/setup", json={**body, "schema": "<View/>"}, auth=me)
    assert (wrong.status_code, wrong.json()["error"][:30]) == (400, "the labeling interface needs a")
    assert client.post("/setup", content=iter([b"{}"]), auth=me).status_code == 413
    guesses = [client.post("/setup", json=body, auth=("me", str(number))).status_code for number in range(12)]
    assert guesses == [401] * 10 + [429] * 2


def test_another_name_may_lead_here_only_where_other_computers_are_let_in(backend: Backend) -> None:
    for host, status in (("127.0.0.1", 403), ("0.0.0.0", 200)):
        guard = StudioGuard(build_app(backend, None), host, None, server.LARGEST, Metrics())
        client = TestClient(guard, base_url="http://127.0.0.1:9090")
        assert client.get("/health").headers["x-frame-options"] == "DENY"
        assert client.get("/health", headers={"Host": "host.docker.internal"}).status_code == status


NO_REGION: list[Any] = [{}, 5, {"value": "a"}, {"value": {"x": "a", "y": 5}}, {"value": {"x": 1, "y": 5, "labels": 5}}]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/setup", {"project": "7." + "1" * 5000}),
        ("/setup", {"project": "\uff11.\uff12"}),
        *(("/predict", {"tasks": tasks}) for tasks in ("abc", 5, [None], [{}])),
        *(("/predict", {"params": params}) for params in (5, {"context": 5}, {"context": {"result": 5}})),
        *(("/predict", {"params": {"context": {"result": [region]}}}) for region in NO_REGION),
        ("/predict", {"tasks": [], "params": {"context": {"result": [{}]}}}),
        ("/webhook", {"project": {"id": 7}, "action": "TASKS_DELETED", "tasks": 5}),
    ],
)
def test_what_label_studio_does_not_send_is_answered_in_one_line(
    path: str, change: Any, backend: Backend, studio: StandIn
) -> None:
    setup(backend)
    body = {"project": PROJECT, "schema": BRUSH, "label_config": BRUSH, "tasks": [studio.tasks[1]], **change}
    answer = TestClient(build_app(backend, None)).post(path, json=body)
    assert (answer.status_code, len(answer.text.splitlines())) == (400, 1)


def test_a_task_or_a_project_that_cannot_be_read_keeps_no_other_one_waiting(
    backend: Backend, studio: StandIn, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(server, "PAUSE", 0.1)
    monkeypatch.setattr(server, "SETUP", 0.1)
    backend.setup({"project": "8.1", "schema": BRUSH})  # of which the stand-in knows nothing
    studio.annotate(1, "brushlabels")
    setup(backend)
    task = {"id": 3, "data": {"picture": "http://["}}
    body = {"project": PROJECT, "label_config": BRUSH, "tasks": [task, studio.tasks[2]]}
    broken, good = backend.predict(body)["results"]
    assert broken == []
    assert good["result"]


def test_two_servers_do_not_share_a_folder_and_a_taken_port_is_said(
    refusal: Refusal, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a token")
    command = "serve", "label-studio", "--nano", "--url", "http://localhost:1", "--out", tmp_path
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}: Address already in use" in refusal(*command, "--port", port)
        with FileLock(tmp_path / "lock"):
            assert f"is using {tmp_path}" in refusal(*command, "--port", free_port())


def test_an_address_that_is_not_label_studio_is_said_and_a_key_may_come_from_a_file(
    refusal: Refusal, tmp_path: Path, monkeypatch: Patch
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200 if request.headers["Authorization"] == "Token key" else 401)
        request.end_headers()
        request.wfile.write(b"<html>")

    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "key\n")
    with serving(answer) as url:
        command = "serve", "label-studio", "--nano", "--url", url, "--out", tmp_path, "--port", free_port()
        assert "is that Label Studio? The answer is no JSON" in refusal(*command)
