"""The paper's benchmarks: which runs belong to each, what is measured, and the published figures."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from no_time_to_train.benchmarks.report.runs import OURS, Run
from no_time_to_train.data.class_splits import class_splits

#: The figures of COCO-FSOD in the authors' README, all at seed 33: number of shots and measure -> key in ``headline``.
README_SEED = 33
README_FIGURES = {
    (10, "bbox/AP"): "coco_fsod_10shot_nAP",
    (30, "bbox/AP"): "coco_fsod_30shot_nAP",
    (30, "segm/AP"): "coco_fsod_30shot_segm_AP",
}


@dataclass(frozen=True)
class Published:
    """A published figure in percent, and its standard deviation where it is a mean over seeds."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """A table of the paper.

    Attributes:
        key: Its name in file names.
        title: Its heading.
        prefix: What the names of its data sets begin with.
        measures: Title of a column -> place in ``metrics.json``. The first two are plotted.
        runs: The number of runs that the published mean is taken over; None where no mean is published.
        mean_of: Place of the measure that the published mean is of.
        mean_key: Place of the published mean in ``headline``.
    """

    key: str
    title: str
    prefix: str
    measures: dict[str, str]
    runs: int | None = None
    mean_of: str | None = None
    mean_key: str | None = None

    @property
    def published_mean(self) -> Published | None:
        """The published mean of ``mean_of`` over all runs; None where the paper does not give it."""
        return Published(paper_results()["headline"][self.mean_key]) if self.mean_key else None


BENCHMARKS = (
    Benchmark("coco_fsod", "COCO-FSOD", "few_shot_classes", {"bbox nAP": "bbox/AP", "segm nAP": "segm/AP"}),
    Benchmark(
        "pascal_voc",
        "PASCAL VOC FSOD",
        "pascal_voc_split_",
        {"nAP50": "bbox/AP50", "nAP50 as published": "bbox/nAP50_as_published"},
        runs=15,
        mean_of="bbox/nAP50_as_published",
        mean_key="pascal_voc_nAP50_mean",
    ),
    Benchmark("cd_fsod", "CD-FSOD", "cdfsod_", {"mAP": "bbox/AP"}, runs=18, mean_of="bbox/AP", mean_key="cd_fsod_nAP"),
    Benchmark(
        "coco_semantic",
        "COCO-20i",
        "coco_semantic_split_",
        {"mIoU": "semantic/mIoU", "mIoU as published": "semantic/mIoU_as_published"},
    ),
    Benchmark(
        "lvis",
        "LVIS v1",
        "lvis_",
        {
            "segm AP": "segm/AP",
            "segm AP as published": "segm/AP_as_published",
            "segm APr": "segm/APr",
            "segm APc": "segm/APc",
            "segm APf": "segm/APf",
            "bbox AP": "bbox/AP",
            "bbox AP as published": "bbox/AP_as_published",
        },
    ),
    Benchmark("other", "Other data sets", "", {"bbox AP": "bbox/AP", "segm AP": "segm/AP"}),
)


def benchmark_of(run: Run) -> Benchmark:
    """The benchmark that a run belongs to. The last benchmark takes every run that no other takes."""
    return next(benchmark for benchmark in BENCHMARKS if run.dataset.startswith(benchmark.prefix))


@cache
def paper_results() -> dict[str, Any]:
    """The published figures, from ``paper_results.json``."""
    results: dict[str, Any] = json.loads((files("no_time_to_train.benchmarks") / "paper_results.json").read_text())
    return results


def published_run(run: Run, measure: str) -> Published | None:
    """The figure that the published table of all seeds gives for a single run of our method.

    Args:
        measure: Place of the measure in ``metrics.json``, such as ``bbox/AP``.

    Returns:
        The figure; None where the paper does not give it.
    """
    if run.dataset == "few_shot_classes" and run.method == OURS:
        by_seed = paper_results()["coco_fsod_by_seed"].get(str(run.shots), {})
        value = by_seed.get(str(run.seed), {}).get(measure.split("/")[0])
        return None if value is None else Published(value)
    return None


def readme_figure(run: Run, measure: str) -> Published | None:
    """The figure that the authors' README gives for a single run of our method.

    At 30 shots it differs from that of :func:`published_run`: 36.8 and 34.2 instead of 37.3 and 34.7.

    Args:
        measure: Place of the measure in ``metrics.json``, such as ``bbox/AP``.

    Returns:
        The figure; None where the README does not give it.
    """
    key = README_FIGURES.get((run.shots or 0, measure))
    if key and run.dataset == "few_shot_classes" and run.method == OURS and run.seed == README_SEED:
        return Published(paper_results()["headline"][key])
    return None


def published_over_seeds(dataset: str, shots: int | None, measure: str) -> Published | None:
    """The published mean and standard deviation over the ten seeds of COCO-FSOD.

    Args:
        dataset: Name of the data set, as in ``metrics.json``.
        measure: ``bbox/AP`` or ``segm/AP``.

    Returns:
        The figure; None where the paper does not give it.
    """
    if dataset == "few_shot_classes" and str(shots) in paper_results()["coco_fsod_mean_std"]:
        row = paper_results()["coco_fsod_mean_std"][str(shots)]
        return Published(*row[:2]) if measure == "bbox/AP" else Published(*row[2:])
    return None


def dataset_title(name: str) -> str:
    """The name of a data set as the tables print it."""
    if name.startswith("cdfsod_"):
        return name.removeprefix("cdfsod_")
    return name.replace("_", " ") if name in class_splits() or name.startswith("lvis_") else name
