"""The threshold of each class: checked where a user gives it, or measured on the references' own images."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from no_time_to_train.api.measurement import Measurement
from no_time_to_train.data.names import as_known
from no_time_to_train.errors import UserError, UserNotice, suggest
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import Settings
from no_time_to_train.networks.registry import Precision
from no_time_to_train.ranges import Fraction, check_number

#: The lowest score of an instance that counts: of any class, of each class by name, or measured.
Threshold = float | Mapping[str, float] | Literal["auto"]

#: The threshold where nothing else is said.
USUAL_THRESHOLD = 0.5


def class_thresholds(
    threshold: Threshold, labels: Sequence[str], measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """The threshold of each class, checked.

    Args:
        threshold: One for all classes; or some classes' by name, where the others get ``USUAL_THRESHOLD``; or "auto".
        measure: Measures the thresholds, of some classes perhaps.
    """
    if isinstance(threshold, str) and threshold == "auto":
        threshold = measure()
        missing = ", ".join(label for label in labels if label not in threshold)
        if not threshold:
            raise UserError(
                f"threshold 'auto' cannot be measured for {missing}: that needs references of a class in two images; "
                "add some, or give the threshold as a number"
            )
        if missing:
            why = "not measured: that needs references in two images"
            warnings.warn(f"threshold 'auto': {missing}: {USUAL_THRESHOLD:g} ({why})", UserNotice, stacklevel=4)
    if not isinstance(threshold, Mapping):
        check_number("threshold", threshold, Fraction)
        return dict.fromkeys(labels, float(threshold))
    threshold = {as_known(str(label), labels): one for label, one in threshold.items()}
    for label, lowest in threshold.items():
        if label not in labels:
            raise UserError(f"threshold: there is no class {label!r}{suggest(str(label), labels)}")
        check_number(f"threshold of {label}", lowest, Fraction)
    return {label: float(threshold.get(label, USUAL_THRESHOLD)) for label in labels}


def renamed(threshold: Threshold, score: Threshold | None) -> Threshold:
    """The threshold, which may have been given by its old name."""
    if score is None:
        return threshold
    warnings.warn("score= is called threshold= now", DeprecationWarning, stacklevel=3)
    return score


class MeasuredThresholds:
    """The thresholds of the last memory that was asked for, with the settings that they were measured with."""

    def __init__(self) -> None:
        self._last: tuple[MemoryBank, Settings, dict[str, float]] | None = None

    def of(self, memory: MemoryBank, segmenter: Segmenter, precision: Precision) -> dict[str, float]:
        """The thresholds by class; classes of which nothing can be known are missing."""
        if self._last is None or self._last[0] is not memory or self._last[1] != segmenter.settings:
            known = memory.keep_references([number for number, image in enumerate(memory.images) if image is not None])
            if known is None:
                raise UserError(
                    "threshold 'auto' measures the references on their own images, which a memory file does not have: "
                    "add references, or give the threshold as a number"
                )
            thresholds = Measurement(known, segmenter, precision, each=False).report().thresholds
            self._last = memory, segmenter.settings, thresholds
        return dict(self._last[2])
