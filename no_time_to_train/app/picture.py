"""The picture of a photo with what is found in it, small enough for a browser."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.app.corrections import Item
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.visual.drawing import PALETTE, Picture, draw_instances, draw_outlines, outlines

#: Longest side of the picture in pixels.
SIDE = 1200

#: The color of an object that a person is showing.
DRAFT = (255, 200, 0)


def scale_of(height: int, width: int) -> float:
    """The side of a picture's pixels in those of its photo, at most 1."""
    return min(SIDE / max(height, width), 1.0)


def draw(
    pixels: NDArray[np.uint8],
    items: Sequence[Item],
    classes: Sequence[str],
    selected: Item | None = None,
    draft: NDArray[np.bool_] | None = None,
    points: Sequence[tuple[float, float]] = (),
    negative_points: Sequence[tuple[float, float]] = (),
) -> NDArray[np.uint8]:
    """Draw the objects of a photo.

    Args:
        pixels: The photo, uint8 [H, W, 3] RGB.
        draft: The mask of an object that a person is showing, bool [H, W].
        points: (x, y) in pixels of the photo, clicks on that object.

    Returns:
        uint8 [h, w, 3] RGB, with sides of at most 1,200 pixels.
    """
    height, width = pixels.shape[:2]
    scale = scale_of(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    picture: Picture = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8).copy()
    masks = [_scaled(decode_mask(item.mask), picture) for item in items]
    numbers = [list(classes).index(item.label) if item.label in classes else len(classes) for item in items]
    labels = [f"{item.label} \N{CHECK MARK}" if item.confirmed else f"{item.label} {item.score:.2f}" for item in items]
    if items:
        picture = draw_instances(picture, Masks.pack(np.stack(masks)), np.array(numbers), labels).copy()
    for item, mask, number in zip(items, masks, numbers, strict=True):
        if item == selected:
            draw_outlines(picture, outlines(mask), PALETTE.by_idx(number).as_rgb(), line=5)
    if draft is not None:
        inside = _scaled(draft, picture)
        picture[inside] = np.rint(0.5 * picture[inside] + 0.5 * np.array(DRAFT)).astype(np.uint8)
        draw_outlines(picture, outlines(inside), DRAFT, line=3)
    for places, color in ((points, (0, 160, 0)), (negative_points, (210, 0, 0))):
        for x, y in places:
            center = round(x * scale), round(y * scale)
            cv2.circle(picture, center, 6, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(picture, center, 4, color, -1, cv2.LINE_AA)
    return picture


def _scaled(mask: NDArray[np.bool_], picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """A mask of the photo's size at the size of its picture."""
    height, width = picture.shape[:2]
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
