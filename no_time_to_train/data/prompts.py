"""Checks of what users say about objects: an image, a class, a box and points."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.data.images import ImageInput, is_tensor
from no_time_to_train.data.names import clean_class_name
from no_time_to_train.data.rle import are_coordinates
from no_time_to_train.errors import UserError
from no_time_to_train.ranges import check_type

if TYPE_CHECKING:
    from typing_extensions import TypeIs


def is_image_input(image: object) -> "TypeIs[ImageInput]":
    """Whether an object is of a type that an image and a mask can have, or of bytes, which are refused as an image."""
    is_content = isinstance(image, bytes | bytearray) or hasattr(image, "read")
    return isinstance(image, str | Path | Image.Image | np.ndarray) or is_tensor(image) or is_content


def check_rows(name: str, rows: Any, form: str) -> Iterator[tuple[Any, ...]]:
    """Rows that a program gives, one after the other, each with as many values as ``form`` names: ``label, mask``."""
    check_type(name, rows, Iterable)
    for row in rows:
        if not isinstance(row, tuple | list) or len(row) != len(form.split(", ")):
            raise UserError(f"{name} must be several times ({form}), not {short_repr(row)}")
        yield tuple(row)


def check_mask_size(mask: NDArray[np.bool_], pixels: NDArray[np.uint8]) -> None:
    """Check that a mask has the size of its image."""
    if mask.shape != pixels.shape[:2]:
        sizes = f"the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its image {pixels.shape[1]}x{pixels.shape[0]}"
        raise UserError(f"{sizes}: is it the mask of another image?")


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
        The part of it in the image, as four floats.
    """
    numbers = _numbers(box)
    if len(numbers) != 4:
        raise UserError(f"box {box!r} is not x1, y1, x2, y2: give four numbers in pixels")
    x1, y1, x2, y2 = numbers
    text = f"box {join_numbers(numbers)} (x1,y1,x2,y2)"
    check_pixels([numbers], text)
    if x1 >= x2 or y1 >= y2:
        raise UserError(f"{text} ends before it begins: x2 must be above x1, and y2 above y1")
    left, top, right, bottom = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if not (left < right and top < bottom):
        raise UserError(f"{text} holds no pixel of the {width}x{height} image")
    return left, top, right, bottom


def check_pixels(boxes: Iterable[Sequence[float]], where: str | Path) -> None:
    """Check that the coordinates of some boxes or outlines are not all shares of the image's sides."""
    values = [value for box in boxes for value in box]
    if any(value % 1 for value in values) and min(values) >= 0 and max(values) <= 1:
        raise UserError(f"{where}: values are in pixels, not shares of the image: multiply by its width and height")


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


def list_points(points: Any) -> list[Sequence[float]]:
    """The points that a user gave as any sequence or array [n, 2], as a list."""
    check_type("points [(x, y), ...]", points, Iterable)
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
    if isinstance(values, str | bytes | bytearray | Set | Mapping):  # of digits, or in no order
        return []
    try:
        numbers = [float(value) for value in values]
    except (OverflowError, TypeError, ValueError):
        return []
    return numbers if are_coordinates(numbers) else []
