"""The report: figures next to the published ones, and runs that failed or did not end."""

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from no_time_to_train.benchmarks.report.runs import find_runs, read_run
from no_time_to_train.cli import main
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.pipeline.run_record import record_stage
from tests.conftest import Capture, Patch


def finished_run(
    folder: Path, dataset: str, shots: int, seed: int, parts: dict[str, Any] | None = None, **metrics: dict[str, Any]
) -> None:
    """Write a run, with some parts of a configuration, as the stages leave it."""
    with record_stage(folder, "fill_memory", {}):
        pass
    labels, config = {"dataset_name": dataset, "n_shot": shots, "seed": seed}, {"model": {"init_args": parts or {}}}
    with record_stage(folder, "test", {}, labels=labels, config=config):
        (folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of COCO-FSOD, a run of VOC, one of another detector, and a failed, an unfinished and a damaged run."""
    coco = tmp_path / "few_shot_classes"
    finished_run(coco / "10shot_seed33", "few_shot_classes", 10, 33, bbox={"AP": 0.366}, segm={"AP": 0.341})
    finished_run(coco / "10shot_seed42", "few_shot_classes", 10, 42, bbox={"AP": 0.346}, segm={"AP": 0.327})
    of_voc = {"AP": 0.4, "AP50": 0.7, "nAP50_as_published": 0.72}
    finished_run(tmp_path / "voc", "pascal_voc_split_1", 5, 33, bbox=of_voc)
    labels = {"dataset_name": "few_shot_classes", "n_shot": 10, "method": "Co|DETR <x>"}
    with record_stage(tmp_path / "other", "evaluate", {}, labels=labels):
        (tmp_path / "other" / "metrics.json").write_text(json.dumps({"bbox": {"AP": 0.5}}))
    with pytest.raises(UserError), record_stage(tmp_path / "failed", "fill_memory", {}):
        raise UserError("image not found: cat.png")
    with record_stage(tmp_path / "unfinished", "fill_memory", {}):
        pass
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    return tmp_path


def test_report_puts_runs_next_to_the_published_figures(runs: Path, capsys: Capture) -> None:
    main(["report", str(runs)])
    assert capsys.readouterr().out.startswith("4 finished, 2 failed, 1 unfinished\n")
    rows = [[cell.strip() for cell in line.split(" | ")] for line in (runs / "report.md").read_text().splitlines()]
    by_seed = next(row for row in rows if row[3:4] == ["33"] and row[0] == "| few shot classes")
    assert by_seed[4:10] == ["36.6", "36.6", "+0.0", "34.1", "33.8", "+0.3"]
    over_seeds = next(row for row in rows if row[3:4] == ["bbox nAP"] and "±" in row[5])
    assert over_seeds[4:] == ["2", "35.6 ± 1.4", "35.9 ± 0.5", "-0.3 |"]  # std of 36.6 and 34.6: 2 / sqrt(2)
    assert ["| 1 of 15", "72.0", "71.2", "incomplete", "70.0 |"] in rows
    text = (runs / "report.md").read_text()
    assert "| failed | failed | fill_memory: image not found: cat.png |" in text
    assert "| unfinished | unfinished | fill_memory: finished; no later stage was started |" in text
    assert re.search(r"\| broken \| failed \| .*run.json is not valid JSON", text)
    assert "Co\\|DETR \\<x\\>" in text


def table_under(caption: str, report: Path) -> list[dict[str, str]]:
    """The rows of the first table with a caption, by the titles of the columns."""
    lines = report.read_text().split(f"{caption}:\n\n", 1)[1].split("\n\n", 1)[0].splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_report_shows_both_published_figures_of_30_shots(tmp_path: Path) -> None:
    figures = {"bbox": {"AP": 0.371}, "segm": {"AP": 0.344}}
    for seed in (33, 42):
        finished_run(tmp_path / f"30shot_seed{seed}", "few_shot_classes", 30, seed, **figures)
    main(["report", str(tmp_path)])
    seed_33, seed_42 = table_under("Runs", tmp_path / "report.md")
    assert seed_33["bbox nAP, README"] == "36.8"
    assert seed_33["segm nAP, README"] == "34.2"
    assert seed_42["bbox nAP, README"] == seed_42["segm nAP, README"] == "", "the README has seed 33 only"
    text = (tmp_path / "report.md").read_text()
    assert "| bbox nAP | published | difference | segm nAP | published | difference |" in text
    assert "| 33 | 37.1 | 37.3 | -0.2 | 34.4 | 34.7 | -0.3 |" in text


def test_report_compares_a_published_mean_with_its_own_kind(tmp_path: Path) -> None:
    for split in (1, 2, 3):
        for shots in (1, 2, 3, 5, 10):
            figures = {"AP50": 0.6, "nAP50_as_published": 0.7 + split / 100}
            finished_run(tmp_path / f"{split}_{shots}", f"pascal_voc_split_{split}", shots, 33, bbox=figures)
    main(["report", str(tmp_path)])
    (mean,) = table_under("Mean over data sets and shots", tmp_path / "report.md")
    assert list(mean) == ["figures", "nAP50 as published", "published", "difference", "nAP50"]
    assert list(mean.values()) == ["15 of 15", "72.0", "71.2", "+0.8", "60.0"]
    run = table_under("Runs", tmp_path / "report.md")[0]
    assert (run["nAP50"], run["nAP50 as published"]) == ("60.0", "71.0")
    finished_run(tmp_path / "older", "pascal_voc_split_1", 1, 33, bbox={"AP50": 0.6})  # of an older version
    main(["report", str(tmp_path / "older")])
    (mean,) = table_under("Mean over data sets and shots", tmp_path / "older" / "report.md")
    assert list(mean.values()) == ["0 of 15", "-", "71.2", "incomplete", "60.0"]


def test_report_shows_measures_as_published_next_to_ours(tmp_path: Path) -> None:
    semantic = {"mIoU": 0.4, "mIoU_as_published": 0.5}
    finished_run(tmp_path / "semantic", "coco_semantic_split_1", 1, 42, semantic=semantic)
    main(["report", str(tmp_path)])
    (run,) = table_under("Runs", tmp_path / "report.md")
    assert (run["mIoU"], run["mIoU as published"]) == ("40.0", "50.0")
    lvis = {"AP": 0.2, "AP_as_published": 0.15}
    finished_run(tmp_path / "lvis" / "run", "lvis_minival", 1, 42, bbox=lvis, segm=lvis)
    main(["report", str(tmp_path / "lvis")])
    (run,) = table_under("Runs", tmp_path / "lvis" / "report.md")
    assert (run["segm AP"], run["segm AP as published"], run["bbox AP as published"]) == ("20.0", "15.0", "15.0")


def test_html_report_is_one_file_with_one_plot_per_benchmark(runs: Path) -> None:
    main(["report", str(runs), "--out-dir", str(runs / "out")])
    names = {path.name for path in (runs / "out").iterdir()}
    figures = {f"report_{key}.{ending}" for key in ("coco_fsod", "pascal_voc") for ending in ("png", "csv")}
    assert names == {"report.md", "report.html", *figures}
    page = (runs / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Co|DETR &lt;x&gt;" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    rows = (runs / "out" / "report_coco_fsod.csv").read_text().splitlines()
    assert "few_shot_classes,No Time To Train,10,bbox/AP,2,35.60,1.41,35.9,0.5,-0.30" in rows


def test_runs_of_different_data_sets_are_not_pooled_where_none_has_a_name(tmp_path: Path) -> None:
    for name, figure in (("boats", 0.2), ("birds", 0.4)):
        with record_stage(tmp_path / name, "evaluate", {}, labels={"dataset_name": None}):
            (tmp_path / name / "metrics.json").write_text(json.dumps({"bbox": {"AP": figure}}))
    main(["report", str(tmp_path)])
    text = (tmp_path / "report.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("| bi") or line.startswith("| bo")] == [
        "| birds | No Time To Train | 40.0 | - | birds |",
        "| boats | No Time To Train | 20.0 | - | boats |",
    ], "and no empty columns: shots, seeds, seconds"


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: Patch) -> None:
    def scandir(place: Path) -> Any:
        if Path(place).name == "seed_2":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return usual(place)

    usual = os.scandir
    (tmp_path / "seed_2").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.warns(UserNotice, match="seed_2 cannot be read, so runs in it are left out: Permission denied"):
        assert find_runs(tmp_path) == []


def test_repeated_runs_of_a_seed_count_once(tmp_path: Path) -> None:
    for folder, seed, figure in (("a", 1, 0.3), ("again", 1, 0.5), ("b", 2, 0.6), ("c", 2, 0.6)):
        finished_run(tmp_path / folder, "boats", 5, seed, bbox={"AP": figure})
    finished_run(tmp_path / "birds", "birds", 5, 1, bbox={"AP": 0.3})
    finished_run(tmp_path / "same birds", "birds", 5, 1, bbox={"AP": 0.3})
    main(["report", str(tmp_path)])
    (row,) = table_under("Over the seeds", tmp_path / "report.md")
    assert (row["data set"], row["runs"], row["mean ± std"]) == ("boats", "2", "50.0 ± 14.1")


@pytest.mark.parametrize(
    ("part", "values", "method"),
    [
        ("sam2_infer_cfgs", {"points_per_side": 16}, "No Time To Train (points_per_side 16)"),
        ("sam2_infer_cfgs", {"nms_thr": 0.7, "points_per_side": 32}, "No Time To Train (box_nms_thresh 0.7)"),
        ("encoder_cfg", {"debias": 2, "norm": True}, "No Time To Train (debias 2)"),
        ("fill_memory", {"context_ratio": 0.0}, "No Time To Train (context_ratio 0.0)"),
        ("fill_memory", {"context_ratio": 0.1}, "No Time To Train"),  # as in the authors' files
    ],
)
def test_a_run_with_another_setting_is_another_method(
    part: str, values: dict[str, Any], method: str, tmp_path: Path
) -> None:
    parts = {"dataset_cfgs" if part == "fill_memory" else "model_cfg": {part: values}}
    finished_run(tmp_path, "few_shot_classes", 10, 33, parts, bbox={"AP": 0.3})
    assert read_run(tmp_path, "run").method == method


def test_run_record_says_how_a_stage_ended(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(b"abc")
    files = {"sam2": str(checkpoint), "encoder": str(tmp_path / "missing.pth"), "memory": None}
    with record_stage(tmp_path, "fill_memory", files, references={"annotations": {3: [8]}}, labels={"seed": 1}):
        started = json.loads((tmp_path / "run.json").read_text())["fill_memory"]
        assert started["status"] == "running"
        assert read_run(tmp_path, "run").reason == "fill_memory: started, but did not end"
    with pytest.raises(KeyboardInterrupt), record_stage(tmp_path, "test", files):
        raise KeyboardInterrupt
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["fill_memory"]["status"] == "finished"
    assert record["fill_memory"]["references"]["annotations"] == {"3": [8]}
    assert record["fill_memory"]["versions"].keys() >= {"python", "torch", "timm"}
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # the example of FIPS 180
    assert [record[stage]["files"]["sam2"]["sha256"] for stage in record] == [sha256, sha256]
    assert "encoder" not in record["test"]["files"]
    assert record["test"]["error"] == "KeyboardInterrupt: "
    assert find_runs(tmp_path)[0].status == "failed"
    checkpoint.write_bytes(b"abcd")
    with record_stage(tmp_path, "test", files):
        pass
    assert json.loads((tmp_path / "run.json").read_text())["test"]["files"]["sam2"]["sha256"] != sha256


def test_runs_of_a_peer_are_compared_with_the_figures_that_its_authors_publish(tmp_path: Path) -> None:
    settings = {"quality": "given", "pooling": "grid", "merging": "diffusion", "output_box": "proposal"}
    parts = {"model_cfg": {"proposals": "boxes.json", "sam2_infer_cfgs": settings}}
    for dataset, shots, value in (("few_shot_classes", 10, 0.43), ("cdfsod_FISH", 5, 0.2), ("cdfsod_UODD", 5, 0.4)):
        finished_run(tmp_path / dataset, dataset, shots, 33, parts, bbox={"AP": value})
    main(["report", str(tmp_path)])
    (run,) = [row for row in table_under("Runs", tmp_path / "report.md") if row["shots"] == "10"]
    assert (run["method"], run["published"], run["difference"]) == ("FSOD-VFM", "44.0", "-1.0")
    (mean,) = table_under("FSOD-VFM, mean over data sets", tmp_path / "report.md")
    assert (mean["shots"], mean["mAP"], mean["published"]) == ("5", "30.0", "31.3")
