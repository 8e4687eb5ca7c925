"""The thresholds that nobody has to choose: per class, by leave-one-out over its shots (docs/references.md)."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import cv2
import numpy as np
import torch

from no_time_to_train.analysis.annotated_proposals import annotate
from no_time_to_train.analysis.leave_one_out import MeasuredImage, leave_one_out
from no_time_to_train.analysis.score_thresholds import best_thresholds
from no_time_to_train.app.project import Annotation
from no_time_to_train.app.shots import shown_in
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.settings import Settings

#: The longer side at which masks are compared, in pixels.
SIDE = 256

#: Photos whose small masks stay in memory, some megabytes each.
KEPT_PHOTOS = 40


class AutomaticThresholds:
    """Finds the threshold of each class by leave-one-out over the photos in which it was shown.

    Args:
        proposals: Returns the proposals of a photo; None where it has none yet.
    """

    def __init__(self, proposals: Callable[[str], DescribedProposals | None], settings: Settings) -> None:
        self.proposals, self.settings = proposals, settings
        self.small: OrderedDict[str, DescribedProposals] = OrderedDict()

    def measure(
        self, bank: MemoryBank, annotations: Iterable[Annotation], is_outdated: Callable[[], bool]
    ) -> Mapping[str, float] | None:
        """The thresholds.

        Returns:
            Scores by class, of classes that have enough shots in different photos; None where it is outdated.
        """
        shots: dict[str, dict[int, Annotation]] = {}
        for number, one in shown_in(bank, list(annotations)).items():
            shots.setdefault(one.photo, {})[number] = one
        outdated = False

        def images() -> Iterator[MeasuredImage]:
            nonlocal outdated
            for name, of_photo in shots.items():
                outdated = outdated or is_outdated()
                if not outdated and (image := self._image(name, of_photo)) is not None:
                    yield image

        scores = leave_one_out(bank, images(), self.settings)
        if outdated:
            return None
        found = zip(bank.categories, best_thresholds(scores.classes), strict=True)
        return {category.name: threshold.score for category, threshold in found if threshold is not None}

    def _image(self, name: str, shots: Mapping[int, Annotation]) -> MeasuredImage | None:
        """A photo with its shots; None where it has no proposals."""
        masks = [decode_mask(one.mask) for one in shots.values()]
        height, width = masks[0].shape
        small = self._small(name, height, width)
        if small is None:
            return None
        return MeasuredImage(name, annotate(small, (height, width), masks), list(shots))

    def _small(self, name: str, height: int, width: int) -> DescribedProposals | None:
        """The proposals of a photo with small masks."""
        if name in self.small:
            self.small.move_to_end(name)
            return self.small[name]
        proposals = self.proposals(name)
        if proposals is None:
            return None
        scale = min(SIDE / max(height, width), 1)
        size = max(round(scale * height), 1), max(round(scale * width), 1)
        masks = small_masks(proposals, *size)
        self.small[name] = replace(proposals, upsampled_masks=masks.__getitem__, logits=None)
        if len(self.small) > KEPT_PHOTOS:
            self.small.popitem(last=False)
        return self.small[name]


def small_masks(proposals: DescribedProposals, height: int, width: int) -> Masks:
    """The masks of all proposals, made small one by one: those of a large photo would not fit into memory together.

    Args:
        height: Height of the small masks in pixels.
        width: Width of the small masks in pixels.
    """
    small = np.zeros((len(proposals), height, width), bool)
    for number, row in enumerate(torch.arange(len(proposals)).split(1)):
        mask = proposals.at_full_size(row, proposals.upsampled_masks(row))[0].astype(np.float32)
        small[number] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) >= 0.5
    return Masks.pack(small)
