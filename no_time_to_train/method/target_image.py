"""The square through which both networks see a target image (docs/method.md, 3.1)."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from no_time_to_train.method.beyond.tiles import tile_windows


def target_tensor(image: NDArray[np.uint8], size: int) -> Tensor:
    """The square of an image, as the networks take it.

    Args:
        image: uint8 [H, W, 3] RGB.
        size: Side of the square in pixels: SAM 2's input (1024).

    Returns:
        float32 [3, size, size] in [0, 1].
    """
    return as_float(resize_to_square(image, size))


def resize_to_square(image: NDArray[np.uint8], size: int) -> Tensor:
    """Resize an image to a square, ignoring its aspect ratio, with PIL's antialiased bicubic filter.

    Args:
        image: uint8 [H, W, 3] RGB.
        size: Side of the square in pixels.

    Returns:
        uint8 [3, size, size].
    """
    return _as_tensor(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def _as_tensor(square: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def target_squares(
    image: NDArray[np.uint8], size: int, tiles: int = 1, overlap: float = 0.0, stated: tuple[int, int] | None = None
) -> Tensor:
    """All squares of an image that ``Segmenter.describe`` needs: one, or with tiles one and those of the tiles.

    Args:
        image: uint8 [H, W, 3] RGB.
        size: Side of a square in pixels.
        tiles: ``Settings.tiles``.
        overlap: ``Settings.tile_overlap``.
        stated: Height and width of the results in pixels, where they are not those of the image.

    Returns:
        uint8 [3, size, size]; with tiles, uint8 [k, 3, size, size] in the order of ``tiles.tile_windows``.
    """
    if tiles == 1:
        return resize_to_square(image, size)
    height, width = stated or image.shape[:2]
    y, x = image.shape[0] / height, image.shape[1] / width
    picture = Image.fromarray(image)  # once, because it is a copy
    boxes = [
        (left * x, top * y, (left + w) * x, (top + h) * y)
        for top, left, h, w in tile_windows(height, width, tiles, overlap)[1:]
    ]
    return torch.stack(
        [_as_tensor(picture.resize((size, size), Image.Resampling.BICUBIC, box)) for box in (None, *boxes)]
    )


def as_float(square: Tensor) -> Tensor:
    """Turn uint8 into float32 in [0, 1].

    The divisor is a tensor, because GPUs multiply by the reciprocal of a number, which rounds differently from the CPU.
    """
    return square.float() / torch.tensor(255.0, device=square.device)
