"""Outlines of masks from which tools draw exactly these masks again, holes included."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.rle import check_polygons
from no_time_to_train.errors import UserNotice, plural

#: float64 [n, 2], x and y of n corners in pixels.
Outline = NDArray[np.float64]


def outlines(mask: NDArray[np.bool_], along: Literal["edges", "centers"], most: int | None = None) -> list[Outline]:
    """The outline of each part of a mask. A hole belongs to its part's outline, over a line without area.

    Args:
        mask: bool [H, W].
        along: ``edges`` follows the edges of the pixels: the top left corner of the image is 0, 0, and a mask of one
            pixel has four corners. pycocotools and CVAT draw such polygons. ``centers`` runs through the centers of the
            outermost pixels, and the center of the first pixel is 0, 0. PIL, LabelMe and OpenCV draw such polygons.
        most: How many parts and holes are outlined, those with the longest outlines; None for all.

    Returns:
        float64 [n, 2] per part, x and y in pixels.
    """
    # In a picture of twice the size, the pixels of a contour tell on which side of it the mask is.
    picture = mask.astype(np.uint8)
    if along == "edges":
        picture = picture.repeat(2, axis=0).repeat(2, axis=1)
    contours, tree = cv2.findContours(picture, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parents = [] if tree is None else tree[0][:, 3].tolist()
    kept = sorted(range(len(parents)), key=lambda number: -len(contours[number]))[:most]
    rings = {number: _corners(contours[number][:, 0], along) for number in sorted(kept)}
    holes: dict[int, list[NDArray[np.int32]]] = {number: [] for number in rings if parents[number] < 0}
    for number, ring in rings.items():
        if parents[number] in holes:
            holes[parents[number]].append(ring)
    return [_simplify(_join(rings[number], holes[number])).astype(np.float64) for number in holes]


def read_outlines(
    mask: NDArray[np.bool_], along: Literal["edges", "centers"], name: str, join: Callable[..., list[Outline]]
) -> list[Outline]:
    """The outlines of a mask in the image ``name``, without the smallest where readers refuse all, with a note.

    Args:
        join: Puts the outlines together as the form has them.
    """
    for most in (None, 1000, 300, 100, 30, 10, 3, 1):
        parts = join(outlines(mask, along, most))
        with suppress(ValueError):
            check_polygons([part.ravel().tolist() for part in parts], *mask.shape)
            break
    if most is not None:
        text = f"only the {plural(most, 'largest part')} and holes of a mask are written, as polygons"
        warnings.warn(f"{name}: {text} cannot hold all; --format coco can", UserNotice, stacklevel=2)
    return parts


def _corners(contour: NDArray[Any], along: str) -> NDArray[np.int32]:
    """The points of a closed contour, as corners of pixels where it follows edges."""
    points = (contour + 1) // 2 if along == "edges" else contour
    return points[(points != np.roll(points, 1, axis=0)).any(axis=1)] if len(points) > 1 else points


def _join(ring: NDArray[np.int32], holes: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """One closed outline around a part and its holes, each reached and left on the same horizontal line."""
    # From left to right: to the left of a hole there are then only rings that are joined already.
    for hole in sorted(holes, key=lambda one: one[:, 0].min()):
        start = hole[:, 0].argmin()
        x, y = hole[start]
        same_row = np.flatnonzero((ring[:, 1] == y) & (ring[:, 0] <= x))
        at = same_row[ring[same_row, 0].argmax()]
        around = np.roll(hole, -start, axis=0)
        ring = np.concatenate([ring[: at + 1], around, around[:1], ring[at:]])
    return ring


def _simplify(ring: NDArray[np.int32]) -> NDArray[np.int32]:
    """The same outline without the points at which it goes straight on."""
    come = np.sign(ring - np.roll(ring, 1, axis=0))
    go = np.roll(come, -1, axis=0)
    turns = (come != go).any(axis=1)
    return ring[turns] if turns.any() else ring
