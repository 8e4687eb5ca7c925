"""SAM 2's logits, from which masks are made when they are needed: most proposals are suppressed before."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.upsample import UPSAMPLED_AT_ONCE, upsample

#: With tiles, masks of an image with more pixels than this are compared at a size of about as many.
COMPARED_PIXELS = 2**22

#: The largest logit that is stored: that of float16.
LARGEST = 65504.0

#: The most logits along a side of a square, so that a forged entry of a cache cannot ask for more memory.
MOST_LOGITS = 4096


@dataclass
class MaskLogits:
    """n masks that are upsampled when they are needed, each from the square that it was proposed in.

    In the paper, one square shows the whole image. With tiles, of each mask only the logits around its region are kept.

    Attributes:
        height: The image's height in pixels.
        width: The image's width in pixels.
        squares: Top, left, height and width in pixels of what each square shows, and the side of its logits.
        places: For each mask, its square, and the first row and column of its part of the logits.
        crops: That part of each mask, float32 [h, w]. All other logits count as negative.
        tiled: Whether there are tiles. Without them, each part is the whole square.
    """

    height: int
    width: int
    squares: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    crops: list[Tensor] = field(default_factory=list)
    tiled: bool = True

    @classmethod
    def of_image(cls, logits: Tensor, height: int, width: int) -> "MaskLogits":
        """Masks of one square that shows the whole image, float32 [n, s, s]."""
        square = (0, 0, height, width, logits.shape[-1])
        return cls(height, width, [square], [(0, 0, 0)] * len(logits), list(logits), tiled=False)

    def __len__(self) -> int:
        return len(self.crops)

    def __call__(self, rows: Tensor) -> Masks:
        """The masks of some proposals, int64 [m] in [0, n), as merging compares them.

        They have the image's own size, except with tiles in a large image: there every k-th pixel is taken.
        """
        return self.at_size(rows, *self.compared_size())

    def at_full_size(self, rows: Tensor, compared: Masks) -> Masks:
        """The masks of some proposals at the image's own size; ``compared`` are the same as calling gives them."""
        if compared.shape[1:] == (self.height, self.width):
            return compared
        return self.at_size(rows, self.height, self.width)

    def compared_size(self, side: int | None = None) -> tuple[int, int]:
        """Height and width at which masks are compared.

        Args:
            side: The longer side where less is enough; with tiles, which show small objects, it is not.
        """
        shrink = 1.0
        if self.tiled:
            shrink = min(math.sqrt(COMPARED_PIXELS / (self.height * self.width)), 1)
            return max(int(self.height * shrink), 1), max(int(self.width * shrink), 1)
        if side is not None:
            shrink = min(side / max(self.height, self.width), 1)
        return max(round(self.height * shrink), 1), max(round(self.width * shrink), 1)

    def at_size(self, rows: Tensor, height: int, width: int) -> Masks:
        """The masks of some proposals, int64 [m], at another size."""
        if not self.tiled:
            side = self.squares[0][4]
            crops = [self.crops[row] for row in rows.tolist()]
            return upsample(torch.stack(crops) if crops else torch.zeros(0, side, side), height, width)
        ys, xs = (
            ((torch.arange(short) + 0.5) * (long / short)).long()
            for short, long in ((height, self.height), (width, self.width))
        )
        return Masks.from_crops(self._regions(rows, ys, xs), height, width)

    def _regions(self, rows: Tensor, ys: Tensor, xs: Tensor) -> Iterator[tuple[NDArray[np.bool_], int, int]]:
        """The part of each mask that may be filled, in chosen rows and columns of the image, both ascending."""
        for row in rows.tolist():
            crop = self.crops[row]
            square, top, left = self.places[row]
            window_top, window_left, height, width, side = self.squares[square]
            first_y, up_y = _upsampling(ys - window_top, height, top, crop.shape[0], side, crop)
            first_x, up_x = _upsampling(xs - window_left, width, left, crop.shape[1], side, crop)
            wide = crop @ up_x.T
            parts = up_y.split(max(UPSAMPLED_AT_ONCE // max(len(up_x), 1), 1))
            yield torch.cat([(part @ wide > 0).cpu() for part in parts]).numpy(), first_y, first_x

    def add(self, window: tuple[int, int, int, int], square: "MaskLogits", rows: Tensor, boxes: Tensor) -> None:
        """Add some masks of one square.

        Args:
            window: Top, left, height and width in pixels of what the square shows.
            square: The whole logits of its masks.
            rows: int64 [m], the masks.
            boxes: int64 [m, 4], xyxy pixel indices of their regions ``logits > 0``; x2 and y2 are included.
        """
        side = square.squares[0][4]
        reach_y, reach_x = (2 * math.ceil(side / length) for length in window[2:])  # of a logit in the upsampled mask
        for row, (x1, y1, x2, y2) in zip(rows.tolist(), boxes.tolist(), strict=True):
            top, left = max(y1 - reach_y, 0), max(x1 - reach_x, 0)
            self.places.append((len(self.squares), top, left))
            self.crops.append(square.crops[row][top : y2 + 1 + reach_y, left : x2 + 1 + reach_x].clone())
        self.squares.append((*window, side))

    def to_tensors(self) -> dict[str, Tensor]:
        """The masks as three tensors on the CPU, with logits rounded to float16; see :meth:`from_tensors`."""
        shapes = [(*place, *crop.shape) for place, crop in zip(self.places, self.crops, strict=True)]
        logits = [crop.flatten().clamp(-LARGEST, LARGEST).half().cpu() for crop in self.crops]
        return {
            "squares": torch.tensor(self.squares, dtype=torch.int64).view(-1, 5),
            "places": torch.tensor(shapes, dtype=torch.int32).view(-1, 5),
            "logits": torch.cat([torch.zeros(0, dtype=torch.float16), *logits]),
        }

    @classmethod
    def from_tensors(cls, height: int, width: int, tensors: Mapping[str, Tensor]) -> "MaskLogits":
        """The masks that :meth:`to_tensors` wrote.

        Raises:
            KeyError: A tensor is missing.
            ValueError: The tensors do not fit together.
        """
        squares, places = tensors["squares"].long().view(-1, 5), tensors["places"].long().view(-1, 5)
        whole = torch.tensor([height, width])
        square, corner, shape = places[:, 0], places[:, 1:3], places[:, 3:]
        bad = [
            (squares < torch.tensor([0, 0, 1, 1, 1])).any() or (squares[:, 4] > MOST_LOGITS).any(),
            (squares[:, :2] + squares[:, 2:4] > whole).any(),
            (square < 0).any() or (square >= len(squares)).any(),
        ]
        if any(bad) or (corner < 0).any() or (shape < 1).any():
            raise ValueError("a mask lies outside its image")
        if (corner + shape > squares[square, 4:]).any() or shape.prod(dim=1).sum() != len(tensors["logits"]):
            raise ValueError("a mask has other logits than its square")
        logits = tensors["logits"].float().split(shape.prod(dim=1).tolist())
        crops = [part.view(*size) for part, size in zip(logits, shape.tolist(), strict=True)]
        corners = [(first, top, left) for first, top, left in places[:, :3].tolist()]
        return cls(height, width, [(a, b, c, d, e) for a, b, c, d, e in squares.tolist()], corners, crops)


def _upsampling(pixels: Tensor, length: int, start: int, count: int, side: int, like: Tensor) -> tuple[int, Tensor]:
    """Bilinear upsampling of logits along one axis, as a matrix, for the pixels that these logits reach.

    Args:
        pixels: int64 [P], ascending pixels, relative to the first of the square.
        length: The pixels that the square shows.
        start: The first of the ``count`` logits among the ``side`` of the square.

    Returns:
        The index of the first pixel that is reached, and float32 [p, count] on the device of ``like``.
    """
    reached = torch.tensor([start * length // side, -(-(start + count) * length // side)])
    first, end = torch.searchsorted(pixels, reached).tolist()
    matrix = _antialiased(side, length, like.device)
    return first, matrix[pixels[first:end].to(like.device), start : start + count]


@lru_cache(maxsize=4)
def _antialiased(short: int, long: int, device: torch.device) -> Tensor:
    """Upsampling along one axis as ``upsample`` does it: float32 [long, short]."""
    identity = torch.eye(short, device=device)[None, None]
    return F.interpolate(identity, (long, short), mode="bilinear", antialias=True)[0, 0]
