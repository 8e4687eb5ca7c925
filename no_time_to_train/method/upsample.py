"""Masks at the image's own size (docs/method.md, 3.7)."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.fast.packed_masks import PackedMasks

#: Pixels upsampled at once: 2**24 of float32 are 64 MiB.
UPSAMPLED_AT_ONCE = 2**24


@dataclass
class LogitMasks:
    """Masks that are upsampled when they are needed.

    Attributes:
        logits: float32 [n, h, w].
        height: Height of the masks in pixels.
        width: Width of the masks in pixels.
    """

    logits: Tensor
    height: int
    width: int

    def __call__(self, rows: Tensor) -> PackedMasks:
        """The masks of some proposals, int64 [m] in [0, n), at the image's own size."""
        return upsample(self.logits[rows], self.height, self.width)


def upsample(logits: Tensor, height: int, width: int) -> PackedMasks:
    """Upsample logits, a few masks at a time, so that the float maps of all of them never exist at once.

    Args:
        logits: float [n, h, w].

    Returns:
        n masks, ``upsampled logits > 0``; some may be empty.
    """
    parts = [PackedMasks.pack(np.zeros((0, height, width), bool))]
    for part in logits[:, None].split(max(UPSAMPLED_AT_ONCE // (height * width), 1)):
        if len(part):
            upsampled = F.interpolate(part, (height, width), mode="bilinear", antialias=True)[:, 0]
            parts.append(PackedMasks.pack(upsampled > 0))
    return PackedMasks.join(parts)
