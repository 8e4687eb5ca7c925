"""The rules of the layout in CONTRIBUTING.md: who may import whom, and what stays fast."""

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "no_time_to_train"

#: The rooms from the ground floor up. A module imports nothing from the rooms after its own.
FLOORS = [
    {"errors", "file_hashes", "files", "light_imports", "overlap", "plugins", "ranges"},
    {"method"},
    {"networks"},
    {"data"},
    {"config", "evaluation", "visual"},
    {"analysis"},
    {"api"},
    {"pipeline"},
    {"benchmarks", "lightning_items", "lightning_module", "lightning_segment", "stage_cli"},
    {"demo"},
    {"commands"},
    {"cli"},
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


#: The package with what only some users have a use for. It builds on the other one.
EXTRAS = "no_time_to_train_extras"

ALL_MODULES = {module_name(path): path for name in (PACKAGE, EXTRAS) for path in sorted((ROOT / name).rglob("*.py"))}
MODULES = {name: path for name, path in ALL_MODULES.items() if name.split(".")[0] == PACKAGE}


def imported_modules(name: str) -> set[str]:
    """The modules of the package that a module imports anywhere, except for type checkers only."""
    tree = ast.parse(ALL_MODULES[name].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & ALL_MODULES.keys()
            found |= submodules or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & ALL_MODULES.keys()) - {name}


ALL_IMPORTS = {name: imported_modules(name) for name in ALL_MODULES}
IMPORTS = {name: ALL_IMPORTS[name] & MODULES.keys() for name in MODULES}


def room(name: str) -> str:
    return [*name.split("."), ""][1]


ALL_PAIRS = {(name, imported) for name, imports in IMPORTS.items() for imported in imports}


def test_the_method_knows_nothing_of_the_rest_of_the_package() -> None:
    known = {room(imported) for name, imported in ALL_PAIRS if room(name) == "method"}
    assert known <= {"method", "errors", "plugins", "ranges"}


#: The package's pictures and results convert into each other: Instances.plot draws, the gallery shows Instances.
ALLOWED = {(f"{PACKAGE}.data.instances", f"{PACKAGE}.visual.drawing")}

#: All other imports of a module from another room: from the package itself, only its public names.
BETWEEN_ROOMS = {pair for pair in ALL_PAIRS if room(pair[0]) != room(pair[1]) and PACKAGE not in pair} - ALLOWED


def test_no_room_imports_from_a_room_above_it() -> None:
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    assert {room(name) for name in MODULES} - {"", "__main__"} == floor.keys()
    above = floor | {"__main__": len(FLOORS)}
    assert not {(name, imported) for name, imported in BETWEEN_ROOMS if above[room(imported)] > above[room(name)]}


def test_no_two_rooms_import_each_other() -> None:
    rooms = {(room(name), room(imported)) for name, imported in BETWEEN_ROOMS}
    assert not {pair for pair in rooms if pair[::-1] in rooms}


def test_the_package_knows_its_extras_only_where_they_are_asked_for() -> None:
    lines = [line for path in MODULES.values() for line in path.read_text().splitlines()]
    assert not [line for line in lines if re.match(rf"(from|import) {EXTRAS}", line)]


def test_no_extra_imports_another_one_but_what_serves_the_server_and_the_app_the_tracker() -> None:
    pairs = {(room(name), room(imported)) for name in ALL_MODULES for imported in ALL_IMPORTS[name]}
    extras = {room(name) for name in ALL_MODULES if name not in MODULES} - {""}
    pairs = {pair for pair in pairs if {*pair} <= extras and len({*pair}) == 2}
    served = {("app", "server"), ("label_studio_backend", "server"), ("label_studio_backend", "app")}
    assert pairs <= {("class_names", "proposers"), ("app", "video")} | served


def test_no_modules_import_each_other() -> None:
    tuple(TopologicalSorter(ALL_IMPORTS).static_order())  # a CycleError names them


def test_a_module_is_found_by_its_name() -> None:
    names = Counter(name.rpartition(".")[2] for name in ALL_MODULES)
    for command in MODULES:
        if room(command) == "commands":  # a command may have the name of what it runs
            names[command.rpartition(".")[2]] -= 1
    assert [name for name, count in names.items() if count > 1] == []


SLOW = ("torch", "torchvision", "numpy", "cv2", "supervision", "timm", "pytorch_lightning")


def modules_after(code: str) -> set[str]:
    """The modules that are imported in a new process after it has run some code."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(ended.stdout.split())


IMAGE = "tests/data/one_pixel.png"


NANO_ENCODER = "--model.model_cfg.encoder_cfg.name dinov2_nano"
TEST_NANO = f"--model.test_mode test {NANO_ENCODER} --model.model_cfg.sam2_cfg_file sam2_nano"


THING = f"segment --reference thing:{IMAGE}:mask={IMAGE}"


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "segment --help",
        "test --help",
        "evaluate --gt",
        "segmnet",
        "segment --references nowhere --images nowhere --out nowhere",
        "test --config nowhere.yaml",
        "test --config configs/custom_sam2l.yaml --model.model_cfg.sam2_cfg sam2_hiera_l",
        "test --config configs/custom_sam2l.yaml --trainer.devicess 2",
        "test --config custom --out_path /proc/y/m --model.model_cfg.encoder_ckpt_path nowhere.pth",
        "test --config custom --out_path /proc/y/m --model.model_cfg.encoder_cfg.name dinov2_huge",
        f"test --config custom --out_path /proc/y/m --model.dataset_cfgs.fill_memory.class_split few {NANO_ENCODER}",
        f"test --config custom --export_result /proc/y/r --model.dataset_cfgs.test.json_file none.json {TEST_NANO}",
        "sample --split few --n-shot 1 --out nowhere.json --json-file configs/best.yaml",
        "memory show nowhere",
        "sample --n-shot 1 --out y.txt",
        "references from-coco configs/best.yaml y.txt",
        f"propose --images {IMAGE} --nano --out y.txt",
        "sample-references --n-shot 1 --out nowhere.json --json-file nowhere.json",
        "boxes-to-masks nowhere.json --image-dir .",
        "boxes-to-masks configs/best.yaml --image-dir nowhere --nano",
        "boxes-to-masks configs/best.yaml --image-dir . --sam-checkpoint gone.pth",
        "boxes-to-masks configs/best.yaml --image-dir . --nano --out configs",
        "evaluate --gt configs/best.yaml --results configs/best.yaml --explain",
        "report nowhere",
        "demo --out configs",
        f"segment --memory nowhere --images {IMAGE} --out nowhere",
        f"segment --reference thing:nowhere.png:point=1,2 --images {IMAGE} --out nowhere",
        f"{THING} --images nowhere --out nowhere",
        f"{THING} --images {IMAGE} --out {IMAGE}",
        f"{THING} --images {IMAGE} --out y --sam2 gone.pt",
        f"{THING} --images {IMAGE} --out y --class-score a",
        f"{THING} --images {IMAGE} --out /proc/y --nano",
        "filter nowhere",
        "track --help",
        "track --memory nowhere --images clip.mp4 --out y",
        f"track --reference thing:{IMAGE}:mask={IMAGE} --images {IMAGE} --out y --nano --line 1,2",
    ],
)
def test_help_and_mistakes_in_options_and_paths_import_nothing_slow(line: str) -> None:
    assert not modules_after_command(line, status=0 if "--help" in line else 2) & set(SLOW)


@pytest.mark.parametrize(
    "line",
    [
        f"{THING} --images {IMAGE} --out y --nano --class-score thong=0.4",
        f"segment --references configs --images {IMAGE} --out y --nano",
        f"{THING} --images configs --out y --nano",
        "prepare cdfsod --sets FISHY",
        "prepare coco --root y --check",
    ],
)
def test_mistakes_in_references_and_targets_are_found_before_torch_is_imported(line: str) -> None:
    assert "torch" not in modules_after_command(line, status=2)


def test_loading_is_said_before_torch_is_imported() -> None:
    words = f"{THING} --images configs --out y --nano".split()  # ends before torch, as the test above says
    ended = subprocess.run([sys.executable, "-m", PACKAGE, *words], capture_output=True, text=True, cwd=ROOT)
    assert ended.stderr.startswith("loading ...\nerror: ")


def modules_after_command(line: str, status: int) -> set[str]:
    """The modules that are imported in a new process after a command has ended with a status."""
    code = f"from no_time_to_train.cli import main\ntry:\n    main({line.split()!r})\n"
    return modules_after(code + f"except SystemExit as ended:\n    assert (ended.code or 0) == {status}")


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    imported = modules_after("import no_time_to_train")
    assert [name for name in imported if name.startswith(PACKAGE)] == [PACKAGE]
    assert not imported & set(SLOW)


def test_the_networks_are_imported_without_the_compiler_which_stays_usable() -> None:
    code = (
        "import torch, no_time_to_train.api.reference_segmenter\n"
        "from torchvision.ops import RoIAlign\n"
        "from timm.models.naflexvit import NaFlexVit\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "align = RoIAlign(2, 1.0, 1)\n"
        "boxes = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])\n"
        "assert align(torch.ones(1, 1, 4, 4), boxes).tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]\n"
        "assert torch.compile(torch.square, backend='eager')(torch.tensor(3)) == 9\n"
        "assert 'torch._dynamo' in sys.modules\n"
    )
    modules_after(code)
