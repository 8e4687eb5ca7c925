"""Masks that are too large to exist all at once: one bit per pixel, and only of the part that each of them occupies."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Masks of one image that take more bytes than this as bool [n, H, W] are kept as :class:`MaskCrops`.
DENSE_BYTES = 2**30


@dataclass
class MaskCrops:
    """Masks of one image. It stands in for a tensor bool [n, H, W]: an index makes one mask at the image's size.

    Attributes:
        height: H, height of the image in pixels.
        width: W, width of the image in pixels.
        windows: Top, left, height and width in pixels of the part that each mask occupies.
        bits: That part of each mask as ``numpy.packbits`` makes it of rows: uint8 [h, ceil(w / 8)].
    """

    height: int
    width: int
    windows: list[tuple[int, int, int, int]] = field(default_factory=list)
    bits: list[NDArray[np.uint8]] = field(default_factory=list)

    def append(self, crop: NDArray[np.bool_], top: int = 0, left: int = 0) -> None:
        """Add a mask.

        Args:
            crop: bool [h, w], a part of the mask outside which it is empty.
            top: The first row of the part in the image.
            left: The first column of the part in the image.
        """
        rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
        (y1, y2), (x1, x2) = ((found[0], found[-1] + 1) if len(found) else (0, 0) for found in (rows, columns))
        self.windows.append((top + int(y1), left + int(x1), int(y2 - y1), int(x2 - x1)))
        self.bits.append(np.packbits(crop[y1:y2, x1:x2], axis=1))

    @property
    def shape(self) -> tuple[int, int, int]:
        """n, H and W."""
        return len(self.bits), self.height, self.width

    @property
    def boxes(self) -> Tensor:
        """int64 [n, 4], xyxy pixel indices of the masks, of which none is empty; x2 and y2 are included."""
        boxes = [(left, top, left + w - 1, top + h - 1) for top, left, h, w in self.windows]
        return torch.tensor(boxes, dtype=torch.int64).view(-1, 4)

    def __len__(self) -> int:
        return len(self.bits)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: Tensor | slice) -> "MaskCrops": ...

    def __getitem__(self, index: int | Tensor | slice) -> "Tensor | MaskCrops":
        rows = np.arange(len(self))[index if isinstance(index, int | slice) else index.cpu().numpy()]
        if np.ndim(rows):
            chosen = rows.tolist()
            windows, bits = ([of_all[row] for row in chosen] for of_all in (self.windows, self.bits))
            return MaskCrops(self.height, self.width, windows, bits)
        crop, top, left = self.crop(int(rows))
        mask = torch.zeros(self.height, self.width, dtype=torch.bool)
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = torch.from_numpy(crop)
        return mask

    def crop(self, index: int) -> tuple[NDArray[np.bool_], int, int]:
        """The part that a mask occupies, bool [h, w], and its first row and column in the image."""
        top, left, _, w = self.windows[index]
        return np.unpackbits(self.bits[index], axis=1, count=w).view(np.bool_), top, left

    def cpu(self) -> "MaskCrops":
        """The same masks, which are on the CPU already."""
        return self

    def dense(self) -> Tensor:
        """All masks, bool [n, H, W], which takes n * H * W bytes."""
        masks = torch.zeros(self.shape, dtype=torch.bool)
        for row, mask in enumerate(self):
            masks[row] = mask
        return masks

    def numpy(self) -> NDArray[np.bool_]:
        """All masks as an array; see :meth:`dense`."""
        return self.dense().numpy()


def crop_of(masks: Tensor | NDArray[np.bool_] | MaskCrops, index: int) -> tuple[NDArray[np.bool_], int, int]:
    """A part of a mask outside which it is empty: of crops the smallest, otherwise the mask itself.

    Args:
        masks: bool [n, H, W] on the CPU, or crops.
        index: The mask.

    Returns:
        bool [h, w], and its first row and column in the image.
    """
    return masks.crop(index) if isinstance(masks, MaskCrops) else (np.asarray(masks[index]), 0, 0)


def collect(
    parts: Iterable[tuple[NDArray[np.bool_], int, int]], count: int, height: int, width: int
) -> Tensor | MaskCrops:
    """Masks in the form that fits into memory.

    Args:
        parts: For each mask bool [h, w], a part outside which it is empty, and its first row and column in the image.
        count: Their number.
        height: H in pixels.
        width: W in pixels.

    Returns:
        bool [n, H, W], or crops where those would take more than ``DENSE_BYTES``.
    """
    dense = torch.zeros(count, height, width, dtype=torch.bool) if fits(count, height, width) else None
    crops = MaskCrops(height, width)
    for row, (crop, top, left) in enumerate(parts):
        if dense is None:
            crops.append(crop, top, left)
        else:
            dense[row, top : top + crop.shape[0], left : left + crop.shape[1]] = torch.from_numpy(crop)
    return crops if dense is None else dense


def fits(count: int, height: int, width: int) -> bool:
    """Whether as many masks of this size may exist at once."""
    return count * height * width <= DENSE_BYTES
