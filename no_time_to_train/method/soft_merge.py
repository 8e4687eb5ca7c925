"""Semantic-aware soft merging: what lies in a better mask of its class and looks like it loses score (stage 3, 8)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIDE = 32  # of a tile, in pixels: a row of it is one machine word


@dataclass
class PackedMasks:
    """The masks of one image, a bit a pixel, in tiles of 32x32 pixels.

    Attributes:
        height, width: of the image, in pixels.
        tiles: uint32 [n, rows, columns, 32], a word for each row of a tile; bits past the image are 0.
        counts: float64 [n, rows * columns], pixels of each mask in each tile.
    """

    height: int
    width: int
    tiles: NDArray[np.uint32]
    counts: NDArray[np.float64]

    @classmethod
    def pack(cls, masks: NDArray[np.bool_]) -> "PackedMasks":
        """Pack masks, bool [n, H, W]."""
        n, height, width = masks.shape
        rows, columns = -(-height // SIDE), -(-width // SIDE)
        packed = np.zeros((n, rows * SIDE, columns * SIDE // 8), np.uint8)
        packed[:, :height, : -(-width // 8)] = np.packbits(masks, axis=2)
        words = packed.view(np.uint32).reshape(n, rows, SIDE, columns)
        tiles = np.ascontiguousarray(words.transpose(0, 1, 3, 2))
        counts = np.bitwise_count(tiles).sum(axis=3, dtype=np.float64).reshape(n, rows * columns)
        return cls(height, width, tiles, counts)

    @classmethod
    def join(cls, parts: "list[PackedMasks]") -> "PackedMasks":
        """The masks of several parts of one image, in their order."""
        tiles, counts = ([getattr(part, name) for part in parts] for name in ("tiles", "counts"))
        return cls(parts[0].height, parts[0].width, np.concatenate(tiles), np.concatenate(counts))

    def __getitem__(self, indices: NDArray[np.int64]) -> "PackedMasks":
        return PackedMasks(self.height, self.width, self.tiles[indices], self.counts[indices])

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def areas(self) -> NDArray[np.float64]:
        """Pixels of each mask: [n]."""
        return self.counts.sum(axis=1)

    def unpack(self) -> NDArray[np.bool_]:
        """The masks again, bool [n, H, W]."""
        n, rows, columns, _ = self.tiles.shape
        words = np.ascontiguousarray(self.tiles.transpose(0, 1, 3, 2)).reshape(n, rows * SIDE, columns)
        return np.unpackbits(words.view(np.uint8)[:, : self.height], axis=2, count=self.width).view(np.bool_)

    def intersections(self) -> NDArray[np.float64]:
        """Pixels that each two masks share, exactly: [n, n].

        Where one mask fills a tile, they share what the other has there. Only along outlines, where neither fills it,
        are bits compared.
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
        np.fill_diagonal(shared, self.areas)  # a tile that one mask alone is mixed in was not looked at
        return shared

    def _capacity(self) -> NDArray[np.float64]:
        """Pixels of the image in each tile: [rows * columns]."""
        rows, columns = self.tiles.shape[1:3]
        heights = np.minimum(self.height - SIDE * np.arange(rows), SIDE)
        widths = np.minimum(self.width - SIDE * np.arange(columns), SIDE)
        return np.outer(heights, widths).ravel().astype(np.float64)


def soft_merge(scores: Tensor, classes: Tensor, masks: PackedMasks, vectors: Tensor, exponent: float = 0.5) -> Tensor:
    """Lower the score of each mask by how much of it a better-ranked one of its class covers and resembles.

    Args:
        scores: float [n], of masks in descending rank.
        classes: int64 [n].
        masks: n masks, none empty.
        vectors: float [n, D] mask vectors, L2-normalised.
        exponent: of the share left uncovered.

    Returns:
        float [n]: ``scores * (1 - overlap) ** exponent``, where overlap is the largest, over better-ranked masks j of
        the class, of |M_i and M_j| / |M_i| times the cosine of their vectors, clamped at 0.
    """
    merged = scores.clone()
    for class_index in classes.unique():
        members = (classes == class_index).nonzero()[:, 0]
        shared = masks[members.cpu().numpy()].intersections()
        covered = torch.from_numpy(shared / np.diagonal(shared)[:, None]).to(scores)
        overlap = covered * (vectors[members] @ vectors[members].T).clamp(min=0)
        overlap = overlap.tril(diagonal=-1).amax(dim=1)
        merged[members] *= (1 - overlap).clamp(min=0) ** exponent
    return merged
