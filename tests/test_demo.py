"""The demo with the networks that ship with the package, judged by average precision."""

import json
import re
from importlib.resources import files
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from pycocotools.coco import COCO

from no_time_to_train.cli import main
from no_time_to_train.commands import demo as demo_command
from no_time_to_train.commands.options import NetworkOptions
from no_time_to_train.data.reference_sets import read_references, write_references
from no_time_to_train.demo import photographs
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.errors import UserError
from no_time_to_train.file_hashes import sha256
from no_time_to_train.files import read_json
from tests.conftest import Command, Patch, Refusal, gallery_data, write_picture
from tests.prepare.sites import Site
from tests.web import serving

SEED = "77"


Demo = tuple[Path, str]


def printed(command: Command, folder: Path, line: str) -> str:
    """What a command prints that runs in a folder."""
    ended = command(line.split(), folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def demo(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The folder that contains ``demo/``, and what the command printed."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, printed(command, folder, f"demo --images 8 --seed {SEED}")


def test_the_demo_finds_objects_of_classes_that_the_networks_have_not_seen(demo: Demo) -> None:
    folder, output = demo
    segm = read_json(folder / "demo/metrics.json")["segm"]
    assert segm["AP"] > 0.5
    assert list(segm["per_class"]) == [pattern.name for pattern in NOVEL_CLASSES]
    assert "SEGM RESULTS:" in output
    assert all(pattern.name in output for pattern in NOVEL_CLASSES)


def test_the_demo_writes_data_memory_results_a_page_and_the_command_for_own_photos(demo: Demo) -> None:
    out = demo[0] / "demo"
    targets = COCO(str(out / "targets/instances.json"))
    assert len(targets.loadRes(str(out / "results.json")).imgs) == 8
    assert (out / "memory_postprocessed.ckpt").exists()
    data = gallery_data(out / "index.html")
    shown = [image[kind] for image in data["images"] for kind in ("thumbnail", "preview", "overlay")]
    shown += [reference for one in data["classes"] for reference in one["references"]]
    assert len(data["images"]) == 8
    assert [len(one["references"]) for one in data["classes"]] == [5] * len(NOVEL_CLASSES)
    assert all(image["truth"] for image in data["images"])
    assert all((out / name).stat().st_size > 0 for name in shown)
    assert "$ no-time-to-train segment --nano --references demo/examples.json" in demo[1]
    data = gallery_data(out / "segment/index.html")
    staged = {record["image_id"] for record in read_json(out / "results.json") if record["score"] >= 0.5}
    assert [bool(image["instances"]) for image in data["images"]] == [image_id in staged for image_id in range(1, 5)]


def test_references_with_wrong_labels_find_nothing(demo: Demo, command: Command, tmp_path: Path) -> None:
    """This shows that the features find the objects, not the layout of the scenes or of the files."""
    folder, _ = demo
    annotations = read_json(folder / "demo/references/instances.json")
    references = read_references(folder / "demo/references.json")
    wrong = dict(zip(references, [*list(references)[1:], next(iter(references))], strict=True))
    for annotation in annotations["annotations"]:
        annotation["category_id"] = wrong[annotation["category_id"]]
    (tmp_path / "permuted.json").write_text(json.dumps(annotations))
    write_references({wrong[category]: shots for category, shots in references.items()}, tmp_path / "references.json")
    stage = "test --config demo/config.yaml --model.test_mode"
    memory, prototypes = tmp_path / "memory.ckpt", tmp_path / "prototypes.ckpt"
    filling = "--model.init_args.dataset_cfgs.fill_memory"
    permuted = f"{filling}.memory_pkl {tmp_path / 'references.json'} {filling}.json_file {tmp_path / 'permuted.json'}"
    printed(command, folder, f"{stage} fill_memory --out_path {memory} {permuted}")
    printed(command, folder, f"{stage} postprocess_memory --ckpt_path {memory} --out_path {prototypes}")
    printed(command, folder, f"{stage} test --ckpt_path {prototypes} --export_result {tmp_path / 'results.json'}")
    assert read_json(tmp_path / "metrics.json")["segm"]["AP"] < 0.1


def test_the_same_seed_writes_the_same_bytes(demo: Demo, command: Command, tmp_path: Path) -> None:
    def files(folder: Path) -> dict[Path, bytes]:
        paths = [path for path in (folder / "demo").rglob("*") if path.is_file() and path.name != "run.json"]
        return {path.relative_to(folder): path.read_bytes() for path in paths if "lightning_logs" not in path.parts}

    printed(command, tmp_path, f"demo --images 8 --seed {SEED}")
    assert files(demo[0]) == files(tmp_path)


def test_a_demo_that_a_full_disk_ends_while_it_draws_can_be_repeated(
    tmp_path: Path, refusal: Refusal, monkeypatch: Patch
) -> None:
    def full(folder: Path, *_: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        raise UserError("the disk is full")

    monkeypatch.setattr("no_time_to_train.demo.run_demo.write_coco", full)
    for _ in range(2):
        assert refusal("demo", "--out", tmp_path / "demo") == "error: the disk is full"


def test_the_model_card_states_the_measured_figures() -> None:
    nano = files("no_time_to_train.networks") / "nano"
    seeds = json.loads((nano / "metrics.json").read_text()).values()
    measured = {
        f"{network}.{figure}": mean(seed[network][figure] for seed in seeds)
        for network, figures in next(iter(seeds)).items()
        for figure in figures
    }
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| ([\d.-]+) \|$", (nano / "MODEL_CARD.md").read_text(), re.MULTILINE)
    assert {name: float(value) for name, value in rows} == pytest.approx(measured, abs=0.0051)


def test_the_demo_downloads_photographs_and_looks_for_the_objects_in_them(
    tmp_path: Path, monkeypatch: Patch, refusal: Refusal
) -> None:
    scene = draw_scene(np.random.default_rng(0), NOVEL_CLASSES[:2], (120, 160))
    write_picture(scene.image, *(tmp_path / "served" / f"{name}.png" for name in "abc"))
    digest = sha256(tmp_path / "served" / "a.png")
    monkeypatch.setattr(photographs, "CHECKPOINTS", ())  # of 245 MB
    monkeypatch.setattr(demo_command, "OFFICIAL", NetworkOptions(nano=True, points_per_side=4))
    monkeypatch.setattr(photographs, "PHOTOS", [(f"{name}.png", digest, name, "10,10,60,60") for name in ("a", "b")])
    out = tmp_path / "out"
    with serving(Site(tmp_path / "served").answer) as url:
        monkeypatch.setattr(photographs, "ADDRESS", url)
        main(["demo", "--photos", "--out", str(out)])
        data = gallery_data(out / "segment" / "index.html")
        assert [image["name"] for image in data["images"]] == ["a.png", "b.png"]
        assert [one["name"] for one in data["classes"]] == ["a", "b"]
        monkeypatch.setattr(photographs, "PHOTOS", [("c.png", "0" * 64, "c", "10,10,60,60")])
        assert "do not open as the photograph and were deleted" in refusal("demo", "--photos", "--out", str(out))
    assert sorted(path.name for path in (out / "photos").iterdir()) == ["a.png", "b.png"]
