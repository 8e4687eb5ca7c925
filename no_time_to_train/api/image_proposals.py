"""What the networks say about one image, before the memory decides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.method.beyond.given import Given, Square
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
        sources: What others propose in it; None stands for SAM 2's own prompts.
    """
    return next(propose_each([(pixels, sources)], segmenter, precision))


def propose_each(
    images: Sequence[tuple[NDArray[np.uint8], Sequence[Given | None]]], segmenter: Segmenter, precision: Precision
) -> Iterator[DescribedProposals]:
    """:func:`propose` for several images, of which the encoders take ``segmenter.images`` at once."""
    assert segmenter.proposer is not None
    device, settings = segmenter.encoder.normalize.mean.device, segmenter.settings
    tiling = segmenter.proposer.size, settings.tiles, settings.tile_overlap
    described = segmenter.describe_each(
        Square(target_squares(pixels, *tiling).to(device), pixels.shape[0], pixels.shape[1], sources)
        for pixels, sources in images
    )
    for _ in images:
        with computing_in(precision, device):  # not while the caller works on an image
            proposals = next(described)
        yield proposals
