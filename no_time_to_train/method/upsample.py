"""Masks at the image's own size (docs/method.md, 3.7)."""

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.fast.masks import Masks

#: Pixels upsampled at once: 2**24 of float32 are 64 MiB.
UPSAMPLED_AT_ONCE = 2**24


def upsample(logits: Tensor, height: int, width: int) -> Masks:
    """The n masks ``upsampled logits > 0`` of logits float [n, h, w]; some may be empty.

    A few are upsampled at a time, so that the float maps of all of them never exist at once.
    """
    parts = [Masks.pack(np.zeros((0, height, width), bool))]
    for part in logits[:, None].split(max(UPSAMPLED_AT_ONCE // (height * width), 1)):
        if len(part):
            upsampled = F.interpolate(part, (height, width), mode="bilinear", antialias=True)[:, 0]
            parts.append(Masks.pack(upsampled > 0))
    return Masks.join(parts)
