"""``benchmark``: the three stages and the scores on an own COCO data set, with one command."""

from pathlib import Path

from no_time_to_train.benchmarks.own_data_set import BenchmarkOptions, run_benchmark
from no_time_to_train.commands.report import report
from no_time_to_train.files import REPORT, check_replaceable


def benchmark(references: Path, targets: Path, *, out: Path, options: BenchmarkOptions) -> None:
    """Score the method on your own COCO data set: the three stages, the AP, and a page.

    Args:
        references: COCO annotations with masks, from which the references are taken.
        targets: COCO annotations of the images to search, with the ground truth.
        out: Folder for memory, results, metrics and the page. The same command resumes there.
        options: The references, the classes and the networks.

    Examples:
        no-time-to-train benchmark refs.json targets.json --n-shot 5 --out run/
        no-time-to-train benchmark refs.json targets.json --n-shot 5 --seeds 1 2 3 --out runs/
    """
    for name in ("report.md", "report.html") if options.seeds else ():
        check_replaceable(out / name, REPORT)
    run_benchmark(references, targets, out, options)
    if options.seeds:
        report(out)
    print(f"open {out / ('report.html' if options.seeds else 'index.html')} in a browser")
