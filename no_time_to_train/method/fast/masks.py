"""Masks of one image as bits, so that many fit into memory and shared pixels are counted exactly and fast."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

#: Side of a tile in pixels. A row of a tile is one machine word.
SIDE = 32


@dataclass
class Masks:
    """n masks of one image as one bit per pixel, of those tiles of 32x32 pixels in which a mask is not empty.

    ``masks[3]`` is one mask, bool [H, W]; a slice, indices or bools choose several. ``numpy.asarray(masks)`` is all of
    them, bool [n, H, W].

    Attributes:
        count: n.
        height: H in pixels.
        width: W in pixels.
        owners: int64 [k], the mask of each tile, in ascending order.
        places: int64 [k], where each tile lies among all tiles of the image, row by row.
        words: uint32 [k, 32], one word per row of a tile; bits beyond the image are 0.
    """

    count: int
    height: int
    width: int
    owners: NDArray[np.int64]
    places: NDArray[np.int64]
    words: NDArray[np.uint32]

    @classmethod
    def pack(cls, masks: NDArray[np.bool_] | Tensor) -> "Masks":
        """Pack masks given as bool [n, H, W]. Those on a GPU become bits there: an eighth of the bytes to copy."""
        on_cpu = getattr(masks, "is_cpu", True)
        bits = np.packbits(np.asarray(masks), axis=2) if on_cpu else pack_bits(cast(Tensor, masks)).cpu().numpy()
        n, height, width = masks.shape
        rows, columns = -(-height // SIDE), -(-width // SIDE)
        padded = np.zeros((n, rows * SIDE, columns * SIDE // 8), np.uint8)
        padded[:, :height, : bits.shape[2]] = bits
        words = padded.view(np.uint32).reshape(n, rows, SIDE, columns)
        owners, row, column = np.nonzero(np.bitwise_or.reduce(words, axis=2))
        return cls(n, height, width, owners, row * columns + column, words[owners, row, :, column])

    @classmethod
    def from_crops(cls, crops: Iterable[tuple[NDArray[np.bool_], int, int]], height: int, width: int) -> "Masks":
        """Masks of which only parts are given.

        Args:
            crops: For each mask bool [h, w], a part outside which it is empty, and its first row and column in the
                image.
        """
        masks = [cls.pack(np.zeros((0, height, width), bool))]
        for crop, top, left in crops:
            row, column = top // SIDE, left // SIDE
            part = cls.pack(np.pad(crop, ((top % SIDE, 0), (left % SIDE, 0)))[None])
            rows, columns = np.divmod(part.places, max(part.columns, 1))
            places = (row + rows) * masks[0].columns + column + columns
            masks.append(cls(1, height, width, part.owners, places, part.words))
        return cls.join(masks)

    @classmethod
    def join(cls, parts: "Sequence[Masks]") -> "Masks":
        """Concatenate masks of the same image."""
        firsts = np.cumsum([0, *(part.count for part in parts)])
        owners = [part.owners + first for part, first in zip(parts, firsts[:-1], strict=True)]
        places, words = ([getattr(part, name) for part in parts] for name in ("places", "words"))
        size = parts[0].height, parts[0].width
        return cls(int(firsts[-1]), *size, *map(np.concatenate, (owners, places, words)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """n, H and W."""
        return self.count, self.height, self.width

    @property
    def columns(self) -> int:
        """Tiles in a row of the image."""
        return -(-self.width // SIDE)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        return (self[index] for index in range(self.count))

    @overload
    def __getitem__(self, index: int) -> NDArray[np.bool_]: ...

    @overload
    def __getitem__(self, index: slice | NDArray[Any] | Tensor) -> "Masks": ...

    def __getitem__(self, index: int | slice | NDArray[Any] | Tensor) -> "NDArray[np.bool_] | Masks":
        rows = np.arange(self.count)[index.cpu().numpy() if isinstance(index, Tensor) else index]
        if np.ndim(rows) == 0:
            crop, top, left = self.crop(int(rows))
            mask = np.zeros((self.height, self.width), bool)
            mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
            return mask
        starts, ends = (np.searchsorted(self.owners, rows, side) for side in ("left", "right"))
        counts = ends - starts
        chosen = np.repeat(ends - np.cumsum(counts), counts) + np.arange(counts.sum())
        owners = np.repeat(np.arange(len(rows)), counts)
        return Masks(len(rows), self.height, self.width, owners, self.places[chosen], self.words[chosen])

    def crop(self, index: int) -> tuple[NDArray[np.bool_], int, int]:
        """The part of a mask in its box, bool [h, w], and its first row and column; [0, 0] of an empty mask."""
        first, end = np.searchsorted(self.owners, [index, index + 1])
        if first == end:
            return np.zeros((0, 0), bool), 0, 0
        rows, columns = np.divmod(self.places[first:end], self.columns)
        top, left = rows.min(), columns.min()
        grid = np.zeros((rows.max() + 1 - top, SIDE, columns.max() + 1 - left), np.uint32)
        grid[rows - top, :, columns - left] = self.words[first:end]
        pixels = np.unpackbits(grid.view(np.uint8).reshape(len(grid) * SIDE, -1), axis=1).view(np.bool_)
        ys, xs = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        inside = pixels[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        return inside, int(top * SIDE + ys[0]), int(left * SIDE + xs[0])

    def dense(self) -> NDArray[np.bool_]:
        """All masks, bool [n, H, W], which takes n * H * W bytes."""
        rows, columns = np.divmod(self.places, max(self.columns, 1))
        lines = -(-self.height // SIDE)
        grid = np.zeros((self.count, lines, SIDE, self.columns), np.uint32)
        grid[self.owners, rows, :, columns] = self.words
        bits = grid.view(np.uint8).reshape(self.count, lines * SIDE, 4 * self.columns)[:, : self.height]
        return np.unpackbits(bits, axis=2, count=self.width).view(np.bool_)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.dense().astype(dtype or bool, copy=False)

    @property
    def areas(self) -> NDArray[np.float64]:
        """The number of pixels of each mask: float64 [n]."""
        return np.bincount(self.owners, self._pixels(), self.count).astype(np.float64)

    @property
    def boxes(self) -> Tensor:
        """int64 [n, 4], xyxy pixel indices of the masks, of which none is empty; x2 and y2 are included."""
        rows, columns = np.divmod(self.places, max(self.columns, 1))
        lines = self.words != 0
        across = np.bitwise_or.reduce(self.words, axis=1)[:, None].view(np.uint8)
        boxes = np.tile(np.array([self.width, self.height, -1, -1]), (self.count, 1))
        for axis, tile, filled in ((0, columns, np.unpackbits(across, axis=1)), (1, rows, lines)):
            np.minimum.at(boxes[:, axis], self.owners, SIDE * tile + filled.argmax(axis=1))
            np.maximum.at(boxes[:, axis + 2], self.owners, SIDE * (tile + 1) - 1 - filled[:, ::-1].argmax(axis=1))
        return torch.from_numpy(boxes)

    def intersections(self) -> NDArray[np.float64]:
        """The exact number of pixels that each pair of masks shares: float64 [n, n], with the areas on its diagonal.

        In a tile that one mask fills, the pair shares the other mask's pixels. Bits are compared only along outlines,
        in tiles that neither of the two fills.
        """
        occupied, column = np.unique(self.places, return_inverse=True)
        pixels, capacity = self._pixels(), self._capacity(occupied)
        counts = np.zeros((self.count, len(occupied)))
        counts[self.owners, column] = pixels
        full = (counts == capacity).astype(np.float64)
        shared = full @ counts.T + (counts * (1 - full)) @ full.T
        mixed = np.flatnonzero(pixels < capacity[column])
        mixed = mixed[np.argsort(column[mixed], kind="stable")]
        for tiles in np.split(mixed, np.flatnonzero(np.diff(column[mixed])) + 1):
            if len(tiles) > 1:
                words, members = self.words[tiles].view(np.uint64), self.owners[tiles]
                common = np.bitwise_count(words[:, None] & words[None]).sum(axis=2, dtype=np.float64)
                shared[np.ix_(members, members)] += common
        np.fill_diagonal(shared, self.areas)  # tiles that only one mask fills partly were skipped
        return shared

    def _pixels(self) -> NDArray[np.int64]:
        """The number of a mask's pixels in each tile: int64 [k]."""
        return np.bitwise_count(self.words).sum(axis=1, dtype=np.int64)

    def _capacity(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of pixels of the image in some tiles."""
        rows, columns = np.divmod(places, max(self.columns, 1))
        return np.minimum(self.height - SIDE * rows, SIDE) * np.minimum(self.width - SIDE * columns, SIDE)


def pack_bits(masks: Tensor) -> Tensor:
    """The same as ``numpy.packbits`` of masks bool [n, H, W] along W, on any device: uint8 [n, H, ceil(W / 8)]."""
    padded = F.pad(masks.to(torch.uint8), (0, -masks.shape[2] % 8)).unflatten(2, (-1, 8))
    values = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=masks.device)
    return (padded * values).sum(dim=3, dtype=torch.uint8)
