"""The three stages from the command line, as a user runs them: with one process, several, and two nodes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from no_time_to_train.cli import main
from no_time_to_train.data.memory_files import load_memory
from tests.conftest import DATA, Checkpoints, assert_same_results, results, stage_arguments

ROOT = Path(__file__).parent.parent
TARGETS = "--model.init_args.dataset_cfgs.test.json_file"
Arguments = Callable[..., list[str]]


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


def test_two_processes_fill_the_memory_that_one_fills(
    memory: Path, nano_checkpoints: Checkpoints, tmp_path: Path
) -> None:
    """The results of two processes are compared in ``test_runs_with_settings.py``."""
    words = stage_arguments("fill_memory", nano_checkpoints, tmp_path)
    finish(start([*words, "--out_path", str(tmp_path / "memory.ckpt"), "--trainer.devices", "2"]))
    ours, theirs = load_memory(tmp_path / "memory.ckpt"), load_memory(memory)
    assert ours.categories == theirs.categories
    np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=1e-5)


def test_there_may_be_more_processes_than_images(
    single: tuple[Path, str], arguments: Arguments, tmp_path: Path
) -> None:
    data = json.loads((DATA / "targets.json").read_text())
    (tmp_path / "targets.json").write_text(json.dumps({**data, "images": data["images"][:1], "annotations": []}))
    finish(start(arguments(tmp_path, TARGETS, tmp_path / "targets.json", "--trainer.devices", 2)))
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path, single[0]))
    assert len(ours) == sum(record["image_id"] == data["images"][0]["id"] for record in theirs)


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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
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


def test_targets_without_annotations_give_predictions_and_a_message(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((DATA / "targets.json").read_text())
    (tmp_path / "targets.json").write_text(json.dumps({"images": data["images"][:1]}))
    main(arguments(tmp_path, TARGETS, tmp_path / "targets.json", "--export_result", tmp_path / "r.json"))
    assert "nothing to evaluate" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())
    assert not (tmp_path / "metrics.json").exists()


def test_the_memory_is_drawn(memory: Path, nano_checkpoints: Checkpoints, tmp_path: Path) -> None:
    main([*stage_arguments("vis_memory", nano_checkpoints, tmp_path), "--ckpt_path", str(memory)])
    assert sorted(path.name for path in (tmp_path / "memory_pictures").iterdir()) == ["11.png", "3.png", "7.png"]


def assert_equal_results(folder: Path, expected: Path) -> None:
    """The same detections in the same order, scores to 1e-5."""
    ours, theirs = (json.loads(results(path)) for path in (folder, expected))
    assert [record["image_id"] for record in ours] == [record["image_id"] for record in theirs]
    assert_same_results(ours, theirs, atol=1e-5)
