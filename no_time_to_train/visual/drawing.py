"""Pictures of instances: masks, outlines and labels drawn over an image, and pictures written to files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from no_time_to_train.files import PICTURE, atomic_write, check_replaceable
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.visual.labels import fitting_labels, load_font, text_size

#: An RGB picture: uint8 [H, W, 3].
Picture = NDArray[np.uint8]

#: RGB, each from 0 to 255.
Color = tuple[int, int, int]

#: The colors of classes. The first twelve are dark enough for a white label; the others take a black one.
PALETTE = sv.ColorPalette.from_hex(
    [
        *("#d62728", "#1f77b4", "#288528", "#9146b8", "#b9590a", "#0b7f7f", "#c2207f", "#7a5230"),
        *("#3b4cc0", "#5f7a0d", "#a6194b", "#4d4d4d", "#ff9a3d", "#54b4f0", "#6fcf5c", "#d08cf0"),
        *("#ff7f79", "#3fd0bd", "#ff85c8", "#c9a27e", "#93a0ff", "#c3c934", "#e2b714", "#9fb0bd"),
    ]
)

#: The colors of PALETTE that tell instances of one class apart.
INSTANCE_COLORS = 12

#: What a PNG file says of its origin, so that only pictures of this program are replaced; a JPEG file has a comment.
MARK = PngInfo()
MARK.add_text("Software", "no-time-to-train")

#: The longest side of a JPEG file in pixels.
JPEG_SIDE = 65500

#: How much of a color the inside of a mask takes.
FILL = 0.25


def draw_instances(
    image: Picture,
    masks: Masks,
    classes: NDArray[np.int64],
    labels: list[str],
    by_instance: bool = False,
    numbers: Sequence[int] | None = None,
    palette: sv.ColorPalette = PALETTE,
) -> Picture:
    """Draw masks over an image, each with an outline and a label. The first mask ends up on top.

    A label stands where it hides neither another label nor a small object. Where there is no room for the labels, the
    numbers of the masks, from 1, take their place; a number without room is left out.

    Args:
        image: uint8 [H, W, 3] RGB; it is not changed.
        masks: n masks. Empty masks are not drawn.
        classes: int64 [n], the class of each mask, which chooses its color.
        by_instance: Choose the colors so that neighbors differ, whatever their classes.
        numbers: Other numbers of the masks.
        palette: The colors.
    """
    filled = np.flatnonzero(masks.areas)
    if not len(filled):
        return image
    height, width = image.shape[:2]
    masks = masks[filled]
    boxes = masks.boxes.numpy()
    chosen = instance_colors(boxes) if by_instance else classes[filled]
    colors = [palette.by_idx(int(index)).as_rgb() for index in chosen]
    picture = np.ascontiguousarray(image).copy()
    line = max(round((height * width) ** 0.5 / 450), 1)
    for position in reversed(range(len(filled))):
        draw_mask(picture, *masks.crop(position), colors[position], line)

    size = round(min(max((height * width) ** 0.5 / 55, 11), 80))  # of labels, in pixels
    short = [str(index + 1 if numbers is None else numbers[index]) for index in filled.tolist()]
    texts, corners = fitting_labels(boxes, [labels[index] for index in filled], short, size, width, height)
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    for text, corner, color in zip(texts, corners, colors, strict=True):
        if corner is not None:
            (x, y), (w, h) = corner, text_size(text, size)
            pen.rectangle((x, y, x + w - 1, y + h - 1), fill=color)
            ink = "white" if is_dark(color) else "black"
            pen.text((x + w / 2, y + h / 2), text, fill=ink, font=load_font(size, text), anchor="mm")
    return np.asarray(canvas)


def class_palette(names: Sequence[str], chosen: Mapping[str, str]) -> sv.ColorPalette:
    """The colors of classes: those that a person chose, by name, such as ``#ff0080``, and else those of ``PALETTE``."""
    usual = (PALETTE.by_idx(index).as_hex() for index in range(len(names)))
    return sv.ColorPalette.from_hex([chosen.get(name, color) for name, color in zip(names, usual, strict=True)])


def draw_mask(picture: Picture, crop: NDArray[np.bool_], top: int, left: int, color: Color, line: int) -> None:
    """Draw the part of a mask in its box into a picture, in place."""
    patch = picture[top : top + crop.shape[0], left : left + crop.shape[1]]
    patch[crop] = np.rint((1 - FILL) * patch[crop] + FILL * np.array(color)).astype(np.uint8)
    draw_outlines(picture, [contour + np.array([left, top], np.int32) for contour in outlines(crop)], color, line)


def draw_outlines(picture: Picture, contours: list[NDArray[np.int32]], color: Color, line: int) -> None:
    """Draw outlines into a picture, uint8 [H, W, 3], in place: a line of ``line`` pixels on a wider white one.

    White on both sides separates the color from a background that resembles it.
    """
    for shade, thickness in (((255, 255, 255), 2 * line + 1), (color, line)):
        cv2.drawContours(picture, contours, -1, shade, thickness, cv2.LINE_AA)


def outlines(mask: NDArray[np.bool_ | np.uint8]) -> list[NDArray[np.int32]]:
    """The outlines, int32 [n, 2], x and y of pixels, of the parts and the holes of a mask, bool or uint8 [H, W]."""
    contours, _ = cv2.findContours(np.ascontiguousarray(mask, np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [np.asarray(contour[:, 0], np.int32) for contour in contours]


def instance_colors(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose colors, int64 [n], indices into ``PALETTE``, so that instances near each other differ clearly.

    The first of them do not depend on the boxes that follow; int64 [n, 4] xyxy in pixels.
    """
    rgb = np.array([[PALETTE.by_idx(index).as_rgb() for index in range(INSTANCE_COLORS)]], np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
    contrast = np.minimum(np.linalg.norm(lab[:, None] - lab[None], axis=2), 70)  # more is not easier to see
    corners = np.asarray(boxes, float).reshape(-1, 4)
    sizes = (corners[:, 2:] - corners[:, :2]).max(axis=1) + 1 if len(corners) else np.zeros(0)
    chosen = np.zeros(len(corners), np.int64)
    uses = np.zeros(INSTANCE_COLORS)
    for index, box in enumerate(corners):
        earlier = corners[:index]
        gaps = np.maximum(np.maximum(earlier[:, :2] - box[2:], box[:2] - earlier[:, 2:]), 0).max(axis=1)
        near = chosen[:index][gaps < np.maximum(sizes[:index], sizes[index]) / 2]
        chosen[index] = (contrast[near].min(axis=0, initial=70) - 2 * uses).argmax()
        uses[chosen[index]] += 1
    return chosen


def is_dark(color: Color) -> bool:
    """Whether white text is easier to read on an RGB color than black text (WCAG 2)."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.2


def side_by_side(left: Picture, right: Picture, titles: tuple[str, str]) -> Picture:
    """Put two pictures of the same height next to each other, each under its title, with white between and above."""
    bar, gap = 26, 6
    columns = []
    for picture, title in zip((left, right), titles, strict=True):
        column = np.pad(picture, ((bar, 0), (0, 0), (0, 0)), constant_values=255)
        put_text(column, title, (4, 19), 0.55)
        columns.append(column)
    return np.hstack([columns[0], np.full((len(columns[0]), gap, 3), 255, np.uint8), columns[1]])


def put_text(picture: Picture, text: str, position: tuple[int, int], scale: float) -> None:
    """Write dark ASCII text into a picture, uint8 [H, W, 3], in place: OpenCV's font has no other characters.

    The position is that of the left end of the baseline, x and y in pixels; a scale of 1 is about 22 pixels high.
    """
    cv2.putText(picture, text, position, cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1, cv2.LINE_AA)


def check_pictures(paths: Iterable[Path]) -> None:
    """Check that pictures may be written to some paths, before they are drawn."""
    for path in paths:
        check_replaceable(path, PICTURE)


def save_picture(picture: Picture, path: Path) -> None:
    """Write an RGB picture to a file atomically: a PNG file if it ends in ``.png``, else a JPEG file.

    A JPEG file is scaled down where the format has no room for all pixels.
    """
    image, png = Image.fromarray(picture), path.suffix == ".png"
    if not png and max(image.size) > JPEG_SIDE:
        image.thumbnail((JPEG_SIDE, JPEG_SIDE))
    with atomic_write(path) as file:
        image.save(file, format="PNG" if png else "JPEG", quality=90, comment="no-time-to-train", pnginfo=MARK)
