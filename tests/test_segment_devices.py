"""``segment`` and ``references measure`` on several devices, which are processes on the CPU here."""

import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from tqdm import tqdm

from no_time_to_train import lightning_items
from no_time_to_train.cli import main
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.errors import UserError
from no_time_to_train.lightning_items import NumberedImages, build_trainer, run_items, share_numbered
from tests.conftest import Capture, Patch
from tests.stand_in import files_of

ROOT = Path(__file__).parent.parent


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command without its folder: six drawn scenes, searched for the objects of another one."""
    write_coco(tmp_path / "refs", NOVEL_CLASSES, 1, seed=5)
    write_coco(tmp_path / "photos", NOVEL_CLASSES, 6, seed=6)
    (tmp_path / "photos/images/000003.png").write_bytes(b"broken")
    paths = ["--references", str(tmp_path / "refs/instances.json"), "--images", str(tmp_path / "photos/images")]
    return ["segment", *paths, "--nano", "--points-per-side", "8", "--device", "cpu"]


def start(words: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "no_time_to_train", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def children_of(process: "subprocess.Popen[str]") -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def kill_and_resume(words: list[str], journal: Path) -> tuple[int, str, str]:
    """Kill one of two processes once an image is in the folder of the journal, then run the command again.

    Returns:
        The number of images that were done, and what the second run printed to stdout and to stderr.
    """

    def done() -> int:
        return len(list(journal.glob("*.item")))

    killed = start([*words, "--devices", "2"])
    while not done():
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    os.kill(children_of(killed)[0], signal.SIGKILL)
    _, errors = killed.communicate(timeout=120)
    assert killed.returncode == 1
    assert "\nerror: process 2 of the run was ended by SIGKILL\n" in errors  # and not at the end of a bar
    count, resumed = done(), start([*words, "--devices", "2"])
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    return count, output, errors


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_processes_share_the_images_and_a_killed_one_loses_nothing(tmp_path: Path, words: list[str]) -> None:
    out = tmp_path / "several" / "out"
    done, output, errors = kill_and_resume([*words, "--out", str(out)], out / ".results.json.run")
    assert output.count("\ntargets:") + output.startswith("targets:") == 1  # one process speaks
    assert f"({done} of the images by the run before)" in output
    assert "skipped:" in errors
    assert "000003.png" in errors

    main([*words, "--out", str(tmp_path / "one" / "out")])
    assert files_of(tmp_path / "several/out") == files_of(tmp_path / "one/out")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_any_number_of_processes_measures_references_alike_and_a_killed_one_loses_nothing(tmp_path: Path) -> None:
    write_coco(tmp_path / "refs", NOVEL_CLASSES, 5, seed=5)
    words = ["references", "measure", "--references", str(tmp_path / "refs/instances.json"), "--nano"]
    words += ["--points-per-side", "6", "--device", "cpu"]
    out = tmp_path / "several"
    done, output, _ = kill_and_resume([*words, "--out", str(out)], out / ".reference_report.json.run")
    assert output.count(f"resuming: {done} of 5 images are done") == 1

    main([*words, "--out", str(tmp_path / "one")])
    assert files_of(tmp_path / "several") == files_of(tmp_path / "one")


def test_what_is_said_after_the_bar_of_an_interrupted_run_begins_a_line(capsys: Capture, monkeypatch: Patch) -> None:
    def interrupted(_: object, module: NumberedImages) -> None:
        module.left = tqdm(total=2)
        raise KeyboardInterrupt

    monkeypatch.setattr(lightning_items, "run_items", interrupted)
    with pytest.raises(KeyboardInterrupt) as error:
        share_numbered(Mock(), 2, Mock(), None)
    assert error.traceback
    assert capsys.readouterr().err.endswith("\n")


def test_a_run_on_several_machines_says_where_and_how_long_it_waits_for_the_others(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = DDPStrategy.__init__

    def impatient(self: DDPStrategy, **options: Any) -> None:
        create(self, **options, timeout=timedelta(seconds=1))

    monkeypatch.setattr(DDPStrategy, "__init__", impatient)
    with patch.dict(os.environ), pytest.raises(SystemExit):
        main([*words, "--num-nodes", "2", "--out", str(tmp_path / "new/out")])
    place = r"the processes of 2 machines at 127\.0\.0\.1:\d+ \(MASTER_ADDR, MASTER_PORT\)"
    expected = rf"\nwaiting up to 0 minutes for {place}\nerror: {place} did not find each other: .*1/2"
    assert re.search(expected, capsys.readouterr().err)
    assert not (tmp_path / "new").exists()


def test_processes_of_one_machine_meet_there_whatever_address_a_script_has_set(monkeypatch: Patch) -> None:
    with patch.dict(os.environ, MASTER_ADDR="nowhere.invalid", MASTER_PORT="1", GLOO_SOCKET_IFNAME="none0"):
        trainer = build_trainer(2, 1, "cpu")
        monkeypatch.setattr(trainer, "test", Mock())
        run_items(trainer, Mock())
        assert "GLOO_SOCKET_IFNAME" not in os.environ
        place: Any = trainer.strategy
        assert place.cluster_environment.main_address == "127.0.0.1"
        assert place.cluster_environment.main_port > 1


def test_an_address_that_no_machine_has_is_refused_at_once() -> None:
    with patch.dict(os.environ, MASTER_ADDR="nowhere.invalid", MASTER_PORT="1"):
        trainer = build_trainer(1, 2, "cpu")
        with pytest.raises(UserError, match=r"MASTER_ADDR=nowhere\.invalid in the environment: .*; set it to the name"):
            run_items(trainer, Mock())


@pytest.mark.parametrize("outcome", [[], RuntimeError("Connection closed by peer")])
def test_a_run_that_is_told_to_end_during_its_last_image_ends(outcome: Any, monkeypatch: Patch) -> None:
    with patch.dict(os.environ), patch.object(pl.Trainer, "received_sigterm", True):
        trainer = build_trainer(2, 1, "cpu")
        monkeypatch.setattr(trainer, "test", Mock(side_effect=[outcome]))
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            run_items(trainer, Mock())


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:1", "--device cuda:1 is one device"),
        pytest.param(
            *("cuda", "--devices 2: this machine has no such device"),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="GPU"),
        ),
    ],
)
def test_devices_that_cannot_be_had_are_said(device: str, message: str, words: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main([*words, "--out", "nowhere", "--device", device, "--devices", "2"])
    assert message in capsys.readouterr().err
