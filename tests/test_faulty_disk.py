"""Commands on a disk that fails at one call, or in a process that is killed there (slow: minutes).

The library of ``faulty_disk.c``, which is compiled here and loaded with LD_PRELOAD, counts the calls that change files.
``FAULTS=200 pytest -m slow tests/test_faulty_disk.py`` tries 200 calls of each command instead of a few.
"""

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene, write_coco
from tests.conftest import Checkpoints, stage_arguments
from tests.zygote import zygote

COUNT = int(os.environ.get("FAULTS", "2"))

#: errno of one call; negative: of all later ones as well; KILL: the process ends.
KILL = 9999
FAULTS = (errno.ENOSPC, -errno.ENOSPC, errno.EIO, -errno.EIO, KILL, KILL)

NETWORKS = "--nano --points-per-side 4 --device cpu"
COMMANDS = {
    "segment": f"segment --memory a.memory --images photos --out out {NETWORKS} --format yolo coco labelme",
    "segment by references": f"segment --references refs --save-memory m.memory --images photos --out out {NETWORKS}",
    "segment --overwrite": f"segment --memory b.memory --images photos --out old --overwrite {NETWORKS}",
    "results filter": "results filter old --threshold 0.1 --out out --format cvat voc",
    "results filter in place": "results filter old --threshold 0.4",
    "memory merge": "memory merge a.memory b.memory --out old.memory",
    "memory remove": "memory remove a.memory CLASS --out new.memory",
    "references measure": f"references measure --references refs --out out {NETWORKS}",
    "references from-coco": "references from-coco refs/instances.json new.pkl",
    "convert": "convert refs --to coco --out out",
    "sample": "sample --json-file refs/instances.json --n-shot 1 --out new.json",
    "propose": f"propose --images photos --out new.json {NETWORKS}",
    "boxes-to-masks": "boxes-to-masks refs/instances.json --image-dir refs/images --out new.json --nano --pictures out",
    "track": f"track --memory a.memory --images photos --out out {NETWORKS} --format mots",
    "evaluate": "evaluate --gt targets/instances.json --results old.json --out out",
    "fill_memory": "",
    "test": "",
    "test with a cache": "",
    "benchmark": f"benchmark refs/instances.json targets/instances.json --n-shot 1 --out out {NETWORKS}",
}  # fmt: skip

#: What tells nothing about the results: records with times, logs, and the cache, whose entries are checked.
IGNORED = ("run.json", "lightning_logs", "cache/")

#: The commands that remove what a killed one has left.
TIDY = ("segment", "results", "boxes-to-masks", "fill_memory", "test", "track")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The program with the library that makes the disk fail."""
    folder = tmp_path_factory.mktemp("library")
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler")
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", folder / "faulty.so", source, "-ldl"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(folder / "faulty.so"))
        with zygote(folder) as line:
            yield line


@pytest.fixture(scope="module")
def begin(program: str, nano_checkpoints: Checkpoints, memory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with references, two photos, memories and the results of an earlier command of each kind."""
    folder = tmp_path_factory.mktemp("begin")
    for name, count in (("refs", 3), ("targets", 2)):
        write_coco(folder / name, NOVEL_CLASSES[:3], count, len(name))
    (folder / "photos").mkdir()
    for number in range(2):
        scene = draw_scene(np.random.default_rng(number), NOVEL_CLASSES[:3], (60, 80))
        Image.fromarray(scene.image).save(folder / f"photos/{number}.png")
    shutil.copy(memory, folder / "stage.ckpt")
    for command in (
        f"segment --references refs --save-memory a.memory --images photos --out old {NETWORKS}",
        "memory remove a.memory CLASS --out b.memory",
        "memory merge a.memory --out old.memory",
    ):
        run(program, words(command, folder, nano_checkpoints), folder)
    shutil.copy(folder / "old/results.json", folder / "old.json")
    return folder


def words(command: str, folder: Path, checkpoints: Checkpoints) -> list[str]:
    """The words of a command line; those of a stage by its name."""
    command = COMMANDS.get(command) or command
    if command in ("fill_memory", "test", "test with a cache"):
        stage, cache = command.split()[0], ["--model.init_args.cache_dir", "cache"] * ("cache" in command)
        output = ["--out_path", "new.ckpt"] if stage == "fill_memory" else ["--ckpt_path", "stage.ckpt"]
        return [*stage_arguments(stage, checkpoints, Path("out")), *output, *cache]
    return command.replace("CLASS", NOVEL_CLASSES[0].name).split()


def run(program: str, arguments: list[str], folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    variables = {**os.environ, **environment}
    ended = subprocess.run(
        [*program.split(), *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=120
    )
    assert environment or ended.returncode == 0, ended.stderr
    return ended


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with the folder's own name left out of them."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    kept = {name: path for name, path in files.items() if not any(part in f"/{name}" for part in IGNORED)}
    return {name: path.read_bytes().replace(bytes(folder), b"HERE") for name, path in kept.items()}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_fails_at_any_call_loses_nothing(
    command: str, program: str, begin: Path, nano_checkpoints: Checkpoints, tmp_path: Path
) -> None:
    arguments, log = words(command, begin, nano_checkpoints), tmp_path / "log"
    before, undisturbed = content(begin), tmp_path / "undisturbed"
    shutil.copytree(begin, undisturbed)
    ended = run(program, arguments, undisturbed, FAULT_BELOW=str(undisturbed), FAULT_LOG=str(log))
    assert ended.returncode == 0, ended.stderr
    calls, expected = log.read_text().splitlines(), content(undisturbed)
    assert expected != before
    drawn = random.Random(command)
    problems = []
    for number in range(COUNT):
        folder, call, fault = tmp_path / str(number), drawn.randrange(len(calls)), drawn.choice(FAULTS)
        shutil.copytree(begin, folder)
        failed = run(program, arguments, folder, FAULT_BELOW=str(folder), FAULT_AT=str(call), FAULT=str(fault))
        if found := list(complaints(failed, before, content(folder), expected, fault)):
            problems.append((fault, call, calls[call], found))
        again = run(program, arguments, folder, AGAIN="")
        after = content(folder)
        if command.split()[0] not in TIDY:
            after = {name: one for name, one in after.items() if not name.endswith(".tmp")}
        if again.returncode and not (again.returncode == 2 and seen(after) == expected):
            problems.append((fault, call, calls[call], "again", again.stderr.splitlines()[-1]))
        elif after != expected:
            problems.append((fault, call, calls[call], "again", differences(after, expected)))
        shutil.rmtree(folder)
    assert not problems, "\n".join(map(str, problems))


def complaints(
    ended: "subprocess.CompletedProcess[str]",
    before: dict[str, bytes],
    after: dict[str, bytes],
    expected: dict[str, bytes],
    fault: int,
) -> Iterator[str]:
    """What is wrong with how a command ended."""
    lines = [line for line in ended.stderr.splitlines() if "error" in line.lower()]
    if "Traceback" in ended.stderr:
        yield f"traceback: {ended.stderr.splitlines()[-1]}"
    elif ended.returncode == 2 and len(lines) != 1:
        yield f"{len(lines)} lines: {lines}"
    elif ended.returncode not in ((0, 2, 128 + 9, 247) if fault == KILL else (0, 2)):
        yield f"status {ended.returncode}: {ended.stderr[-300:]}"
    if ended.returncode == 0 and seen(after) != expected:
        yield f"status 0 with {differences(seen(after), expected)}"
    lost = [name for name, one in before.items() if after.get(name) not in (one, expected.get(name, one))]
    if lost and not any(name.startswith(".old.") for name in after):
        yield f"lost: {lost[:5]}"


def seen(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files that are not hidden."""
    return {name: one for name, one in files.items() if not any(part.startswith(".") for part in name.split("/"))}


def differences(after: dict[str, bytes], expected: dict[str, bytes]) -> str:
    """How two folders differ."""
    missing, more = expected.keys() - after.keys(), after.keys() - expected.keys()
    others = [name for name in expected.keys() & after.keys() if expected[name] != after[name]]
    return f"missing {sorted(missing)[:4]}, more {sorted(more)[:4]}, other {sorted(others)[:4]}"
