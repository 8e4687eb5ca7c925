"""The square through which both networks see a target image (docs/method.md, 3.1)."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

#: x1, y1, x2, y2 in pixels, with fractions.
Box = tuple[float, float, float, float]


def target_tensor(image: NDArray[np.uint8], size: int) -> Tensor:
    """The square of an image uint8 [H, W, 3] RGB, as the networks take it: float32 [3, size, size] in [0, 1]."""
    return as_float(resize_to_square(image, size))


def resize_to_square(image: NDArray[np.uint8], size: int, box: Box | None = None) -> Tensor:
    """Resize an image to a square, ignoring its aspect ratio, with PIL's antialiased bicubic filter.

    Args:
        image: uint8 [H, W, 3] RGB.
        size: Side of the square in pixels.
        box: The part of the image that is resized. None is all of it.

    Returns:
        uint8 [3, size, size].
    """
    return resize(image, size, size, box)


def resize(image: NDArray[np.uint8], width: int, height: int, box: Box | None = None) -> Tensor:
    """An image, or a part of it, at another size by PIL's antialiased bicubic filter: uint8 [3, height, width]."""
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def as_float(square: Tensor) -> Tensor:
    """Turn uint8 into float32 in [0, 1].

    The divisor is a tensor, because GPUs multiply by the reciprocal of a number, which rounds differently from the CPU.
    """
    return square.float() / torch.tensor(255.0, device=square.device)
