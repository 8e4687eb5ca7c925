"""Means and standard deviations over seeds, and the rows of every table."""

import csv
import io
import statistics
from dataclasses import dataclass

from no_time_to_train.benchmarks.report.published import (
    Benchmark,
    Figure,
    dataset_title,
    published_mean,
    published_over_seeds,
    published_run,
)
from no_time_to_train.benchmarks.report.runs import OURS, Run


@dataclass(frozen=True)
class Table:
    """A table of texts under a caption."""

    caption: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Point:
    """A figure over the seeds of one data set, method and number of shots, in per cent.

    Attributes:
        std: sample standard deviation (n - 1), as the paper's; None for one run.
    """

    dataset: str
    method: str
    shots: int | None
    measure: str
    runs: int
    mean: float
    std: float | None
    published: Figure | None


def points(benchmark: Benchmark, runs: list[Run]) -> list[Point]:
    """The finished runs of a benchmark, those that differ in the seed only put together, by shots."""
    groups: dict[tuple[str, str, int | None], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.dataset, run.method, run.shots), []).append(run)
    found = []
    for (dataset, method, shots), group in sorted(groups.items(), key=lambda item: (*item[0][:2], item[0][2] or 0)):
        for measure in benchmark.measures.values():
            values = [value for run in group if (value := run.value(measure)) is not None]
            if values:
                std = statistics.stdev(values) if len(values) > 1 else None
                published = published_over_seeds(dataset, shots, measure) if method == OURS else None
                mean = statistics.fmean(values)
                found.append(Point(dataset, method, shots, measure, len(values), mean, std, published))
    return found


def run_table(benchmark: Benchmark, runs: list[Run]) -> Table:
    """Every finished run beside the published figure of its shots and seed."""
    header = ["data set", "method", "shots", "seed"]
    for title in benchmark.measures:
        header += [title, "published", "difference"]
    rows = []
    for run in sorted(runs, key=lambda run: (run.dataset, run.method, run.shots or 0, run.seed or 0)):
        row = [dataset_title(run.dataset), run.method, text(run.shots), text(run.seed)]
        for measure in benchmark.measures.values():
            row += compared(run.value(measure), published_run(run, measure))
        rows.append([*row, f"{run.seconds:.0f}", run.folder])
    header += ["seconds", "folder"]
    empty = {i for i in range(len(header)) if header[i] in ("published", "difference") and not any(r[i] for r in rows)}
    keep = [i for i in range(len(header)) if i not in empty]
    return Table("Runs", [header[i] for i in keep], [[row[i] for i in keep] for row in rows])


def seed_table(benchmark: Benchmark, found: list[Point]) -> Table | None:
    """Mean and standard deviation over seeds; None where no two runs differ in the seed only."""
    titles = {measure: title for title, measure in benchmark.measures.items()}
    rows = [
        [
            *(dataset_title(p.dataset), p.method, text(p.shots), titles[p.measure], str(p.runs)),
            *(spread(p.mean, p.std), *compared(p.mean, p.published)[1:]),
        ]
        for p in found
        if p.runs > 1
    ]
    header = ["data set", "method", "shots", "measure", "runs", "mean ± std", "published", "difference"]
    return Table("Over the seeds", header, rows) if rows else None


def mean_table(benchmark: Benchmark, found: list[Point]) -> Table | None:
    """The mean over the benchmark's data sets and shots beside the published one, compared once it is complete."""
    published, title = published_mean(benchmark), next(iter(benchmark.measures))
    ours = [point.mean for point in found if point.method == OURS and point.measure == benchmark.measures[title]]
    if published is None or benchmark.runs is None or not ours:
        return None
    mean, complete = statistics.fmean(ours), len(ours) == benchmark.runs
    difference = compared(mean, published)[2] if complete else "incomplete"
    row = [f"{len(ours)} of {benchmark.runs}", f"{mean:.1f}", f"{published.mean:.1f}", difference]
    return Table("Mean over data sets and shots", ["figures", title, "published", "difference"], [row])


def compared(value: float | None, published: Figure | None) -> list[str]:
    """Ours, the published figure and ours less it."""
    ours = "-" if value is None else f"{value:.1f}"
    if published is None:
        return [ours, "", ""]
    difference = "" if value is None else f"{value - published.mean:+.1f}"
    return [ours, spread(published.mean, published.std), difference]


def spread(mean: float, std: float | None) -> str:
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def text(value: int | None) -> str:
    return "" if value is None else str(value)


def points_csv(found: list[Point]) -> str:
    """The points as CSV, figures in per cent."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = ("dataset", "method", "shots", "measure", "runs", "mean", "std")
    writer.writerow([*columns, "published_mean", "published_std", "difference"])
    for p in found:
        std = "" if p.std is None else f"{p.std:.2f}"
        row = [p.dataset, p.method, text(p.shots), p.measure, p.runs, f"{p.mean:.2f}", std]
        if p.published:
            published_std = "" if p.published.std is None else p.published.std
            row += [p.published.mean, published_std, f"{p.mean - p.published.mean:.2f}"]
        writer.writerow(row + [""] * (10 - len(row)))
    return buffer.getvalue()
