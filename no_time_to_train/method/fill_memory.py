"""Stage 1: a reference instance becomes a vector (docs/method.md, 1).

The steps are :func:`crop_reference`, the encoder, :func:`patch_weights` and :func:`instance_vector`;
``Segmenter.describe_reference`` runs them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.errors import UserError
from no_time_to_train.method.settings import CONTEXT_RATIO


def crop_window(bbox: list[float], height: int, width: int, context_ratio: float) -> tuple[int, int, int, int]:
    """The window around a reference, clipped to the image: x1, y1, x2, y2 in pixels; x2 and y2 are excluded.

    Args:
        bbox: COCO box of the instance: x, y, w, h in pixels.
        context_ratio: The window's side is the box's longer side times ``1 + context_ratio``. At the border of the
            image the window is not square.
    """
    x, y, w, h = bbox
    x1, y1, x2, y2 = int(x), int(y), int(x + w), int(y + h)
    half = max(x2 - x1, y2 - y1) * (1 + context_ratio) / 2
    center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
    return (
        max(int(center_x - half), 0),
        max(int(center_y - half), 0),
        min(int(center_x + half), width),
        min(int(center_y + half), height),
    )


def crop_reference(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    bbox: list[float],
    size: int,
    context_ratio: float = CONTEXT_RATIO,
) -> tuple[Tensor, Tensor]:
    """Crop a reference with some context and resize the crop to a square, ignoring its aspect ratio.

    Args:
        image: uint8 [H, W, 3] RGB.
        mask: bool [H, W], the instance.
        bbox: COCO box of the instance: x, y, w, h in pixels.
        size: Side of the square in pixels: the encoder's input.

    Returns:
        The crop, float32 [3, size, size], in [0, 1] except for bicubic overshoot, which is kept as it is; and the
        crop's mask, float32 [1, h, w] in {0, 1}, at the size of the crop before resizing.
    """
    x1, y1, x2, y2 = crop_window(bbox, mask.shape[0], mask.shape[1], context_ratio)
    mask_crop = mask[y1:y2, x1:x2]
    if not mask_crop.any():
        raise UserError("the mask is empty in the box of the annotation")
    crop = torch.from_numpy(image[y1:y2, x1:x2].copy()).permute(2, 0, 1).float() / 255
    return _resize(crop, size, "bicubic"), torch.from_numpy(mask_crop.astype(np.float32))[None]


def patch_weights(mask: Tensor, size: int | Sequence[int], grid: int | Sequence[int]) -> Tensor:
    """The weight of each patch token: the mask resized like the crop, then sampled once per patch.

    A thin instance can fall between the sampled pixels. Each patch then weighs the share of its area that the mask
    covers, so that every instance has a positive weight; the published code yields NaN there.

    Args:
        mask: float32 [1, h, w] in {0, 1}, not empty, at the size of the crop before resizing.
        size: Height and width of the crop in pixels; one number where they are equal.
        grid: Rows and columns of its patches, likewise.

    Returns:
        float32 [rows * columns] in [0, 1], in row-major order, with a positive sum.
    """
    weights = _resize(_resize(mask, size, "bilinear"), grid, "nearest")
    if not weights.any():
        weights = F.interpolate(mask[None].cpu(), grid, mode="area")[0].to(mask)  # MPS has it for some sizes only
    return weights.flatten()


def instance_vector(tokens: Tensor, weights: Tensor) -> Tensor:
    """The mean [D] of an instance's patch tokens [P, D], weighted by its mask, [P] with a positive sum."""
    return weights @ tokens / weights.sum()


def _resize(image: Tensor, size: int | Sequence[int], mode: str) -> Tensor:
    """Resize [C, H, W] without antialiasing; one size is a square; pixel centers lie at half-integer coordinates."""
    return F.interpolate(image[None], size, mode=mode, antialias=False)[0]
