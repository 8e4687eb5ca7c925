"""One plot per benchmark: its first two measures over the number of shots."""

import io
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from no_time_to_train.benchmarks.report.published import Benchmark, dataset_title, published_mean, published_over_seeds
from no_time_to_train.benchmarks.report.runs import OURS
from no_time_to_train.benchmarks.report.tables import Point

#: The paper's numbers of shots.
PAPER_SHOTS = (1, 2, 3, 5, 10, 30)

#: How published figures are drawn.
PUBLISHED_STYLE: dict[str, Any] = {"linestyle": "--", "color": "0.45"}


def plot(benchmark: Benchmark, found: list[Point]) -> bytes | None:
    """Draw the first two measures of a benchmark, one panel each.

    Args:
        found: Its points, from ``summary.points``.

    Returns:
        A PNG file; None where no run has a number of shots.
    """
    shown = [point for point in found if point.shots is not None]
    measures = [
        (title, measure)
        for title, measure in list(benchmark.measures.items())[:2]
        if any(point.measure == measure for point in shown)
    ]
    if not measures:
        return None
    figure = Figure(figsize=(6.2 * len(measures), 4.2), layout="constrained")
    figure.suptitle(benchmark.title)
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, (title, measure) in zip(panels, measures, strict=True):
        _draw_panel(axes, benchmark, shown, measure)
        axes.set(xlabel="shots", ylabel=f"{title} (%)")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def _draw_panel(axes: Axes, benchmark: Benchmark, found: list[Point], measure: str) -> None:
    """Draw one line per data set and method, with error bars over seeds, and what is published in gray."""
    series = dict.fromkeys((point.dataset, point.method) for point in found)
    colors = {name: f"C{index}" for index, name in enumerate(series)}  # the same in all panels
    shown = [point for point in found if point.measure == measure]
    for (dataset, method), group in groupby(shown, key=lambda point: (point.dataset, point.method)):
        x, y, std = zip(*((point.shots or 0, point.mean, point.std or 0.0) for point in group), strict=True)
        label = dataset_title(dataset) if method == OURS else f"{dataset_title(dataset)}, {method}"
        label = f" {label}".replace("$", r"\$")  # "_" at the beginning and "$" have a meaning for matplotlib
        axes.errorbar(x, y, std, marker="o", capsize=3, color=colors[dataset, method], label=label)
    for dataset in dict.fromkeys(point.dataset for point in shown):
        known = [(shots, published_over_seeds(dataset, shots, measure)) for shots in PAPER_SHOTS]
        curve = [(shots, published.mean, published.std or 0.0) for shots, published in known if published]
        if curve:
            x, y, std = zip(*curve, strict=True)
            axes.errorbar(x, y, std, marker="s", **PUBLISHED_STYLE, capsize=3, label="published", zorder=0)
    overall = published_mean(benchmark)
    if overall and measure == benchmark.mean_of:
        axes.axhline(overall.mean, **PUBLISHED_STYLE, label="published mean")
    ticks = sorted({point.shots for point in shown if point.shots is not None} | set(PAPER_SHOTS))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
