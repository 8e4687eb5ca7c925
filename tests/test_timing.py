"""The commands that measure time and memory: they run, and print a number in every cell."""

import importlib
from pathlib import Path

import pytest
import torch

from tests.conftest import Capture, Patch
from timing import gpu, presets
from timing.report import Section


@pytest.mark.parametrize(
    "name", ["__main__", "stages", "gpu", "presets", "guided", "gallery", "soak", "corrections", "serving"]
)
def test_each_command_explains_itself(name: str, monkeypatch: Patch, capsys: Capture) -> None:
    module = importlib.import_module(f"timing.{name}")
    monkeypatch.setattr("sys.argv", [f"timing.{name}", "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage:")


def test_a_section_takes_the_place_of_its_earlier_one_and_leaves_the_others(tmp_path: Path) -> None:
    page = tmp_path / "results.md"

    def write(title: str, number: str) -> None:
        section = Section(title, "python -m x", torch.device("cpu"), "text", ["name", "number"], slice(1, None))
        section.add("row", number)
        section.write(page)

    write("First", "1")
    write("Second", "2")
    second = page.read_text()[page.read_text().index("## Second") :]
    write("First", "3")
    lines = page.read_text().splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# Speed and memory", "## First", "## Second"]
    assert [line for line in lines if line.startswith("| ---")] == ["| --- | ---: |"] * 2
    assert "| row | 3 |" in lines
    assert "| row | 1 |" not in lines
    assert page.read_text().endswith(second), "to the byte"


def test_an_unknown_section_is_refused_before_any_is_measured(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("timing.__main__").main(["stages", "preset"])
    assert ended.value.code == 2
    assert "there is no section preset: choose from stages, guided, presets, gpu" in capsys.readouterr().err


def rows(page: Path) -> list[list[str]]:
    """The cells of the table's rows."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_gpu_command_measures_every_precision_on_a_cpu(tmp_path: Path) -> None:
    small = ["--sam2", "sam2_nano", "--encoder", "dinov2_nano", "--points-per-side", "4", "--repeats", "1"]
    gpu.main([*small, "--images-per-batch", "2", "--device", "cpu", "--no-compile", "--out", str(tmp_path / "gpu.md")])
    generator, generator_bf16, *ours, several = rows(tmp_path / "gpu.md")
    names = [row[0] for row in (*ours, several)]
    assert names == ["ours, float32", "ours, bfloat16", "ours, bfloat16, 2 images at once"]
    for row in (generator, generator_bf16, several):
        assert float(row[1]) > 0
    for row in ours:
        assert all(float(cell) >= 0 for cell in row[1:])
        assert float(row[1]) > 0


def test_the_presets_are_compared_in_both_precisions(tmp_path: Path, monkeypatch: Patch) -> None:
    small = {name: preset._replace(sam2="sam2_nano", dinov2="dinov2_nano") for name, preset in presets.PRESETS.items()}
    monkeypatch.setattr(presets, "PRESETS", small)
    presets.main(["--presets", "accurate", "fast", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path / "out")])
    table = rows(tmp_path / "out")
    pairs = [[name, precision] for name in ("accurate", "fast") for precision in ("float32", "bfloat16")]
    assert [row[:2] for row in table] == pairs
    assert [row[5] for row in table[:2]] == ["1024", "1024"]
    assert 0 < int(table[2][5]) <= 0.15 * 1024, "a guided preset decodes a share of the grid"
    assert all(float(cell) >= 0 for row in table for cell in row[2:])
