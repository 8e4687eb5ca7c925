"""The report: Markdown, one self-contained HTML file, and a plot and a CSV file per benchmark."""

import io
import re
from base64 import b64encode
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from no_time_to_train.benchmarks.report import tables as paper
from no_time_to_train.benchmarks.report.runs import OURS, Run
from no_time_to_train.files import PICTURE, REPORT, atomic_write, check_replaceable
from no_time_to_train.visual.html import render

TITLE = "Runs next to the published figures"

#: The paper's numbers of shots.
PAPER_SHOTS = (1, 2, 3, 5, 10, 30)

#: How published figures are drawn.
PUBLISHED_STYLE: dict[str, Any] = {"linestyle": "--", "color": "0.45"}


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        file_name: Name of its plot and CSV file, without a suffix.
        plot: The plot, a PNG file; None where there is none.
        csv: Content of the CSV file; empty where there is none.
    """

    title: str
    tables: list[paper.Table]
    file_name: str = ""
    plot: bytes | None = None
    csv: str = ""


def write_report(runs: list[Run], out_dir: Path) -> list[Path]:
    """Write ``report.md``, ``report.html``, and ``report_BENCHMARK.csv`` and ``.png`` for each benchmark with runs."""
    sections = build_sections(runs)
    values = {"title": TITLE, "sections": sections, "row": markdown_row, "b64encode": b64encode}
    contents = {out_dir / name: render(name, **values).encode() for name in ("report.md", "report.html")}
    for section in sections:
        for ending, content in ((".png", section.plot), (".csv", section.csv.encode())):
            if content:
                contents[out_dir / f"{section.file_name}{ending}"] = content
    for path in contents:
        check_replaceable(path, PICTURE if path.suffix == ".png" else REPORT)
    for path, content in contents.items():
        with atomic_write(path) as file:
            file.write(content)
    return list(contents)


def build_sections(runs: list[Run]) -> list[Section]:
    """One section per benchmark that has finished runs, and one for the runs that did not finish."""
    sections = []
    for benchmark in paper.BENCHMARKS:
        finished = [run for run in runs if run.status == "finished" and paper.benchmark_of(run) is benchmark]
        if not finished:
            continue
        found = paper.points(benchmark, finished)
        tables, name = paper.tables_of(benchmark, found, finished), f"report_{benchmark.key}"
        sections.append(Section(benchmark.title, tables, name, plot(benchmark, found), paper.points_csv(found)))
    others = [[run.folder, run.status, run.reason] for run in runs if run.status != "finished"]
    if others:
        table = paper.Table("They are not counted above", ["folder", "status", "where and why"], others)
        sections.append(Section("Failed and unfinished runs", [table]))
    return sections


def markdown_row(cells: list[str]) -> str:
    """A row of a Markdown table: cells on one line, without any character that Markdown or HTML gives a meaning."""
    return "| " + " | ".join(re.sub(r"([\\`|<>\[\]*~&])", r"\\\1", " ".join(cell.split())) for cell in cells) + " |"


def plot(benchmark: paper.Benchmark, found: list[paper.Point]) -> bytes | None:
    """Draw the first two measures of a benchmark, one panel each, as a PNG file; None where no run states its shots."""
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
    figure.savefig(png, format="png", dpi=150, metadata={"Software": "no-time-to-train"})
    return png.getvalue()


def _draw_panel(axes: Axes, benchmark: paper.Benchmark, found: list[paper.Point], measure: str) -> None:
    """Draw one line per data set and method, with error bars over seeds, and what is published in gray."""
    series = dict.fromkeys((point.dataset, point.method) for point in found)
    colors = {name: f"C{index}" for index, name in enumerate(series)}  # the same in all panels
    shown = [point for point in found if point.measure == measure]
    for (dataset, method), group in groupby(shown, key=lambda point: (point.dataset, point.method)):
        x, y, std = zip(*((point.shots or 0, point.mean, point.std or 0.0) for point in group), strict=True)
        label = paper.dataset_title(dataset) if method == OURS else f"{paper.dataset_title(dataset)}, {method}"
        label = f" {label}".replace("$", r"\$")  # "_" at the beginning and "$" have a meaning for matplotlib
        axes.errorbar(x, y, std, marker="o", capsize=3, color=colors[dataset, method], label=label)
    for dataset in dict.fromkeys(point.dataset for point in shown):
        known = [(shots, paper.published_over_seeds(dataset, shots, measure)) for shots in PAPER_SHOTS]
        curve = [(shots, published.mean, published.std or 0.0) for shots, published in known if published]
        if curve:
            x, y, std = zip(*curve, strict=True)
            axes.errorbar(x, y, std, marker="s", **PUBLISHED_STYLE, capsize=3, label="published", zorder=0)
    overall = benchmark.published_mean
    if overall and measure == benchmark.mean_of:
        axes.axhline(overall.mean, **PUBLISHED_STYLE, label="published mean")
    ticks = sorted({point.shots for point in shown if point.shots is not None} | set(PAPER_SHOTS))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
