"""Annotation files whose image ids are strings give what the same files with numbers give."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from no_time_to_train.cli import main
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.reference_sets import read_references, validate_references
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation import evaluate
from no_time_to_train.evaluation.results_file import read_results
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.pipeline.boxes_to_masks import boxes_to_masks
from tests import small_sets
from tests.conftest import DATA, Checkpoints, Patch, stage_arguments
from tests.stand_in import WholeBox
from tests.stand_in import run as segment

Rename = Callable[[int], "int | str"]


def renamed(data: dict[str, Any], rename: Rename, images: int | None = None) -> dict[str, Any]:
    """The first images of a COCO file with other ids."""
    listed = data["images"][:images]
    ids = {image["id"]: rename(image["id"]) for image in listed}
    return {
        **data,
        "images": [{**image, "id": ids[image["id"]]} for image in listed],
        "annotations": [{**a, "image_id": ids[a["image_id"]]} for a in data["annotations"] if a["image_id"] in ids],
    }


def write_renamed(folder: Path, rename: Rename) -> None:
    """Write the test data, with two targets, under other ids."""
    folder.mkdir()
    for name in ("references", "targets"):
        data = renamed(json.loads((DATA / f"{name}.json").read_text()), rename, 2)
        (folder / f"{name}.json").write_text(json.dumps(data))
    given = read_references(DATA / "references.pkl").items()
    shots = {one: [{**shot, "img_id": rename(int(shot["img_id"]))} for shot in listed] for one, listed in given}
    (folder / "set.json").write_text(json.dumps(shots))


def test_the_stages(tmp_path: Path, nano_checkpoints: Checkpoints) -> None:
    write_renamed(tmp_path / "numbers", lambda image_id: image_id)
    write_renamed(tmp_path / "strings", "../day 1/{}".format)
    filled, processed = str(tmp_path / "memory.ckpt"), str(tmp_path / "processed.ckpt")

    def run(stage: str, folder: Path, *options: str) -> None:
        files = {"fill_memory.json_file": "references", "fill_memory.memory_pkl": "set", "test.json_file": "targets"}
        keys = {f"dataset_cfgs.{key}": folder / f"{name}.json" for key, name in files.items()}
        keys |= {"model_cfg.sam2_infer_cfgs.points_per_side": 4, "model_cfg.test.online_vis": "true"}
        main([*stage_arguments(stage, nano_checkpoints, folder, keys), *options])

    run("fill_memory", tmp_path / "strings", "--out_path", filled)
    run("postprocess_memory", tmp_path / "strings", "--ckpt_path", filled, "--out_path", processed)
    for name in ("numbers", "strings"):
        run("test", tmp_path / name, "--ckpt_path", processed, "--model.init_args.cache_dir", str(tmp_path / "cache"))
    numbers, strings = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("numbers", "strings"))
    assert numbers
    assert strings == [{**one, "image_id": f"../day 1/{one['image_id']}"} for one in numbers]
    metrics = [(tmp_path / name / "metrics.json").read_text() for name in ("numbers", "strings")]
    assert metrics[0] == metrics[1]
    assert sorted(p.name for p in (tmp_path / "strings" / "pictures" / "day 1").iterdir()) == ["103.jpg", "104.jpg"]


def test_segment_and_filter(tmp_path: Path) -> None:
    small_sets.write(renamed(small_sets.draw_coco(tmp_path, ["a"], 1), "x/{}".format), tmp_path / "coco.json")
    segment(tmp_path / "found", tmp_path / "coco.json", formats=["cvat-coco"])
    main(["filter", str(tmp_path / "found"), "--score", "0.1", "--out", str(tmp_path / "best")])
    for folder in ("found", "best"):
        results = json.loads((tmp_path / folder / "results.json").read_text())
        labels = json.loads((tmp_path / folder / "cvat-coco/annotations/instances_default.json").read_text())
        assert {one["image_id"] for one in results} == {"x/1"}
        assert {one["image_id"] for one in labels["annotations"]} == {one["id"] for one in labels["images"]} == {"x/1"}


@pytest.mark.parametrize(
    "command",
    [
        ["sample-references", "--n-shot", "1", "--json-file", "coco.json", "--out"],
        ["coco-to-references", "coco.json"],
        ["coco-to-references", "--as-published", "coco.json"],
    ],
)
@pytest.mark.parametrize("suffix", ["json", "pkl"])
def test_reference_sets(tmp_path: Path, monkeypatch: Patch, command: list[str], suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    sets = []
    for rename in (int, "{:03d}".format):
        small_sets.write(renamed(small_sets.draw_coco(tmp_path, ["a", "b"], 3), rename), tmp_path / "coco.json")
        main([*command, f"refs.{suffix}"])
        references = read_references(f"refs.{suffix}")
        validate_references(references, read_coco("coco.json"), "coco.json", [Category(1, "a"), Category(2, "b")], 1)
        sets.append(references)
    numbers, strings = sets
    assert strings == {c: [{**shot, "img_id": f"{shot['img_id']:03d}"} for shot in numbers[c]] for c in numbers}


@pytest.mark.parametrize("protocol", ["coco", "voc", "lvis", "semantic"])
def test_evaluation_also_of_results_whose_ids_became_numbers(tmp_path: Path, protocol: str) -> None:
    """The authors' code writes the id "0950" as 950."""
    small_sets.write_lvis(tmp_path)
    data = json.loads((tmp_path / "lvis" / "annotations" / "lvis_v1_val.json").read_text())
    keys = ("image_id", "category_id", "bbox", "segmentation")
    results = [{key: a[key] for key in keys} | {"score": 0.3 + a["id"] / 20} for a in data["annotations"]]
    results += [{**one, "category_id": one["category_id"] % 3 + 1, "score": 0.5} for one in results]
    categories = [Category(one["id"], one["name"]) for one in data["categories"]]

    def scored(rename: Rename, rename_results: Rename) -> dict[str, Any]:
        (tmp_path / "truth.json").write_text(json.dumps(renamed(data, rename)))
        records = [{**one, "image_id": rename_results(one["image_id"])} for one in results]
        (tmp_path / "results.json").write_text(json.dumps(records))
        coco = read_coco(tmp_path / "truth.json")
        found = read_results(tmp_path / "results.json", coco)
        return evaluate(coco, found, categories, protocol, errors=protocol != "lvis")[0]

    expected = scored(int, int)
    assert scored("0{}".format, "0{}".format) == expected
    assert scored("0{}".format, int) == expected


def test_masks_from_boxes(tmp_path: Path) -> None:
    small_sets.write(renamed(small_sets.draw_coco(tmp_path, ["a"], 1, masks=False), "x{}".format), tmp_path / "a.json")
    boxes_to_masks(tmp_path / "a.json", tmp_path, tmp_path / "b.json", WholeBox)
    made = json.loads((tmp_path / "b.json").read_text())
    assert all(one["image_id"] == "x1" and one["segmentation"]["size"] == [220, 220] for one in made["annotations"])


def test_numbers_and_strings_in_one_file_are_one_error(tmp_path: Path) -> None:
    data = small_sets.draw_coco(tmp_path, ["a"], 1)
    data["annotations"] = [{**one, "image_id": "1"} for one in data["annotations"]]
    small_sets.write(data, tmp_path / "coco.json")
    with pytest.raises(UserError, match=r"coco.json .*: images\[0\] has id 1, annotations\[0\] has image_id '1'$"):
        read_coco(tmp_path / "coco.json")
