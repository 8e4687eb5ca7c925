"""Pascal VOC: its classes, and the colors of its masks."""

from collections.abc import Iterable

import numpy as np

#: The classes in alphabetical order, from number 1 on.
VOC_CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


def voc_colors(numbers: Iterable[int] = range(256)) -> list[tuple[int, int, int]]:
    """The colors of Pascal VOC's palette: the bits of a number, dealt out to red, green and blue from the top."""
    values = np.fromiter(numbers, np.int64)
    channels = [sum(((values >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)]
    return [(int(r), int(g), int(b)) for r, g, b in zip(*channels, strict=True)]
