"""``benchmark``: the stages, the scores and the page on an own COCO data set, with one command."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from no_time_to_train.benchmarks import own_data_set
from no_time_to_train.benchmarks.own_data_set import STAGES, BenchmarkOptions
from no_time_to_train.cli import main
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.files import read_json
from no_time_to_train.method.settings import MODES
from no_time_to_train.pipeline import processes
from no_time_to_train.pipeline.run_record import record_stage
from tests.conftest import DATA, Capture, Patch, gallery_data


def write_copy(path: Path, source: str, **changes: Any) -> Path:
    """A copy of an annotation file of the test data, next to a link to its images."""
    path.write_text(json.dumps({**read_json(DATA / source), **changes}))
    if not (path.parent / "images").exists():
        (path.parent / "images").symlink_to(DATA / "images")
    return path


def test_one_command_gives_memory_results_scores_and_a_page(tmp_path: Path, capsys: Capture) -> None:
    more = [*read_json(DATA / "references.json")["categories"], {"id": 99, "name": "unicorn"}]
    references = write_copy(tmp_path / "refs.json", "references.json", categories=more)
    images = read_json(DATA / "targets.json")["images"][:2]
    targets = write_copy(tmp_path / "targets.json", "targets.json", images=images)
    out = tmp_path / "run"
    options = ["--n-shot", "1", "--nano", "--points-per-side", "6", "--device", "cpu", "--out", str(out)]
    main(["benchmark", str(references), str(targets), *options])
    output = capsys.readouterr()
    assert load_memory(out / "memory_postprocessed.ckpt").counts.tolist() == [1, 1, 1]
    assert "unicorn" in output.err, "a class without references is named"
    assert "SEGM RESULTS:" in output.out
    metrics = read_json(out / "metrics.json")
    assert (metrics["dataset_name"], metrics["n_shot"]) == ("targets", 1)
    assert f"{100 * metrics['segm']['AP']:.1f}" in (out / "index.html").read_text()
    assert len(gallery_data(out / "index.html")["images"]) == 2


def test_several_seeds_are_runs_of_their_own_with_a_report(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    def score(folder: Path, stages: Sequence[str], options: Sequence[str] = (), devices: int = 1) -> None:
        """Stands in for the stages."""
        if stages == STAGES[2:]:
            seed = int(options[options.index("--seed") + 1])
            with record_stage(folder, "test", {}, labels={"dataset_name": "targets", "n_shot": 1, "seed": seed}):
                (folder / "metrics.json").write_text(json.dumps({"bbox": {"AP": seed / 10}}))

    monkeypatch.setattr(own_data_set, "run_stages", score)
    monkeypatch.setattr("no_time_to_train.pipeline.results_page.write_results_page", lambda *_: None)
    files = [str(write_copy(tmp_path / name, name)) for name in ("references.json", "targets.json")]
    out = tmp_path / "runs"
    options = ["--n-shot", "1", "--seeds", "1", "5", "--nano", "--mode", "best", "--tiles", "2", "--out", str(out)]
    main(["benchmark", *files, *options])
    assert "30.0 ± 28.3" in (out / "report.md").read_text()
    assert f"open {out / 'report.html'}" in capsys.readouterr().out
    one, five = (read_json(out / f"seed_{seed}" / "references.json") for seed in (1, 5))
    assert one != five
    model = yaml.safe_load((out / "seed_1" / "config.yaml").read_text())["model"]["init_args"]
    settings = {"points_per_side": 32, "tiles": 2, **MODES["best"]}
    assert model["model_cfg"]["sam2_infer_cfgs"] == settings


def test_seeds_that_are_done_are_not_run_again_unless_something_has_changed(tmp_path: Path, monkeypatch: Patch) -> None:
    runs: list[str] = []

    def score(folder: Path, stages: Sequence[str], options: Sequence[str] = (), devices: int = 1) -> None:
        """Stands in for the stages."""
        if stages == STAGES[2:]:
            runs.append(folder.name)
            with record_stage(folder, "test", {"memory": str(memory)}):
                pass

    monkeypatch.setattr(own_data_set, "run_stages", score)
    monkeypatch.setattr("no_time_to_train.pipeline.results_page.write_results_page", lambda out, *_: page(out))
    page = lambda out: (out / "index.html").write_text("")  # noqa: E731
    memory = tmp_path / "memory"
    memory.write_text("the first")
    shutil.copytree(DATA / "images", tmp_path / "images")
    files = [write_copy(tmp_path / name, name) for name in ("references.json", "targets.json")]
    first = BenchmarkOptions(n_shot=1, nano=True, seeds=[1, 5])

    def again(options: BenchmarkOptions) -> list[str]:
        runs.clear()
        own_data_set.run_benchmark(files[0], files[1], tmp_path / "runs", options)
        return runs

    assert again(first) == ["seed_1", "seed_5"]
    assert again(replace(first, seeds=[1, 5, 6])) == ["seed_6"]
    assert again(replace(first, mode="best")) == ["seed_1", "seed_5"]
    memory.write_text("another")
    assert again(replace(first, mode="best")) == ["seed_1", "seed_5"]
    for changed in (files[1], tmp_path / "images/scene_2.png"):
        earlier = changed.stat().st_mtime
        later = (tmp_path / "runs/seed_5/index.html").stat().st_mtime + 1
        os.utime(changed, (later, later))
        assert again(replace(first, mode="best")) == ["seed_1", "seed_5"], changed
        os.utime(changed, (earlier, earlier))
        assert again(replace(first, mode="best")) == []


def test_several_devices_share_the_stages_with_networks(tmp_path: Path, monkeypatch: Patch) -> None:
    here: list[list[str]] = []
    elsewhere: list[list[str]] = []
    monkeypatch.setattr("no_time_to_train.stage_cli.run_stage", here.append)
    monkeypatch.setattr(own_data_set, "catch_signals", lambda: None)
    ended = Mock(wait=lambda: 0)
    monkeypatch.setattr(own_data_set.subprocess, "Popen", lambda command, **_: elsewhere.append(command) or ended)
    own_data_set.run_stages(tmp_path, devices=2)
    modes = [words[words.index("--model.test_mode") + 1] for words in elsewhere]
    assert modes == ["fill_memory", "test"]
    assert all(words[-4:] == ["--trainer.devices", "2", "--trainer.strategy", "ddp"] for words in elsewhere)
    ((*_, mode, _, _, _, _),) = here  # the second stage takes a moment
    assert mode == "postprocess_memory"


def stand_in_for_python(path: Path, line: str, monkeypatch: Patch) -> None:
    """Have the processes of stages run a line of the shell."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.mark.skipif(sys.platform != "linux", reason="finds the process in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stage_on_several_devices_ends_with_the_benchmark_that_began_it(
    number: signal.Signals, tmp_path: Path, monkeypatch: Patch
) -> None:
    stand_in_for_python(
        tmp_path / "python", f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 60", monkeypatch
    )
    if not (benchmark := os.fork()):
        try:
            own_data_set.run_stages(tmp_path, devices=2)
        except KeyboardInterrupt as error:
            os._exit(processes.signal_of(error))
    while not (tmp_path / "pid").exists():
        time.sleep(0.01)
    os.kill(benchmark, number)
    status = os.waitpid(benchmark, 0)[1]
    assert (os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)) == number
    stage = Path("/proc") / (tmp_path / "pid").read_text().strip()
    for _ in range(500):
        if not stage.exists() or ") Z " in (stage / "stat").read_text():
            return
        time.sleep(0.01)
    pytest.fail("the stage still runs")


@pytest.mark.skipif(os.name == "nt", reason="has no such signals")
def test_a_stage_on_several_devices_that_was_killed_is_said(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(own_data_set, "catch_signals", lambda: None)
    stand_in_for_python(tmp_path / "python", "kill -9 $$", monkeypatch)
    with pytest.raises(SystemExit, match="error: stage fill_memory was ended by SIGKILL"):
        own_data_set.run_stages(tmp_path, devices=2)


def test_a_preset_chooses_networks_and_guided_prompts() -> None:
    assert BenchmarkOptions(preset="fast").settings() == {"points_per_side": 32, "prompts": "guided"}


def test_two_files_that_number_the_classes_differently_are_refused_before_anything_runs(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    references, targets = (write_copy(tmp_path / name, name) for name in ("references.json", "targets.json"))
    content = read_json(targets)
    for one in (*content["categories"], *content["annotations"]):
        one["id" if "name" in one else "category_id"] += 100
    targets.write_text(json.dumps(content))
    line = refusal("benchmark", references, targets, "--nano", "--out", tmp_path / "run")
    assert "number the classes differently" in line
    assert not (tmp_path / "run").exists()
