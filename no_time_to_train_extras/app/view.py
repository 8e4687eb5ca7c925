"""What one browser shows: the open photo, the outlines of what is found in it, and words about it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from no_time_to_train.data.rle import Rle, decode_crop, encode_mask, mask_box
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.ranges import two_decimals
from no_time_to_train.visual.drawing import PALETTE, is_dark, outlines
from no_time_to_train_extras.app.corrections import Item

#: Outlines are drawn as exactly as pictures with sides of this many pixels show.
SIDE = 3000

#: How far such a polygon is from the outline, as a share of the outline's length.
CORNERS = 0.006

#: Outlines that stay in memory.
KEPT_OUTLINES = 4096


@dataclass
class View:
    """The open photo of one browser, and what is begun in it.

    Attributes:
        points: Clicks on an object that is being shown, (x, y) in pixels of the photo.
        box: The box, x1, y1, x2, y2 in pixels.
        masks: The masks to choose from, bool [n, H, W]; None where no object is being shown.
        state: The workspace's state that the page follows; None where it has to look.
        clicked: Where the selected object was clicked on, (x, y) in pixels of the photo.
        number: The number of the last act of the browser that was answered.
        names: The photos in the order in which the browser lists them.
        video: What is shown of the video that the photo is a frame of.
        archive: Where a ZIP file is that the browser loads.
    """

    photo: str | None = None
    selected: Item | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    negative_points: list[tuple[float, float]] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None
    masks: NDArray[np.bool_] | None = None
    chosen: int = 0
    items: list[Item] = field(default_factory=list)
    state: tuple[int, ...] | None = None
    clicked: tuple[float, float] | None = None
    number: int = 0
    names: list[str] = field(default_factory=list)
    video: dict[str, Any] | None = None
    archive: str | None = None

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the object that is being shown."""
        return None if self.masks is None else self.masks[self.chosen]


def same(item: Item, other: Item | None) -> bool:
    """Whether two items are the same object of the same class."""
    return other is not None and (item.label, item.mask) == (other.label, other.mask)


def describe(item: Item) -> str:
    """An item in words."""
    score = "confirmed" if item.confirmed else f"score {two_decimals(item.score)}: is it right?"
    return f"{item.label}, {score}"


def count_text(counts: Counter[str]) -> str:
    """Counts in words, such as "3 boat, 1 gull"."""
    return ", ".join(f"{number} {label}" for label, number in counts.most_common())


def title(target: TargetImage) -> str:
    """What a photo is called on the page; a frame of a video by its time."""
    return target.name if target.seconds is None else f"{target.video} @ {target.seconds:.2f} s"


def scene_items(items: Sequence[Item], classes: Sequence[str], chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """The objects of a photo as the page draws them."""
    drawn = []
    for item in items:
        text = f"{item.label} \N{CHECK MARK}" if item.confirmed else f"{item.label} {two_decimals(item.score)}"
        shape = scene_shape(item.mask, color_of(item.label, classes, chosen), text)
        drawn.append({"label": item.label, "words": describe(item), **shape})
    return drawn


def scene_shape(mask: Rle, color: Any, text: str) -> dict[str, Any]:
    """A mask with a text as the page draws it."""
    left, top, width, height = mask_box(mask)
    return {
        "text": text,
        "color": color.as_hex(),
        "ink": "white" if is_dark(color.as_rgb()) else "black",
        "box": [left, top, left + width, top + height],
        "path": outline(*mask["size"], mask["counts"]),
    }


def scene_masks(view: View) -> list[dict[str, str]]:
    """The masks to choose from as the page draws them, each with its share of the photo."""
    shown = [] if view.masks is None else [(mask, encode_mask(mask)) for mask in view.masks]
    return [{"share": f"{mask.mean():.1%}", "path": outline(*one["size"], one["counts"])} for mask, one in shown]


def corners(mask: NDArray[np.bool_]) -> list[list[int]]:
    """A polygon with few corners along the outline of the largest part of a mask, x and y in pixels."""
    longest = max(outlines(mask), key=cv2.contourArea)
    return cv2.approxPolyDP(longest, CORNERS * cv2.arcLength(longest, True), True)[:, 0].tolist()


def color_of(label: str, classes: Sequence[str], chosen: Mapping[str, str]) -> Any:
    """The color of a class: the one that a person chose, or else the one of its place among the classes."""
    if label in chosen:
        return sv.Color.from_hex(chosen[label])
    return PALETTE.by_idx(list(classes).index(label) if label in classes else len(classes))


@lru_cache(KEPT_OUTLINES)
def outline(height: int, width: int, counts: str) -> str:
    """The outline of a mask from its RLE as an SVG path in pixels of the photo."""
    crop, top, left = decode_crop({"size": [height, width], "counts": counts})
    parts = []
    for contour in outlines(crop) if crop.size else []:
        corners = cv2.approxPolyDP(contour, max(height, width) / SIDE, True)[:, 0] + np.array([left + 0.5, top + 0.5])
        parts.append("M" + " ".join(f"{x:g},{y:g}" for x, y in corners) + "z")
    return "".join(parts)
