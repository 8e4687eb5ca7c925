"""LabelMe: a JSON file an image."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from no_time_to_train.data.images import shown_size
from no_time_to_train.data.reference_forms.reference import Box, Reference, find_image
from no_time_to_train.data.rle import encode_mask, encode_polygons
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json

NAME = "LabelMe json"


def is_file(content: Any) -> bool:
    """Whether this is the content of a LabelMe file."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read(path: Path) -> list[Reference]:
    """The shapes of a file: polygons, circles and masks are masks, rectangles boxes, points points.

    Shapes of one label and one group are one object.

    Raises:
        UserError: the file is broken, its image missing, or a shape is a line.
    """
    content = read_json(path)
    image = find_image(str(content.get("imagePath") or ""), path.parent)
    size = (content.get("imageHeight"), content.get("imageWidth"))
    height, width = size if None not in size else shown_size(image)
    references: list[Reference] = []
    groups: dict[tuple[str, Any], int] = {}
    for index, shape in enumerate(content["shapes"]):
        try:
            reference = _reference(shape, image, int(height), int(width))
        except (KeyError, TypeError, ValueError, IndexError, OSError) as error:
            raise UserError(f"{path}: shape {index} is broken: {error!r}") from error
        if reference is None:
            kind = shape.get("shape_type")
            raise UserError(f"{path}: shape {index} is a {kind}: draw a polygon, rectangle, circle, mask or point")
        key = (reference.label, shape.get("group_id"))
        if key[1] is not None and reference.mask and key in groups:
            first = references[groups[key]]
            merged = rle.merge([first.mask, reference.mask])
            references[groups[key]] = Reference(first.label, image, merged, size=first.size)
        else:
            groups[key] = len(references)
            references.append(reference)
    return references


def _reference(shape: dict[str, Any], image: Path, height: int, width: int) -> Reference | None:
    """One shape; None if it is of a kind that marks no object."""
    label, size = str(shape["label"]), (height, width)
    points = np.array(shape["points"], float).reshape(-1, 2)
    kind = shape.get("shape_type") or "polygon"
    if kind == "point":
        return Reference(label, image, point=(points[0, 0], points[0, 1]), size=size)
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        return Reference(label, image, box=(x1, y1, x2, y2), size=size)
    if kind == "circle":
        radius = math.dist(*points[:2])
        turn = np.linspace(0, 2 * math.pi, 72, endpoint=False)
        points = points[0] + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    elif kind == "mask":
        box = (points[0, 0], points[0, 1], points[1, 0], points[1, 1])
        return Reference(label, image, encode_mask(_mask(shape["mask"], box, height, width)), size=size)
    elif kind != "polygon":
        return None
    return Reference(label, image, encode_polygons([points.ravel().tolist()], height, width), size=size)


def _mask(png: str, box: Box, height: int, width: int) -> NDArray[np.bool_]:
    """A mask of the image's size from one of the box's: LabelMe keeps the pixels in the box only."""
    part = np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(bool)
    x, y = round(box[0]), round(box[1])
    mask = np.zeros((height, width), bool)
    mask[y : y + part.shape[0], x : x + part.shape[1]] = part
    return mask
