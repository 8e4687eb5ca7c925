"""The small pictures of references that a memory keeps: PNG files that are transparent outside the object."""

import cv2
import numpy as np
import torch
from torch import Tensor

from no_time_to_train.errors import UserError


def encode_crop(crop: Tensor, mask: Tensor) -> Tensor:
    """Encode a reference's crop; :func:`decode_crop` is the inverse.

    Args:
        crop: float32 [3, S, S] RGB, clipped to [0, 1].
        mask: float32 [1, h, w] in {0, 1}, resized to the crop.

    Returns:
        uint8 [bytes], a PNG file; an entry of ``MemoryBank.crops``.
    """
    colors = (255 * crop.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    inside = cv2.resize(255 * mask[0].byte().numpy(), colors.shape[:2], interpolation=cv2.INTER_NEAREST)
    encoded = cv2.imencode(".png", np.dstack([colors[..., ::-1], inside]))[1]
    return torch.from_numpy(encoded.ravel())


def decode_crop(png: Tensor) -> tuple[Tensor, Tensor]:
    """Decode the picture of a reference that a memory keeps.

    Args:
        png: uint8 [bytes], a PNG file; an entry of ``MemoryBank.crops``.

    Returns:
        The crop, float32 [3, S, S] RGB in [0, 1], and its mask, float32 [1, S, S] in {0, 1}.
    """
    try:
        decoded = cv2.imdecode(png.numpy(), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is None or decoded.ndim != 3 or decoded.shape[2] != 4:
        raise UserError("a picture of a reference in the memory is damaged: make the memory again")
    pixels = torch.from_numpy(decoded).permute(2, 0, 1)
    return pixels[[2, 1, 0]].float() / 255, (pixels[3:] > 0).float()
