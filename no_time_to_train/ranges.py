"""Ranges of numbers, declared where a number is: ``points: Annotated[int, Range(1)] = 32``.

The same declaration serves the configuration, the options of the commands and the Python API. It is checked by
:func:`check_number`, for all fields of a dataclass by :func:`check_fields`, and for text by :func:`parse_number`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import floor
from numbers import Integral, Real
from reprlib import repr as short_repr
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from no_time_to_train.errors import UserError
from no_time_to_train.plugins import OwnPart, find_plugin, is_plugin

#: The largest number where a range has no end: that of 64 bits, which torch and numpy compute with.
LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """What a number may be. NaN and infinity are in no range.

    Attributes:
        least: The smallest number.
        most: The largest number; None means any of 64 bits.
        multiple_of: Only multiples of this number; None means all.
        also: One number outside the range that is allowed as well; None means none.
    """

    least: float
    most: float | None = None
    multiple_of: int | None = None
    also: int | None = None

    def __contains__(self, value: float) -> bool:
        if self.also is not None and value == self.also:
            return True
        inside = self.least <= value <= (LARGEST if self.most is None else self.most)  # never with NaN
        return inside and (self.multiple_of is None or value % self.multiple_of == 0)

    def __str__(self) -> str:
        """The range in words: ``1 or more``, ``0 to 1``, ``-1, or 1 or more``."""
        if self.least == self.most:
            words = f"{self.least}"
        else:
            words = f"{self.least} or more" if self.most is None else f"{self.least} to {self.most}"
        if self.multiple_of is not None:
            words = f"a multiple of {self.multiple_of}, {words}"
        return words if self.also is None else f"{self.also}, or {words}"


Positive = Annotated[int, Range(1)]
NonNegative = Annotated[int, Range(0)]
Fraction = Annotated[float, Range(0, 1)]

#: Seeds that each of the generators takes. Python's own makes no difference between a seed and its negative.
Seed = Annotated[int, Range(0, 2**32 - 1)]


def range_of(hint: Any) -> tuple[type[int] | type[float], Range] | None:
    """The type of number and the range that a type hint declares; None where it declares no range.

    Args:
        hint: Such as ``Positive`` or ``Positive | None``.
    """
    for part in (hint, *get_args(hint)):
        if get_origin(part) is Annotated:
            kind, *more = get_args(part)
            for one in more:
                if isinstance(one, Range):
                    return kind, one
    return None


def check_number(name: str, value: object, hint: Any) -> None:
    """Check that a number is in its range.

    Args:
        name: What the number is called, for the message.
        value: The number, or None where the type hint allows it.
        hint: The type hint that declares the range. Without a range, nothing is checked.
    """
    declared = range_of(hint)
    if declared is None or (value is None and type(None) in get_args(hint)):
        return
    kind, allowed = declared
    right_type = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if not right_type or value not in allowed:  # type: ignore[operator]  # numpy's numbers are no int or float
        is_large = right_type and kind is int and value > LARGEST  # type: ignore[operator]  # as above
        more = ": it has more than 64 bits" if is_large else ""
        raise UserError(f"{name} must be {_words(kind)} ({allowed}), not {short_repr(value)}{more}")


def check_type(name: str, value: object, kinds: Any) -> None:
    """Check that a value is of a type, or of one of several, such as ``str | Path | None``."""
    if not isinstance(value, kinds) or (kinds is Iterable and getattr(value, "ndim", 1) == 0):  # of a single number
        raise UserError(f"{name} must be {getattr(kinds, '__name__', kinds)}, not {short_repr(value)}")


def check_choice(name: str, value: object, hint: Any) -> object:
    """Check that a value is one of a few, and return it; where the hint has ``OwnPart``, also a part of one's own.

    Args:
        name: What the value is called, for the message.
        value: The value, or None where the type hint allows it.
        hint: The type hint that declares the values: a ``Literal``, or a ``Literal | None``.
    """
    known = choices_of(hint)
    if OwnPart in get_args(hint) and is_plugin(value):
        return find_plugin(value)
    if (not isinstance(value, str) or value not in known) and not (value is None and type(None) in get_args(hint)):
        raise UserError(f"{name} must be one of {', '.join(known)}, not {short_repr(value)}")
    return value


def choices_of(hint: Any) -> list[Any]:
    """The values of the ``Literal`` in a type hint; none where there is none."""
    literals = [part for part in (hint, *get_args(hint)) if get_origin(part) is Literal]
    return [choice for literal in literals for choice in get_args(literal)]


def check_value(name: str, value: object, hint: Any) -> None:
    """Check a value of a configuration: a number in a range, one of a few texts, or true or false.

    Args:
        hint: Its type hint. Nothing is checked where it is another one.
    """
    parts, is_bool = (hint, *get_args(hint)), type(value).__name__ in ("bool", "bool_")  # numpy's as well
    if range_of(hint) and isinstance(value, str):
        parse_number(name, value, hint)
    elif range_of(hint):
        check_number(name, value, hint)
    elif choices_of(hint):
        check_choice(name, value, hint)
    elif bool in parts and not (is_bool or (value is None and type(None) in parts)):
        raise UserError(f"{name} must be true or false, not {short_repr(value)}")


def parse_number(name: str, text: str, hint: Any) -> float:
    """The number that a text states."""
    declared = range_of(hint)
    assert declared is not None
    try:
        number = declared[0](text)
    except ValueError:
        raise UserError(f"{name} must be {_words(declared[0])} ({declared[1]}), not {short_repr(text)}") from None
    check_number(name, number, hint)
    return number


def check_fields(instance: Any) -> None:
    """Check all numbers, choices and bools of a dataclass, in its ``__post_init__``."""
    hints = get_type_hints(type(instance), include_extras=True)
    for field in fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        check_number(field.name, value, hint)
        check_value(field.name, value, hint)  # which takes a text for a number
        if choices_of(hint):
            object.__setattr__(instance, field.name, check_choice(field.name, value, hint))  # it may be frozen


def two_decimals(score: float) -> str:
    """A score as pictures and pages show it, cut off: the object reaches the threshold that is read there."""
    return f"{floor(100 * round(score, 6) + 1e-9) / 100:.2f}"


def _words(kind: type) -> str:
    return "a whole number" if kind is int else "a number"
