"""What references are worth, measured image by image."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from no_time_to_train.analysis.leave_one_out import measured_image, references_by_image
from no_time_to_train.analysis.measure_references import conclude, examine
from no_time_to_train.analysis.reference_report import ReferenceReport
from no_time_to_train.api.image_proposals import propose
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.registry import Precision


class Measurement:
    """Measures what the references of a memory, which has their images, are worth. Its length is that of the images.

    Args:
        each: Measure what each reference is worth, too; thresholds alone need less time.
    """

    def __init__(self, bank: MemoryBank, segmenter: Segmenter, precision: Precision, each: bool = True) -> None:
        self.bank, self.precision, self.each = bank, precision, each
        self.segmenter = Segmenter(segmenter.encoder, segmenter.proposer, settings=segmenter.settings)
        self.images = references_by_image(bank)

    def __len__(self) -> int:
        return len(self.images)

    def record(self, index: int) -> dict[str, Any]:
        """What an image, by its number, says about the references, as JSON values."""
        image = measured_image(self.bank, self.images[index], self._propose)
        return examine(self.bank, image, self.segmenter.settings, self.segmenter.encoder, self.each)

    def report(self, records: Iterable[dict[str, Any]] | None = None) -> ReferenceReport:
        """What the references are worth, by the :meth:`record` of each image; None looks at all images now."""
        if records is None:
            records = map(self.record, tqdm(range(len(self)), desc="checking references", unit=" image"))
        return conclude(self.bank, records, self.segmenter.settings)

    def _propose(self, pixels: NDArray[np.uint8], others: MemoryBank) -> DescribedProposals:
        assert others.prototypes is not None
        self.segmenter.remember(others.prototypes, others.negatives)  # guided prompts look at them
        return propose(pixels, self.segmenter, self.precision)
