"""References on the command line: ``LABEL:IMAGE:box=X1,Y1,X2,Y2``, ``:point=X,Y``, ``:mask=FILE`` or ``:mask=whole``.

``LABEL:IMAGE`` is a picture in which the object is found.

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
NUMBERS = {"box": 4, "point": 2}


@dataclass(frozen=True)
class ReferenceOption:
    """A value of ``--reference`` or ``--negative``, read without any slow import.

    Attributes:
        label: The name of the object's class.
        image: The image file.
        mask: The mask file, or "whole"; None where the value has none.
        numbers: The numbers of the box or the point; empty where the value has neither.
        option: The option.
    """

    label: str
    image: Path
    mask: Path | Literal["whole"] | None = None
    numbers: tuple[float, ...] = ()
    option: Literal["--reference", "--negative"] = "--reference"

    def reference(self) -> "Reference":
        """The reference that the value describes."""
        from no_time_to_train.data.reference_forms import Reference

        negative = self.option == "--negative"
        if self.mask is not None or not self.numbers:
            return Reference(self.label, self.image, mask=self.mask, negative=negative)
        if len(self.numbers) == NUMBERS["point"]:
            x, y = self.numbers
            return Reference(self.label, self.image, point=(x, y), negative=negative)
        x1, y1, x2, y2 = self.numbers
        return Reference(self.label, self.image, box=(x1, y1, x2, y2), negative=negative)


def parse(text: str, option: Literal["--reference", "--negative"] = "--reference") -> ReferenceOption:
    """Read a value of ``--reference`` or ``--negative``.

    Args:
        text: The value.
        option: The option.

    Raises:
        UserError: The value does not have one of the forms.
    """
    found = re.fullmatch(r"(?P<label>[^:]+):(?P<image>.+?)(:(?P<kind>box|mask|point)=(?P<value>.+))?", text)
    if found is None or (found["kind"] is None and re.search(r":\w*=", text)):
        raise UserError(
            f"{option} {text}: write LABEL:IMAGE, LABEL:IMAGE:box=X1,Y1,X2,Y2, LABEL:IMAGE:point=X,Y, "
            "LABEL:IMAGE:mask=FILE or LABEL:IMAGE:mask=whole"
        )
    label, image, kind, value = found.group("label", "image", "kind", "value")
    if kind is None:
        return ReferenceOption(label, Path(image), option=option)
    if kind == "mask":
        return ReferenceOption(label, Path(image), mask="whole" if value == "whole" else Path(value), option=option)
    try:
        numbers = tuple(float(number) for number in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != NUMBERS[kind]:
        raise UserError(f"{option} {text}: {kind} needs {NUMBERS[kind]} numbers in pixels, not {value!r}")
    return ReferenceOption(label, Path(image), numbers=numbers, option=option)
