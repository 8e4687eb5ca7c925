"""What is shown of a photo: what was found in it, as corrected by what a person said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from no_time_to_train.data.rle import Rle
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train_extras.app.project import Annotation

#: Masks with at least this IoU are the same object.
SAME_OBJECT = 0.5


@dataclass(frozen=True)
class Item:
    """An object that was found in a photo or confirmed.

    Attributes:
        score: In [0, 1]; 1 where a person confirmed it.
        mask: Compressed RLE at the photo's own size.
        annotation: The id of the annotation that confirms it; None where nobody did.
    """

    label: str
    score: float
    mask: Rle
    annotation: int | None = None

    @property
    def confirmed(self) -> bool:
        """Whether a person said that it is there."""
        return self.annotation is not None


def correct(found: Sequence[Item], annotations: Sequence[Annotation], thresholds: Thresholds) -> list[Item]:
    """The objects to show in a photo.

    An object that a person confirmed takes the place of what was found there, of whatever class. What a person called
    wrong is not shown, as long as it is found as that class. The rest is shown from the score of its class on.

    Args:
        annotations: What a person said about the photo.

    Returns:
        The confirmed objects in the order in which they were confirmed, and then the others in descending score.
    """
    right = [one for one in annotations if one.verdict == "right"]
    wrong = [one for one in annotations if one.verdict == "wrong"]
    items = [Item(one.label, 1.0, one.mask, one.id) for one in right]
    masks = [one.mask for one in found]
    replaced = same_object(masks, [one.mask for one in right]).any(axis=1)
    denied = same_object(masks, [one.mask for one in wrong])
    denied &= np.array([[one.label == other.label for other in wrong] for one in found], bool).reshape(denied.shape)
    for one, hidden in zip(found, replaced | denied.any(axis=1), strict=True):
        if not hidden and one.score >= thresholds.of(one.label):
            items.append(one)
    return items[: len(right)] + sorted(items[len(right) :], key=lambda item: -item.score)


def doubt(items: Sequence[Item], thresholds: Thresholds) -> float:
    """How near a photo's least certain object is to the threshold of its class, from 0, far, to 1, at the threshold.

    Args:
        items: From :func:`correct`, with low thresholds, so that objects that just miss their threshold count as well.
    """
    return max((1 - abs(item.score - thresholds.of(item.label)) for item in items if not item.confirmed), default=0.0)


def same_object(masks: Sequence[Rle], others: Sequence[Rle]) -> Any:
    """Which masks show the same object: bool [n, m] for n masks and m others of one photo."""
    if not masks or not others:
        return np.zeros((len(masks), len(others)), bool)
    return coco_mask.iou(list(masks), list(others), [0] * len(others)) >= SAME_OBJECT
