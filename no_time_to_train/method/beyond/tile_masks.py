"""The masks of an image and its tiles, in memory that does not grow with masks times pixels of the image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.fast.mask_crops import MaskCrops, fits
from no_time_to_train.method.fast.packed_masks import PackedMasks

#: Masks of an image with more pixels than this are compared with each other at a size of about as many.
COMPARED_PIXELS = 2**22

#: Pixels of a mask that are upsampled at once: 2**24 of float32 are 64 MiB.
UPSAMPLED_AT_ONCE = 2**24

#: The largest logit that is stored: that of float16.
LARGEST = 65504.0

#: The most logits along a side of a square, so that a forged entry of a cache cannot ask for more memory.
MOST_LOGITS = 4096


@dataclass
class TileMasks:
    """Masks that are upsampled when they are needed, each from the square that it was proposed in.

    Of SAM 2's logits only the part around each region is kept.

    Attributes:
        height: The image's height in pixels.
        width: The image's width in pixels.
        squares: Top, left, height and width in pixels of what each square shows, and the side of its logits.
        places: For each mask, its square, and the first row and column of its part of the logits.
        crops: That part of each mask, float32 [h, w]. All other logits count as negative.
    """

    height: int
    width: int
    squares: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    crops: list[Tensor] = field(default_factory=list)

    def add(self, window: tuple[int, int, int, int], logits: Tensor, boxes: Tensor) -> None:
        """Add the masks of one square.

        Args:
            window: Top, left, height and width in pixels of what the square shows.
            logits: float32 [n, s, s].
            boxes: int64 [n, 4], xyxy pixel indices of the regions ``logits > 0``; x2 and y2 are included.
        """
        side = logits.shape[-1]
        reach_y, reach_x = (2 * math.ceil(side / length) for length in window[2:])  # of a logit in the upsampled mask
        for row, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            top, left = max(y1 - reach_y, 0), max(x1 - reach_x, 0)
            self.places.append((len(self.squares), top, left))
            self.crops.append(logits[row, top : y2 + 1 + reach_y, left : x2 + 1 + reach_x].clone())
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
    def from_tensors(cls, height: int, width: int, tensors: Mapping[str, Tensor]) -> "TileMasks":
        """The masks that :meth:`to_tensors` wrote.

        Args:
            tensors: Its tensors, and perhaps others.

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

    def __len__(self) -> int:
        return len(self.crops)

    def __call__(self, rows: Tensor) -> "ChosenMasks":
        """The masks of some proposals, int64 [m] in [0, n)."""
        shrink = min(math.sqrt(COMPARED_PIXELS / (self.height * self.width)), 1)
        height, width = (max(int(length * shrink), 1) for length in (self.height, self.width))
        chosen = rows.cpu().numpy()
        ys, xs = (
            ((torch.arange(short) + 0.5) * (long / short)).long()
            for short, long in ((height, self.height), (width, self.width))
        )
        compared = PackedMasks.empty(len(chosen), height, width)
        for index, row in enumerate(chosen.tolist()):
            compared.paste(index, *self.region(row, ys, xs))
        return ChosenMasks(self, chosen, compared)

    def region(self, row: int, ys: Tensor, xs: Tensor) -> tuple[NDArray[np.bool_], int, int]:
        """The part of a mask that may be filled, in chosen rows and columns of the image.

        Args:
            row: The mask.
            ys: int64 [H], ascending rows of the image.
            xs: int64 [W], ascending columns of the image.

        Returns:
            bool [h, w], and the indices of its first row in ``ys`` and of its first column in ``xs``.
        """
        crop = self.crops[row]
        square, top, left = self.places[row]
        window_top, window_left, height, width, side = self.squares[square]
        first_y, up_y = _upsampling(ys - window_top, height, top, crop.shape[0], side, crop)
        first_x, up_x = _upsampling(xs - window_left, width, left, crop.shape[1], side, crop)
        wide = crop @ up_x.T
        parts = up_y.split(max(UPSAMPLED_AT_ONCE // max(len(up_x), 1), 1))
        return torch.cat([(part @ wide > 0).cpu() for part in parts]).numpy(), first_y, first_x


def _upsampling(pixels: Tensor, length: int, start: int, count: int, side: int, like: Tensor) -> tuple[int, Tensor]:
    """Bilinear upsampling of logits along one axis, as a matrix, for the pixels that these logits reach.

    Args:
        pixels: int64 [P], ascending pixels, relative to the first of the square.
        length: The pixels that the square shows.
        start: The first of the logits.
        count: The number of logits.
        side: The number of logits of the square.
        like: A tensor on the device.

    Returns:
        The index of the first pixel that is reached, and float32 [p, count].
    """
    reached = torch.tensor([start * length // side, -(-(start + count) * length // side)])
    first, end = torch.searchsorted(pixels, reached).tolist()
    matrix = _upsampling_matrix(side, length, like.device)
    return first, matrix[pixels[first:end].to(like.device), start : start + count]


@lru_cache(maxsize=4)
def _upsampling_matrix(short: int, long: int, device: torch.device) -> Tensor:
    """Upsampling along one axis as ``upsample`` does it: float32 [long, short]."""
    identity = torch.eye(short, device=device)[None, None]
    return F.interpolate(identity, (long, short), mode="bilinear", antialias=True)[0, 0]


@dataclass
class ChosenMasks:
    """Some of the masks of an image and its tiles.

    Attributes:
        masks: All masks.
        rows: int64 [m], which of them.
        compared: The same m masks at the size at which they are compared: every k-th pixel in a large image.
    """

    masks: TileMasks
    rows: NDArray[np.int64]
    compared: PackedMasks

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: NDArray[np.int64]) -> "ChosenMasks":
        return ChosenMasks(self.masks, self.rows[indices], self.compared[indices])

    @property
    def areas(self) -> NDArray[np.float64]:
        """See ``PackedMasks.areas``."""
        return self.compared.areas

    def intersections(self) -> NDArray[np.float64]:
        """See ``PackedMasks.intersections``."""
        return self.compared.intersections()

    def at_full_size(self) -> tuple[Tensor | MaskCrops, Tensor]:
        """See ``Masks.at_full_size``."""
        masks = self.masks
        ys, xs = torch.arange(masks.height), torch.arange(masks.width)
        crops = MaskCrops(masks.height, masks.width)
        for row in self.rows.tolist():
            crops.append(*masks.region(row, ys, xs))
        return (crops.dense() if fits(*crops.shape) else crops), crops.boxes
