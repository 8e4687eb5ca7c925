"""The report as Markdown and as one HTML file that needs no other."""

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path

from no_time_to_train.benchmarks.report.plots import plot
from no_time_to_train.benchmarks.report.published import BENCHMARKS, benchmark_of
from no_time_to_train.benchmarks.report.runs import Run
from no_time_to_train.benchmarks.report.summary import Table, mean_table, points, points_csv, run_table, seed_table
from no_time_to_train.files import atomic_write

NOTE = "All figures are percentages; published ones are those of arXiv 2507.02798."
STYLE = """body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #222 }
table { border-collapse: collapse; margin: .6rem 0 1.4rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left }
th { background: #f4f4f4 } img { max-width: 100% } .wide { overflow-x: auto }"""


@dataclass(frozen=True)
class Section:
    """A heading with tables, and a plot as PNG under a file name."""

    title: str
    tables: list[Table]
    plot_name: str = ""
    plot: bytes | None = None
    csv: str = ""


def write_report(runs: list[Run], out_dir: Path) -> list[Path]:
    """Write ``report.md``, ``report.html``, and ``report_BENCHMARK.csv`` and ``.png`` of every benchmark that has runs.

    Returns:
        The files written, the two pages first.
    """
    sections = build_sections(runs)
    contents = {out_dir / "report.md": markdown(sections).encode(), out_dir / "report.html": html(sections).encode()}
    for section in sections:
        if section.plot is not None:
            contents[out_dir / f"{section.plot_name}.png"] = section.plot
        if section.csv:
            contents[out_dir / f"{section.plot_name}.csv"] = section.csv.encode()
    for path, content in contents.items():
        with atomic_write(path) as file:
            file.write(content)
    return list(contents)


def build_sections(runs: list[Run]) -> list[Section]:
    """A section a benchmark, and one of the runs that did not finish."""
    sections = []
    for benchmark in BENCHMARKS:
        finished = [run for run in runs if run.status == "finished" and benchmark_of(run) is benchmark]
        if not finished:
            continue
        found = points(benchmark, finished)
        tables = [mean_table(benchmark, found), seed_table(benchmark, found), run_table(benchmark, finished)]
        sections.append(
            Section(
                benchmark.title,
                [table for table in tables if table is not None],
                f"report_{benchmark.key}",
                plot(benchmark, found),
                points_csv(found),
            )
        )
    others = [[run.folder, run.status, run.reason] for run in runs if run.status != "finished"]
    if others:
        table = Table("They count nowhere above", ["folder", "status", "where and why"], others)
        sections.append(Section("Failed and unfinished runs", [table]))
    return sections


def markdown(sections: list[Section]) -> str:
    lines = ["# Runs beside the published figures", "", NOTE, ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        if section.plot is not None:
            lines += [f"![{section.title}]({section.plot_name}.png)", ""]
        for table in section.tables:
            lines += [f"{table.caption}:", "", markdown_row(table.header), markdown_row(["---"] * len(table.header))]
            lines += [*map(markdown_row, table.rows), ""]
    return "\n".join(lines)


def markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def html(sections: list[Section]) -> str:
    body = [f"<h1>Runs beside the published figures</h1><p>{NOTE}</p>"]
    for section in sections:
        body.append(f"<h2>{escape(section.title)}</h2>")
        if section.plot is not None:
            data = base64.b64encode(section.plot).decode()
            body.append(f'<img alt="{escape(section.title)}" src="data:image/png;base64,{data}">')
        body += map(html_table, section.tables)
    head = f'<meta charset="utf-8"><title>No Time To Train: runs</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows]
    return (
        f"<p>{escape(table.caption)}:</p>\n<div class=wide><table><tr>{head}</tr>\n"
        + "\n".join(rows)
        + "</table></div>"
    )
