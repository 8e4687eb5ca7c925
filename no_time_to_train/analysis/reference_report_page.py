"""The files of ``references measure``: the report as JSON, and as a page with pictures of the references."""

from pathlib import Path

from no_time_to_train.analysis.reference_report import MeasuredReference, ReferenceReport, precision_text, title_of
from no_time_to_train.data.reference_image import decode_picture
from no_time_to_train.files import write_json
from no_time_to_train.visual.html import jpeg_base64, write_page
from no_time_to_train.visual.memory_pictures import crop_tile


def write_report(report: ReferenceReport, out: Path) -> Path:
    """Write ``reference_report.json`` and ``reference_report.html`` into a folder, and return the page.

    On the page, references with the most advice come first.
    """
    write_json(out / "reference_report.json", report.to_json())
    entries = [
        {"report": one, "name": Path(one.image).name, "picture": picture(report, number), "facts": facts(one)}
        for number, one in sorted(enumerate(report.references), key=lambda pair: -len(pair[1].advice))
    ]
    page = out / "reference_report.html"
    values = {"report": report, "entries": entries, "precision_text": precision_text}
    write_page(page, "reference_report.html", title=title_of(report), **values)
    return page


def facts(one: MeasuredReference) -> str:
    """What was measured about a reference, in one line."""
    if one.negative:
        parts = ["shows what the class is not"]
    elif one.found is None:
        parts = ["no other reference to compare with"]
    elif one.found:
        parts = [f"found by the others: score {one.score:.2f}, IoU {one.iou:.2f}"]
    elif one.taken_for not in (None, one.label):
        parts = [f"found by the others as {one.taken_for}: score {one.taken_score:.2f}"]
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
    return jpeg_base64(crop_tile(crop, mask, int(report.memory.class_index[number]), side=crop.shape[-1]))
