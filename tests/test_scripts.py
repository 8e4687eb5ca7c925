"""The scripts of the benchmarks, end to end on small data sets."""

import csv
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.commands import build_parser
from scripts import config_table
from tests import small_sets
from tests.conftest import Capture, Checkpoints, Patch, model_options

SCRIPTS = Path(__file__).parents[1] / "scripts"
Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script(tmp_path: Path, program: str, nano_checkpoints: Checkpoints) -> Script:
    """Run a script in an empty folder, with the nano networks on the CPU."""
    settings = {
        "model_cfg.sam2_cfg_file": "sam2_nano",
        "model_cfg.sam2_ckpt_path": nano_checkpoints[0],
        "model_cfg.encoder_cfg.name": "dinov2_nano",
        "model_cfg.encoder_cfg.img_size": 112,
        "model_cfg.encoder_ckpt_path": nano_checkpoints[1],
        "model_cfg.sam2_infer_cfgs.points_per_side": 4,
        "dataset_cfgs.test.image_size": 256,
        "data_load_cfgs.workers": 0,
    }
    options = [*model_options(settings), "--trainer.accelerator", "cpu"]

    def run(name: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [SCRIPTS / name, *arguments, *options],
            cwd=tmp_path,
            env={**os.environ, "NTTT": program, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    return run


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def reported(runs: Path, run: str) -> dict[str, str]:
    """The row of a run in the report, by the titles of the columns."""
    rows = [line.strip("| ").split(" | ") for line in (runs / "report.md").read_text().splitlines()]
    place = max(number for number, row in enumerate(rows) if row[-1] == run)
    header = [row for row in rows[:place] if row[-1] == "folder"][-1]
    return dict(zip(header, rows[place], strict=True))


def assert_reported(runs: Path, run: str, measures: dict[str, str]) -> None:
    """The report shows the figures of a run, given as ``{title of the column: place in metrics.json}``."""
    figures, row = metrics(runs / run), reported(runs, run)
    for title, place in measures.items():
        kind, _, name = place.partition("/")
        assert row[title] == ("-" if figures[kind][name] is None else f"{100 * figures[kind][name]:.1f}"), title


def test_figure_4_and_resuming(script: Script, tmp_path: Path) -> None:
    small_sets.write_coco(tmp_path / "data")
    done = script("coco_fsod_seeds.sh", SHOTS="1 2", SEEDS="33 42")
    assert done.returncode == 0, done.stdout
    runs = tmp_path / "runs"
    figures = [metrics(runs / "few_shot_classes" / f"2shot_seed{seed}")["bbox"]["AP"] for seed in (33, 42)]
    with (runs / "report_coco_fsod.csv").open() as file:
        rows = {(row["shots"], row["measure"]): row for row in csv.DictReader(file)}
    assert float(rows["2", "bbox/AP"]["mean"]) == pytest.approx(100 * sum(figures) / 2, abs=0.01)
    assert [rows["1", "bbox/AP"][key] for key in ("runs", "published_mean", "published_std")] == ["2", "24.5", "1.5"]
    assert (runs / "report_coco_fsod.png").stat().st_size > 10_000
    record = json.loads((runs / "few_shot_classes" / "2shot_seed42" / "run.json").read_text())
    assert list(record) == ["fill_memory", "postprocess_memory", "test"]
    assert {section["status"] for section in record.values()} == {"finished"}
    assert {len(ids) for ids in record["fill_memory"]["references"]["annotations"].values()} == {2}
    assert record["test"]["labels"] == {"dataset_name": "few_shot_classes", "seed": 42, "n_shot": 2}
    assert record["test"]["config"]["model"]["init_args"]["model_cfg"]["sam2_infer_cfgs"]["points_per_side"] == 4
    assert record["test"]["files"]["encoder"]["sha256"] == record["fill_memory"]["files"]["encoder"]["sha256"]

    (runs / "few_shot_classes" / "1shot_seed33" / "metrics.json").unlink()
    again = script("coco_fsod_seeds.sh", SHOTS="1", SEEDS="33 42")
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("already done") == 3 + 4
    other = script("coco_fsod.sh", "--model.init_args.model_cfg.sam2_infer_cfgs.nms_thr", "0.3", SHOTS="1")
    assert other.returncode == 1
    assert "was started with other settings" in other.stdout


def test_pascal_voc(script: Script, tmp_path: Path) -> None:
    small_sets.write_voc(tmp_path / "data")
    done = script("pascal_voc.sh", SPLITS="1", SHOTS="1")
    assert done.returncode == 0, done.stdout
    figures = metrics(tmp_path / "runs" / "pascal_voc_split_1" / "1shot_seed33")
    assert figures.keys() & {"bbox", "segm"} == {"bbox"}
    assert "| 1 of 15 |" in (tmp_path / "runs" / "report.md").read_text()
    measures = {"nAP50": "bbox/AP50", "nAP50 as published": "bbox/nAP50_as_published"}
    assert_reported(tmp_path / "runs", "pascal_voc_split_1/1shot_seed33", measures)


def test_cdfsod_continues_after_a_failed_run(script: Script, tmp_path: Path) -> None:
    small_sets.write_cdfsod(tmp_path / "data", ["FISH", "UODD"])
    done = script("cdfsod.sh", SHOTS="1")
    assert done.returncode == 1
    assert "error: file not found: data/cdfsod/ArTaxOr/prepared/1_shot_masks.json" in done.stdout
    report = (tmp_path / "runs" / "report.md").read_text()
    assert "| FISH | No Time To Train | 1 |" in report
    assert "| UODD | No Time To Train | 1 |" in report
    references = json.loads((tmp_path / "runs" / "cdfsod_UODD" / "1shot_seed33" / "references.json").read_text())
    assert references["1"] == 2 * [{"img_id": 1, "ann_ids": [1, 4]}], "as published"
    assert "note: the published masks of references are made by SAM ViT-H" in done.stdout
    assert script("cdfsod.sh", SHOTS="1", DATASETS="FISH").stdout.count("already done") == 4
    (tmp_path / "data" / "cdfsod" / "FISH" / "train" / "000001.png").unlink()
    failed = script("cdfsod.sh", SHOTS="1", DATASETS="FISH", RESULTS_DIR="elsewhere")
    assert failed.returncode == 1
    assert "fill_memory: image not found" in (tmp_path / "elsewhere" / "report.md").read_text()


def test_fsod_vfm(script: Script, tmp_path: Path) -> None:
    small_sets.write_cdfsod(tmp_path / "data", ["FISH"])
    folder = tmp_path / "data" / "cdfsod" / "FISH" / "prepared"
    shot = json.loads((folder / "1_shot_masks.json").read_text())
    boxes = [{"image": f"CDFSOD/FISH/{shot['images'][0]['file_name']}", "bbox": shot["annotations"][0]["bbox"]}]
    small_sets.write({"fish": boxes}, tmp_path / "data" / "fsod_vfm" / "CDFSOD_FISH_1_shot_converted.json")
    targets = json.loads((folder / "test.json").read_text())
    given = [{"image_id": one["image_id"], "bbox": one["bbox"], "score": 0.5} for one in targets["annotations"]]
    small_sets.write(given, tmp_path / "data" / "proposals" / "cdfsod_FISH.json")
    chosen = {"BENCHMARKS": "cdfsod", "DATASETS": "FISH", "SHOTS": "1", "SAM2": "nano"}
    done = script("fsod_vfm.sh", **chosen)
    assert done.returncode == 0, done.stdout
    assert reported(tmp_path / "runs", "cdfsod_FISH/1shot_seed33_fsod_vfm")["method"] == "FSOD-VFM"
    assert "FSOD-VFM, mean over data sets" in (tmp_path / "runs" / "report.md").read_text()
    found = json.loads((tmp_path / "runs" / "cdfsod_FISH" / "1shot_seed33_fsod_vfm" / "results.json").read_text())
    assert {tuple(one["bbox"]) for one in found} <= {tuple(one["bbox"]) for one in given}
    again = script("fsod_vfm.sh", **chosen)
    assert again.stdout.count("already done") == 5


def test_coco_semantic(script: Script, tmp_path: Path) -> None:
    small_sets.write_coco(tmp_path / "data")
    done = script("coco_semantic.sh", FOLDS="1", SHOTS="1")
    assert done.returncode == 0, done.stdout
    figures = metrics(tmp_path / "runs" / "coco_semantic_split_1" / "1shot_seed42")
    assert figures["semantic"]["threshold"] == 0.5
    assert 0 <= figures["semantic"]["mIoU"] <= 1
    assert len(figures["semantic"]["per_class"]) == 20
    measures = {"mIoU": "semantic/mIoU", "mIoU as published": "semantic/mIoU_as_published"}
    assert_reported(tmp_path / "runs", "coco_semantic_split_1/1shot_seed42", measures)


def test_lvis(script: Script, tmp_path: Path) -> None:
    small_sets.write_lvis(tmp_path / "data")
    done = script("lvis.sh", CLASSES="all rare", TARGETS="minival", SHOTS="2")
    assert done.returncode == 0, done.stdout
    every = tmp_path / "runs" / "lvis_minival_all" / "2shot_seed42"
    rare = tmp_path / "runs" / "lvis_minival_rare" / "2shot_seed42"
    assert list(metrics(every)["segm"]["per_class"]) == ["axe", "boot", "crow"]
    assert list(metrics(rare)["segm"]["per_class"]) == ["axe"]
    assert metrics(rare)["segm"]["APc"] is None
    references = json.loads((rare / "references.json").read_text())
    assert references["1"][0] == references["1"][1], "the only reference of the rare class is used twice"
    assert references == json.loads((every / "references.json").read_text()), "the groups are parts of one set"
    used = [json.loads((run / "run.json").read_text())["fill_memory"]["references"] for run in (every, rare)]
    assert [list(one["annotations"]) for one in used] == [["1", "2", "3"], ["1"]], "only those of the group"
    assert used[1]["annotations"]["1"] == [shot["ann_ids"][0] for shot in references["1"]]
    as_published = {f"{kind} AP as published": f"{kind}/AP_as_published" for kind in ("segm", "bbox")}
    for run in ("lvis_minival_all/2shot_seed42", "lvis_minival_rare/2shot_seed42"):
        assert_reported(tmp_path / "runs", run, {**as_published, "segm AP": "segm/AP", "segm APr": "segm/APr"})
    (logged,) = csv.DictReader(next((every / "logs").rglob("version_2/metrics.csv")).read_text().splitlines())
    assert float(logged["segm/AP_as_published"]) == pytest.approx(metrics(every)["segm"]["AP_as_published"])


def test_variants_are_rows_of_one_report_and_a_figure_shows_a_run(script: Script, tmp_path: Path) -> None:
    small_sets.write_coco(tmp_path / "data")
    variants = {"components": "area_weighted", "blur": "blur_15"}
    for study, chosen in variants.items():
        done = script("coco_ablations.sh", STUDY=study, VARIANTS=chosen, SHOTS="2")
        assert done.returncode == 0, done.stdout
    runs = tmp_path / "runs"
    methods = ("prototype area_weighted", "blur_ksize 15")
    folders = [f"few_shot_classes/2shot_seed33_{name}" for name in " ".join(variants.values()).split()]
    assert [reported(runs, folder)["method"] for folder in folders] == [f"No Time To Train ({one})" for one in methods]
    assert len({(runs / folder / "memory_postprocessed.ckpt").read_bytes() for folder in folders}) == 2
    wrong = script("coco_ablations.sh", VARIANTS="no_nsm")
    assert wrong.returncode == 2
    assert "error: components has no variant no_nsm: choose from" in wrong.stdout

    sheet = tmp_path / "figure.png"
    figure = [sys.executable, SCRIPTS / "figure_sheet.py", runs / folders[0], "--threshold", "0", "--out", sheet]
    subprocess.run(figure, cwd=tmp_path, check=True)
    assert Image.open(sheet).size == (4 * (240 + 6), 28 + 240)  # two references and both targets
    none = subprocess.run([*figure, "--image-ids", "99"], cwd=tmp_path, capture_output=True, text=True)
    assert none.stderr == "error: data/coco/annotations/instances_val2017.json has no image 99\n"


def test_one_reference_of_one_class_at_a_time(script: Script, tmp_path: Path) -> None:
    small_sets.write_coco(tmp_path / "data")
    done = script("one_shot.sh", CLASSES="bus,potted plant", SEEDS="1")
    assert done.returncode == 0, done.stdout
    assert list(metrics(tmp_path / "runs/one_shot_bus/1shot_seed1")["segm"]["per_class"]) == ["bus"]
    record = json.loads((tmp_path / "runs/one_shot_potted_plant/1shot_seed1/run.json").read_text())
    assert record["test"]["status"] == "finished"


@pytest.mark.parametrize("study", ["components", "encoders", "sam2"])
def test_every_variant_has_options_that_the_stages_know(
    script: Script, study: str, capsys: Capture, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the stages make the folder of the run
    done = script("coco_ablations.sh", "--dry-run", STUDY=study, NTTT="no-time-to-train")
    stages = [shlex.split(line)[1:] for line in done.stdout.splitlines() if "test_mode fill_memory " in line]
    assert len(stages) == {"components": 12, "encoders": 10, "sam2": 8}[study]
    for words in stages:
        variant = words[: words.index("--model.init_args.model_cfg.sam2_cfg_file")]  # without the nano networks
        with pytest.raises(SystemExit):
            main([*variant, *words[-12:]])
        assert " not found: checkpoints/" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", sorted(path.name for path in SCRIPTS.glob("*.sh") if path.name != "pipeline.sh"))
def test_a_dry_run_prints_the_commands_and_leaves_nothing(script: Script, tmp_path: Path, name: str) -> None:
    environment = {"SHOTS": "1", "SEEDS": "7", "GPUS": "3", "RESULTS_DIR": "my runs", "NTTT": "no-time-to-train"}
    done = script(name, "--dry-run", **environment)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    count = {"cdfsod.sh": 6, "pascal_voc.sh": 3, "coco_semantic.sh": 4, "coco_ablations.sh": 12, "one_shot.sh": 20}
    count, reports = {**count, "fsod_vfm.sh": 10}.get(name, 1), 12 if name == "coco_ablations.sh" else 1
    commands = 5 if name == "fsod_vfm.sh" else 4  # one makes the masks of the references
    assert sum(line.startswith("no-time-to-train ") for line in lines) == commands * count + reports
    assert sum("--trainer.devices 3" in line for line in lines) == 2 * count
    assert all("my\\ runs" in line for line in lines if line.startswith("no-time-to-train "))
    assert not list(tmp_path.iterdir())
    known = build_parser("sample").options()
    words = [word for line in lines if " sample " in line for word in shlex.split(line) if word.startswith("--")]
    assert set(words) <= set(known), "and they have the names that --help shows"


def test_configuration_page_is_written_and_checked(tmp_path: Path, monkeypatch: Patch) -> None:
    page = tmp_path / "configuration.md"
    monkeypatch.setattr(config_table, "PAGE", page)
    with pytest.raises(SystemExit, match=r"configuration.md is not up to date"):
        config_table.main(["--check"])
    config_table.main(["--write"])
    config_table.main(["--check"])
    text = page.read_text()
    assert "| `model_cfg.sam2_infer_cfgs.points_per_side` | `32` (1 to 256) | " in text
    assert text.count(".json_file` |") == 1, "both data sets have the key, which is listed once"
    page.write_text(text.replace("`32`", "`33`"))
    with pytest.raises(SystemExit, match=r"configuration.md is not up to date"):
        config_table.main(["--check"])
