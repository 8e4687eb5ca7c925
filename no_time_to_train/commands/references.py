"""``references check``: what each reference is worth, and which scores to expect."""

from collections.abc import Sequence
from pathlib import Path

from no_time_to_train.commands.reference_option import parse
from no_time_to_train.commands.segment import check_files, check_negatives
from no_time_to_train.errors import UserError
from no_time_to_train.files import check_replaceable
from no_time_to_train.method.settings import ContextRatio, PointsPerSide, Prompts
from no_time_to_train.networks.registry import PRESETS, Precision, PresetName, find_networks


def check(
    *,
    references: Path | None = None,
    reference: Sequence[str] = (),
    negatives: Path | None = None,
    out: Path,
    preset: PresetName | None = None,
    sam2: str | None = None,
    dinov2: str | None = None,
    nano: bool = False,
    sam_checkpoint: Path | None = None,
    context_ratio: ContextRatio | None = None,
    points_per_side: PointsPerSide = 32,
    prompts: Prompts | None = None,
    precision: Precision = "float32",
    device: str | None = None,
) -> None:
    """Measure what references are worth: each is looked for with the others of its class (docs/references.md).

    Writes reference_report.json and reference_report.html, and prints a table.

    Args:
        references: Folder or annotation file with examples of the objects, as for segment.
        reference: One example, as for segment. May be given several times.
        negatives: Folder or annotation file with what looks like the objects and is none, as for segment.
        out: Folder for the two files.
        preset: As for segment.
        sam2: SAM 2 by its checkpoint's name or path.
        dinov2: DINOv2 or another encoder by its checkpoint's name or path.
        nano: Use the two small networks that ship with this package. They know drawn patterns only.
        sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H, to make masks from boxes and points.
        context_ratio: Context around an example, relative to its longer side. Default: what suits the encoder.
        points_per_side: Point prompts per side of the grid.
        prompts: grid decodes all points; guided only those whose surroundings resemble an example.
        precision: What the networks compute in.
        device: Such as cuda:1 or cpu. Default: the GPU if there is one.

    Examples:
        no-time-to-train references check --references refs/ --out report/
        no-time-to-train references check --nano --references refs/ --points-per-side 24 --out report/
    """
    if not (references or reference):
        raise UserError("nothing to check: give --references FOLDER or --reference LABEL:IMAGE:box=...")
    given = [parse(text) for text in reference]
    check_files({"references": references, "negatives": negatives}, given, [], [])
    if nano and preset:
        raise UserError("--nano and --preset both choose the networks: leave one of them out")
    for name in ("reference_report.json", "reference_report.html"):
        check_replaceable(out / name)
    networks = ("nano", None) if nano else (sam2, dinov2)
    find_networks(*networks, *([sam_checkpoint] if sam_checkpoint else []), preset=preset)

    from dataclasses import replace

    from no_time_to_train.data.reference_forms import find_references
    from no_time_to_train.evaluation.reference_report import summary_lines
    from no_time_to_train.method.settings import Settings
    from no_time_to_train.pipeline.reference_report_page import write_report
    from no_time_to_train.reference_segmenter import ReferenceSegmenter

    examples = [*(find_references(references).references if references else []), *(one.reference() for one in given)]
    if negatives:
        examples += [replace(one, negative=True) for one in find_references(negatives).references]
    check_negatives(examples, [])
    segmenter = ReferenceSegmenter.from_pretrained(
        networks[0],
        networks[1],
        device=device,
        sam_checkpoint=sam_checkpoint,
        settings=Settings(points_per_side=points_per_side, prompts=prompts or PRESETS[preset or "accurate"].prompts),
        context_ratio=context_ratio,
        precision=precision,
        preset=preset,
    )
    report = segmenter.check_references(examples)
    page = write_report(report, out)
    print("\n".join(summary_lines(report)))
    print(f"open {page}")
