"""Pascal VOC: its classes, the colors of its masks, and files of a number per pixel with such colors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.files import atomic_write

#: The classes in alphabetical order, from number 1 on.
VOC_CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


def voc_colors(count: int = 256) -> list[tuple[int, int, int]]:
    """The colors of Pascal VOC's palette: the bits of a number, dealt out to red, green and blue from the top."""
    numbers = np.arange(count)
    channels = [sum(((numbers >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)]
    return [(int(r), int(g), int(b)) for r, g, b in zip(*channels, strict=True)]


def save_numbers(numbers: NDArray[np.uint16], path: Path, palette: Sequence[int]) -> None:
    """Write a number per pixel as a PNG file.

    Args:
        numbers: uint16 [H, W]. If one has no color, the file has 16 bits and no palette.
        palette: Red, green and blue of each number from 1 on, of at most 255; 0 is black.
    """
    if numbers.max(initial=0) > len(palette) // 3:
        picture = Image.fromarray(numbers)
    else:
        picture = Image.fromarray(numbers.astype(np.uint8)).convert("P")
        picture.putpalette([0, 0, 0, *palette])
    with atomic_write(path) as file:
        picture.save(file, format="PNG")
