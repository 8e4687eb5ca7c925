"""A plot a benchmark: the first measure over the number of shots."""

import io
from itertools import groupby

from matplotlib.figure import Figure as Canvas

from no_time_to_train.report.benchmarks import Benchmark, dataset_title, published_mean, published_over_seeds
from no_time_to_train.report.runs import OURS
from no_time_to_train.report.summary import Point

PAPER_SHOTS = (1, 2, 3, 5, 10, 30)


def plot(benchmark: Benchmark, found: list[Point]) -> bytes | None:
    """A PNG with a line a data set and method, error bars over seeds; None where no run has a number of shots."""
    title, measure = next(iter(benchmark.measures.items()))
    shown = [point for point in found if point.measure == measure and point.shots is not None]
    if not shown:
        return None
    canvas = Canvas(figsize=(7, 4.2), layout="constrained")
    axes = canvas.subplots()
    for (dataset, method), group in groupby(shown, key=lambda point: (point.dataset, point.method)):
        line = list(group)
        label = dataset_title(dataset) if method == OURS else f"{dataset_title(dataset)}, {method}"
        axes.errorbar(
            [point.shots or 0 for point in line],
            [point.mean for point in line],
            [point.std or 0.0 for point in line],
            marker="o",
            capsize=3,
            label=label,
        )
    for dataset in dict.fromkeys(point.dataset for point in shown):
        curve = [(s, figure) for s in PAPER_SHOTS if (figure := published_over_seeds(dataset, s, measure))]
        if curve:
            axes.errorbar(
                [shots for shots, _ in curve],
                [figure.mean for _, figure in curve],
                [figure.std or 0.0 for _, figure in curve],
                marker="s",
                linestyle="--",
                color="0.45",
                capsize=3,
                label="published",
                zorder=0,
            )
    overall = published_mean(benchmark)
    if overall:
        axes.axhline(overall.mean, linestyle="--", color="0.45", label="published mean")
    ticks = sorted({point.shots for point in shown if point.shots is not None} | set(PAPER_SHOTS))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="shots", ylabel=f"{title} (%)", title=benchmark.title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    png = io.BytesIO()
    canvas.savefig(png, format="png", dpi=150)
    return png.getvalue()
