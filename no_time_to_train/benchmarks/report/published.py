"""The paper's benchmarks: which runs belong to each, what is measured, and the published figures."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from no_time_to_train.benchmarks.report.runs import OURS, Run
from no_time_to_train.data.class_splits import class_splits


@dataclass(frozen=True)
class Figure:
    """A published figure in per cent; ``std`` over seeds where it is a mean over them."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """A table of the paper.

    Attributes:
        key: name of its files.
        title: its heading.
        prefix: what the names of its data sets begin with.
        measures: column's title -> place in ``metrics.json``. The first two are plotted.
        runs: number of runs that make the published mean.
    """

    key: str
    title: str
    prefix: str
    measures: dict[str, str]
    runs: int | None = None

    def owns(self, run: Run) -> bool:
        return run.dataset.startswith(self.prefix)


BENCHMARKS = (
    Benchmark("coco_fsod", "COCO-FSOD", "few_shot_classes", {"bbox nAP": "bbox/AP", "segm nAP": "segm/AP"}),
    Benchmark("pascal_voc", "PASCAL VOC FSOD", "pascal_voc_split_", {"nAP50": "bbox/AP50"}, runs=15),
    Benchmark("cd_fsod", "CD-FSOD", "cdfsod_", {"mAP": "bbox/AP"}, runs=18),
    Benchmark("coco_semantic", "COCO-20i", "coco_semantic_split_", {"mIoU": "semantic/mIoU"}),
    Benchmark(
        "lvis",
        "LVIS v1",
        "lvis_",
        {
            "segm AP": "segm/AP",
            "segm APr": "segm/APr",
            "segm APc": "segm/APc",
            "segm APf": "segm/APf",
            "bbox AP": "bbox/AP",
        },
    ),
    Benchmark("other", "Other data sets", "", {"bbox AP": "bbox/AP", "segm AP": "segm/AP"}),
)


def benchmark_of(run: Run) -> Benchmark:
    """The benchmark that a run belongs to; the last one takes all."""
    return next(benchmark for benchmark in BENCHMARKS if benchmark.owns(run))


@cache
def paper() -> dict[str, Any]:
    """The published figures, ``paper_results.json``."""
    figures: dict[str, Any] = json.loads((files("no_time_to_train.benchmarks") / "paper_results.json").read_text())
    return figures


def published_run(run: Run, measure: str) -> Figure | None:
    """The published figure of one run of ours: that of its shots and seed, where the paper gives it."""
    if run.dataset == "few_shot_classes" and run.method == OURS:
        by_seed = paper()["coco_fsod_by_seed"].get(str(run.shots), {})
        value = by_seed.get(str(run.seed), {}).get(measure.split("/")[0])
        return None if value is None else Figure(value)
    return None


def published_over_seeds(dataset: str, shots: int | None, measure: str) -> Figure | None:
    """The published mean and standard deviation over the ten seeds."""
    if dataset == "few_shot_classes" and str(shots) in paper()["coco_fsod_mean_std"]:
        row = paper()["coco_fsod_mean_std"][str(shots)]
        return Figure(*row[:2]) if measure == "bbox/AP" else Figure(*row[2:])
    return None


def published_mean(benchmark: Benchmark) -> Figure | None:
    """The published mean over all of a benchmark's runs."""
    key = {"pascal_voc": "pascal_voc_nAP50_mean", "cd_fsod": "cd_fsod_nAP"}.get(benchmark.key)
    return Figure(paper()["headline"][key]) if key else None


def dataset_title(name: str) -> str:
    """A data set's name as the tables print it."""
    if name.startswith("cdfsod_"):
        return name.removeprefix("cdfsod_")
    return name.replace("_", " ") if name in class_splits() or name.startswith("lvis_") else name
