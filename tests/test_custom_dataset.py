"""``make_custom_dataset.py``: the authors' example from a COCO file and images that a local server provides."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from no_time_to_train.cli import main
from tests.conftest import Checkpoints, Patch
from tests.prepare.sites import Site
from tests.small_sets import draw_coco, write
from tests.web import serving

ROOT = Path(__file__).parents[1]
Made = subprocess.CompletedProcess[str]


def make(annotations: Path, *options: str, cwd: Path = ROOT) -> Made:
    """Run the script on a file of annotations."""
    script = [sys.executable, str(ROOT / "scripts" / "make_custom_dataset.py"), "--json-file", str(annotations)]
    return subprocess.run([*script, *options], cwd=cwd, capture_output=True, text=True)


IDS = [429819, 101435, 98636, 361948, 456065, 42279, 517410, 439274, 407180, 459673, 481301, 460598]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of drawn images. Their annotations, with the ids of COCO's images, are in ``train2017.json``."""
    data = draw_coco(tmp_path / "drawn", ["bird", "kite", "boat"], len(IDS))
    ids = {image["id"]: image_id for image, image_id in zip(data["images"], IDS, strict=True)}
    for image in data["images"]:
        image["id"] = ids[image["id"]]
    for annotation in data["annotations"]:
        annotation["image_id"] = ids[annotation["image_id"]]
    write(data, tmp_path / "train2017.json")

    with serving(Site(tmp_path / "drawn").answer) as url:
        yield url


def test_makes_the_example_and_its_commands_write_metrics(server: str, nano_options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "boats and birds"
    made = make(tmp_path / "train2017.json", "--out", str(out), "--url", server)
    assert "expected AP: 47.8 (bbox), 45.8 (segm)" in made.stdout
    assert "sam_vit_h_4b8939.pth does not exist, so the commands use COCO's masks" in made.stderr
    assert len(list((out / "images").glob("*.png"))) == 12
    references = json.loads((out / "annotations/custom_references.json").read_text())
    assert sorted(annotation["category_id"] for annotation in references["annotations"]) == [1, 3]
    targets = json.loads((out / "annotations/custom_targets.json").read_text())
    assert [image["id"] for image in targets["images"]] == IDS[2:]

    segment, evaluate = (shlex.split(line)[1:] for line in made.stdout.splitlines() if "no-time-to-train" in line)
    main([*segment, *nano_options])
    main(evaluate)
    assert set(json.loads((out / "found/metrics.json").read_text())["bbox"]["per_class"]) == {"bird", "boat"}


def test_masks_of_references_are_made_by_sam_h_where_its_checkpoint_is_there(
    server: str, nano_checkpoints: Checkpoints, tmp_path: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "sam_vit_h_4b8939.pth").touch()
    made = make(Path("train2017.json"), "--out", "example", "--url", server, cwd=tmp_path)
    assert "note" not in made.stderr
    masks, segment, evaluate = (shlex.split(line)[1:] for line in made.stdout.splitlines() if "no-time" in line)
    assert masks[-3:] == ["--sam-checkpoint", "checkpoints/sam_vit_h_4b8939.pth", "--as-published"]
    monkeypatch.chdir(tmp_path)
    main([*masks[:-3], "--as-published", "--sam2", str(nano_checkpoints[0]), "--device", "cpu"])
    references = json.loads(Path("example/annotations/custom_references_with_segm.json").read_text())
    assert all(isinstance(annotation["segmentation"], list) for annotation in references["annotations"])
    assert segment[1:3] == ["--references", "example/annotations/custom_references_with_segm.json"]
    assert evaluate[0] == "evaluate"


def test_refuses_another_annotation_file(tmp_path: Path) -> None:
    write(draw_coco(tmp_path, ["bird", "boat"], 1), tmp_path / "other.json")
    made = make(tmp_path / "other.json")
    assert made.returncode == 2
    assert "has no image 429819: use COCO's instances_train2017.json" in made.stderr
