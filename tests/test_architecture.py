"""The rules of the layout in CONTRIBUTING.md: who may import whom, and what stays fast."""

import ast
import os
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
    {"errors", "file_hashes", "files", "light_imports", "overlap", "plugins", "ranges", "yaml_files"},
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


def modules_after(code: str, folder: Path = ROOT) -> set[str]:
    """The modules that are imported in a new process after it has run some code in a folder."""
    words = [sys.executable, "-c", f"import sys\n{code}\nprint('\\n'.join(sys.modules))"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, check=True)
    return set(ended.stdout.split())


def modules_after_command(line: str, status: int, folder: Path = ROOT) -> set[str]:
    """The modules that are imported in a new process after a command has ended with a status."""
    code = f"from no_time_to_train.cli import main\ntry:\n    main({line.split()!r})\n"
    return modules_after(f"{code}except SystemExit as ended:\n    assert (ended.code or 0) == {status}", folder)


@pytest.mark.parametrize("line", ["--help", "segment --help", "test --help", "track --help"])
def test_help_imports_nothing_slow(line: str) -> None:
    assert not modules_after_command(line, status=0) & set(SLOW)


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    imported = modules_after("import no_time_to_train")
    assert [name for name in imported if name.startswith(PACKAGE)] == [PACKAGE]
    assert not imported & set(SLOW)


def test_the_networks_are_imported_without_the_compiler_which_stays_usable() -> None:
    code = (
        "import torch, no_time_to_train.api.reference_segmenter\n"
        "from no_time_to_train.light_imports import import_light\n"
        "assert 'pytorch_lightning' not in sys.modules\n"
        "import_light('pytorch_lightning')\n"
        "import no_time_to_train.stage_cli\n"
        "from torchvision.ops import RoIAlign\n"
        "from timm.models.naflexvit import NaFlexVit\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "align = RoIAlign(2, 1.0, 1)\n"
        "boxes = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])\n"
        "assert align(torch.ones(1, 1, 4, 4), boxes).tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]\n"
        "from pytorch_lightning.utilities.compile import from_compiled, to_uncompiled\n"
        "module = no_time_to_train.stage_cli.LightningModule()\n"
        "assert to_uncompiled(from_compiled(torch.compile(module))) is module\n"
        "assert torch.compile(torch.square, backend='eager')(torch.tensor(3)) == 9\n"
        "assert 'torch._dynamo' in sys.modules\n"
    )
    modules_after(code)
