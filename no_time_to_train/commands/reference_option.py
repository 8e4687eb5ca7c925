"""References on the command line: ``LABEL:IMAGE``, and ``:box=X1,Y1,X2,Y2``, ``:point=X,Y`` and so on for the object.

``LABEL:IMAGE`` alone is a picture in which the object is found.

``--reference`` shows what a class is, ``--negative`` what it is not.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from no_time_to_train.errors import UserError

if TYPE_CHECKING:
    from no_time_to_train.data.reference_forms import Reference

#: How many numbers a box and a point have.
NUMBERS = {"box": 4, "point": 2, "negative_point": 2}


@dataclass(frozen=True)
class ReferenceOption:
    """A value of ``--reference`` or ``--negative``, read without any slow import.

    Attributes:
        label: The name of the object's class.
        image: The image file.
        mask: The mask file, or "whole"; None where the value has none.
        box: x1, y1, x2, y2 in pixels; None where the value has none.
        points: x, y in pixels of each point on the object.
        negative_points: x, y in pixels of each point outside the object.
        option: The option.
    """

    label: str
    image: Path
    mask: Path | Literal["whole"] | None = None
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    negative_points: tuple[tuple[float, float], ...] = ()
    option: Literal["--reference", "--negative"] = "--reference"

    def reference(self) -> "Reference":
        """The reference that the value describes."""
        from no_time_to_train.data.prompts import check_together
        from no_time_to_train.data.reference_forms import Reference

        marks = (self.mask, self.box, self.points, self.negative_points)
        try:
            check_together(*marks)
        except UserError as error:
            raise UserError(f"{self.option} {self.label}:{self.image}: {error}") from error
        return Reference(self.label, self.image, *marks, negative=self.option == "--negative")


def parse(text: str, option: Literal["--reference", "--negative"] = "--reference") -> ReferenceOption:
    """Read a value of ``--reference`` or ``--negative``.

    Args:
        text: The value.
        option: The option.
    """
    label, _, rest = text.partition(":")
    image, *marks = re.split(r":(\w+)=", rest)
    mask: Path | Literal["whole"] | None = None
    numbers: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in NUMBERS}
    for kind, value in zip(marks[::2], marks[1::2], strict=True):
        if kind == "mask" and value and mask is None:
            mask = "whole" if value == "whole" else Path(value)
        elif kind in NUMBERS and not (kind == "box" and numbers[kind]):
            numbers[kind].append(_numbers(text, option, kind, value))
        else:
            image = ""
    if not (label and image):
        raise UserError(
            f"{option} {text}: write LABEL:IMAGE, LABEL:IMAGE:box=X1,Y1,X2,Y2, LABEL:IMAGE:point=X,Y, "
            "LABEL:IMAGE:mask=FILE or LABEL:IMAGE:mask=whole; points may follow each other and a box, and "
            "negative_point=X,Y is outside the object"
        )
    box = next(((x1, y1, x2, y2) for x1, y1, x2, y2 in numbers["box"]), None)
    points, negative_points = (tuple((x, y) for x, y in numbers[kind]) for kind in ("point", "negative_point"))
    return ReferenceOption(label, Path(image), mask, box, points, negative_points, option)


def _numbers(text: str, option: str, kind: str, value: str) -> tuple[float, ...]:
    """The numbers of a box or a point."""
    try:
        numbers = tuple(float(number) for number in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != NUMBERS[kind]:
        raise UserError(f"{option} {text}: {kind} needs {NUMBERS[kind]} numbers in pixels, not {value!r}")
    return numbers
