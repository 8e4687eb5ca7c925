"""The documents: every command in them parses, every link leads somewhere, and the notebook runs."""

import re
import shlex
import sys
import warnings
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from no_time_to_train import ReferenceSegmenter, Settings
from no_time_to_train.commands import COMMANDS, build_parser, split_command
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.errors import UserNotice
from no_time_to_train.stage_cli import run_stage
from tests.conftest import Capture, Patch, write_picture

ROOT = Path(__file__).parents[1]
TRANSLATIONS = sorted((ROOT / "docs" / "readme").glob("README.*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOK, PHOTOGRAPHS = (ROOT / "examples" / name for name in ("quickstart.ipynb", "photographs.ipynb"))


def code_lines(text: str) -> list[str]:
    """The lines of a page's fenced and indented code blocks; lines that end in a backslash are joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^(?: {4}.*)\n)+", text, flags=re.MULTILINE)
    return [line.strip() for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]


def commands_of(page: Path) -> list[list[str]]:
    """The commands of this package on a page, as lists of arguments, except those that are abbreviated by ``...``."""
    commands = []
    for line in code_lines(page.read_text()):
        # Variables for this command only may precede it.
        if begun := re.match(r"(?:[A-Z_]+=\S* )*(?:no-time-to-train|python run_lightning\.py) ", line):
            commands.append(shlex.split(line[begun.end() :], comments=True))
    return [words for words in commands if "..." not in words]


ALL_COMMANDS = [
    pytest.param(command, id=f"{page.name}: {' '.join(command)}") for page in PAGES for command in commands_of(page)
]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_commands_are_found_in_both_kinds_of_code_blocks() -> None:
    indented = commands_of(ROOT / "docs" / "several_gpus.md")
    fenced = commands_of(ROOT / "docs" / "extending.md")
    assert "test" in {name for name, *_ in indented} & {name for name, *_ in fenced}


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def write_own_parts(folder: Path) -> str:
    """Write the modules of docs/extending.md into a folder, and return the code that uses them from Python."""
    blocks = python_blocks("extending.md")
    names = [re.match(r"# (\w+\.py)\n", block) for block in blocks]
    for name, block in zip(names, blocks, strict=True):
        if name:
            (folder / name[1]).write_text(block)
    (code,) = (block for name, block in zip(names, blocks, strict=True) if not name)
    return code


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_each_command_in_the_documents_parses(
    command: list[str], monkeypatch: Patch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    if "--plugin" in command:
        write_own_parts(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        for module in tmp_path.glob("*.py"):
            monkeypatch.delitem(sys.modules, module.stem, raising=False)
    name, arguments = split_command(command)
    assert name in COMMANDS
    if name == "test":
        with pytest.raises(SystemExit) as ended:  # prints the configuration, with all options applied, and runs nothing
            run_stage([*build_parser(name).parse_command(arguments)["words"], "--print_config"])
        assert ended.value.code in (None, 0)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserNotice)  # an option has no effect
            build_parser(name).parse_command(arguments)


@pytest.mark.parametrize(
    ("line", "notices"),
    [
        ("sample --n-shot 1 --out r.json --pool 3 --cache_dir=c", {"--pool", "--cache-dir"}),
        ("sample --n-shot 1 --out r.json --pool 3 --choose best", set()),
        ("segment --images x --out y --link --proposals-per-image 9", {"--link", "--proposals-per-image"}),
        ("segment --images x --out y --link --format yolo --proposals grid --proposals-per-image 9", set()),
        ("evaluate --gt g --results r --semantic-threshold 0.4", {"--semantic-threshold"}),
        ("evaluate --gt g --results r --semantic-threshold 0.4 --protocol semantic", set()),
        ("sample --n-shot 1 --out r.json --image-dir i", {"--image-dir"}),
        ("sample --n-shot 1 --out r.json --image-dir i --plot", set()),
        ("sample --n-shot 1 --out r.json --image-dir i --choose best", set()),
        ("segment --images x --out y --names-model m", {"--names-model"}),
        ("segment --images x --out y --names-model m --names-only boat", set()),
        ("memory show m --dinov2 d", {"--dinov2"}),
    ],
)
def test_an_option_has_an_effect_with_what_its_help_names(line: str, notices: set[str]) -> None:
    name, arguments = split_command(line.split())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build_parser(name).parse_command(arguments)
    assert {str(one.message).partition(" has no effect without ")[0] for one in caught} == notices


@pytest.mark.parametrize("page", [*PAGES, *TRANSLATIONS], ids=lambda page: page.name)
def test_each_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}, but {target.name} has no such heading"


@pytest.mark.parametrize("page", TRANSLATIONS, ids=lambda page: page.name)
def test_a_translated_readme_has_the_code_of_the_english_one(page: Path) -> None:
    def code(text: str) -> list[str]:
        return [re.sub(r"\s+# .*", "", line) for line in code_lines(text)]

    assert code(page.read_text(encoding="utf-8")) == code((ROOT / "README.md").read_text(encoding="utf-8"))
    languages = [f"docs/readme/{other.name}" for other in TRANSLATIONS]
    assert all(f"]({path})" in (ROOT / "README.md").read_text(encoding="utf-8") for path in languages)


def test_the_tests_that_make_the_workflows_and_the_documents_name_exist() -> None:
    files = [ROOT / "Makefile", *PAGES, *(ROOT / ".github" / "workflows").iterdir()]
    named = {name for file in files for name in re.findall(r"tests/[\w/]+(?:\.\w+)?", file.read_text(encoding="utf-8"))}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def draw_example(folder: Path) -> None:
    """The pictures that the pages name: an object as a reference, once more in its mirror image, and a photo."""
    scene = draw_scene(np.random.default_rng(114), NOVEL_CLASSES, (300, 400))
    mask = scene.masks[scene.masks.sum((1, 2)).argmax()]
    write_picture(scene.image, folder / "photo.jpg", folder / "photos/photo.jpg", folder / "ref.jpg")
    write_picture(scene.image[:, ::-1], folder / "refs/boat/1.jpg")
    write_picture(mask, folder / "ref_mask.png")
    write_picture(mask[:, ::-1], folder / "refs/boat/1_mask.png")


def test_the_python_page_runs_as_written(tmp_path: Path, monkeypatch: Patch) -> None:
    draw_example(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(python_blocks("python.md")).replace('"sam2_hiera_large", "dinov2_vitl14"', '"nano"'), {})
    assert (tmp_path / "found.jpg").exists()
    assert (tmp_path / "boats.memory").exists()


def test_the_notebook_with_photographs_runs_after_the_demo_that_it_starts(
    tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    """With other pictures in place of the photographs, and without the installation and the downloads."""
    cells = [cell.source for cell in nbformat.read(PHOTOGRAPHS, as_version=4).cells if cell.cell_type == "code"]
    (command,) = (cell for cell in cells if cell.startswith("!"))
    assert build_parser("demo").parse_command(shlex.split(command)[2:])["photos"]
    scene = draw_scene(np.random.default_rng(0), NOVEL_CLASSES[:1], (120, 160))
    names = ("photos/coins.png", "segment/overlays/coins.jpg")
    write_picture(scene.image, *(tmp_path / "demo" / name for name in names))
    monkeypatch.chdir(tmp_path)
    nano = partial(ReferenceSegmenter.from_pretrained, "nano", settings=Settings(points_per_side=4))
    monkeypatch.setattr(ReferenceSegmenter, "from_pretrained", nano)
    code = "\n".join(cell for cell in cells if not cell.startswith(("%", "!")))
    exec(code.replace('(preset="fast")', "()"), {})
    assert "of 24 coins" in capsys.readouterr().out


def test_the_notebook_finds_what_its_target_shows(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    stored = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    (counts,) = (output["data"]["text/plain"] for output in outputs if "Counter" in str(output))
    assert sorted(re.findall(r"'(\w+)': (\d)", counts)) == [("bricks", "2"), ("stripes", "2")]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert sum("image/jpeg" in data for data in stored) == 4, "run scripts/store_notebook.py"
    shown = [output.get("data", {}) for output in outputs]
    texts = ["\n".join(data["text/plain"] for data in one if "text/plain" in data) for one in (stored, shown)]
    scores = [[float(number) for number in re.findall(r"\d\.\d+", text)] for text in texts]
    assert scores[0] == pytest.approx(scores[1], abs=5e-4), "run scripts/store_notebook.py"
