"""``serve label-studio`` with a real Label Studio, through its API: ``make label-studio-test``.

Label Studio is a program of its own, in an environment of its own: LABEL_STUDIO in the environment is its executable.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from no_time_to_train.cli import main
from no_time_to_train.data.label_files.label_studio_files import region_of
from no_time_to_train.data.label_files.labeled_objects import LabeledObject
from no_time_to_train.data.reference_forms.label_studio import decode_rle
from no_time_to_train.data.rle import coco_object, decode_mask, encode_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.evaluation.coco_ap import coco_ap
from no_time_to_train.method.memory_bank import Category
from tests.web import free_port

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


class Project:
    """A project with the scenes as its tasks, and what its API says of it."""

    def __init__(self, studio: Any, scenes: Path) -> None:
        self.studio, self.truth = studio, json.loads((scenes / "instances.json").read_text())
        settings = {"title": "scenes", "label_config": INTERFACE}
        self.id = studio.post("/api/projects/", json=settings).raise_for_status().json()["id"]
        for image in self.truth["images"]:
            with (scenes / "images" / image["file_name"]).open("rb") as file:
                studio.post(f"/api/projects/{self.id}/import", files={image["file_name"]: file}).raise_for_status()
        listed = studio.get("/api/tasks/", params={"project": self.id, "page_size": 100}).json()["tasks"]
        #: The task of each image.
        self.tasks = {
            image["id"]: task["id"]
            for image in self.truth["images"]
            for task in listed
            if task["data"]["image"].endswith(image["file_name"])
        }
        self.names = {one["id"]: one["name"] for one in self.truth["categories"]}
        self.model = 0

    def connect(self, url: str) -> None:
        body = {"project": self.id, "url": url, "title": "found", "is_interactive": True}
        self.model = self.studio.post("/api/ml/", json=body).raise_for_status().json()["id"]

    def version(self) -> str:
        return str(self.studio.get(f"/api/ml/{self.model}").json()["model_version"])

    def annotate(self, image: int) -> int:
        """Annotate the objects of an image, by turns with a brush and a rectangle; the annotation's number."""
        (size,) = ((one["height"], one["width"]) for one in self.truth["images"] if one["id"] == image)
        regions = []
        for number, one in enumerate(one for one in self.truth["annotations"] if one["image_id"] == image):
            x, y, w, h = one["bbox"]
            shown = LabeledObject(
                self.names[one["category_id"]], (x, y, x + w, y + h), decode_mask(one["segmentation"])
            )
            tool = ("rectanglelabels", "boxes") if number % 2 else ("brushlabels", "masks")
            regions.append(region_of(shown, *size, *tool, "photo", number))
        address = f"/api/tasks/{self.tasks[image]}/annotations/"
        return int(self.studio.post(address, json={"result": regions}).raise_for_status().json()["id"])

    def retrieve(self, images: list[int]) -> list[dict[str, Any]]:
        """Choose *Batch predictions*; what is predicted for some images with the last version, as COCO results."""
        chosen = {"selectedItems": {"all": False, "included": [self.tasks[image] for image in images]}}
        address = f"/api/dm/actions?id=retrieve_tasks_predictions&project={self.id}"
        self.studio.post(address, json=chosen).raise_for_status()
        version, records, ids = self.version(), [], {name: number for number, name in self.names.items()}
        for image in images:
            predictions = self.studio.get(f"/api/tasks/{self.tasks[image]}/").json()["predictions"]
            (found,) = [one for one in predictions if one["model_version"] == version]
            for region in found["result"]:
                category, mask = ids[region["value"]["brushlabels"][0]], encode_mask(brush(region))
                box = coco_object(mask)["bbox"]
                record = {"image_id": image, "category_id": category, "bbox": box, "score": region["score"]}
                records.append({**record, "segmentation": mask})
        return records

    def click(self, image: int, region: dict[str, Any]) -> dict[str, Any]:
        """Use a smart tool; the region that appears."""
        body = {"task": self.tasks[image], "context": {"result": [region]}}
        answer = self.studio.post(f"/api/ml/{self.model}/interactive-annotating", json=body).raise_for_status().json()
        (found,) = answer["data"]["result"]
        return dict(found)


def brush(region: dict[str, Any]) -> np.ndarray:
    height, width = region["original_height"], region["original_width"]
    return decode_rle(region["value"]["rle"], height * width * 4).reshape(height, width, 4)[..., 3] > 127


def mask_ap(truth: Path, results: list[dict[str, Any]]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        categories = [Category(one["id"], one["name"]) for one in coco.dataset["categories"]]
        metrics, _ = coco_ap(coco, results, categories)
    return float(metrics["segm"]["AP"])


def test_scenes_that_are_annotated_in_label_studio_are_found_in_its_other_tasks(studio: Any, tmp_path: Path) -> None:
    scenes, port = tmp_path / "scenes", free_port()
    write_coco(scenes, NOVEL_CLASSES, SCENES, 1)
    project = Project(studio, scenes)
    url, out = f"http://127.0.0.1:{port}", str(tmp_path / "backend")
    command = [sys.executable, "-m", "no_time_to_train", "serve", "label-studio", "--url", str(studio.base_url)]
    command += ["--port", str(port), "--out", out, *OPTIONS]
    others = [one["id"] for one in project.truth["images"]][ANNOTATED:]
    with running(command, url, tmp_path / "log.txt", OMP_NUM_THREADS="1"):
        project.connect(url)
        while len(list(Path(out).rglob("*.proposals"))) < SCENES:  # the networks see all images meanwhile
            time.sleep(0.1)
        seconds = []
        for image in range(1, ANNOTATED + 1):
            last, annotation = project.version(), project.annotate(image)
            begin = time.monotonic()
            while project.version() == last:
                time.sleep(0.02)
            project.retrieve(others[:1])
            seconds.append(time.monotonic() - begin)
        found = project.retrieve(others)
        version = project.version()

        # The same references on the command line: an export of the project, next to the images.
        export = studio.get(f"/api/projects/{project.id}/export", params={"exportType": "JSON"}).json()
        (scenes / "export.json").write_text(json.dumps(export))
        truth = {**project.truth, "images": project.truth["images"][ANNOTATED:]}
        truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] in others]
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        segment = ["segment", "--references", scenes / "export.json", "--images", tmp_path / "truth.json"]
        main([*map(str, segment), "--image-dir", str(scenes / "images"), "--out", str(tmp_path / "out"), *OPTIONS])
        expected = json.loads((tmp_path / "out" / "results.json").read_text())
        ours, theirs = (mask_ap(tmp_path / "truth.json", one) for one in (found, expected))
        print(f"mask AP: {ours:.4f} in Label Studio, {theirs:.4f} of segment; seconds a new annotation took: {seconds}")
        assert ours == pytest.approx(theirs, abs=0.01)
        assert ours > 0.3

        one = min((one for one in truth["annotations"] if one["image_id"] == others[0]), key=lambda one: one["area"])
        mask = decode_mask(one["segmentation"])
        rows, columns = mask.nonzero()
        height, width = mask.shape
        x, y = 100 * columns[len(rows) // 2] / width, 100 * rows[len(rows) // 2] / height
        x1, y1, w, h = one["bbox"]
        corners = {"x": 100 * x1 / width, "y": 100 * y1 / height, "width": 100 * w / width, "height": 100 * h / height}
        for kind, place in (("keypointlabels", {"x": x, "y": y, "width": 0.5}), ("rectanglelabels", corners)):
            value = {**place, kind: [project.names[one["category_id"]]]}
            size = {"original_width": width, "original_height": height}
            region = project.click(others[0], {"type": kind, "value": value, "is_positive": True, **size})
            made = brush(region)
            assert (made & mask).sum() / (made | mask).sum() > 0.8
            assert region["from_name"] == "masks"

    with running(command, url, tmp_path / "log.txt", OMP_NUM_THREADS="1"):
        assert project.version() == version
        assert project.retrieve(others) == found
        studio.delete(f"/api/annotations/{annotation}/").raise_for_status()
        begin = time.monotonic()
        while project.version() == version:
            assert time.monotonic() - begin < 30
            time.sleep(0.02)
