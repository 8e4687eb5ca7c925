"""Masks as one bit per pixel, so that areas and intersections are counted exactly and fast."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import masks_to_boxes

from no_time_to_train.method.fast.mask_crops import MaskCrops

#: Side of a tile in pixels. A row of a tile is one machine word.
SIDE = 32


class Masks(Protocol):
    """n masks of one image, as merging needs them."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: NDArray[np.int64]) -> "Masks": ...

    @property
    def areas(self) -> NDArray[np.float64]:
        """The number of pixels of each mask: float64 [n]."""

    def intersections(self) -> NDArray[np.float64]:
        """The number of pixels that each pair of masks shares: float64 [n, n], with the areas on its diagonal."""

    def at_full_size(self) -> tuple[Tensor | MaskCrops, Tensor]:
        """The masks at the image's own size, see ``Detections.masks``, and their boxes, see ``Detections.boxes``."""


@dataclass
class PackedMasks:
    """The masks of one image as one bit per pixel, in tiles of 32x32 pixels.

    Attributes:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        tiles: uint32 [n, rows, columns, 32], one word per row of a tile; bits beyond the image are 0.
        counts: float64 [n, rows * columns], the pixels of each mask in each tile.
    """

    height: int
    width: int
    tiles: NDArray[np.uint32]
    counts: NDArray[np.float64]

    @classmethod
    def pack(cls, masks: NDArray[np.bool_] | Tensor) -> "PackedMasks":
        """Pack masks given as bool [n, H, W]. Those on a GPU become bits there: an eighth of the bytes to copy."""
        n, height, width = masks.shape
        if isinstance(masks, Tensor):
            bits = np.packbits(masks.numpy(), axis=2) if masks.is_cpu else pack_bits(masks).cpu().numpy()
        else:
            bits = np.packbits(masks, axis=2)
        rows, columns = -(-height // SIDE), -(-width // SIDE)
        packed = np.zeros((n, rows * SIDE, columns * SIDE // 8), np.uint8)
        packed[:, :height, : -(-width // 8)] = bits
        words = packed.view(np.uint32).reshape(n, rows, SIDE, columns)
        tiles = np.ascontiguousarray(words.transpose(0, 1, 3, 2))
        counts = np.bitwise_count(tiles).sum(axis=3, dtype=np.float64).reshape(n, rows * columns)
        return cls(height, width, tiles, counts)

    @classmethod
    def empty(cls, n: int, height: int, width: int) -> "PackedMasks":
        """Empty masks, which :meth:`paste` fills."""
        rows, columns = -(-height // SIDE), -(-width // SIDE)
        return cls(height, width, np.zeros((n, rows, columns, SIDE), np.uint32), np.zeros((n, rows * columns)))

    def paste(self, index: int, crop: NDArray[np.bool_], top: int, left: int) -> None:
        """Fill an empty mask in place.

        Args:
            index: The mask.
            crop: bool [h, w], a part of it outside which it is empty.
            top: The first row of the part.
            left: The first column of the part.
        """
        if not crop.size:
            return
        row, column = top // SIDE, left // SIDE
        part = PackedMasks.pack(np.pad(crop, ((top - row * SIDE, 0), (left - column * SIDE, 0)))[None])
        rows, columns = (slice(first, first + n) for first, n in zip((row, column), part.tiles.shape[1:3], strict=True))
        self.tiles[index, rows, columns] = part.tiles[0]
        counts = self.counts[index].reshape(self.tiles.shape[1:3])  # a view
        counts[rows, columns] = part.counts[0].reshape(part.tiles.shape[1:3])

    @classmethod
    def join(cls, parts: "list[PackedMasks]") -> "PackedMasks":
        """Concatenate masks of the same image."""
        tiles, counts = ([getattr(part, name) for part in parts] for name in ("tiles", "counts"))
        return cls(parts[0].height, parts[0].width, np.concatenate(tiles), np.concatenate(counts))

    def __getitem__(self, indices: NDArray[np.int64]) -> "PackedMasks":
        return PackedMasks(self.height, self.width, self.tiles[indices], self.counts[indices])

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def areas(self) -> NDArray[np.float64]:
        """The number of pixels of each mask: float64 [n]."""
        return self.counts.sum(axis=1)

    def unpack(self) -> NDArray[np.bool_]:
        """The masks as bool [n, H, W]."""
        n, rows, columns, _ = self.tiles.shape
        words = np.ascontiguousarray(self.tiles.transpose(0, 1, 3, 2)).reshape(n, rows * SIDE, columns)
        return np.unpackbits(words.view(np.uint8)[:, : self.height], axis=2, count=self.width).view(np.bool_)

    def at_full_size(self) -> tuple[Tensor | MaskCrops, Tensor]:
        """See :meth:`Masks.at_full_size`."""
        regions = torch.from_numpy(self.unpack())
        return regions, masks_to_boxes(regions).long()

    def intersections(self) -> NDArray[np.float64]:
        """The exact number of pixels that each pair of masks shares: float64 [n, n].

        In a tile that one mask fills, the pair shares the other mask's pixels. Bits are compared only along outlines,
        in tiles that neither of the two fills.
        """
        counts, capacity = self.counts, self._capacity()
        tiles = self.tiles.reshape(*counts.shape, SIDE)
        full = (counts == capacity).astype(np.float64)
        mixed = (counts > 0) & (counts < capacity)
        shared = full @ counts.T + (counts * (1 - full)) @ full.T
        for tile in np.flatnonzero(mixed.sum(axis=0) > 1):
            members = np.flatnonzero(mixed[:, tile])
            words = tiles[members, tile].view(np.uint64)
            common = np.bitwise_count(words[:, None] & words[None]).sum(axis=2, dtype=np.float64)
            shared[np.ix_(members, members)] += common
        np.fill_diagonal(shared, self.areas)  # tiles that only one mask fills partly were skipped
        return shared

    def _capacity(self) -> NDArray[np.float64]:
        """The number of pixels of the image in each tile: float64 [rows * columns]."""
        rows, columns = self.tiles.shape[1:3]
        heights = np.minimum(self.height - SIDE * np.arange(rows), SIDE)
        widths = np.minimum(self.width - SIDE * np.arange(columns), SIDE)
        return np.outer(heights, widths).ravel().astype(np.float64)


def pack_bits(masks: Tensor) -> Tensor:
    """The same as ``numpy.packbits``, on any device.

    Args:
        masks: bool [n, H, W].

    Returns:
        uint8 [n, H, ceil(W / 8)], the first pixel of 8 in the highest bit.
    """
    padded = F.pad(masks.to(torch.uint8), (0, -masks.shape[2] % 8)).unflatten(2, (-1, 8))
    values = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=masks.device)
    return (padded * values).sum(dim=3, dtype=torch.uint8)
