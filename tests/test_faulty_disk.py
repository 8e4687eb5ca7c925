"""Commands on a disk that fails at one call, or in a process that is killed there (slow: minutes).

The library of ``faulty_disk.c``, which is compiled here and loaded with LD_PRELOAD, counts the calls that change files.
``FAULTS=200 pytest -m slow tests/test_faulty_disk.py`` tries 200 faults of each command, or all, instead of a few.

A fault costs a fraction of a second: a server has imported all modules, built the networks and knows what they say
about each image, so that a command is a fork of it. Kills need no run of their own: in one run, the folder is copied
before the calls. Then the same command is run in what a fault has left, once for each different folder.
"""

import errno
import hashlib
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._pytree import tree_leaves

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.benchmarks.prepare import pascal_voc
from no_time_to_train.cli import main
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene, write_coco
from no_time_to_train.errors import UserError
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.settings import Settings
from no_time_to_train.networks import build
from no_time_to_train.networks.registry import CHECKPOINTS, default_checkpoint
from no_time_to_train.pipeline.proposal_cache import hash_networks, proposals_depend_on
from no_time_to_train_extras.app.exports import export
from no_time_to_train_extras.app.photos import find_photos
from no_time_to_train_extras.app.workspace import Workspace
from no_time_to_train_extras.label_studio_backend.labeling_config import LabelingConfig
from no_time_to_train_extras.label_studio_backend.studio import LabelStudio
from no_time_to_train_extras.label_studio_backend.studio_project import StudioProject
from tests.conftest import DATA, Checkpoints, stage_arguments
from tests.prepare.sites import cdfsod_files, coco_file, picture, tar_of, write_files, zip_of
from tests.prepare.test_pascal_voc import voc_files
from tests.test_download import FILE, NAME, Site
from tests.web import serving
from tests.zygote import call, zygote

COUNT = int(os.environ.get("FAULTS", "10"))

#: errno of one call; negative: of all later ones as well.
FAULTS = (errno.ENOSPC, -errno.ENOSPC, errno.EIO, -errno.EIO)

NETWORKS = "--nano --points-per-side 4 --device cpu"
FORMATS = "labelme x-anylabeling yolo cvat-coco coco coco-train-val voc cvat label-studio crops"
COMMANDS = {
    "segment": f"segment --memory a.memory --images photos --out out {NETWORKS} --format yolo coco labelme",
    "segment by references": f"segment --references refs --save-memory m.memory --images photos --out out {NETWORKS}",
    "segment --overwrite": f"segment --memory b.memory --images photos --out old --overwrite {NETWORKS}",
    "segment --show-references": f"segment --references refs --show-references --out out {NETWORKS}",
    "results filter": f"results filter old --threshold 0.1 --out out --format {FORMATS}",
    "results filter in place": "results filter old --threshold 0.99",
    "results filter of tracks": "results filter tracks --threshold 0.99",
    "memory show": "memory show a.memory --pictures out --dinov2 nano",
    "memory merge": "memory merge a.memory b.memory --out old.memory",
    "memory remove": "memory remove a.memory CLASS --out new.memory",
    "references measure": f"references measure --references refs --out out {NETWORKS}",
    "references from-coco": "references from-coco refs/instances.json new.pkl",
    "convert": "convert refs --to coco --out out",
    "convert to labelstudio": "convert refs --to labelstudio --out out",
    "sample": "sample --json-file refs/instances.json --n-shot 1 --out new.json --plot --image-dir refs/images",
    "sample --choose best": "sample --json-file refs/instances.json --n-shot 1 --out new.json --choose best --pool 2 "
    f"--image-dir refs/images {NETWORKS}",
    "propose": f"propose --images photos --out new.json {NETWORKS}",
    "boxes-to-masks": "boxes-to-masks refs/instances.json --image-dir refs/images --out new.json --nano --pictures out",
    "track": f"track --memory a.memory --images frames --out out {NETWORKS} --threshold 0.2 "
    "--format mots youtube-vis video",
    "track --overwrite": f"track --memory b.memory --images frames --out tracks {NETWORKS} --overwrite",
    "evaluate": f"evaluate --gt {DATA / 'targets.json'} --results run/results.json --out out",
    "evaluate --explain": f"evaluate --gt {DATA / 'targets.json'} --results run/results.json --explain",
    "report": "report . --out out",
    "fill_memory": "",
    "postprocess_memory": "",
    "vis_memory": "",
    "test": "",
    "test with a cache": "",
    "prepare coco": "prepare coco --root data --subset",
    "prepare lvis": "prepare lvis --root data --subset",
    "prepare pascal-voc": "",
    "prepare cdfsod": "prepare cdfsod --root data --sets FISH --sam2 nano --device cpu",
    "download": "",
    "app": "",
    "serve label-studio": "",
    "benchmark": f"benchmark refs/instances.json targets/instances.json --n-shot 1 --out out {NETWORKS}",
    "demo": "demo --n-shot 1 --images 1 --out out",
}  # fmt: skip

#: The stages, and what they take and write.
STAGES = {
    "fill_memory": "--out_path new.ckpt",
    "postprocess_memory": "--ckpt_path filled.ckpt --out_path new.ckpt",
    "vis_memory": "--ckpt_path stage.ckpt --out_path pictures",
    "test": "--ckpt_path stage.ckpt",
    "test with a cache": "--ckpt_path stage.ckpt --model.init_args.cache_dir cache",
}

#: The functions below that do what needs a person, another server or a published checksum.
CALLS = {
    "app": "app",
    "download": "download",
    "prepare pascal-voc": "prepare_voc",
    "serve label-studio": "label_studio",
}

#: What tells nothing about the results: records with times, logs, caches, whose entries are checked, the temporary
#: folder, archives, which are removed once they are unpacked, and what ``app`` notes.
CACHES = ("cache/", "proposals/", "shots.memory")
IGNORED = ("run.json", "lightning_logs/", *CACHES, "tmp/", "answered", "downloads/")

#: The commands that remove what a killed one has left.
TIDY = ("segment", "results", "boxes-to-masks", "fill_memory", "test", "track")

#: Those of them that write another file as well.
UNTIDY = ("segment by references", "segment --show-references")

#: The names and paths of all that a folder holds, with the content of files; the names of folders end with a slash.
Content = dict[str, bytes]


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    errors: str


class Program:
    """The program, with the library that makes the disk fail; one command at a time.

    Args:
        folder: The folder in which commands run.
        address: Of a server that sends a checkpoint.
    """

    def __init__(self, socket: Path, folder: Path, checkpoints: Checkpoints, address: str) -> None:
        self.socket, self.folder, self.checkpoints, self.address = socket, folder, checkpoints, address

    def words(self, command: str) -> list[str]:
        """The words of a command line; those of a stage by its name."""
        command = COMMANDS.get(command) or command
        if command in CALLS:
            return [f"{__name__}:{CALLS[command]}", f"{self.address}/{FILE}"]
        if command in STAGES:
            return [*stage_arguments(command.split()[0], self.checkpoints, Path("out")), *STAGES[command].split()]
        return command.replace("CLASS", NOVEL_CLASSES[0].name).split()

    def run(self, command: str, **variables: object) -> Ended:
        environment = {
            **os.environ,
            "TMPDIR": f"{self.folder}/tmp",
            **{key: str(one) for key, one in variables.items()},
        }
        with tempfile.TemporaryFile() as errors, Path(os.devnull).open("wb") as nothing:
            output = nothing.fileno(), errors.fileno()
            status = call(self.socket, self.words(command), self.folder, environment, output)
            errors.seek(0)
            return Ended(status, errors.read().decode())


@pytest.fixture(scope="module")
def program(nano_checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    library = tmp_path_factory.mktemp("library")
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler")
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library / "faulty.so", source, "-ldl"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library / "faulty.so"))
        share = f"{__name__}:share", str(library), *map(str, nano_checkpoints)
        with zygote(library, *share), serving(Site().answer) as address:
            yield Program(library / "socket", tmp_path_factory.mktemp("commands") / "folder", nano_checkpoints, address)


def share(folder: str, sam2: str, dinov2: str) -> None:
    """In the server: build the networks once for all commands, and keep in a folder what they say about images."""
    build.build_sam2, build.build_vit = cache(build.build_sam2), cache(build.build_vit)
    for network, encoder in ((None, None), (sam2, dinov2)):
        build.build_sam2("sam2_nano", Path(network) if network else default_checkpoint("sam2_nano"))
        build.build_vit("dinov2_nano", None, Path(encoder) if encoder else default_checkpoint("dinov2_nano"))
    torch.jit.script = lambda module: module
    for owner, name in ((MaskProposer, "_encode"), (MaskProposer, "decode"), (Encoder, "patch_tokens")):
        setattr(owner, name, kept(getattr(owner, name), Path(folder)))


def kept(method: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """A method of a network that knows from a folder what it returned before."""

    def call(self: torch.nn.Module, *inputs: Any, **others: Any) -> Any:
        digest = hashlib.sha256(method.__name__.encode())
        for leaf in tree_leaves((next(self.parameters()), inputs, others)):
            digest.update(np.array(leaf).tobytes() if torch.is_tensor(leaf) else repr(leaf).encode())
        place = folder / digest.hexdigest()
        if not place.exists():
            place.write_bytes(pickle.dumps(method(self, *inputs, **others)))
        return pickle.loads(place.read_bytes())

    return call


def download(address: str) -> None:
    """The command ``download`` from another address."""
    CHECKPOINTS[NAME] = replace(CHECKPOINTS[NAME], url=address, sha256=None)
    main(["download", NAME, "--folder", "checkpoints"])


def prepare_voc(_: str) -> None:
    """The command ``prepare pascal-voc`` with archives that are not the published ones."""
    for image_set, archive in pascal_voc.ARCHIVES.items():
        pascal_voc.ARCHIVES[image_set] = replace(archive, md5=None)
    main(["prepare", "pascal-voc", "--root", "data", "--subset", "--masks", "none"])


class Photos(LabelStudio):
    """A Label Studio whose images are files."""

    def __init__(self) -> None:
        pass

    def image(self, address: str, project: int) -> bytes:
        return Path(address).read_bytes()


def label_studio(_: str) -> None:
    """What the server for Label Studio does when people annotate two tasks, change one annotation and delete one."""
    settings = Settings(points_per_side=4)
    segmenter = ReferenceSegmenter.from_pretrained("nano", device="cpu", settings=settings)
    config = LabelingConfig(
        '<View><Image name="i" value="$image"/><RectangleLabels name="r" toName="i"><Label value="boat"/>'
        "</RectangleLabels></View>"
    )
    tasks = {number: {"id": number, "data": {"image": f"photos/{number}.png"}} for number in (0, 1)}
    made_with = proposals_depend_on(hash_networks(segmenter.segmenter), settings, segmenter.precision)

    def annotation(number: int, x: int) -> list[dict[str, Any]]:
        value = {"x": x, "y": 20, "width": 40, "height": 40, "rectanglelabels": ["boat"]}
        region = {"type": "rectanglelabels", "from_name": "r", "to_name": "i", "value": value}
        size = {"original_width": 80, "original_height": 60}
        return [{"id": 10 + number, "result": [{**region, **size}]}]

    try:
        project = StudioProject(config, Path("out/7.1"), Photos(), segmenter, made_with, None, 0.3)
        project.learn(0, tasks[0], annotation(0, 10))
        project.learn(1, tasks[1], annotation(1, 20))
        project.learn(0, tasks[0], annotation(0, 30))
        project.learn(1, None)
        entry = project.proposals(tasks[1])
        assert entry is not None
        project.predict(entry)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def app(_: str) -> None:
    """Steps in the app that its project does not have yet, and an export; the project must have all answered ones."""
    settings = Settings(points_per_side=4)
    segmenter = ReferenceSegmenter.from_pretrained("nano", device="cpu", settings=settings)
    out, answered, mask = Path("app"), Path("answered"), np.zeros((60, 80), bool)
    mask[10:30, 10:40] = True
    try:
        workspace = Workspace(segmenter, *find_photos(["photos"], out / "uploads", out), out / "app")
        steps: list[Callable[[], None]] = [
            lambda: workspace.show("0.png", mask, "boat"),
            lambda: workspace.set_threshold("boat", 0.4),
            lambda: workspace.show("1.png", mask, "boat"),
            lambda: workspace.review("0.png"),
            lambda: workspace.set_color("boat", "#ff0080"),
            lambda: workspace.rename_class("boat", "ship"),
        ]
        done = workspace.project._done
        assert done >= (answered.stat().st_size if answered.exists() else 0)
        for step in steps[done:]:
            step()
            with suppress(OSError), answered.open("a") as file:
                file.write(".")
        workspace.search.start()
        with workspace.search.state:
            workspace.search.state.wait_for(lambda: workspace.search.problem or workspace.search.is_settled(), 60)
            if workspace.search.problem:
                raise UserError(workspace.search.problem)
        export(workspace, out / "export", ["yolo"])
    except (UserError, OSError) as error:  # which its page shows in one line
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@pytest.fixture(scope="module")
def begin(program: Program, memory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with references, two photos, memories and the results of an earlier command of each kind."""
    folder = program.folder
    for name, count in (("refs", 3), ("targets", 2)):
        write_coco(folder / name, NOVEL_CLASSES[:3], count, len(name))
    for name in ("photos", "frames", "tmp"):
        (folder / name).mkdir()
    scene = draw_scene(np.random.default_rng(2), NOVEL_CLASSES[:3], (60, 83))
    for number in range(3):
        picture_of_it = Image.fromarray(scene.image[:, number : number + 80])
        picture_of_it.save(folder / f"frames/{number}.png")
        if number < 2:
            picture_of_it.save(folder / f"photos/{number}.png")
    shutil.copy(memory, folder / "stage.ckpt")
    shutil.copy(memory.with_name("memory.ckpt"), folder / "filled.ckpt")
    write_archives(folder / "data")
    for command in (
        f"segment --references refs --save-memory a.memory --images photos --out old {NETWORKS}",
        "memory remove a.memory CLASS --out b.memory",
        "memory merge a.memory --out old.memory",
        f"track --memory a.memory --images frames --out tracks {NETWORKS} --threshold 0.2 --format mots",
        "test",
    ):
        ended = program.run(command)
        assert ended.status == 0, ended.errors
    (folder / "out").rename(folder / "run")
    kept = tmp_path_factory.mktemp("begin") / "folder"
    shutil.copytree(folder, kept)
    return kept


def write_archives(root: Path) -> None:
    """Write the archives of two data sets, as a person saves them who downloads them another way."""
    names = {"train2017": ["1.jpg", "2.jpg"], "val2017": ["3.jpg", "4.jpg"]}
    archives = {f"{split}.zip": {f"{split}/{name}": picture(1) for name in files} for split, files in names.items()}
    archives["annotations_trainval2017.zip"] = {
        f"annotations/instances_{split}.json": json.dumps(coco_file(files)).encode() for split, files in names.items()
    }
    for split, folder in (("train", "train2017"), ("val", "val2017")):
        listed = coco_file(names[folder])
        for image in listed["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/{folder}/{image.pop('file_name')}"
        archives[f"lvis_v1_{split}.json.zip"] = {f"lvis_v1_{split}.json": json.dumps(listed).encode()}
    write_files(root / "downloads", {name: zip_of(files) for name, files in archives.items()})
    for image_set, archive in pascal_voc.ARCHIVES.items():
        scenes = {image_set.year[3:] + image_set.name: [("dog", 0, (5, 6, 7, 8))]}
        files = voc_files(image_set.year, image_set.name, scenes)
        write_files(root / "downloads", {archive.file_name: tar_of(files)})
    write_files(root / "cdfsod", {"FISH.zip": zip_of(cdfsod_files("FISH"))})


def content(folder: Path) -> Content:
    """What a folder holds besides ``IGNORED``, with the folder's own name left out of the files."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    found = {f"{name}/" if path.is_dir() else name: path for name, path in paths.items()}
    kept = {name: path for name, path in found.items() if not any(part in f"/{name}" for part in IGNORED)}
    return {
        name: b"" if path.is_dir() else path.read_bytes().replace(bytes(folder), b"HERE") for name, path in kept.items()
    }


def state(folder: Path) -> str:
    """What the next command may find in a folder, but times, random names and the content of temporary files."""
    digest = hashlib.sha256()
    for path in sorted(set(folder.rglob("*")).difference((folder / "tmp").iterdir())):
        name = re.sub(r"\w{8}(?=\.tmp$)|[0-9a-f]{16}(?=\.failure$)", "", f"/{path.relative_to(folder)}")
        body = b"" if path.is_dir() or name.endswith(".tmp") else path.read_bytes()
        if "run.json" in name or "lightning_logs" in name:
            body = re.sub(rb"\d+", b"", body)
        digest.update(f"{name}\0{len(body)}\0".encode() + body)
    return digest.hexdigest()


def put(folder: Path, place: Path) -> None:
    """Put a copy of a folder in the place of another one."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place, symlinks=True)


def points(calls: int, drawn: random.Random) -> Iterator[tuple[int, int]]:
    """Calls, spread evenly over all, and what happens to each."""
    every = [(call, fault) for call in range(calls) for fault in FAULTS]
    count = min(COUNT, len(every))
    for number in range(count):
        yield every[drawn.randrange(number * len(every) // count, (number + 1) * len(every) // count)]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_fails_at_any_call_loses_nothing(
    command: str, program: Program, begin: Path, tmp_path: Path
) -> None:
    folder, log, copies = program.folder, tmp_path / "log", tmp_path / "copies"
    put(begin, folder)
    ended = program.run(command, FAULT_BELOW=folder, FAULT_LOG=log, MODULES=tmp_path / "modules")
    assert ended.status == 0, ended.errors
    calls, before, expected = log.read_text().splitlines(), content(begin), content(folder)
    assert expected != before
    problems: list[object] = []
    done = {state(begin)}

    def complete(point: Sequence[object]) -> None:
        """Run the command again, unless it has begun with the same before."""
        if (found := state(folder)) not in done:
            done.add(found)
            again, after = program.run(command), content(folder)
            if command.split()[0] not in TIDY or command in UNTIDY:
                after = seen(after)
            refused = again.status == 2 and seen(after) == seen(expected)  # as finished; its lock may be left
            if again.status and not refused:
                problems.append((*point, "again", again.errors[-300:]))
            elif after != expected and not refused:
                problems.append((*point, "again", differences(after, expected)))

    for call_number, fault in points(len(calls), random.Random(command)):
        put(begin, folder)
        failed = program.run(command, FAULT_BELOW=folder, FAULT_AT=call_number, FAULT=fault)
        if found := list(complaints(failed, before, content(folder), expected)):
            problems.append((fault, call_number, calls[call_number], found))
        complete((fault, call_number, calls[call_number]))

    copies.mkdir()
    put(begin, folder)
    every = -(-len(calls) // (2 * COUNT))
    program.run(command, FAULT_BELOW=folder, FAULT_COPIES=copies, FAULT_EVERY=every, FAULT_LOG=copies / "log")
    assert content(folder) == expected
    calls = (copies / "log").read_text().splitlines()
    (copies / "log").unlink()
    for copied in sorted(copies.iterdir(), key=lambda path: int(path.name)):
        shutil.rmtree(folder)
        copied.rename(folder)
        point = "killed", int(copied.name), calls[int(copied.name)]
        problems += [(*point, one) for one in losses(before, content(folder), expected)]
        complete(point)
    failed_at, killed_at = min(COUNT, len(FAULTS) * len(calls)), -(-len(calls) // every)
    print(f"{command}: {len(calls)} calls; {failed_at} failed, {killed_at} killed, {len(done) - 1} states repeated")
    assert not problems, "\n".join(map(str, problems))


def complaints(ended: Ended, before: Content, after: Content, expected: Content) -> Iterator[str]:
    """What is wrong with how a command ended."""
    lines = [line for line in ended.errors.splitlines() if "error" in line.lower()]
    if "Traceback" in ended.errors or "Exception ignored" in ended.errors:
        yield f"traceback: {ended.errors.splitlines()[-1]}"
    elif ended.status == 2 and len(lines) != 1:
        yield f"{len(lines)} lines: {lines}"
    elif ended.status not in (0, 2):
        yield f"status {ended.status}: {ended.errors[-300:]}"
    if ended.status == 0 and seen(after) != expected:
        yield f"status 0 with {differences(seen(after), expected)}"
    yield from losses(before, after, expected)


def losses(before: Content, after: Content, expected: Content) -> Iterator[str]:
    """What is not what it was, nor what it shall become."""
    for name, one in before.items():
        folder, _, rest = name.partition("/")
        moved = f".{folder}.old/{rest}"  # which the next command moves back or removes
        replaced = name not in expected and expected.items() <= after.items()
        if not replaced and not {one, expected.get(name, one)} & {after.get(name), after.get(moved)}:
            yield f"lost: {name}"


def seen(files: Content) -> Content:
    """The files that are not hidden."""
    return {name: one for name, one in files.items() if not any(part.startswith(".") for part in name.split("/"))}


def differences(after: Content, expected: Content) -> str:
    """How two folders differ."""
    missing, more = expected.keys() - after.keys(), after.keys() - expected.keys()
    others = [name for name in expected.keys() & after.keys() if expected[name] != after[name]]
    return f"missing {sorted(missing)[:4]}, more {sorted(more)[:4]}, other {sorted(others)[:4]}"
