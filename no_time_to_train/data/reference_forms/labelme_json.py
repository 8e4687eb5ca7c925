"""LabelMe: one JSON file per image."""

import base64
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import decode_image
from no_time_to_train.data.reference_forms.reference import Reference, annotated_size, find_image
from no_time_to_train.data.rle import are_coordinates, encode_mask, encode_polygons
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json

NAME = "LabelMe json"

#: Corners of the polygon that stands for a circle.
CIRCLE_CORNERS = 72


def is_form_of(content: Any) -> bool:
    """Whether this is the content of a LabelMe file."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read(path: Path) -> list[Reference]:
    """The objects of a file.

    Polygons, circles and masks become masks, rectangles become boxes, and points stay points. Masks with the same label
    and the same group id are one object, and so are points.
    """
    content = read_json(path)
    image = find_image(str(content.get("imagePath") or ""), path.parent)
    height, width = annotated_size(image, content.get("imageHeight"), content.get("imageWidth"))
    references: list[Reference] = []
    groups: dict[tuple[str, Any, bool], int] = {}  # label, group id and whether it is of points -> index of reference
    for index, shape in enumerate(content["shapes"]):
        try:
            reference = _read_shape(shape, image, height, width)
            group_id = _group_id(shape)
        except Exception as error:  # a shape can hold anything, and so can the image in it
            raise UserError(f"{path}: shape {index} is broken: {error!r}") from error
        if reference is None:
            kind = shape.get("shape_type")
            raise UserError(f"{path}: shape {index} is a {kind}: draw a polygon, rectangle, circle, mask or point")
        group = (reference.label, group_id, bool(reference.points))
        if reference.box is not None or group_id is None:
            references.append(reference)
        elif group not in groups:
            groups[group] = len(references)
            references.append(reference)
        elif reference.points:
            earlier = references[groups[group]]
            references[groups[group]] = replace(earlier, points=(*earlier.points, *reference.points))
        else:
            union, added = references[groups[group]].read_mask(), reference.read_mask()
            assert union is not None
            assert added is not None
            references[groups[group]] = replace(reference, mask=encode_mask(union | added))
    return references


def _read_shape(shape: dict[str, Any], image: Path, height: int, width: int) -> Reference | None:
    """The reference that a shape marks; None where its kind marks no object."""
    if not isinstance(shape["label"], str | int):
        raise ValueError(f"its label is {shape['label']!r}, not text")
    label, size = str(shape["label"]), (height, width)
    points = np.array(shape["points"], float).reshape(-1, 2)
    if not are_coordinates(points.ravel().tolist()):
        raise ValueError("a coordinate is not a number, or far outside any image")
    kind = shape.get("shape_type") or "polygon"
    if kind == "point":
        return Reference(label, image, points=((points[0, 0], points[0, 1]),), size=size)
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        return Reference(label, image, box=(x1, y1, x2, y2), size=size)
    if kind == "mask":
        x, y = points[0].round().astype(int)
        return Reference(label, image, encode_mask(_read_mask(shape["mask"], x, y, height, width)), size=size)
    if kind == "circle":
        radius = math.dist(*points[:2])
        angles = np.linspace(0, 2 * math.pi, CIRCLE_CORNERS, endpoint=False)
        points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif kind != "polygon":
        return None
    return Reference(label, image, encode_polygons([points.ravel().tolist()], height, width), size=size)


def _group_id(shape: dict[str, Any]) -> int | str | None:
    """The number that shapes of one object share; None where a shape is an object of its own."""
    group_id = shape.get("group_id")
    if not isinstance(group_id, int | str | None):
        raise ValueError(f"its group_id is {group_id!r}, not a number")
    return group_id


def _read_mask(png: str, x: int, y: int, height: int, width: int) -> NDArray[np.bool_]:
    """A mask at the image's size; LabelMe stores only the part inside its box, whose upper left pixel is x, y."""
    part = np.asarray(decode_image(base64.b64decode(png), "of the mask")).astype(bool)
    mask = np.zeros((height, width), bool)
    mask[y : y + part.shape[0], x : x + part.shape[1]] = part
    return mask
