"""Checks of what users say about objects: an image, a class, a box and points."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from no_time_to_train.data.images import ImageInput, is_tensor
from no_time_to_train.data.names import clean_class_name
from no_time_to_train.data.rle import are_coordinates
from no_time_to_train.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import TypeIs


def is_image_input(image: object) -> "TypeIs[ImageInput]":
    """Whether an object is of a type that an image and a mask can have."""
    return isinstance(image, str | Path | Image.Image | np.ndarray) or is_tensor(image)


def check_image(image: object) -> ImageInput:
    """Check that an image or a mask is of a type that can be one, and return it."""
    if not is_image_input(image):
        kind = "None" if image is None else f"an object of type {type(image).__name__}"
        raise UserError(f"{kind} is not an image: give a path, a PIL image, an array or a tensor")
    return image


def check_label(label: object) -> str:
    """Check that a label is the name of a class, and return it without spaces around it."""
    try:
        return clean_class_name(label)
    except ValueError as error:
        raise UserError(f"the label {label!a} is not the name of a class: {error}; give text such as 'boat'") from error


def check_box(box: Sequence[float], height: int, width: int) -> tuple[float, float, float, float]:
    """Check a box around an object.

    Args:
        box: x1, y1, x2, y2 in pixels, ends excluded. It may reach over the image's border.

    Returns:
        The box as four floats.
    """
    numbers = _numbers(box)
    if len(numbers) != 4:
        raise UserError(f"box {box!r} is not x1, y1, x2, y2: give four numbers in pixels")
    x1, y1, x2, y2 = numbers
    text = f"box {join_numbers(numbers)} (x1,y1,x2,y2)"
    if x1 >= x2 or y1 >= y2:
        raise UserError(f"{text} ends before it begins: x2 must be above x1, and y2 above y1")
    if not (max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height)):
        raise UserError(f"{text} holds no pixel of the {width}x{height} image")
    return x1, y1, x2, y2


def check_together(mask: object, box: object, points: Sequence[object], negative_points: Sequence[object]) -> None:
    """Check that what marks an object in an image goes together.

    Args:
        mask: Its mask; None where there is none.
        box: The box around it; None where there is none.
    """
    if mask is not None and (len(points) or len(negative_points)):
        raise UserError("a point is used without a mask: leave one of them out")
    if len(negative_points) and not len(points) and box is None:
        raise UserError("a negative point says what the object is not: give a point on the object or a box as well")


def list_points(points: object) -> list[Sequence[float]]:
    """The points that a user gave as any sequence or array [n, 2], as a list."""
    if not isinstance(points, Iterable) or isinstance(points, str):
        raise UserError(f"points {points!r} are not a list: give [(x, y), ...] in pixels")
    return list(points)


def check_point(point: Sequence[float], height: int, width: int) -> tuple[float, float]:
    """Check a point on an object or outside it.

    Args:
        point: x, y in pixels.

    Returns:
        The point as two floats.
    """
    numbers = _numbers(point)
    if len(numbers) != 2:
        raise UserError(f"point {point!r} is not x, y: give two numbers in pixels")
    x, y = numbers
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f"point {join_numbers(numbers)} (x,y) lies outside the {width}x{height} image")
    return x, y


def join_numbers(values: Sequence[float]) -> str:
    """Numbers for a message, such as ``10,20.5``."""
    return ",".join(f"{value:g}" for value in values)


def _numbers(values: Sequence[float]) -> list[float]:
    """The values as floats; an empty list where one is not a number, or far outside any image."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        return []
    return numbers if are_coordinates(numbers) else []
