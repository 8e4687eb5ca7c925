"""References on the command line: ``LABEL:IMAGE:box=X1,Y1,X2,Y2``, ``:point=X,Y`` or ``:mask=FILE``."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from no_time_to_train.errors import UserError

if TYPE_CHECKING:
    from no_time_to_train.data.reference_forms import Reference

#: How many numbers a box and a point have.
NUMBERS = {"box": 4, "point": 2}


@dataclass(frozen=True)
class ReferenceOption:
    """A value of ``--reference``, read without any slow import.

    Attributes:
        label: The name of the object's class.
        image: The image file.
        mask: The mask file; None where the value has a box or a point.
        numbers: The numbers of the box or the point; empty where the value has a mask.
    """

    label: str
    image: Path
    mask: Path | None = None
    numbers: tuple[float, ...] = ()

    def reference(self) -> "Reference":
        """The reference that the value describes."""
        from no_time_to_train.data.reference_forms import Reference

        if self.mask is not None:
            return Reference(self.label, self.image, mask=self.mask)
        if len(self.numbers) == NUMBERS["point"]:
            x, y = self.numbers
            return Reference(self.label, self.image, point=(x, y))
        x1, y1, x2, y2 = self.numbers
        return Reference(self.label, self.image, box=(x1, y1, x2, y2))


def parse(text: str) -> ReferenceOption:
    """Read a value of ``--reference``.

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
        return ReferenceOption(label, Path(image), mask=Path(value))
    try:
        numbers = tuple(float(number) for number in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != NUMBERS[kind]:
        raise UserError(f"--reference {text}: {kind} needs {NUMBERS[kind]} numbers in pixels, not {value!r}")
    return ReferenceOption(label, Path(image), numbers=numbers)
