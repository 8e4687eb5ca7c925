"""The files of ``references measure``: the report as JSON, and as a page with pictures of the references."""

from pathlib import Path

from no_time_to_train.analysis.reference_report import ReferenceReport, precision_text, title_of
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
        {"report": one, "name": Path(one.image).name, "picture": picture(report, number)}
        for number, one in sorted(enumerate(report.references), key=lambda pair: -len(pair[1].advice))
    ]
    page = out / "reference_report.html"
    values = {"report": report, "entries": entries, "precision_text": precision_text}
    write_page(page, "reference_report.html", title=title_of(report), **values)
    return page


def picture(report: ReferenceReport, number: int) -> str:
    """The crop that the encoder sees of a reference, with its outline: a JPEG file in base64."""
    crop, mask = decode_picture(report.memory.crops[number])
    return jpeg_base64(crop_tile(crop, mask, int(report.memory.class_index[number]), side=crop.shape[-1]))
