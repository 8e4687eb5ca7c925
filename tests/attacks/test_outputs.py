"""Outputs that are devices, pipes, sockets, folders or links, have long names, or meet a full disk."""

import errno
import fcntl
import json
import os
import pickle
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from no_time_to_train.data.memory_files import save_memory
from no_time_to_train.data.reference_sets import Shot, write_references
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.files import (
    MADE_HERE,
    atomic_write,
    kind_of,
    make_folder,
    read_json,
    remove_leftovers,
    write_json,
)
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.pipeline import replace_folder
from no_time_to_train.pipeline.find_instances_stage import write_results
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.replace_folder import new_output
from no_time_to_train.visual.drawing import save_picture
from tests.conftest import Checkpoints, Patch, Refusal, stage_arguments


def make_socket(path: Path) -> None:
    os.chdir(path.parent)  # the whole path may be too long for a socket
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


#: What an output path may be, besides a file.
KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": make_socket,
    "folder": Path.mkdir,
    "link to a device": lambda path: path.symlink_to("/dev/null"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.fixture
def bank() -> MemoryBank:
    memory = MemoryBank.empty([Category(1, "cup")], 4)
    memory.add(0, torch.ones(4), torch.tensor(1.0))
    memory.postprocess()
    return memory


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_file_is_refused_and_stays(kind: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "out.json"
    KINDS[kind](path)
    before = path.lstat().st_ino
    with pytest.raises(UserError, match=r"out\.json cannot be written: "):
        write_json(path, {})
    assert path.lstat().st_ino == before
    assert [one.name for one in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    "command",
    [
        "segment --nano --memory {memory} --save-memory {pipe}",
        "memory merge {memory} --out {pipe}",
        "coco-to-references {json} {pipe}",
        "boxes-to-masks {json} --image-dir . --out {pipe} --sam2 sam2_nano",
        "sample-references --json-file {json} --n-shot 1 --out {pipe}",
        "filter {folder} --out {pipe}",
        "evaluate --gt {json} --results {results} --out {pipe}",
    ],
)
def test_commands_refuse_to_write_to_a_pipe(command: str, bank: MemoryBank, tmp_path: Path, refusal: Refusal) -> None:
    names = {name: tmp_path / f"{name}.json" for name in ("memory", "json", "results", "pipe")}
    os.mkfifo(names["pipe"])
    save_memory(bank, names["memory"])
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 60, 60], "area": 3600, "iscrowd": 0}
    annotation["segmentation"] = [[20, 20, 80, 20, 80, 80, 20, 80]]
    image = {"id": 1, "file_name": "a.png", "height": 100, "width": 100}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "cup"}]}
    names["json"].write_text(json.dumps(content))
    names["results"].write_text("[]")
    assert "pipe" in refusal(*(word.format(**names, folder=tmp_path) for word in command.split()))
    assert names["pipe"].is_fifo()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_link_stays_and_its_file_is_replaced_with_its_leftovers(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    real, link = tmp_path / "other/real.json", tmp_path / "link.json"
    link.symlink_to(real)
    write_json(link, [1])
    real.with_name(".real.json.x7_k2q9z.tmp").touch()
    write_json(link, [2])
    remove_leftovers(link)
    assert link.is_symlink()
    assert read_json(real) == [2]
    assert [one.name for one in real.parent.iterdir()] == ["real.json"]


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127])
def test_a_file_may_have_the_longest_name_that_systems_allow(name: str, tmp_path: Path) -> None:
    with atomic_write(tmp_path / name):
        (temporary,) = tmp_path.iterdir()
    temporary.touch()  # as a killed process leaves it
    remove_leftovers(tmp_path / name)
    write_json(tmp_path / name, 1)
    assert [one.name for one in tmp_path.iterdir()] == [name]


class TestAPowerCut:
    """What has been written is on the disk: first the content, then the name, then the folders that have the names."""

    @pytest.fixture
    def calls(self, tmp_path: Path, monkeypatch: Patch) -> list[str]:
        """What is asked of the disk, in order."""
        asked: list[str] = []
        sync, rename = os.fsync, Path.replace

        def fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)
            asked.append(f"sync {'content' if path.suffix == '.tmp' else path}")
            sync(descriptor)

        def replace(source: Path, target: Path) -> Path:
            asked.append(f"name {target.relative_to(tmp_path)}")
            return rename(source, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        return asked

    def test_a_file_and_its_new_folders_are_on_the_disk(self, calls: list[str], tmp_path: Path) -> None:
        write_json(tmp_path / "a/b/out.json", [1])
        assert set(calls[:2]) == {"sync .", "sync a"}
        assert calls[2:] == ["sync content", "name a/b/out.json", "sync a/b"]

    def test_a_folder_that_was_replaced_is_on_the_disk(self, calls: list[str], tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        with new_output(tmp_path / "out", overwrite=True) as new:
            write_json(new / "results.json", [1])
        assert calls[-4:] == ["name .out.old", "sync .", "name out", "sync ."]


#: Files of a user, which no command may replace by a memory or by results.
FOREIGN = {
    ".bashrc": b"# ~/.bashrc\nalias ls='ls --color'\n",
    "package.json": b'{"name": "site", "images": 3}',
    "numbers.json": b"[1, 2, 3]",
    "weights.pth": b"PK\3\4 archive/data.pkl, a checkpoint",
    "model.pkl": pickle.dumps({"weights": [1.5]}),
    "notes": "\u00fc".encode("latin-1"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_only_files_of_the_same_kind_are_replaced(name: str, bank: MemoryBank, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FOREIGN[name])
    for write, kind in (
        (lambda: write_results(path, [{"image_id": "$(rm x)"}]), "COCO results"),
        (lambda: save_memory(bank, path), "a memory"),
        (lambda: write_references({1: [{"img_id": 1, "ann_ids": [1]}]}, path), "a reference set"),
        (lambda: write_json(path, {"images": []}), "a COCO file"),
    ):
        with pytest.raises(UserError, match=f"{name} is not replaced, because it is not {kind}: delete it, or choose"):
            write()
        assert path.read_bytes() == FOREIGN[name]
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_annotations_of_a_person_are_not_replaced_by_those_that_were_made(tmp_path: Path) -> None:
    write_json(path := tmp_path / "instances.json", {"images": [], "annotations": ["hours of work"]})
    before = path.read_bytes()
    with pytest.raises(UserError, match="is not replaced, because it is not a COCO file of this program"):
        write_json(path, {**MADE_HERE, "images": [], "annotations": []}, indent=None)
    assert path.read_bytes() == before


def test_files_of_the_same_kind_and_empty_ones_are_replaced(bank: MemoryBank, tmp_path: Path) -> None:
    shot: Shot = {"img_id": 1, "ann_ids": [1]}
    for write in (
        lambda: write_results(tmp_path / "results", []),
        lambda: write_results(tmp_path / "results", [{"image_id": 1}]),
        lambda: save_memory(bank, tmp_path / "memory"),
        lambda: write_references({1: []}, tmp_path / "set.pkl"),
        lambda: write_references({1: [shot]}, tmp_path / "set.pkl"),
        lambda: write_references({-1: [shot]}, tmp_path / "set.json"),
        lambda: write_json(tmp_path / "coco", {"info": {}, "images": []}),
        lambda: write_json(tmp_path / "made", {**MADE_HERE, "images": []}, indent=None),
    ):
        for _ in range(2):
            write()
    assert len(read_json(tmp_path / "results")) == 1


def test_a_configuration_that_names_a_foreign_file_is_refused_before_its_work(
    tmp_path: Path, nano_checkpoints: Checkpoints, refusal: Refusal
) -> None:
    shell = tmp_path / ".bashrc"
    shell.write_bytes(FOREIGN[".bashrc"])
    arguments = stage_arguments("fill_memory", nano_checkpoints, tmp_path)
    assert ".bashrc is not replaced" in refusal(*arguments, "--out_path", str(shell))
    assert not list(tmp_path.glob(".*.run"))


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may get larger than 1,000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_disk")
def test_a_memory_on_a_full_disk_ends_in_one_line(bank: MemoryBank, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.memory cannot be written: File too large"):
        save_memory(bank, tmp_path / "a.memory")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_picture_that_a_disk_takes_in_part_is_no_picture(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    with pytest.raises(UserError, match=f"{name} cannot be written: File too large"):
        save_picture(noise, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_removed_folder_is_named(tmp_path: Path, monkeypatch: Patch, refusal: Refusal) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "folder" in refusal("filter", "out")


@pytest.mark.parametrize("redirected", ["| head -1", ">&- 2>&-", "2>/dev/full", ">/dev/full"])
def test_a_command_outlives_its_output(redirected: str, bank: MemoryBank, tmp_path: Path, program: str) -> None:
    save_memory(bank, tmp_path / "a.memory")
    program = f"{sys.executable} -m no_time_to_train" if "&-" in redirected else program  # a client needs its output
    command = f"set -o pipefail; {program} memory merge a.memory --out b.memory {redirected}"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    full = redirected == ">/dev/full"
    assert ended.stderr == "error: not everything could be printed: No space left on device\n" * full
    assert ended.returncode == 2 * full
    assert (tmp_path / "b.memory").stat().st_size > 0


def test_a_pipe_that_is_not_blocking_gets_all_that_is_printed() -> None:
    code = "from no_time_to_train.cli import LastingOutput; LastingOutput.replace('stdout'); print('x' * 10**6)"
    read, write = os.pipe()
    os.set_blocking(write, False)
    with subprocess.Popen([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        with os.fdopen(read, "rb", 4096) as reader:  # much smaller than what is printed
            assert len(reader.read()) == 10**6 + 1
    assert process.returncode == 0


@pytest.mark.parametrize("words", ["memory show --help", "test --config custom_sam2l --print_config"])
def test_what_a_command_only_prints_is_missed_where_it_cannot_be_printed(words: str, program: str) -> None:
    ended = subprocess.run(["bash", "-c", f"{program} {words} >/dev/full"], capture_output=True, text=True)
    assert ended.stderr.endswith("error: not everything could be printed: No space left on device\n")
    assert ended.returncode == 2


def test_an_output_the_disk_refuses_is_one_line(bank: MemoryBank, tmp_path: Path, refusal: Refusal) -> None:
    save_memory(bank, tmp_path / "a.memory")
    for out in ("/proc/x/a", tmp_path / "a.memory/b", tmp_path / ("n" * 300), tmp_path / ("n" * 256) / "b"):
        assert " cannot be written: " in refusal("memory", "merge", tmp_path / "a.memory", "--out", out)


def test_a_folder_that_a_failing_disk_does_not_keep_is_named(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("os.fsync", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match=r"Input/output error: .*new"):
        make_folder(tmp_path / "new/deep")
    with pytest.raises(UserError, match=r"out cannot be replaced: Input/output error; the new results are in .*out$"):
        replace_folder._replace(tmp_path / "out", tmp_path / "new")


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("pathlib.Path.chmod", errno.EPERM),
        ("os.fsync", errno.EOPNOTSUPP),
        ("os.fsync", errno.EINVAL),
        ("no_time_to_train.files.mmap", errno.ENODEV),
    ],
)
def test_a_disk_that_lacks_a_call_can_be_written_to(
    call: str, number: int, bank: MemoryBank, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(call, Mock(side_effect=OSError(number, "no such call")))
    for _ in range(2):
        save_memory(bank, tmp_path / "new/a.memory")
    assert kind_of(tmp_path / "new/a.memory") == "a memory"


def test_a_lock_that_cannot_be_given_back_fails_no_finished_work(tmp_path: Path, monkeypatch: Patch) -> None:
    flock = fcntl.flock

    def fail(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with new_output(tmp_path / "out", overwrite=True) as new, Journal(new / "results.json").run({}):
        write_json(new / "results.json", [1])
    assert read_json(tmp_path / "out/results.json") == [1]


def test_a_folder_that_is_not_needed_and_stays_is_named(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "out").mkdir()

    def work() -> None:
        with new_output(tmp_path / "out", overwrite=True) as new, Journal(new / "results.json").run({}):
            write_json(new / "results.json", [1])
            monkeypatch.setattr("shutil.rmtree", Mock())

    with pytest.warns(UserNotice) as told:
        work()
    names = [re.sub(r".*/(\S+) could not be removed: delete it", r"\1", str(one.message)) for one in told]
    assert names == [".results.json.run", ".out.old"]


def test_a_command_that_meets_an_error_of_the_disk_is_one_line(
    bank: MemoryBank, tmp_path: Path, monkeypatch: Patch, refusal: Refusal
) -> None:
    fail = Mock(side_effect=OSError(errno.EIO, "Input/output error", "disk/file"))
    monkeypatch.setattr("no_time_to_train.data.memory_files.load_memory", fail)
    save_memory(bank, tmp_path / "a.memory")
    assert refusal("memory", "show", tmp_path / "a.memory") == "error: disk/file: Input/output error"


@pytest.mark.parametrize(
    "line",
    [
        "convert labels --to coco --out new/deep",
        "propose --nano --device cpu --images labels/images --out new/deep/p.json",
        "segment --nano --device cpu --reference a:a.png:mask=a.png --images labels/images --out new/deep",
        "download sam2_hiera_tiny --folder new/deep",
    ],
)
def test_a_command_that_fails_late_leaves_nothing_new(
    line: str, tmp_path: Path, monkeypatch: Patch, refusal: Refusal
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("no_time_to_train.networks.download.urlopen", Mock(side_effect=URLError("no network")))
    monkeypatch.setattr("no_time_to_train.networks.download.time.sleep", Mock())
    for folder in ("labels/images", "labels/labels"):
        Path(folder).mkdir(parents=True)
    Path("labels/data.yaml").write_text("names: [a]")
    Path("labels/images/a.png").write_bytes(b"broken")
    Path("labels/labels/a.txt").write_text("0 0.5 0.5 0.2 0.2")
    Image.new("L", (20, 20), 255).save("a.png")
    refusal(*line.split())
    assert not Path("new").exists()


def test_proposals_stay_where_no_image_can_be_read_the_next_time(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    path = tmp_path / "p.json"
    path.write_text('{"annotations": [\n], "categories": [{"id": 1, "name": "proposal"}], "images": []}\n')
    before = path.read_bytes()
    assert "no image can be read" in refusal("propose", "--nano", "--images", tmp_path / "a.png", "--out", path)
    assert path.read_bytes() == before


def test_a_system_that_refuses_memory_for_a_library_or_a_thread_is_one_line(
    bank: MemoryBank, tmp_path: Path, monkeypatch: Patch, refusal: Refusal
) -> None:
    save_memory(bank, tmp_path / "a.memory")
    command = f"ulimit -v 400000; {sys.executable} -m no_time_to_train memory show a.memory"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    assert re.search(r"^error: the memory is too small for \S+; raise ulimit -v\n\Z", ended.stderr, re.MULTILINE)
    monkeypatch.setattr("no_time_to_train.cli.run", Mock(side_effect=RuntimeError("can't start new thread")))
    assert "the system allows no more threads" in refusal("memory", "show", tmp_path / "a.memory")
