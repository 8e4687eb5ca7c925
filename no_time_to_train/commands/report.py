"""``report``: every finished run beside the published figures."""

from collections import Counter
from pathlib import Path

from no_time_to_train.benchmarks.report.pages import write_report
from no_time_to_train.benchmarks.report.runs import find_runs
from no_time_to_train.commands.parser import command_parser
from no_time_to_train.errors import UserError


def run(argv: list[str]) -> None:
    parser = command_parser(
        "report", "Put all runs under a folder into one table beside the published figures.", "runs/"
    )
    parser.add_argument("folder", type=str, help="folder with runs, at any depth")
    parser.add_argument("--out-dir", type=str | None, help="where to write the report; default: the folder itself")
    args = parser.parse_args(argv)
    runs = find_runs(args.folder)
    if not runs:
        raise UserError(f"{args.folder} holds no run: no folder in it has a run.json")
    paths = write_report(runs, Path(args.out_dir or args.folder))
    count = Counter(run.status for run in runs)
    print(", ".join(f"{count[status]} {status}" for status in ("finished", "failed", "unfinished")))
    print("\n".join(map(str, paths)))
