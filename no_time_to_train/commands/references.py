"""``references check``: what each reference is worth, and which scores to expect."""

from pathlib import Path

from no_time_to_train.commands.options import ExampleOptions, NetworkOptions
from no_time_to_train.errors import UserError
from no_time_to_train.files import check_replaceable
from no_time_to_train.ranges import Positive


def check(*, examples: ExampleOptions, out: Path, max_pixels: Positive | None = None, networks: NetworkOptions) -> None:
    """Measure what references are worth: each is looked for with the others of its class (docs/references.md).

    Writes reference_report.json and reference_report.html, and prints a table. Its thresholds are those of segment
    --score auto with the same options.

    Args:
        examples: Examples of the objects.
        out: Folder for the two files.
        max_pixels: Read images of up to this many pixels. Default: 89478485, because larger ones may be harmful.
        networks: The networks and their settings.

    Examples:
        no-time-to-train references check --references refs/ --out report/
        no-time-to-train references check --nano --references refs/ --mode best --points-per-side 24 --out report/
    """
    if not (examples.references or examples.reference):
        raise UserError("nothing to check: give --references FOLDER or --reference LABEL:IMAGE:box=...")
    examples.parse()
    for name in ("reference_report.json", "reference_report.html"):
        check_replaceable(out / name)
    networks.check()

    from no_time_to_train.analysis.reference_report import summary_lines
    from no_time_to_train.data.images import allow_pixels
    from no_time_to_train.pipeline.reference_report_page import write_report

    if max_pixels:
        allow_pixels(max_pixels)
    references, _ = examples.read()
    report = networks.build().measure_references(references)
    page = write_report(report, out)
    print("\n".join(summary_lines(report)))
    print(f"open {page}")
