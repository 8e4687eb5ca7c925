"""Pictures of instances: masks, outlines and labels drawn over an image, and pictures written to files."""

from pathlib import Path

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.files import atomic_write

#: An RGB picture: uint8 [H, W, 3].
Picture = NDArray[np.uint8]

#: The colors of classes: easy to distinguish, and dark enough that a white label is readable on each.
PALETTE = sv.ColorPalette.from_hex(
    [
        "#d62728",
        "#1f77b4",
        "#2a8a2a",
        "#9146b8",
        "#c4610a",
        "#0f8a8a",
        "#c2207f",
        "#7a5230",
        "#3b4cc0",
        "#5f7a0d",
        "#a6194b",
        "#4d4d4d",
    ]
)


def draw_instances(image: Picture, masks: NDArray[np.bool_], classes: NDArray[np.int64], labels: list[str]) -> Picture:
    """Draw masks over an image, each with an outline and a label. The first mask ends up on top.

    Args:
        image: uint8 [H, W, 3] RGB; it is not changed.
        masks: bool [n, H, W]. Empty masks are not drawn.
        classes: int64 [n], the class of each mask, which chooses its color.
        labels: The text of each mask.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    filled = masks.any(axis=(1, 2))
    order = np.flatnonzero(filled)[::-1]
    if not len(order):
        return image
    masks, classes, labels = masks[order], classes[order], [labels[index] for index in order]
    detections = sv.Detections(xyxy=sv.mask_to_xyxy(masks).astype(float), mask=masks, class_id=classes)
    size = (image.shape[1], image.shape[0])
    scale = max(0.7 * sv.calculate_optimal_text_scale(size), 0.4)
    picture = np.ascontiguousarray(image[..., ::-1])  # supervision draws in BGR
    picture = sv.MaskAnnotator(PALETTE, opacity=0.45).annotate(picture, detections)
    thickness = sv.calculate_optimal_line_thickness(size)
    # White on both sides of the outline separates it from a background of its own color.
    picture = sv.PolygonAnnotator(sv.Color.WHITE, thickness + 2).annotate(picture, detections)
    picture = sv.PolygonAnnotator(PALETTE, thickness).annotate(picture, detections)
    label = sv.LabelAnnotator(PALETTE, text_scale=scale, text_padding=3, smart_position=True)
    picture = label.annotate(picture, detections, labels)
    return np.ascontiguousarray(picture[..., ::-1])


def side_by_side(left: Picture, right: Picture, titles: tuple[str, str]) -> Picture:
    """Put two pictures of the same height next to each other, each under its title.

    Args:
        left: uint8 [H, W1, 3] RGB.
        right: uint8 [H, W2, 3] RGB.
        titles: The titles of the left and the right picture.

    Returns:
        uint8 [H + 26, W1 + 6 + W2, 3] RGB, white between and above the pictures.
    """
    bar, gap = 26, 6
    columns = []
    for picture, title in zip((left, right), titles, strict=True):
        column = np.pad(picture, ((bar, 0), (0, 0), (0, 0)), constant_values=255)
        put_text(column, title, (4, 19), 0.55)
        columns.append(column)
    return np.hstack([columns[0], np.full((len(columns[0]), gap, 3), 255, np.uint8), columns[1]])


def put_text(picture: Picture, text: str, position: tuple[int, int], scale: float) -> None:
    """Write dark text into a picture, in place.

    Args:
        picture: uint8 [H, W, 3].
        text: ASCII text; OpenCV's font has no other characters.
        position: x and y, in pixels, of the left end of the text's baseline.
        scale: Size of the text; 1 is about 22 pixels high.
    """
    cv2.putText(picture, text, position, cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1, cv2.LINE_AA)


def save_picture(picture: Picture, path: Path) -> None:
    """Write a picture to a file atomically.

    Args:
        picture: uint8 [H, W, 3] RGB.
        path: The file. The suffix ``.png`` makes a PNG file, any other a JPEG file.

    Raises:
        UserError: The file cannot be written.
    """
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="PNG" if path.suffix == ".png" else "JPEG", quality=90)
