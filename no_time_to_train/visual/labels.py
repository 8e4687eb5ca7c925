"""Labels of instances: their font, and places for them where they hide nothing small."""

from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

#: Fonts for labels in scripts that the first one lacks, by the names that Linux, macOS and Windows give them.
OTHER_FONTS = [
    *("NotoSansCJK-Regular.ttc", "AppleSDGothicNeo.ttc", "Hiragino Sans GB.ttc"),
    *("malgun.ttf", "msyh.ttc", "Arial Unicode.ttf", "Nirmala.ttf"),
]

#: The share of labels without room from which on all labels of an image are numbers.
CROWDED = 0.1

#: The share of an object's box that a label of another object may cover.
COVERED = 0.08

#: The share of its own object's box that a label may cover.
COVERED_BY_OWN = 0.3

#: The share of an object's box up to which a number stands in its middle.
IN_THE_MIDDLE = 0.15


def fitting_labels(
    boxes: NDArray[np.int64], labels: list[str], numbers: list[str], size: int, width: int, height: int
) -> tuple[list[str], list[tuple[int, int] | None]]:
    """Choose between labels and numbers, and find a place for each.

    Args:
        boxes: int64 [n, 4] xyxy in pixels: the objects, the most important first.
        numbers: What stands in for the labels where they have no room, or where no font has their characters.
        size: Size of the text in pixels.

    Returns:
        The texts, and for each the left and upper edge of its place in pixels, or None where it has no room.
    """
    if all(load_font(size, label) is not None for label in labels):
        places = place_labels(boxes, [text_size(label, size) for label in labels], width, height)
        if places.count(None) <= CROWDED * len(places):
            return labels, places
    return numbers, place_labels(boxes, [text_size(number, size) for number in numbers], width, height, inside=True)


def place_labels(
    boxes: NDArray[np.int64], sizes: list[tuple[int, int]], width: int, height: int, inside: bool = False
) -> list[tuple[int, int] | None]:
    """Find a place for the label of each object where it covers no other label and little of any object.

    Args:
        boxes: int64 [n, 4] xyxy in pixels: the objects, the most important first.
        sizes: Width and height of each label in pixels.
        inside: Prefer the middle of an object that is large enough to a place next to it.

    Returns:
        For each label its left and upper edge in pixels, or None where it has no room.
    """
    corners = np.asarray(boxes, float) + np.array([0, 0, 1, 1])
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    placed = np.zeros((0, 4))
    places: list[tuple[int, int] | None] = []
    for index, ((x1, y1, x2, y2), (w, h)) in enumerate(zip(corners, sizes, strict=True)):
        allowed = np.full(len(corners), COVERED)
        allowed[index] = COVERED_BY_OWN
        middle = (x1 + x2 - w) / 2, (y1 + y2 - h) / 2
        candidates = [
            (x1, y1 - h), (x2 - w, y1 - h), (x1, y2), (x2 - w, y2), (x1, y1), (x2 - w, y1), middle, (x2, y1),
            (x1 - w, y1), (x2, middle[1]), (x1 - w, middle[1]),
        ]  # fmt: skip
        if inside and w * h <= IN_THE_MIDDLE * areas[index]:
            candidates.insert(0, middle)
        place = None
        for left, top in candidates:
            left, top = min(max(left, 0), width - w), min(max(top, 0), height - h)
            label = np.array([left, top, left + w, top + h])
            if min(left, top) < 0 or _overlaps(label, placed).any():
                continue
            if (_overlaps(label, corners) <= allowed * areas).all():
                place = int(left), int(top)
                placed = np.vstack([placed, label])
                break
        places.append(place)
    return places


def text_size(text: str, size: int) -> tuple[int, int]:
    """Width and height, in pixels, of a label with some space around its text, in a font of the given size."""
    font = load_font(size, text) or _fonts(size)[0]
    return round(font.getlength(text) + 0.6 * size), round(1.35 * size)


def load_font(size: int, text: str = "") -> ImageFont.FreeTypeFont | None:
    """The first font that has all characters of a text; None where no font of this machine has them.

    Args:
        size: Size in pixels.
    """
    characters = {character for character in text if not character.isspace()}
    return next((font for font in _fonts(size) if all(_has(font, character) for character in characters)), None)


@lru_cache(maxsize=16)
def _fonts(size: int) -> list[ImageFont.FreeTypeFont]:
    """The fonts of this machine, the one that comes with matplotlib first."""
    found = []
    for name in (str(files("matplotlib") / "mpl-data/fonts/ttf/DejaVuSans.ttf"), *OTHER_FONTS):
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return found


@lru_cache(maxsize=4096)
def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Whether a font has a character: it draws all that it lacks as the same box."""
    return bytes(font.getmask(character)) != bytes(font.getmask("\U0010ffff"))


def _overlaps(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The areas that a box [4] shares with each of n boxes [n, 4]: [n]."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return sides.clip(0).prod(axis=1)
