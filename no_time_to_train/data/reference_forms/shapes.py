"""The shapes of annotation tools as references: polygons, boxes, ellipses, points and masks on one image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from no_time_to_train.data.images import shown_size, stored_size
from no_time_to_train.data.prompts import check_pixels
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import are_coordinates, decode_mask, encode_mask, encode_polygons
from no_time_to_train.errors import UserError

#: Corners of the polygon that stands for a circle or an ellipse.
CIRCLE_CORNERS = 72


@dataclass(frozen=True)
class Canvas:
    """An annotated image. Its methods make references of shapes in its pixels.

    They raise ValueError where a shape is broken.
    """

    image: Path
    height: int
    width: int

    @classmethod
    def of(cls, image: Path, height: Any = None, width: Any = None) -> "Canvas":
        """The canvas of an image file whose annotation states this size, as stored or as shown; None or 0 for none.

        It is compared with the file's header before anything of the stated size is allocated.
        """
        shown = shown_size(image)
        sides = float(height or 0), float(width or 0)
        stated = (int(sides[0]), int(sides[1])) if all(sides) else shown
        if stated not in (shown, stored_size(image)):
            sizes = f"{shown[1]}x{shown[0]} pixels, its annotation is for {stated[1]}x{stated[0]}"
            raise UserError(f"image {image} is {sizes}")
        return cls(image, *stated)

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def polygon(self, label: Any, *rings: ArrayLike) -> Reference:
        """A polygon from outlines [N, 2] or [2 * N]; what two of them cover, as a hole does, is outside."""
        outlines = [_points(ring).ravel().tolist() for ring in rings]
        check_pixels(outlines, "outline")
        encoded = [encode_polygons([outline], *self.size) for outline in outlines]
        if len(encoded) > 1:
            encoded = [encode_mask(reduce(np.logical_xor, map(decode_mask, encoded)))]
        return Reference(_label(label), self.image, encoded[0], size=self.size)

    def box(self, label: Any, *corners: Any, angle: Any = 0, about_center: bool = True) -> Reference:
        """A box from x1, y1, x2, y2. A turned one is the polygon of its corners.

        Args:
            angle: Degrees clockwise.
            about_center: Whether it is turned about its center, instead of about x1, y1.
        """
        (x1, y1), (x2, y2) = _points([float(value) for value in corners]).tolist()
        if float(angle or 0) % 360:
            center = ((x1 + x2) / 2, (y1 + y2) / 2) if about_center else (x1, y1)
            return self.polygon(label, _turned(np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]), center, angle))
        box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        return Reference(_label(label), self.image, box=box, size=self.size)

    def ellipse(self, label: Any, x: Any, y: Any, rx: Any, ry: Any, angle: Any = 0) -> Reference:
        """An ellipse from its center and radii, turned clockwise by an angle in degrees."""
        (x, y), (rx, ry) = _points([float(value) for value in (x, y, rx, ry)])
        angles = np.linspace(0, 2 * math.pi, CIRCLE_CORNERS, endpoint=False)
        corners = np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)
        return self.polygon(label, _turned(corners, (x, y), angle))

    def points(self, label: Any, points: ArrayLike) -> Reference:
        """Points [N, 2] on one object."""
        clicked = tuple((x, y) for x, y in _points(points).tolist())
        if not clicked:
            raise ValueError("it has no point")
        return Reference(_label(label), self.image, points=clicked, size=self.size)

    def mask(self, label: Any, part: NDArray[Any], corner: Sequence[Any] = (0, 0)) -> Reference | str:
        """A mask of which all but a part [h, w], from a corner x, y on, is empty; its kind where the part is, too."""
        ((x, y),) = _points([corner]).round().astype(int).tolist()
        mask = np.zeros(self.size, bool)
        inside = part[max(-y, 0) :, max(-x, 0) :][: max(self.height - max(y, 0), 0), : max(self.width - max(x, 0), 0)]
        mask[max(y, 0) : max(y, 0) + inside.shape[0], max(x, 0) : max(x, 0) + inside.shape[1]] = inside
        if part.any() and not mask.any():
            raise ValueError("it is outside the image")
        return Reference(_label(label), self.image, encode_mask(mask), size=self.size) if mask.any() else "empty mask"

    def runs(self, label: Any, runs: Sequence[Any], left: Any, top: Any, width: Any, height: Any) -> Reference | str:
        """A mask from the lengths of its runs along the rows of a box; the first run is outside."""
        lengths, shape = np.array(runs, np.int64), (int(height), int(width))
        if min(shape) < 0 or max(shape) > 2 * max(self.size) or lengths.min(initial=0) < 0:
            raise ValueError("its runs or its box are no part of the image")
        if (total := lengths.sum(dtype=float)) != shape[0] * shape[1]:  # integers would wrap around
            raise ValueError(f"its runs cover {total:.0f} pixels, its box has {shape[0] * shape[1]}")
        return self.mask(label, np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape), (left, top))


def _label(label: Any) -> str:
    if not isinstance(label, str | int):
        raise ValueError(f"its label is {label!r}, not text")
    return str(label)


def _points(values: ArrayLike) -> NDArray[np.float64]:
    points = np.array(values, float)
    if points.shape[1:] not in ((), (2,)):
        raise ValueError("a point has not two coordinates")
    if not are_coordinates(points.ravel().tolist()):
        raise ValueError("a coordinate is not a number, or far outside any image")
    return points.reshape(-1, 2)


def _turned(points: NDArray[np.float64], center: tuple[float, float], angle: Any) -> NDArray[np.float64]:
    turn = math.radians(float(angle or 0))
    matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return (points - center) @ matrix + center


def merge_groups(references: Sequence[Reference], groups: Sequence[Any]) -> list[Reference]:
    """One reference for all masks of a label and a group, and one for all points; boxes and None stay alone."""
    merged: list[Reference] = []
    first: dict[tuple[str, Any, bool], int] = {}
    for reference, group in zip(references, groups, strict=True):
        key = (reference.label, group, bool(reference.points))
        if group is None or reference.box is not None or key not in first:
            if group is not None and reference.box is None:
                first[key] = len(merged)
            merged.append(reference)
            continue
        earlier = merged[first[key]]
        if reference.points:
            merged[first[key]] = replace(earlier, points=(*earlier.points, *reference.points))
        else:
            mask, added = earlier.read_mask(), reference.read_mask()
            assert mask is not None
            assert added is not None
            merged[first[key]] = replace(earlier, mask=encode_mask(mask | added))
    return merged
