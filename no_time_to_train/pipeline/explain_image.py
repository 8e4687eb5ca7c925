"""The old name of ``ReferenceSegmenter.explain``, for this version."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.images import ImageInput, MaskInput

if TYPE_CHECKING:
    from no_time_to_train_extras.missed_objects.explain import Finding


def explain_image(
    segmenter: ReferenceSegmenter,
    image: ImageInput,
    truth: Sequence[tuple[str, MaskInput]],
    score: float = 0.5,
    iou: float = 0.5,
) -> "list[Finding | None]":
    """``segmenter.explain(image, truth, score, iou)``."""
    warnings.warn("explain_image is now ReferenceSegmenter.explain", DeprecationWarning, stacklevel=2)
    return segmenter.explain(image, truth, score, iou)
