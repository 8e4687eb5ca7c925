"""Pictures of instances: masks, outlines and labels over an image."""

from pathlib import Path

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.files import atomic_write

#: Saturated and dark enough that a white label reads on each, told apart as well as twelve colours can be.
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


def draw_instances(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], classes: NDArray[np.int64], labels: list[str]
) -> NDArray[np.uint8]:
    """Draw masks with an outline and a label each; the first mask ends up on top.

    Args:
        image: uint8 [H, W, 3] RGB.
        masks: bool [n, H, W].
        classes: int64 [n], which choose the colours.
        labels: n texts.

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
    # A white edge on both sides keeps the outline apart from a background of its own colour.
    picture = sv.PolygonAnnotator(sv.Color.WHITE, thickness + 2).annotate(picture, detections)
    picture = sv.PolygonAnnotator(PALETTE, thickness).annotate(picture, detections)
    label = sv.LabelAnnotator(PALETTE, text_scale=scale, text_padding=3, smart_position=True)
    picture = label.annotate(picture, detections, labels)
    return np.ascontiguousarray(picture[..., ::-1])


def side_by_side(left: NDArray[np.uint8], right: NDArray[np.uint8], titles: tuple[str, str]) -> NDArray[np.uint8]:
    """Two pictures of one height, each under its title: uint8 [H + bar, W + gap + W, 3]."""
    bar, gap = 26, 6
    columns = []
    for picture, title in zip((left, right), titles, strict=True):
        column = cv2.copyMakeBorder(picture, bar, 0, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        columns.append(
            cv2.putText(column, title, (4, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)
        )
    return np.hstack([columns[0], np.full((columns[0].shape[0], gap, 3), 255, np.uint8), columns[1]])


def save_picture(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture, uint8 [H, W, 3] RGB, as JPEG or PNG by the path's ending."""
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="PNG" if path.suffix == ".png" else "JPEG", quality=90)
