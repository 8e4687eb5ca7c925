"""The three stages from the command line: with one process, several, and two nodes; and with other settings."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from no_time_to_train.cli import main
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.errors import UserError
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import MODES
from tests.conftest import (
    DATA,
    Arguments,
    Capture,
    Checkpoints,
    Patch,
    Photo,
    Refusal,
    assert_same_results,
    recorded,
    results,
    stage_arguments,
)
from tests.web import free_port

ROOT = Path(__file__).parent.parent
TARGETS = "--model.init_args.dataset_cfgs.test.json_file"

#: The images that are searched, of the five of the test data.
IMAGES = 3
GUIDED: dict[str, Any] = {"prompts": "guided"}
TILES: dict[str, Any] = {"tiles": 2, "points_per_side": 4}


def start(arguments: list[str], **environment: str) -> "subprocess.Popen[str]":
    """Start the paper's command in a new process."""
    return subprocess.Popen(
        [sys.executable, "run_lightning.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def single(memory: Path, nano_checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run of the test stage with one process, and what it printed."""
    folder = tmp_path_factory.mktemp("single")
    options = ["--ckpt_path", str(memory), "--model.init_args.model_cfg.test.online_vis", "True", "--seed", "33"]
    with redirect_stdout(StringIO()) as output:
        main([*stage_arguments("test", nano_checkpoints, folder), *options])
    return folder, output.getvalue()


def test_the_stages_write_results_that_pycocotools_loads(single: tuple[Path, str]) -> None:
    folder, output = single
    results = COCO(DATA / "targets.json").loadRes(str(folder / "results.json"))
    assert len(results.anns) > 0
    metrics = json.loads((folder / "metrics.json").read_text())
    for kind in ("bbox", "segm"):
        assert f"{kind.upper()} RESULTS:" in output
        assert metrics[kind].keys() >= {"AP", "AP50", "AR100"}
        assert list(metrics[kind]["per_class"]) == ["disc", "star", "leaf"]
    assert metrics["seed"] == 33
    assert "images/s" in output
    assert len(list((folder / "pictures").iterdir())) == 5
    assert not list(folder.glob(".*")), "the journal and all temporary files are removed"
    recorded = json.loads((folder / "run.json").read_text())["test"]
    assert ("git" in recorded["versions"]) == (ROOT / ".git").exists()


def test_two_processes_fill_the_memory_of_one(memory: Path, nano_checkpoints: Checkpoints, tmp_path: Path) -> None:
    words = stage_arguments("fill_memory", nano_checkpoints, tmp_path)
    finish(start([*words, "--out_path", str(tmp_path / "memory.ckpt"), "--trainer.devices", "2"]))
    ours, theirs = load_memory(tmp_path / "memory.ckpt"), load_memory(memory)
    assert ours.categories == theirs.categories
    np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=1e-5)


def test_processes_may_be_more_than_images(single: tuple[Path, str], arguments: Arguments, tmp_path: Path) -> None:
    data = json.loads((DATA / "targets.json").read_text())
    (tmp_path / "targets.json").write_text(json.dumps({**data, "images": data["images"][:1], "annotations": []}))
    finish(start(arguments(tmp_path, TARGETS, tmp_path / "targets.json", "--trainer.devices", 2)))
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path, single[0]))
    assert len(ours) == sum(record["image_id"] == data["images"][0]["id"] for record in theirs)


def test_pictures_of_images_that_are_no_targets_any_more_are_removed(
    single: tuple[Path, str], arguments: Arguments, tmp_path: Path
) -> None:
    data = json.loads((DATA / "targets.json").read_text())
    (tmp_path / "targets.json").write_text(json.dumps({**data, "images": data["images"][:1], "annotations": []}))
    shutil.copytree(single[0] / "pictures", tmp_path / "pictures")
    (tmp_path / "pictures/mine.jpg").write_bytes(b"a photo")
    shown = ["--model.init_args.model_cfg.test.online_vis", "true"]
    main(arguments(tmp_path, TARGETS, tmp_path / "targets.json", *shown))
    assert {one.name for one in (tmp_path / "pictures").iterdir()} == {f"{data['images'][0]['id']}.jpg", "mine.jpg"}


def test_bf16_gives_nearly_the_same_memory_and_valid_results(
    memory: Path, arguments: Arguments, nano_checkpoints: Checkpoints, tmp_path: Path
) -> None:
    filled, bf16 = tmp_path / "memory.ckpt", ["--trainer.precision", "bf16-mixed"]
    main([*stage_arguments("fill_memory", nano_checkpoints, tmp_path), "--out_path", str(filled), *bf16])
    ours, exact = load_memory(filled), load_memory(memory)
    assert ours.vectors.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(ours.vectors, exact.vectors).min() > 0.99
    main(arguments(tmp_path, *bf16))
    scores = [record["score"] for record in json.loads((tmp_path / "results.json").read_text())]
    assert scores
    assert all(0 <= score <= 1 for score in scores), "no NaN either"


def test_two_nodes_give_what_one_gives(single: tuple[Path, str], arguments: Arguments, tmp_path: Path) -> None:
    port = str(free_port())
    words = arguments(tmp_path, "--trainer.num_nodes", 2, "--trainer.devices", 1)
    nodes = [
        start(words, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, NODE_RANK=str(rank), LOCAL_RANK="0")
        for rank in range(2)
    ]
    for node in nodes:
        finish(node)
    assert_equal_results(tmp_path, single[0])


def test_a_bad_image_on_one_of_several_processes_ends_all_with_one_line(arguments: Arguments, tmp_path: Path) -> None:
    images = json.loads((DATA / "targets.json").read_text())["images"]
    for image in images:
        content = (DATA / "images" / image["file_name"]).read_bytes()
        (tmp_path / image["file_name"]).write_bytes(content[:1000] if image is images[1] else content)
    root = ("--model.init_args.dataset_cfgs.test.root", tmp_path)
    process = start(arguments(tmp_path / "out", *root, "--trainer.devices", 2))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    assert output.count("error: ") == output.count(images[1]["file_name"]) == 1
    assert not (tmp_path / "out" / "results.json").exists()


def test_targets_without_annotations_give_predictions(arguments: Arguments, tmp_path: Path, capsys: Capture) -> None:
    data = json.loads((DATA / "targets.json").read_text())
    (tmp_path / "targets.json").write_text(json.dumps({"images": data["images"][:1]}))
    (tmp_path / "metrics.json").write_text('{"dataset_name": "of earlier results"}')
    (tmp_path / "explain.json").write_text('{"iou": 0.5, "score": 0.5}')
    (tmp_path / "explain.html").write_text("my own page")
    main(arguments(tmp_path, TARGETS, tmp_path / "targets.json", "--export_result", tmp_path / "r.json"))
    assert "nothing to evaluate" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "explain.json").exists()
    assert (tmp_path / "explain.html").exists(), "it is somebody else's"


@pytest.mark.parametrize("mode", ["postprocess_memory", "test"])
def test_a_number_of_classes_that_is_not_the_memorys_is_refused(
    mode: str, memory: Path, nano_checkpoints: Checkpoints, tmp_path: Path, refusal: Refusal
) -> None:
    words = stage_arguments(mode, nano_checkpoints, tmp_path, {"model_cfg.memory_bank_cfg.category_num": 2})
    said = refusal(*words, "--ckpt_path", str(memory), "--out_path", str(tmp_path / "out"))
    assert re.search(r"category_num is 2, but memory \S+ has 3 classes", said)


def test_the_memory_is_drawn(memory: Path, nano_checkpoints: Checkpoints, tmp_path: Path) -> None:
    main([*stage_arguments("vis_memory", nano_checkpoints, tmp_path), "--ckpt_path", str(memory)])
    assert sorted(path.name for path in (tmp_path / "memory_pictures").iterdir()) == ["11.png", "3.png", "7.png"]


def assert_equal_results(folder: Path, expected: Path) -> None:
    """The same detections in the same order, scores to 1e-5."""
    ours, theirs = (json.loads(results(path)) for path in (folder, expected))
    assert [record["image_id"] for record in ours] == [record["image_id"] for record in theirs]
    assert_same_results(ours, theirs, atol=1e-5)


# Settings that are not the paper's


@pytest.fixture
def run(arguments: Arguments, tmp_path: Path) -> Arguments:
    """The command line of the test stage on the first images, for the folder of its results and ``sam2_infer_cfgs``."""
    data = json.loads((DATA / "targets.json").read_text())
    ids = [image["id"] for image in data["images"][:IMAGES]]
    annotations = [one for one in data["annotations"] if one["image_id"] in ids]
    targets = {**data, "images": data["images"][:IMAGES], "annotations": annotations}
    (tmp_path / "targets.json").write_text(json.dumps(targets))
    words = "--model.init_args.dataset_cfgs.test.json_file", tmp_path / "targets.json"
    return lambda folder, *options, **settings: arguments(folder, *words, *options, **settings)


def test_two_processes_give_the_same_and_a_run_with_other_settings_does_not_resume(
    run: Arguments, refusal: Refusal, tmp_path: Path, monkeypatch: Patch
) -> None:
    settings = {**MODES["best"], **GUIDED, **TILES}
    main(run(tmp_path / "one", **settings))
    finish(start(run(tmp_path / "two", "--trainer.devices", 2, "--trainer.strategy", "ddp", **settings)))
    match, calls = Segmenter.match_and_merge, []

    def stopping(self: Segmenter, proposals: DescribedProposals) -> object:
        calls.append(proposals)
        if len(calls) == 2:
            raise UserError("stop")
        return match(self, proposals)

    monkeypatch.setattr(Segmenter, "match_and_merge", stopping)
    assert "stop" in refusal(*run(tmp_path / "resumed", **settings))
    other = run(tmp_path / "resumed", **{**settings, "merge_exponent": 0.25})
    assert "finished items of a run with another sam2_infer_cfgs" in refusal(*other)
    main(run(tmp_path / "resumed", **settings))
    assert len(calls) == 2 + IMAGES - 1, "one image was done"
    assert results(tmp_path / "resumed") == results(tmp_path / "two") == results(tmp_path / "one")
    prompts = [recorded(tmp_path / name)["prompts_per_image"] for name in ("one", "resumed")]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (GUIDED, [{"prompts": "grid"}, {"prompt_threshold": 0.1}, {"prompt_budget": 0.1}]),
        (TILES, [{"tile_overlap": 0.1}, {"tiles": 1}]),
    ],
    ids=["guided", "tiles"],
)
def test_a_cache_entry_is_used_with_the_same_prototypes_and_numbers_only(
    settings: dict[str, Any], changes: list[dict[str, Any]], run: Arguments, memory: Path, tmp_path: Path
) -> None:
    cache, other = tmp_path / "cache", tmp_path / "other.ckpt"
    cached = ("--model.init_args.cache_dir", cache)
    main(run(tmp_path / "first", *cached, **settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "_describe_squares", None)  # not needed any more
        main(run(tmp_path / "second", *cached, **settings))
        main(run(tmp_path / "score", *cached, **settings, score="cosine_iou"))
    assert results(tmp_path / "second") == results(tmp_path / "first") != b"[]"
    assert recorded(tmp_path / "second")["prompts_per_image"] == recorded(tmp_path / "first")["prompts_per_image"]
    for count, change in enumerate(changes, start=2):
        main(run(tmp_path / str(count), *cached, **{**settings, **change}))
        assert len(list(cache.iterdir())) == IMAGES * count
    bank = torch.load(memory, weights_only=True)
    torch.save({**bank, "prototypes": bank["prototypes"].flip(1)}, other)
    main(run(tmp_path / "other", *cached, memory=other, **settings))
    grid = settings == TILES  # proposals of the grid do not depend on the prototypes
    assert len(list(cache.iterdir())) == IMAGES * (1 + len(changes) + (not grid))


@pytest.mark.parametrize(("option", "value", "most"), [("prompts", "guided", 0.15 * 64), ("tiles", "2", 5 * 64)])
def test_segment_takes_the_setting_and_records_the_number_of_prompts(
    option: str, value: str, most: float, photo: Photo, nano_options: list[str], tmp_path: Path
) -> None:
    words = ["segment", "--reference", photo.reference(), "--images", str(photo.path), "--out", str(tmp_path / "out")]
    main([*words, *nano_options, f"--{option}", value])
    run = recorded(tmp_path / "out", "segment")
    assert str(run["settings"][option]) == value
    assert 0 < run["prompts_per_image"] <= most
    assert run["prompts_per_image"] == most or option == "prompts"
