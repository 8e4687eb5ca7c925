"""The files of ``references measure``: the report as JSON, and as a page with pictures of the references."""

from pathlib import Path

import numpy as np

from no_time_to_train.analysis.reference_report import MeasuredReference, ReferenceReport, title_of
from no_time_to_train.data.reference_image import decode_picture
from no_time_to_train.files import atomic_write, write_json
from no_time_to_train.visual.drawing import PALETTE, draw_outlines, outlines
from no_time_to_train.visual.html import jpeg_base64, render


def write_report(report: ReferenceReport, out: Path) -> Path:
    """Write ``reference_report.json`` and ``reference_report.html`` into a folder, and return the page.

    On the page, references with the most advice come first.
    """
    write_json(out / "reference_report.json", report.to_json())
    entries = [
        {"report": one, "name": Path(one.image).name, "picture": picture(report, number), "facts": facts(one)}
        for number, one in enumerate(report.references)
    ]
    entries.sort(key=lambda one: -len(one["report"].advice))  # type: ignore[attr-defined]  # a dict of mixed values
    page = out / "reference_report.html"
    with atomic_write(page) as file:
        file.write(render("reference_report.html", title=title_of(report), report=report, entries=entries).encode())
    return page


def facts(one: MeasuredReference) -> str:
    """What was measured about a reference, in one line."""
    if one.negative:
        parts = ["shows what the class is not"]
    elif one.found is None:
        parts = ["no other reference to compare with"]
    elif one.found:
        parts = [f"found by the others: score {one.score:.2f}, IoU {one.iou:.2f}"]
    else:
        parts = [f"not found by the others; the best mask of SAM 2 has IoU {one.best_iou:.2f}"]
    if one.ap_without is not None:
        parts.append(f"expected AP of {one.label} without it: {100 * one.ap_without:+.1f} points")
    if one.background is not None:
        parts.append(f"{100 * one.background:.0f} % of the mask looks like its surroundings")
    return "; ".join(parts)


def picture(report: ReferenceReport, number: int) -> str:
    """The crop that the encoder sees of a reference, with its outline: a JPEG file in base64."""
    crop, mask = decode_picture(report.memory.crops[number])
    pixels = np.ascontiguousarray((255 * crop).byte().permute(1, 2, 0).numpy())
    color = PALETTE.by_idx(int(report.memory.class_index[number])).as_rgb()
    draw_outlines(pixels, outlines(mask[0].numpy().astype(np.uint8)), color, line=2)
    return jpeg_base64(pixels)
