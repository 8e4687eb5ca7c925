"""References on the command line: ``LABEL:IMAGE:box=X1,Y1,X2,Y2``, ``:point=X,Y`` or ``:mask=FILE``."""

import re
from pathlib import Path

from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.errors import UserError

#: How many numbers a box and a point have.
NUMBERS = {"box": 4, "point": 2}


def parse(text: str) -> Reference:
    """The reference that a value of ``--reference`` describes.

    Raises:
        UserError: The value does not have one of the three forms.
    """
    found = re.fullmatch(r"(?P<label>[^:]+):(?P<image>.+):(?P<kind>box|mask|point)=(?P<value>.+)", text)
    if found is None:
        raise UserError(
            f"--reference {text}: write LABEL:IMAGE:box=X1,Y1,X2,Y2, LABEL:IMAGE:point=X,Y or LABEL:IMAGE:mask=FILE"
        )
    label, image, kind, value = found.group("label", "image", "kind", "value")
    if kind == "mask":
        return Reference(label, Path(image), mask=Path(value))
    try:
        numbers = [float(number) for number in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != NUMBERS[kind]:
        raise UserError(f"--reference {text}: {kind} needs {NUMBERS[kind]} numbers in pixels, not {value!r}")
    if kind == "point":
        return Reference(label, Path(image), point=(numbers[0], numbers[1]))
    return Reference(label, Path(image), box=(numbers[0], numbers[1], numbers[2], numbers[3]))
