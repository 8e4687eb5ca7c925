"""What the networks say about one image, before the memory decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.beyond.tiles import target_squares
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.networks.registry import Precision


@dataclass
class ImageProposals:
    """The proposals of one image, from ``ReferenceSegmenter.propose`` to ``ReferenceSegmenter.classify``.

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


def propose(
    pixels: NDArray[np.uint8], segmenter: Segmenter, precision: Precision, sources: Sequence[Given | None] = (None,)
) -> DescribedProposals:
    """The proposals of an image, uint8 [H, W, 3] RGB.

    Args:
        precision: What the networks compute in.
        sources: What others propose in it; None stands for SAM 2's own prompts.
    """
    assert segmenter.proposer is not None
    device, settings = segmenter.encoder.normalize.mean.device, segmenter.settings
    squares = target_squares(pixels, segmenter.proposer.size, settings.tiles, settings.tile_overlap)
    with computing_in(precision, device):
        return segmenter.describe(squares.to(device), pixels.shape[0], pixels.shape[1], sources)
