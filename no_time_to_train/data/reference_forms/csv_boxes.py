"""Tables: a CSV file with a box in each row, by makesense, Roboflow (TensorFlow) or others with these columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from no_time_to_train.data.reference_forms import via_json
from no_time_to_train.data.reference_forms.folder import Folder, read_rows
from no_time_to_train.data.reference_forms.reference import FoundReferences, Reference

NAME = "CSV of boxes"

#: The columns of Roboflow's and TensorFlow's tables. Corners are in pixels.
CORNERS = ("filename", "class", "xmin", "ymin", "xmax", "ymax")


def find(folder: Folder) -> FoundReferences | None:
    """The references in CSV files; None where none is known."""
    references, form = [], NAME
    for path in folder.ending(".csv"):
        rows = read_rows(path)
        if rows and via_json.COLUMN in rows[0]:
            form = f"{via_json.NAME} csv"
            references += via_json.read_csv(path, rows, folder)
        elif read := _reader(rows, path, folder):
            references += folder.read_shapes(path, [row for row in rows if row], read, "row")
        else:
            continue
        folder.use(path)
    return FoundReferences(form, references, {}, folder.skipped, folder.unused()) if references else None


def _reader(rows: list[list[str]], path: Path, folder: Folder) -> Callable[[list[str]], Reference | None] | None:
    """What reads a row of a table; None where its columns are unknown."""
    if not rows or not rows[0]:
        return None
    if set(CORNERS) <= set(rows[0]):
        indices = [rows[0].index(name) for name in CORNERS]

        def read_corners(row: list[str]) -> Reference | None:
            name, label, *corners = (row[index] for index in indices)
            return None if row is rows[0] else folder.canvas(name, path).box(label, *corners)

        return read_corners

    def read_makesense(row: list[str]) -> Reference:
        label, *numbers, name, width, height = row
        canvas = folder.canvas(name, path, height, width)
        if len(numbers) == 2:
            return canvas.points(label, list(map(float, numbers)))
        x, y, w, h = map(float, numbers)
        return canvas.box(label, x, y, x + w, y + h)

    return read_makesense if len(rows[0]) in (6, 8) and all(map(_is_number, rows[0][-2:])) else None


def _is_number(text: Any) -> bool:
    return str(text).replace(".", "", 1).isdigit()
