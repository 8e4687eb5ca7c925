"""What a memory keeps of the images of its references: where they are, for leave-one-out, and a small picture each."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from no_time_to_train.data.images import as_rgb, hash_pixels
from no_time_to_train.data.rle import Rle, encode_mask
from no_time_to_train.errors import UserError


@dataclass(frozen=True)
class ReferenceImage:
    """The image that a reference was taken from.

    Attributes:
        name: Its file. Images that are no files have names of their own; references of one image have the same.
        pixels: uint8 [H, W, 3] RGB, where it is no file.
    """

    name: str
    mask: Rle
    pixels: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, path: str | None, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> "ReferenceImage":
        """The image of a reference with the mask bool [H, W]; ``path`` is None where it is no file."""
        if path is not None:
            return cls(path, encode_mask(mask))
        return cls(f"an image with the hash {hash_pixels(pixels)}", encode_mask(mask), pixels)

    def read(self) -> NDArray[np.uint8]:
        """Its pixels, uint8 [H, W, 3] RGB."""
        height, width = self.mask["size"]
        pixels = as_rgb(Path(self.name), (height, width)) if self.pixels is None else self.pixels
        if pixels.shape[:2] != (height, width):
            raise UserError(f"{self.name} has another size than when it was shown as a reference: show it again")
        return pixels


def encode_picture(crop: Tensor, mask: Tensor) -> Tensor:
    """The picture of a reference that a memory keeps: a PNG file that is transparent outside the object.

    Args:
        crop: float32 [3, S, S] RGB, clipped to [0, 1].
        mask: float32 [1, h, w] in {0, 1}, resized to the crop.

    Returns:
        uint8 [bytes]; an entry of ``MemoryBank.crops``.
    """
    colors = (255 * crop.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    inside = cv2.resize(255 * mask[0].byte().numpy(), colors.shape[:2], interpolation=cv2.INTER_NEAREST)
    encoded = cv2.imencode(".png", np.dstack([colors[..., ::-1], inside]))[1]
    return torch.from_numpy(encoded.ravel())


def decode_picture(png: Tensor) -> tuple[Tensor, Tensor]:
    """The crop, float32 [3, S, S] RGB in [0, 1], and the mask, float32 [1, S, S] in {0, 1}, of a picture."""
    try:
        decoded = cv2.imdecode(png.numpy(), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is None or decoded.ndim != 3 or decoded.shape[2] != 4:
        raise UserError("a picture of a reference in the memory is damaged: make the memory again")
    pixels = torch.from_numpy(decoded).permute(2, 0, 1)
    return pixels[[2, 1, 0]].float() / 255, (pixels[3:] > 0).float()
