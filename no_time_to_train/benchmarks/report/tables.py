"""The paper's benchmarks and published figures, means and standard deviations over seeds, and the rows of tables."""

import csv
import io
import statistics
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from no_time_to_train.benchmarks.report.runs import OURS, PEER, Run
from no_time_to_train.data.class_splits import class_splits
from no_time_to_train.files import read_json, spreadsheet_cell


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


def benchmark_of(run: Run) -> Benchmark:
    """The benchmark that a run belongs to. The last benchmark takes every run that no other takes."""
    return next(benchmark for benchmark in BENCHMARKS if run.dataset.startswith(benchmark.prefix))


@cache
def paper_results() -> dict[str, Any]:
    """The published figures, from ``paper_results.json``."""
    results: dict[str, Any] = read_json(Path(__file__).parents[1] / "paper_results.json")
    return results


#: The tables of the paper, and one for all other data sets.
BENCHMARKS = [Benchmark(**one) for one in paper_results()["benchmarks"]]


def is_coco_fsod(run: Run) -> bool:
    """Whether a run is one of our method on COCO-FSOD."""
    return run.dataset == "few_shot_classes" and run.method == OURS


def published_run(run: Run, measure: str, table: str = "coco_fsod_by_seed") -> Published | None:
    """The figure of the published table of all seeds for a run and a measure, such as ``bbox/AP``; None without one.

    Runs of FSOD-VFM have the figures that its authors publish.

    Args:
        table: "coco_fsod_readme" gives that of the authors' README. At 30 shots it differs: 36.8 and 34.2 instead of
            37.3 and 34.7.
    """
    if run.method == PEER:
        peer = paper_results()["fsod_vfm"].get(run.dataset, {}).get(str(run.shots))
        return Published(peer) if peer and measure == "bbox/AP" and table == "coco_fsod_by_seed" else None
    by_seed = paper_results()[table].get(str(run.shots), {}) if is_coco_fsod(run) else {}
    value = by_seed.get(str(run.seed), {}).get(measure.split("/")[0])
    return None if value is None else Published(value)


def published_over_seeds(dataset: str, shots: int | None, measure: str) -> Published | None:
    """The published mean and standard deviation over the ten seeds of COCO-FSOD; None for other data sets and shots."""
    if dataset == "few_shot_classes" and str(shots) in paper_results()["coco_fsod_mean_std"]:
        row = paper_results()["coco_fsod_mean_std"][str(shots)]
        return Published(*row[:2]) if measure == "bbox/AP" else Published(*row[2:])
    return None


def dataset_title(name: str) -> str:
    """The name of a data set as the tables print it."""
    if name.startswith("cdfsod_"):
        return name.removeprefix("cdfsod_")
    return name.replace("_", " ") if name in class_splits() or name.startswith("lvis_") else name


@dataclass(frozen=True)
class Table:
    """A table of texts: what it shows, the titles of its columns, and its cells row by row."""

    caption: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Point:
    """A measure of one data set, method and number of shots, over seeds. Figures are in percent.

    Attributes:
        measure: Place of the measure in ``metrics.json``.
        runs: Number of seeds. Where a seed has several runs, their mean counts once.
        mean: Mean over the seeds.
        std: Sample standard deviation (n - 1), as in the paper; None for a single seed.
        published: The published figure over the ten seeds, where there is one.
    """

    dataset: str
    method: str
    shots: int | None
    measure: str
    runs: int
    mean: float
    std: float | None
    published: Published | None


def points(benchmark: Benchmark, runs: list[Run]) -> list[Point]:
    """Average the runs that differ in the seed only: a point per data set, method, shots and measure, in this order."""
    groups: dict[tuple[str, str, int | None], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.dataset, run.method, run.shots), []).append(run)
    found = []
    for (dataset, method, shots), group in sorted(groups.items(), key=lambda item: (*item[0][:2], item[0][2] or 0)):
        for measure in benchmark.measures.values():
            of_seed = defaultdict(list)
            for run in group:
                if (value := run.value(measure)) is not None:
                    of_seed[run.seed].append(value)
            if values := [statistics.fmean(repeated) for repeated in of_seed.values()]:
                std = statistics.stdev(values) if len(values) > 1 else None
                published = published_over_seeds(dataset, shots, measure) if method == OURS else None
                mean = statistics.fmean(values)
                found.append(Point(dataset, method, shots, measure, len(values), mean, std, published))
    return found


def tables_of(benchmark: Benchmark, found: list[Point], runs: list[Run]) -> list[Table]:
    """The tables of a benchmark: means over everything and over seeds where there are any, and every run."""
    means = mean_table(benchmark, found), peer_table(benchmark, found)
    tables = *means, seed_table(benchmark, found), run_table(benchmark, runs)
    return [table for table in tables if table is not None]


def run_table(benchmark: Benchmark, runs: list[Run]) -> Table:
    """List every finished run of a benchmark next to the published figures of its shots and seed."""
    header = ["data set", "method", "shots", "seed"]
    for title in benchmark.measures:
        header += [title, "published", "difference"]
    header += [f"{title}, README" for title in benchmark.measures]
    rows = []
    for run in sorted(runs, key=lambda run: (run.dataset, run.method, run.shots or 0, run.seed or 0)):
        row = [dataset_title(run.dataset), run.method, _text(run.shots), _text(run.seed)]
        for measure in benchmark.measures.values():
            row += _compare(run.value(measure), published_run(run, measure))
        row += [
            _compare(None, published_run(run, measure, "coco_fsod_readme"))[1]
            for measure in benchmark.measures.values()
        ]
        rows.append([*row, f"{run.seconds:.0f}" if round(run.seconds) else "", run.folder])
    header += ["seconds", "folder"]
    keep = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return Table("Runs", [header[i] for i in keep], [[row[i] for i in keep] for row in rows])


def seed_table(benchmark: Benchmark, found: list[Point]) -> Table | None:
    """List mean and standard deviation over seeds; None where no two runs differ in the seed only."""
    titles = {measure: title for title, measure in benchmark.measures.items()}
    rows = [
        [
            *(dataset_title(p.dataset), p.method, _text(p.shots), titles[p.measure], str(p.runs)),
            *(_mean_std(p.mean, p.std), *_compare(p.mean, p.published)[1:]),
        ]
        for p in found
        if p.runs > 1
    ]
    header = ["data set", "method", "shots", "measure", "runs", "mean ± std", "published", "difference"]
    return Table("Over the seeds", header, rows) if rows else None


def mean_table(benchmark: Benchmark, found: list[Point]) -> Table | None:
    """Compare the mean over a benchmark's data sets and shots with the published mean, once it is complete.

    Only the measure that was published is compared. The means of the others are shown next to it. There is no table
    where no mean is published, or where no run is of our method.
    """
    published, ours = benchmark.published_mean, [point for point in found if point.method == OURS]
    if published is None or not ours:
        return None
    figures = {
        title: [point.mean for point in ours if point.measure == place] for title, place in benchmark.measures.items()
    }
    means = {title: statistics.fmean(values) if values else None for title, values in figures.items()}
    compared = next(title for title, measure in benchmark.measures.items() if measure == benchmark.mean_of)
    mean, count = means.pop(compared), len(figures[compared])
    cells = _compare(mean, published)
    if count != benchmark.runs:
        cells[2] = "incomplete"
    header = ["figures", compared, "published", "difference", *means]
    row = [f"{count} of {benchmark.runs}", *cells, *(_compare(value, None)[0] for value in means.values())]
    return Table("Mean over data sets and shots", header, [row])


def peer_table(benchmark: Benchmark, found: list[Point]) -> Table | None:
    """Compare the means of FSOD-VFM's runs over a benchmark's data sets with those that its authors publish."""
    published, rows = paper_results()["fsod_vfm"].get(benchmark.key, {}), []
    for shots, mean in published.items():
        figures = [p.mean for p in found if (p.method, str(p.shots), p.measure) == (PEER, shots, "bbox/AP")]
        if figures:
            cells = _compare(statistics.fmean(figures), Published(mean))
            rows.append([shots, f"{len(figures)} data sets", *cells])
    return (
        Table(f"{PEER}, mean over data sets", ["shots", "figures", "mAP", "published", "difference"], rows)
        if rows
        else None
    )


def points_csv(found: list[Point]) -> str:
    """The points as CSV, with figures in percent."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = ("dataset", "method", "shots", "measure", "runs", "mean", "std")
    writer.writerow([*columns, "published_mean", "published_std", "difference"])
    for p in found:
        std = "" if p.std is None else f"{p.std:.2f}"
        names = spreadsheet_cell(p.dataset), spreadsheet_cell(p.method)
        row = [*names, _text(p.shots), p.measure, p.runs, f"{p.mean:.2f}", std]
        if p.published:
            published_std = "" if p.published.std is None else p.published.std
            row += [p.published.mean, published_std, f"{p.mean - p.published.mean:.2f}"]
        writer.writerow(row + [""] * (10 - len(row)))
    return buffer.getvalue()


def _compare(value: float | None, published: Published | None) -> list[str]:
    """Three cells: our figure, the published one, and the difference between them."""
    ours = "-" if value is None else f"{value:.1f}"
    if published is None:
        return [ours, "", ""]
    difference = "" if value is None else f"{value - published.mean:+.1f}"
    return [ours, _mean_std(published.mean, published.std), difference]


def _mean_std(mean: float, std: float | None) -> str:
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
