"""Runs that are killed, fail or are started twice: nothing finished is lost, and nothing unfinished counts as done."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from no_time_to_train.errors import UserError
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.processes import FIRST
from tests.conftest import DATA, Checkpoints, Command, Photo, assert_same_results, stage_arguments
from tests.test_stages import start

KILLS = 12
Stage = Callable[..., list[str]]


@pytest.fixture(scope="module")
def undisturbed(command: Command, nano_checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all three stages, run without a disturbance."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for stage in ("fill_memory", "postprocess_memory", "test"):
        ended = command(arguments(stage, nano_checkpoints, folder, folder))
        assert ended.returncode == 0, ended.stderr
    return folder


def arguments(stage: str, checkpoints: Checkpoints, folder: Path, memories: Path) -> list[str]:
    """A stage's command line that writes to ``folder`` and reads from ``memories``."""
    paths = {
        "fill_memory": ["--out_path", folder / "memory.ckpt"],
        "postprocess_memory": ["--ckpt_path", memories / "memory.ckpt", "--out_path", folder / "prototypes.ckpt"],
        "test": ["--ckpt_path", memories / "prototypes.ckpt"],
    }
    return [*stage_arguments(stage, checkpoints, folder), *map(str, paths[stage])]


@pytest.fixture
def stage(nano_checkpoints: Checkpoints, undisturbed: Path, tmp_path: Path) -> Stage:
    """The command line of the test stage with the undisturbed memory; it writes to ``tmp_path``."""
    return lambda *options: [*arguments("test", nano_checkpoints, tmp_path, undisturbed), *options]


def test_ctrl_c_ends_a_stage_with_one_line_that_says_how_to_resume(
    command: Command, undisturbed: Path, stage: Stage, tmp_path: Path
) -> None:
    run = stage()
    hint, seconds = "run the same command again to resume", 0.05
    for _ in range(60):
        ended = command(run, INTERRUPT_AFTER=str(seconds))
        if ended.returncode == 0:  # it ended before Ctrl-C was pressed: a little earlier
            seconds -= 0.15
            continue
        assert ended.returncode == 130
        assert "Traceback" not in ended.stderr
        assert ended.stderr.splitlines()[-1] == "interrupted"
        if hint in ended.stdout:
            break
        seconds += 0.2
    assert hint in ended.stdout
    (tmp_path / "pictures").mkdir(exist_ok=True)
    for name in ("results.json", "metrics.json", "skipped.json", "run.json", "pictures/201.jpg"):
        path = tmp_path / name
        path.with_name(f".{path.name}.x7_k2q9z.tmp").touch()  # as a killed run leaves them
    assert command(run).returncode == 0
    assert (tmp_path / "results.json").read_bytes() == (undisturbed / "results.json").read_bytes()
    assert not list(tmp_path.rglob(".*"))


def test_a_run_killed_at_random_moments_gives_what_an_undisturbed_one_gives(
    command: Command, undisturbed: Path, nano_checkpoints: Checkpoints, tmp_path: Path
) -> None:
    moments = random.Random(0)
    kills, rounds = 0, 0
    while kills < KILLS:
        folder = tmp_path / str(rounds)
        rounds += 1
        stage, output = (("test", "results.json"), ("fill_memory", "memory.ckpt"))[rounds % 4 == 0]
        run = arguments(stage, nano_checkpoints, folder, undisturbed)
        while (ended := command(run, DIE_AFTER=str(moments.uniform(0.2, 2.5)))).returncode != 0:
            assert "error" not in ended.stderr, ended.stderr
            kills += 1
        assert (folder / output).read_bytes() == (undisturbed / output).read_bytes()
        assert not list(folder.glob(".*")), "no journal and no temporary file is left"


@pytest.mark.parametrize("killed", ["the first process", "another process"])
def test_all_processes_of_a_run_end_with_any_of_them_and_one_process_can_resume_it(
    killed: str, command: Command, undisturbed: Path, stage: Stage, tmp_path: Path
) -> None:
    run = start([*stage(), "--trainer.devices", "2"])
    while not list(tmp_path.glob(".results.json.run/*.item")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.005)
    processes = [run.pid, *descendants(run.pid)]
    other = next(pid for pid in processes if environment_of(pid).get("LOCAL_RANK") == "1")
    os.kill(run.pid if killed == "the first process" else other, signal.SIGKILL)
    output, _ = run.communicate(timeout=5)
    assert len(processes) >= 2
    time.sleep(0.5)
    assert not [pid for pid in processes if Path(f"/proc/{pid}/fd").exists() and environment_of(pid)]
    assert killed == "the first process" or "\nerror: process 2 of the run was ended by SIGKILL\n" in output
    assert run.returncode != 0
    assert not (tmp_path / "results.json").exists()
    assert "resuming: " in command(stage()).stdout
    assert_same_results(read_results(tmp_path), read_results(undisturbed), atol=1e-5)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [one for child in map(int, listed) for one in (child, *descendants(child))]


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it has ended."""
    try:
        content = Path(f"/proc/{pid}/environ").read_text()
    except OSError:
        return {}
    return dict(part.split("=", 1) for part in content.split("\0") if "=" in part)


#: A command in whose threads no image is ever there. Such a thread gets the signal, for which the first does not wake.
NO_IMAGE = """
    import signal, sys, threading
    from PIL import Image
    from no_time_to_train.cli import main
    opened = Image.open
    def never(*arguments, **options):
        if threading.current_thread() is not threading.main_thread():
            signal.raise_signal(signal.{signal})
            threading.Event().wait()
        return opened(*arguments, **options)
    Image.open = never
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("command_name", "signal_name", "status"),
    [("test", "SIGTERM", 143), ("segment", "SIGTERM", 143), ("segment", "SIGINT", 130)],
)
def test_a_signal_ends_a_command_that_waits_for_an_image_from_a_disk_that_does_not_answer(
    command_name: str, signal_name: str, status: int, stage: Stage, photo: Photo, tmp_path: Path
) -> None:
    reference = f"thing:{photo.path}:mask={photo.mask_path}"
    segment = ["segment", "--nano", "--reference", reference, "--images", str(photo.path), "--out", str(tmp_path / "o")]
    words = stage("--model.init_args.data_load_cfgs.workers", "2") if command_name == "test" else segment
    environment = {name: value for name, value in os.environ.items() if name != FIRST}
    code = dedent(NO_IMAGE).format(signal=signal_name)
    python = [sys.executable, "-c", code, *words]
    ended = subprocess.run(python, timeout=60, capture_output=True, text=True, env=environment)
    assert ended.returncode == status, ended.stderr
    assert "interrupted" in ended.stdout + ended.stderr


def test_items_of_another_configuration_are_refused_with_what_differs_and_those_of_changed_images_done_again(
    command: Command, undisturbed: Path, stage: Stage, tmp_path: Path
) -> None:
    targets = copy_of_images(tmp_path / "images")
    content = (targets[2]).read_bytes()
    targets[2].write_bytes(content[:1000])
    root = ["--model.init_args.dataset_cfgs.test.root", str(tmp_path / "images")]
    run = stage(*root)

    ended = command(run)
    assert targets[2].name in failure(ended)
    assert "2 of 5 images are done; run the same command again to resume" in ended.stdout
    other = ["--model.init_args.model_cfg.sam2_infer_cfgs.nms_thr", "0.6"]
    assert "sam2_infer_cfgs.nms_thr: 0.5 there, 0.6 here" in failure(command([*run, *other]))
    assert "2 finished items" in failure(command([*run, *other]))
    assert "more than --max_bad 0" in failure(command([*run, "--on_bad_image", "skip", "--max_bad", "0"]))

    targets[2].write_bytes(content)
    targets[0].touch()
    assert "resuming: 1 of 5 images are done" in command(run).stdout
    assert_same_results(read_results(tmp_path), read_results(undisturbed), atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.unlink(), "not found"),
        (lambda path: shutil.copy(DATA / "bomb.png", path), "decompression bomb"),
        (lambda path: shutil.copy(DATA / "one_pixel.png", path), "the annotation file says"),
    ],
    ids=["truncated", "empty", "missing", "bomb", "other size"],
)
def test_bad_images_are_skipped_and_listed_with_their_reasons(
    spoil: Callable[[Path], None], reason: str, command: Command, undisturbed: Path, stage: Stage, tmp_path: Path
) -> None:
    targets = copy_of_images(tmp_path / "images")
    spoil(targets[1])
    root = ["--model.init_args.dataset_cfgs.test.root", str(tmp_path / "images")]
    options = ["--on_bad_image", "skip", "--max_bad", "1"]
    assert command(stage(*root, *options)).returncode == 0
    (skipped,) = json.loads((tmp_path / "skipped.json").read_text())
    assert reason in skipped["skipped"]
    expected = [record for record in read_results(undisturbed) if record["image_id"] != skipped["image_id"]]
    assert_same_results(read_results(tmp_path), expected, atol=1e-5)


def test_a_full_disk_is_one_line_and_old_files_stay(
    command: Command, undisturbed: Path, stage: Stage, tmp_path: Path
) -> None:
    earlier = '[{"image_id": 1, "category_id": 1, "score": 0.5}]'
    (tmp_path / "results.json").write_text(earlier)
    run = stage()
    size = (undisturbed / "results.json").stat().st_size
    for room in (size // 20, size // 3, size - 100):
        assert "cannot be written" in failure(command(run, LARGEST_FILE=str(room)))
        assert (tmp_path / "results.json").read_text() == earlier
    assert command(run).returncode == 0
    assert (tmp_path / "results.json").read_bytes() == (undisturbed / "results.json").read_bytes()


class TestJournal:
    """The journal by itself."""

    def test_items_that_were_cut_changed_or_renamed_are_done_again(self, tmp_path: Path) -> None:
        journal = started(tmp_path, {})
        files = []
        for index in range(5):
            journal.add(index, {"value": index})
            files += [path for path in journal.folder.glob("*.item") if path not in files]
        journal.close()
        content = files[1].read_bytes()
        files[1].write_bytes(content.replace(b"1}", b"7}"))
        files[3].write_bytes(files[3].read_bytes()[:-2])
        shutil.copy(files[2], files[4])
        again = started(tmp_path, {})
        assert again.done(5) == [0, 2]
        with pytest.raises(UserError, match=r"lacks 3 of 5 images \(number 2, 4, 5\)"):
            again.records(5, "images")
        for index in (1, 3, 4):
            again.add(index, {"value": index})
        assert files[1].read_bytes() == content
        assert list(again.records(5)) == [{"value": index} for index in range(5)]

    def test_items_are_never_those_of_other_work(self, tmp_path: Path) -> None:
        journal = started(tmp_path, {"memory": "a"})
        journal.add(0, {})
        journal.close()
        journal.work_file.unlink()
        other = started(tmp_path, {"memory": "b"})
        assert other.done(1) == []
        other.close()
        journal.work_file.unlink()
        assert started(tmp_path, {"memory": "a"}).done(1) == [0]

    def test_a_journal_of_an_earlier_version_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / ".results.json.run").mkdir()
        (tmp_path / ".results.json.run" / "1-0.lines").touch()
        with pytest.raises(UserError, match="of an earlier version: delete it"):
            started(tmp_path, {})

    def test_a_run_with_other_results_is_refused_only_if_something_is_finished(self, tmp_path: Path) -> None:
        started(tmp_path, {"memory": "a"}).lock.release()  # as the kernel does for a killed process
        journal = started(tmp_path, {"memory": "b"})
        journal.add(0, {})
        journal.close()
        for depends_on, difference in (({"memory": "c"}, '"c"'), ({}, "null")):
            with pytest.raises(UserError, match=f'memory: "b" there, {difference} here'):
                started(tmp_path, depends_on)
        assert started(tmp_path, {"memory": "b"}).done(1) == [0]

    def test_a_failed_run_leaves_a_journal_only_if_something_is_finished(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "results.json")

        def interrupted_after(items: int) -> None:
            with journal.run({}):
                for index in range(items):
                    journal.add(index, {})
                raise KeyboardInterrupt

        for items in (0, 1):
            assert not list(tmp_path.iterdir())
            with pytest.raises(KeyboardInterrupt):
                interrupted_after(items)
        with journal.run({}):
            assert journal.done(2) == [0]
        assert not list(tmp_path.iterdir())


def started(folder: Path, depends_on: dict[str, str]) -> Journal:
    """The journal of a run of one process that has just started."""
    journal = Journal(folder / "results.json")
    journal.join(journal.start(depends_on))
    return journal


def failure(ended: "subprocess.CompletedProcess[str]") -> str:
    """The one line in which a command that must fail says why."""
    assert ended.returncode == 2, ended.stderr
    (message,) = [line for line in ended.stderr.splitlines() if "error" in line.lower()]
    return message


def copy_of_images(folder: Path) -> list[Path]:
    """Copies of the target images, in the annotation file's order."""
    folder.mkdir()
    names = [image["file_name"] for image in json.loads((DATA / "targets.json").read_text())["images"]]
    return [Path(shutil.copy(DATA / "images" / name, folder / name)) for name in names]


def read_results(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text())
