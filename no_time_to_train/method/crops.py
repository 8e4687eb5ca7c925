"""Images and masks as pixels: reading, and the two resizings that the method prescribes."""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.errors import UserError


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as stored (EXIF orientation is not applied, as COCO's annotations expect): uint8 [H, W, 3].

    Raises:
        UserError: see :func:`open_image`.
    """
    return to_rgb(open_image(path))


def open_image(path: str | Path) -> Image.Image:
    """Read an image whole, as stored and in its own mode.

    Raises:
        UserError: the file is missing, truncated, not an image, or so large that it may be a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
            image.load()
            return image
    except FileNotFoundError as error:
        raise UserError(f"image not found: {path}") from error
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise UserError(f"image {path} cannot be read: {error}") from error


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an image of any mode: uint8 [H, W, 3].

    Greys deeper than 8 bits are stretched from their darkest to their brightest pixel, as cameras and microscopes use
    only a part of 16 bits; PIL would clip them at 255. What is transparent becomes white.
    """
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
        values = (values - values.min()) / max(np.ptp(values), 1e-9)
        return np.repeat(np.rint(255 * values).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def target_tensor(image: NDArray[np.uint8], size: int) -> Tensor:
    """Stage 3, step 1: squash to a square with PIL's antialiased bicubic on uint8.

    Args:
        image: uint8 [H, W, 3].
        size: side of the square, in pixels.

    Returns:
        float32 [3, size, size] in [0, 1].
    """
    square = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def resize(image: Tensor, size: int | tuple[int, int], mode: str) -> Tensor:
    """Resize [C, H, W] to ``size`` without antialiasing, half-pixel centres; ``mode`` as torch's ``interpolate``."""
    return F.interpolate(image[None], size, mode=mode, antialias=False)[0]


def crop_window(bbox: list[float], height: int, width: int, context_ratio: float) -> tuple[int, int, int, int]:
    """Stage 1, step 2: the window around a reference, as x1, y1, x2, y2 in pixels, ends excluded, inside the image.

    Args:
        bbox: COCO box, x, y, w, h in pixels.
        context_ratio: the window's side is the box's longer side times one more than this.
    """
    x, y, w, h = bbox
    x1, y1, x2, y2 = int(x), int(y), int(x + w), int(y + h)
    half = max(x2 - x1, y2 - y1) * (1 + context_ratio) / 2
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    return (
        max(int(centre_x - half), 0),
        max(int(centre_y - half), 0),
        min(int(centre_x + half), width),
        min(int(centre_y + half), height),
    )


def reference_tensors(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], bbox: list[float], size: int, context_ratio: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Stage 1, steps 2 and 3: crop a reference instance with context and squash it to a square.

    Args:
        image: uint8 [H, W, 3].
        mask: bool [H, W].
        bbox: COCO box of the instance, x, y, w, h in pixels.
        size: side of the square: the encoder's input.
        context_ratio: see :func:`crop_window`.

    Returns:
        The crop, float32 [3, size, size], in [0, 1] but for bicubic overshoot, and its mask, float32 [1, h, w] in
        {0, 1} at the crop's own size.

    Raises:
        UserError: no pixel of the mask lies in the window.
    """
    x1, y1, x2, y2 = crop_window(bbox, mask.shape[0], mask.shape[1], context_ratio)
    mask_crop = mask[y1:y2, x1:x2]
    if not mask_crop.any():
        raise UserError("the mask is empty in the box of the annotation")
    crop = torch.from_numpy(image[y1:y2, x1:x2].copy()).permute(2, 0, 1).float() / 255
    return resize(crop, size, "bicubic"), torch.from_numpy(mask_crop.astype(np.float32))[None]


def patch_weights(mask: Tensor, size: int, grid: int) -> Tensor:
    """Stage 1, step 5: the weight of each patch token, from a mask at its crop's own size.

    A thin instance can vanish between the pixels that this takes; then each patch weighs the mask's share of its area,
    so that no instance is without weight.

    Args:
        mask: float32 [1, h, w] in {0, 1}, not empty.
        size: side of the encoder's input.
        grid: patches a side.

    Returns:
        float32 [grid * grid] in [0, 1], row by row, with a positive sum.
    """
    weights = resize(resize(mask, size, "bilinear"), grid, "nearest")
    if not weights.any():
        weights = F.interpolate(mask[None], grid, mode="area")[0]
    return weights.flatten()
