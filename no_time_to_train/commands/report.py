"""``report``: finished runs next to the published figures."""

from pathlib import Path

from no_time_to_train.errors import UserError


def report(folder: Path, *, out: Path | None = None) -> None:
    """Put all runs under a folder into one table next to the published figures.

    Args:
        folder: Folder with runs, at any depth.
        out: Where to write the report. Default: the folder itself.

    Examples:
        no-time-to-train report runs/
    """
    from collections import Counter

    from no_time_to_train.benchmarks.report.runs import find_runs

    runs = find_runs(folder)
    if not runs:
        raise UserError(f"{folder} holds no run: no folder in it has a run.json")

    from no_time_to_train.benchmarks.report.pages import write_report

    paths = write_report(runs, out or folder)
    count = Counter(run.status for run in runs)
    print(", ".join(f"{count[status]} {status}" for status in ("finished", "failed", "unfinished")))
    print("\n".join(map(str, paths)))
