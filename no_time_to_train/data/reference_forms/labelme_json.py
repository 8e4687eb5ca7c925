"""LabelMe, and X-AnyLabeling: one JSON file per image."""

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from no_time_to_train.data.images import decode_image
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_forms.shapes import Canvas

NAME = "LabelMe json"

#: Shapes that are drawn as their corners.
POLYGONS = ("polygon", "rotation", "oriented_rectangle", "quadrilateral")


def is_form_of(content: Any) -> bool:
    """Whether this is the content of a LabelMe file."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read(path: Path, content: Any, folder: Folder) -> list[Reference]:
    """The objects of a file.

    Polygons, turned rectangles, circles and masks become masks, rectangles become boxes, and points stay points. Masks
    with the same label and the same group id are one object, and so are points.
    """
    canvas = folder.canvas(content.get("imagePath"), path, content.get("imageHeight"), content.get("imageWidth"))
    return folder.read_shapes(path, content["shapes"], lambda shape: _read_shape(shape, canvas), group_of=_group_id)


def _read_shape(shape: dict[str, Any], canvas: Canvas) -> Reference | str | None:
    """The reference that a shape marks, or the kind of a shape that marks no area."""
    label, points = shape["label"], shape["points"]
    kind = shape.get("shape_type") or "polygon"
    if kind in POLYGONS:
        return _draw(canvas.polygon(label, points), points, canvas)
    if kind == "rectangle":
        return canvas.box(label, *np.min(points, axis=0), *np.max(points, axis=0))
    if kind == "circle":
        radius = math.dist(*points[:2])
        return canvas.ellipse(label, points[0][0], points[0][1], radius, radius)
    if kind in ("point", "points"):
        return canvas.points(label, points)
    if kind == "mask":
        part = np.asarray(decode_image(base64.b64decode(shape["mask"]), "of the mask")).astype(bool)
        if len(points) == 2 and np.abs(np.subtract(points[1], points[0]) + 1 - part.shape[::-1]).max() > 1:
            raise ValueError(f"its mask has {part.shape[1]}x{part.shape[0]} pixels, and its points are another box")
        return canvas.mask(label, part, points[0])
    return str(kind)


def _draw(polygon: Reference, points: list[list[float]], canvas: Canvas) -> Reference:
    """A polygon as LabelMe draws it: its outline belongs to it."""
    image = Image.new("1", (canvas.width, canvas.height))
    ImageDraw.Draw(image).polygon([(x, y) for x, y in points], outline=1, fill=1)
    drawn = canvas.mask(polygon.label, np.asarray(image))
    return polygon if isinstance(drawn, str) else drawn


def _group_id(shape: dict[str, Any]) -> int | str | None:
    """The number that shapes of one object share; None where a shape is an object of its own."""
    group_id = shape.get("group_id")
    if not isinstance(group_id, int | str | None):
        raise ValueError(f"its group_id is {group_id!r}, not a number")
    return group_id
