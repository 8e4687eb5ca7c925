"""Runs that ``report`` reads: what is no file is not opened, and no name becomes code, markup or a formula."""

import copy
import csv
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from no_time_to_train.benchmarks.report.runs import find_runs
from no_time_to_train.cli import main
from no_time_to_train.files import spreadsheet_cell
from no_time_to_train.pipeline.output_folder import write_table
from tests.attacks.test_cases import valid_content

RUN, METRICS = valid_content("run"), valid_content("metrics")


def write_run(folder: Path, record: Any = RUN, metrics: Any = METRICS) -> None:
    """Write a run; what is not bytes becomes JSON, and None leaves the file out."""
    folder.mkdir()
    for name, content in (("run.json", record), ("metrics.json", metrics)):
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.mark.parametrize("name", ["run.json", "metrics.json"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_not_opened(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    write_run(tmp_path / "bad", None if name == "run.json" else RUN, None if name == "metrics.json" else METRICS)
    make(tmp_path / "bad" / name)
    (run,) = find_runs(tmp_path)
    assert run.status == "failed"


def test_a_figure_that_is_nested_is_not_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "bad", RUN, {"bbox": {"AP": {"boat": 0.5}}, "segm": {"AP": 0.5}})
    (run,) = find_runs(tmp_path)
    assert (run.value("bbox/AP"), run.value("segm/AP")) == (None, 50)


NAMES = [
    "=cmd|' /C calc'!A0", "+1+1", "@SUM(1)", "\t=1", "<script>alert(1)</script>", "![x](http://127.0.0.1/x.png)",
    "`rm`", "a | b\n| c", "$\\frac$", "_hidden", "\x1b[2J\u2028", "half \ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_text_in_every_file_of_the_report(name: str, tmp_path: Path) -> None:
    labels = {**RUN["test"]["labels"], "dataset_name": name, "method": name}
    write_run(tmp_path / "bad", {"test": {**RUN["test"], "labels": labels}})
    write_run(tmp_path / "failed", {"test": {"status": "failed", "error": name}})
    main(["report", str(tmp_path)])
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "<script>" not in page + text
    assert not re.search(r"(?<!\\)[`\[]", text.split("##", 1)[1].replace("![Other data sets]", ""))
    tables = [table.splitlines() for table in text.split("\n\n") if table.startswith("| ")]
    assert len(tables) == 2
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1, "a cell more in a row"
    with (tmp_path / "report_other.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert all(not cell.startswith(("=", "+", "@", "\t")) for row in rows for cell in row)
    assert rows[1][5] == "36.60"


def test_numbers_in_a_table_stay_numbers(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [["-boat.jpg", -1.5, 7], ["\uff1d1", "a,b", 'a"b']])
    assert (tmp_path / "t.csv").read_text() == '\'-boat.jpg,-1.5,7\n\'\uff1d1,"a,b","a""b"\n'
    assert spreadsheet_cell(" =1") == "' =1"
    assert spreadsheet_cell("boat = 1") == "boat = 1"


VALUES = [None, True, -1, 10**40, 0.5, float("nan"), "", "0.5", [], {}, "running", "finished", "failed", {"AP": 0.5}]


def test_runs_that_are_changed_at_random_are_reported(tmp_path: Path) -> None:
    rng = random.Random(0)
    for case in range(300):
        both = [copy.deepcopy(RUN), copy.deepcopy(METRICS)]
        for _ in range(rng.randint(1, 3)):
            part: Any = both
            key: Any = rng.randrange(2)
            while isinstance(part[key], dict) and part[key] and rng.random() < 0.8:
                part = part[key]
                key = rng.choice(list(part))
            part[key] = rng.choice(VALUES)
        write_run(tmp_path / str(case), *both)
    main(["report", str(tmp_path)])
    states = [run.status for run in find_runs(tmp_path)]
    print({state: states.count(state) for state in set(states)})
    assert states.count("finished") > 20
    assert states.count("failed") > 100
