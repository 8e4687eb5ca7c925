"""Tiles, an addition to the paper for small objects: an image is seen as a whole and in overlapping parts.

Both networks see a square of fixed size, so an object of 2 % of an image's side is 20 pixels wide to SAM 2 and less
than a patch to DINOv2. With N x N tiles, both also see each tile as a square of its own. The proposals of all squares
are joined before they are classified. A mask that touches a border of its tile inside the image shows a part of an
object: it is dropped, because the whole object is in the image as a whole, and in another tile if it is no larger than
the overlap. Mask vectors are pooled from the features of the mask's own square.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from no_time_to_train.method.beyond.given import Square
from no_time_to_train.method.fast.mask_logits import MaskLogits
from no_time_to_train.method.proposals import DescribedProposals, concatenate
from no_time_to_train.method.target_image import resize_to_square

#: Steps per pixel of SAM 2's masks in the frame that the boxes of all squares share. A pixel of a tile is at least one.
FINER = 16

#: A mask that is closer to an inner border than this, in pixels of SAM 2's masks, is cut off by it.
BORDER = 1


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def tile_windows(height: int, width: int, tiles: int, overlap: float) -> list[Window]:
    """The parts of an image that the networks see: the whole image, then the tiles row by row.

    Tiles that coincide, as in an image of fewer pixels than tiles, are taken once.

    Args:
        tiles: Tiles per side; 1 means none.
        overlap: The share of a tile's side that it has in common with the next tile.
    """
    whole = Window(0, 0, height, width)
    rows, columns = (_spans(length, tiles, overlap) for length in (height, width))
    return list(dict.fromkeys([whole, *(Window(top, left, h, w) for top, h in rows for left, w in columns)]))


def _spans(length: int, tiles: int, overlap: float) -> list[tuple[int, int]]:
    """First pixel and length of tiles along one side."""
    side = min(math.ceil(length / (tiles - (tiles - 1) * overlap)), length)
    return [(round(index * (length - side) / max(tiles - 1, 1)), side) for index in range(tiles)]


def target_squares(
    image: NDArray[np.uint8], size: int, tiles: int = 1, overlap: float = 0.0, stated: tuple[int, int] | None = None
) -> Tensor:
    """All squares of an image that ``Segmenter.describe`` needs: one, or with tiles one and those of the tiles.

    Args:
        image: uint8 [H, W, 3] RGB.
        stated: Height and width of the results in pixels, where they are not those of the image.

    Returns:
        uint8 [3, size, size]; with tiles, uint8 [k, 3, size, size] in the order of :func:`tile_windows`.
    """
    if tiles == 1:
        return resize_to_square(image, size)
    height, width = stated or image.shape[:2]
    y, x = image.shape[0] / height, image.shape[1] / width
    boxes = [
        (left * x, top * y, (left + w) * x, (top + h) * y)
        for top, left, h, w in tile_windows(height, width, tiles, overlap)[1:]
    ]
    return torch.stack([resize_to_square(image, size, box) for box in (None, *boxes)])


def describe_tiles(
    describe: Callable[[Iterable[Square]], Iterator[DescribedProposals]],
    squares: Tensor,
    height: int,
    width: int,
    tiles: int,
    overlap: float,
) -> DescribedProposals:
    """The proposals of an image and its tiles.

    Args:
        describe: The proposals of squares.
        squares: uint8 [k, 3, size, size] from :func:`target_squares`.
    """
    windows = tile_windows(height, width, tiles, overlap)
    shown = [Square(square, *window[2:]) for square, window in zip(squares, windows, strict=True)]
    described = describe(shown)
    return next(described) if len(windows) == 1 else join(zip(windows, described, strict=True), height, width)


def uncut(boxes: Tensor, side: int, window: Window, height: int, width: int) -> Tensor:
    """The proposals that no border of their tile cuts off: int64 [m]. A border of the image cuts off nothing.

    Args:
        boxes: int64 [n, 4], xyxy pixel indices at SAM 2's mask size ``side``; x2 and y2 are included.
    """
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    cut = ((y1 < BORDER) & (window.top > 0)) | ((x1 < BORDER) & (window.left > 0))
    cut |= (y2 >= side - BORDER) & (window.top + window.height < height)
    cut |= (x2 >= side - BORDER) & (window.left + window.width < width)
    return (~cut).nonzero()[:, 0]


def join(parts: Iterable[tuple[Window, DescribedProposals]], height: int, width: int) -> DescribedProposals:
    """Join the proposals of an image and of its tiles.

    Args:
        parts: What each square shows, and its proposals. They are taken one by one. Of those that no border of their
            tile cuts off, the part of the logits around each mask is kept.

    Returns:
        All proposals. Their boxes are in a frame of ``FINER`` steps per pixel of SAM 2's masks of the whole image.
    """
    masks, joined = MaskLogits(height, width), []
    for window, part in parts:
        assert part.logits is not None
        side = part.logits.squares[0][4]
        rows = uncut(part.boxes, side, window, height, width)
        kept = part[rows]
        masks.add(window, part.logits, rows, kept.boxes)
        kept.boxes = to_frame(kept.boxes, window, height, width, side)
        joined.append(replace(kept, upsampled_masks=masks))
    prompts = sum(part.prompts for part in joined)
    return DescribedProposals(**concatenate(joined), upsampled_masks=masks, prompts=prompts, logits=masks)


def to_frame(boxes: Tensor, window: Window, height: int, width: int, side: int) -> Tensor:
    """Boxes of one square in the frame of the whole image, in steps of it; see :func:`join`.

    They cover the pixels of the boxes, int64 [n, 4] at SAM 2's mask size ``side``, and nothing else, rounded outward.
    """
    start = boxes.new_tensor([window.left, window.top]) * side
    step = boxes.new_tensor([window.width, window.height])
    total = boxes.new_tensor([width, height]) * side
    first = (start + boxes[:, :2] * step) * (FINER * side) // total
    end = -(-(start + (boxes[:, 2:] + 1) * step) * (FINER * side) // total)
    return torch.cat([first, end - 1], dim=1)
