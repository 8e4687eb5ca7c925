"""The check that no NaN and no infinity from a network or a memory reaches a score."""

from torch import Tensor

from no_time_to_train.errors import UserError


def check_finite(values: Tensor, source: str, file: str = "checkpoint") -> Tensor:
    """Return the values, or raise an error where one is NaN or infinite: scores would be wrong without any sign of it.

    Args:
        values: float tensor. A sum of many numbers checks all of them, because it is not finite if one of them is not.
        source: What the values are from, such as ``SAM 2``.
        file: The kind of its file.
    """
    if not values.isfinite().all():
        raise UserError(f"{source} gives values that are not finite: is its {file} damaged?")
    return values
