"""``references measure`` and ``references from-coco``: what references are worth, and where they come from."""

from functools import partial
from pathlib import Path

from no_time_to_train.commands.options import NetworkOptions, ReferenceOptions, check_new_file, on_devices
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import REPORT, check_files, check_replaceable
from no_time_to_train.ranges import Positive


def measure(
    *,
    references: ReferenceOptions,
    out: Path,
    max_pixels: Positive | None = None,
    devices: Positive = 1,
    num_nodes: Positive = 1,
    networks: NetworkOptions,
) -> None:
    """Measure what references are worth: each is looked for with the others of its class (docs/references.md).

    Writes reference_report.json and reference_report.html, and prints a table. Its thresholds are those of segment
    --threshold auto with the same options. A run that was stopped or killed is resumed by the same command.

    Args:
        references: References of the objects.
        out: Folder for the two files.
        max_pixels: Read images of up to this many pixels. Default: 89478485, because larger ones may be harmful.
        devices: Share the images among this many GPUs of the machine, or processes with --device cpu.
        num_nodes: Share them among this many machines as well, each of which runs this command
            (docs/several_gpus.md).
        networks: The networks and their settings.

    Examples:
        no-time-to-train references measure --references refs/ --out report/
        no-time-to-train references measure --nano --references refs/ --mode best --points-per-side 24 --out report/
    """
    if not (references.references or references.reference):
        raise UserError("nothing to measure: give --references FOLDER or --reference LABEL:IMAGE:box=...")
    references.parse()
    for name in ("reference_report.json", "reference_report.html"):
        check_replaceable(out / name, REPORT)
    networks.check()
    networks, trainer = on_devices(networks, devices, num_nodes)

    from no_time_to_train.data.images import allow_pixels
    from no_time_to_train.data.reference_forms.reference import check_measurable

    if max_pixels:
        allow_pixels(max_pixels)
    given, _ = references.read()
    check_measurable(given)
    for one in given:
        one.check_size()

    from no_time_to_train.analysis.reference_report import summary_lines
    from no_time_to_train.pipeline.measure_run import measure_references

    segmenter = networks.build()
    measurement = segmenter.measurement(given)
    share = None
    if trainer:
        from no_time_to_train.lightning_items import share_numbered

        share = partial(share_numbered, trainer, len(measurement), measurement.record)
        if not trainer.is_global_zero:
            share(None)
            return
    report, page = measure_references(segmenter, measurement, out, share)
    print("\n".join(summary_lines(report)))
    print(f"open {page}")


def from_coco(json_file: Path, out: Path, n_shot: Positive | None = None, *, as_published: bool = False) -> None:
    """Take the first N annotations of every class of a COCO file as a reference set.

    Args:
        json_file: COCO annotations of the references.
        out: Reference set to write, .json or .pkl.
        n_shot: References per class; crowds are left out. Default: all.
        as_published: As in the paper's results on CD-FSOD: of each image, repeat the first instance of a class once per
            instance; where a class has fewer than N, repeat some at random.

    Examples:
        no-time-to-train references from-coco refs.json refs.pkl 5
    """
    check_files(json_file)
    check_new_file(out, "a reference set", ".json", ".pkl", ".pickle")

    from no_time_to_train.data.coco import read_coco
    from no_time_to_train.data.reference_sets import coco_to_references, write_references

    references = coco_to_references(read_coco(json_file), n_shot, as_published)
    write_references(references, out)
    count = plural(sum(map(len, references.values())), "reference")
    print(f"{plural(len(references), 'class')}, {count}: {out}")
