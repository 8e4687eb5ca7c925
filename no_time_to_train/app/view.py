"""What one browser shows: the open photo, its picture with what is found in it, and words about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass
class View:
    """The open photo of one browser, and what is begun in it.

    Attributes:
        points: Clicks on an object that is being shown, (x, y) in pixels of the photo.
        box: The box, x1, y1, x2, y2 in pixels.
        masks: The masks to choose from, bool [n, H, W]; None where no object is being shown.
        state: The workspace's state that the page follows; None where it has to look.
        clicked: Where the selected object was clicked on, (x, y) in pixels of the photo.
    """

    photo: str | None = None
    selected: Item | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    negative_points: list[tuple[float, float]] = field(default_factory=list)
    corner: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    masks: NDArray[np.bool_] | None = None
    chosen: int = 0
    items: list[Item] = field(default_factory=list)
    state: tuple[int, ...] | None = None
    clicked: tuple[float, float] | None = None

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the object that is being shown."""
        return None if self.masks is None else self.masks[self.chosen]

    @property
    def drafting(self) -> bool:
        """Whether an object is being shown."""
        return self.masks is not None or self.corner is not None


def same(item: Item, other: Item | None) -> bool:
    """Whether two items are the same object of the same class."""
    return other is not None and (item.label, item.mask) == (other.label, other.mask)


def describe(item: Item) -> str:
    """An item in words."""
    return f"{item.label}, confirmed" if item.confirmed else f"{item.label}, score {item.score:.2f}: is it right?"


def count_text(counts: Counter[str]) -> str:
    """Counts in words, such as "3 boat, 1 gull"."""
    return ", ".join(f"{number} {label}" for label, number in counts.most_common())


def scale_of(height: int, width: int) -> float:
    """The side of a picture's pixels in those of its photo, at most 1."""
    return min(SIDE / max(height, width), 1.0)


def draw(pixels: NDArray[np.uint8], view: View, classes: Sequence[str]) -> Picture:
    """Draw the objects of a photo, uint8 [H, W, 3] RGB, with sides of at most 1,200 pixels."""
    height, width = pixels.shape[:2]
    scale = scale_of(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    picture: Picture = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8).copy()
    items = view.items
    masks = [_scaled(decode_mask(item.mask), picture) for item in items]
    numbers = [list(classes).index(item.label) if item.label in classes else len(classes) for item in items]
    labels = [f"{item.label} \N{CHECK MARK}" if item.confirmed else f"{item.label} {item.score:.2f}" for item in items]
    if items:
        picture = draw_instances(picture, Masks.pack(np.stack(masks)), np.array(numbers), labels).copy()
    for item, mask, number in zip(items, masks, numbers, strict=True):
        if item == view.selected:
            draw_outlines(picture, outlines(mask), PALETTE.by_idx(number).as_rgb(), line=5)
    if view.mask is not None:
        inside = _scaled(view.mask, picture)
        picture[inside] = np.rint(0.5 * picture[inside] + 0.5 * np.array(DRAFT)).astype(np.uint8)
        draw_outlines(picture, outlines(inside), DRAFT, line=3)
    points = [*view.points, *([view.corner] if view.corner else [])]
    for places, color in ((points, (0, 160, 0)), (view.negative_points, (210, 0, 0))):
        for x, y in places:
            center = round(x * scale), round(y * scale)
            cv2.circle(picture, center, 6, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(picture, center, 4, color, -1, cv2.LINE_AA)
    return picture


def _scaled(mask: NDArray[np.bool_], picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """A mask of the photo's size at the size of its picture."""
    height, width = picture.shape[:2]
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
