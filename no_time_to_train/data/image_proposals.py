"""What the networks say about one image, before the memory decides."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.method.proposals import DescribedProposals


@dataclass
class ImageProposals:
    """The proposals of one image, from ``ReferenceSegmenter.propose`` to ``ReferenceSegmenter.rank``.

    Attributes:
        pixels: uint8 [H, W, 3] RGB, the image.
        path: The image's file, where it was read from one.
        proposals: Its masks with their vectors, on the device of the networks.
    """

    pixels: NDArray[np.uint8]
    path: Path | None
    proposals: DescribedProposals

    def __len__(self) -> int:
        return len(self.proposals)
