"""Pascal VOC: its classes, and the colors of its masks."""

import numpy as np

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
