"""The images that references were taken from, so that leave-one-out can look at them again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import as_rgb, hash_pixels
from no_time_to_train.data.rle import Rle, encode_mask
from no_time_to_train.errors import UserError


@dataclass(frozen=True)
class OwnImage:
    """The image that a reference was taken from.

    Attributes:
        name: Its file. Images that are no files have names of their own; references of one image have the same.
        mask: The reference's mask in it.
        pixels: uint8 [H, W, 3] RGB, where it is no file.
    """

    name: str
    mask: Rle
    pixels: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, path: str | None, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> "OwnImage":
        """The image of a reference.

        Args:
            path: Its file; None where it is none.
            pixels: uint8 [H, W, 3] RGB.
            mask: The reference's mask in it, bool [H, W].
        """
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
