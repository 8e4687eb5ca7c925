"""``serve label-studio`` with a real Label Studio, through its API: ``make label-studio-test``.

Label Studio is a program of its own, in an environment of its own: LABEL_STUDIO in the environment is its executable.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask as coco_mask

from no_time_to_train.cli import main
from no_time_to_train.data.label_files.labeled_objects import LabeledObject
from no_time_to_train.data.label_files.label_studio_files import region_of
from no_time_to_train.data.reference_forms.label_studio import decode_rle
from no_time_to_train.data.rle import decode_mask, encode_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco

httpx = pytest.importorskip("httpx")

PROGRAM = os.environ.get("LABEL_STUDIO") or shutil.which("label-studio") or ""
pytestmark = pytest.mark.skipif(not PROGRAM, reason="Label Studio is not installed: make label-studio-test")

USER, PASSWORD = "somebody@example.com", "a long password"

#: The drawn scenes, and those of them that are annotated.
SCENES, ANNOTATED = 20, 3

#: The networks and settings of both sides.
OPTIONS = ["--nano", "--points-per-side", "16", "--device", "cpu", "--threshold", "0.1"]

LABELS = "".join(f'<Label value="{one.name}"/>' for one in NOVEL_CLASSES)
INTERFACE = f"""<View><Image name="photo" value="$image"/>
<BrushLabels name="masks" toName="photo">{LABELS}</BrushLabels>
<RectangleLabels name="boxes" toName="photo" smart="true">{LABELS}</RectangleLabels>
<KeyPointLabels name="clicks" toName="photo" smart="true">{LABELS}</KeyPointLabels></View>"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers at an address, until the end of the block."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=file, stderr=file)
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.5)
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The API of a new Label Studio, and its address; with a personal token, as new ones have them."""
    folder, port = tmp_path_factory.mktemp("studio"), free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_USERNAME": USER,
        "LABEL_STUDIO_PASSWORD": PASSWORD,
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    start = [PROGRAM, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    with running(start, url, folder / "log.txt", **settings), httpx.Client(base_url=url, timeout=120) as page:
        page.get("/user/login/")
        login = {"email": USER, "password": PASSWORD, "csrfmiddlewaretoken": page.cookies["csrftoken"]}
        page.post("/user/login/", data=login, headers={"Referer": url})
        page.headers.update({"X-CSRFToken": page.cookies["csrftoken"], "Referer": url})
        os.environ["LABEL_STUDIO_API_KEY"] = page.post("/api/token/").json()["token"]
        yield page


def latest(studio: Any, task: int, version: str) -> dict[str, Any]:
    """The prediction that a task has of a version."""
    (found,) = [one for one in studio.get(f"/api/tasks/{task}/").json()["predictions"] if one["model_version"] == version]
    return dict(found)


def retrieve(studio: Any, project: int, tasks: list[int]) -> None:
    """What *Retrieve predictions* does in Label Studio."""
    chosen = {"selectedItems": {"all": False, "included": tasks}}
    address = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
    assert studio.post(address, json=chosen).status_code == 200


def test_scenes_that_are_annotated_in_label_studio_are_found_in_its_other_tasks(studio: Any, tmp_path: Path) -> None:
    url, port = str(studio.base_url), free_port()
    truth = json.loads(write_coco(tmp_path / "scenes", NOVEL_CLASSES, SCENES, 1).read_text())
    project = studio.post("/api/projects/", json={"title": "scenes", "label_config": INTERFACE}).json()["id"]
    for image in truth["images"]:
        with (tmp_path / "scenes" / "images" / image["file_name"]).open("rb") as file:
            studio.post(f"/api/projects/{project}/import", files={image["file_name"]: file}).raise_for_status()
    listed = studio.get("/api/tasks/", params={"project": project, "page_size": 100}).json()["tasks"]
    tasks = {one["id"]: task["id"] for one in truth["images"] for task in listed if one["file_name"] in str(task["data"])}
    assert len(tasks) == SCENES

    command = [sys.executable, "-m", "no_time_to_train", "serve", "label-studio", "--url", url, "--port", str(port)]
    command += ["--out", str(tmp_path / "backend"), *OPTIONS]
    address = f"http://127.0.0.1:{port}"
    with running(command, address, tmp_path / "log.txt", OMP_NUM_THREADS="1"):
        connected = {"project": project, "url": address, "title": "found", "is_interactive": True}
        model = studio.post("/api/ml/", json=connected).raise_for_status().json()["id"]
        sizes = {one["id"]: (one["height"], one["width"]) for one in truth["images"]}
        names = {one["id"]: one["name"] for one in truth["categories"]}
        versions = set()
        for image in list(tasks)[:ANNOTATED]:
            regions = []
            for number, one in enumerate(one for one in truth["annotations"] if one["image_id"] == image):
                x, y, w, h = one["bbox"]
                shown = LabeledObject(names[one["category_id"]], (x, y, x + w, y + h), decode_mask(one["segmentation"]))
                tool = ("brushlabels", "masks") if number % 2 else ("rectanglelabels", "boxes")
                regions.append(region_of(shown, *sizes[image], *tool, "photo", number))
            studio.post(f"/api/tasks/{tasks[image]}/annotations/", json={"result": regions}).raise_for_status()
            begin = time.monotonic()
            while (version := studio.get(f"/api/ml/{model}").json()["model_version"]) in versions:
                time.sleep(0.05)
            print("new version after", round(time.monotonic() - begin, 2), version)
            versions.add(version)
        others = [task for image, task in tasks.items() if image > ANNOTATED]
        begin = time.monotonic()
        retrieve(studio, project, others)
        print("retrieve", time.monotonic() - begin)
    print((tmp_path / "log.txt").read_text())
