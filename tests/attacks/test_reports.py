"""Runs that ``report`` reads: a damaged one counts as failed, and no name becomes code, markup or a formula."""

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

from no_time_to_train.benchmarks.report.runs import Run, find_runs
from no_time_to_train.cli import main
from no_time_to_train.files import spreadsheet_cell
from no_time_to_train.pipeline.output_folder import write_table

RECORD: dict[str, Any] = {
    "fill_memory": {"status": "finished", "seconds": 5.0},
    "test": {
        "status": "finished",
        "seconds": 9.5,
        "labels": {"dataset_name": "few_shot_classes", "n_shot": 10, "seed": 33, "method": None},
    },
}
METRICS: dict[str, Any] = {"bbox": {"AP": 0.366, "AP50": None, "per_class": {"boat": 0.5}}, "segm": {"AP": 0.341}}


def write_run(folder: Path, record: Any = RECORD, metrics: Any = METRICS) -> None:
    """Write a run; what is not bytes becomes JSON, and None leaves the file out."""
    folder.mkdir()
    for name, content in (("run.json", record), ("metrics.json", metrics)):
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def changed(content: dict[str, Any], *place: Any) -> dict[str, Any]:
    """A copy with the last argument at the place that the others name."""
    copied = copy.deepcopy(content)
    *keys, last, value = place
    part: Any = copied
    for key in keys:
        part = part[key]
    part[last] = value
    return copied


def report(folder: Path) -> Run:
    """Write the report of a good run and another one, and return what was read of the other."""
    write_run(folder / "good", changed(RECORD, "test", "labels", "n_shot", None))  # so that nothing is plotted
    main(["report", str(folder), "--out", str(folder / "out")])
    bad, good = find_runs(folder)
    assert good.status == "finished"
    return bad


#: run.json, metrics.json, and words of the reason of the failure.
DAMAGED: dict[str, tuple[Any, Any, str]] = {
    "run.json is no JSON": (b"{", METRICS, "not valid JSON"),
    "run.json is a list": ([], METRICS, "run.json is damaged"),
    "run.json is empty": ({}, METRICS, "run.json is damaged"),
    "a stage is a text": ({"test": "finished"}, METRICS, "run.json is damaged"),
    "a stage without a status": ({"test": {}}, METRICS, "its status is 'None'"),
    "a status that is a list": (changed(RECORD, "test", "status", []), METRICS, "its status is '[]'"),
    "labels that are a text": (changed(RECORD, "test", "labels", "ab"), METRICS, "its labels is 'ab'"),
    "shots that are a text": (changed(RECORD, "test", "labels", "n_shot", "10"), METRICS, "its n_shot is '10'"),
    "shots that are a boolean": (changed(RECORD, "test", "labels", "n_shot", True), METRICS, "its n_shot is 'True'"),
    "no shots": (changed(RECORD, "test", "labels", "n_shot", 0), METRICS, "its n_shot is '0'"),
    "10**400 shots": (changed(RECORD, "test", "labels", "n_shot", 10**400), METRICS, "its n_shot is"),
    "a seed that is a list": (changed(RECORD, "test", "labels", "seed", [1]), METRICS, "its seed is '[1]'"),
    "a data set that is a number": (changed(RECORD, "test", "labels", "dataset_name", 5), METRICS, "its dataset_name"),
    "a data set of 10,000 characters": (
        changed(RECORD, "test", "labels", "dataset_name", "a" * 10_000),
        METRICS,
        "its dataset_name",
    ),
    "a method that is a dict": (changed(RECORD, "test", "labels", "method", {}), METRICS, "its method is '{}'"),
    "seconds that are a text": (changed(RECORD, "test", "seconds", "9"), METRICS, "its seconds is '9'"),
    "seconds of NaN": (changed(RECORD, "test", "seconds", float("nan")), METRICS, "its seconds is 'nan'"),
    "an integer of 5,000 digits": (b'{"test": {"seconds": ' + b"9" * 5000 + b"}}", METRICS, "not valid JSON"),
    "no metrics.json": (RECORD, None, "file not found"),
    "metrics.json is a list": (RECORD, [METRICS], "metrics.json is not a file of metrics"),
    "metrics.json is no JSON": (RECORD, b"\xff\xfe", "metrics.json cannot be read"),
    "figures that are a number": (RECORD, {"bbox": 0.5}, "bbox is a float"),
    "a figure that is a text": (RECORD, {"bbox": {"AP": "0.5"}}, "has bbox/AP '0.5'"),
    "a figure that is a boolean": (RECORD, {"bbox": {"AP": True}}, "has bbox/AP 'True'"),
    "a figure of NaN": (RECORD, {"bbox": {"AP": float("nan")}}, "has bbox/AP 'nan'"),
    "an infinite figure": (RECORD, {"segm": {"AP": float("inf")}}, "has segm/AP 'inf'"),
    "a figure in percent": (RECORD, {"bbox": {"AP": 36.6}}, "has bbox/AP '36.6'"),
    "a figure of 10**400": (RECORD, {"bbox": {"AP": 10**400}}, "has bbox/AP"),
}


@pytest.mark.parametrize(("record", "metrics", "reason"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_run_counts_as_failed(record: Any, metrics: Any, reason: str, tmp_path: Path) -> None:
    write_run(tmp_path / "bad", record, metrics)
    run = report(tmp_path)
    assert run.status == "failed"
    assert reason in run.reason
    assert "| bad | failed |" in (tmp_path / "out" / "report.md").read_text()
    assert "| 33 | 36.6 | 34.1 | 14 | good |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("name", ["run.json", "metrics.json"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_not_opened(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    write_run(tmp_path / "bad", None if name == "run.json" else RECORD, None if name == "metrics.json" else METRICS)
    make(tmp_path / "bad" / name)
    assert report(tmp_path).status == "failed"


def test_a_figure_that_is_nested_is_not_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "bad", RECORD, {"bbox": {"AP": {"boat": 0.5}}, "segm": {"AP": 0.5}})
    run = report(tmp_path)
    assert (run.value("bbox/AP"), run.value("segm/AP")) == (None, 50)


NAMES = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "@SUM(1)",
    "\t=1",
    "<script>alert(1)</script>",
    "![x](http://127.0.0.1/x.png)",
    "`rm`",
    "a | b\n| c",
    "$\\frac$",
    "_hidden",
    "\x1b[2J\u2028",
    "half \ud800",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_text_in_every_file_of_the_report(name: str, tmp_path: Path) -> None:
    write_run(
        tmp_path / "bad",
        changed(changed(RECORD, "test", "labels", "dataset_name", name), "test", "labels", "method", name),
    )
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
        both = [copy.deepcopy(RECORD), copy.deepcopy(METRICS)]
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
