"""The proposals of an image whose objects are annotated: which of them covers which object."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from no_time_to_train.method.beyond.tile_masks import ChosenMasks
from no_time_to_train.method.fast.packed_masks import PackedMasks
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.upsample import LogitMasks

#: The longer side at which masks are compared, in pixels: SAM 2's own masks have 256.
SIDE = 512


@dataclass
class AnnotatedProposals:
    """The n proposals of an image and its m annotated instances.

    Attributes:
        proposals: The proposals. Their masks are no larger than ``SIDE`` and kept as bits, so that they can be ranked
            with many memories in a short time.
        iou: float32 [n, m], the IoU of each proposal with each instance, at that size.
        inside: float32 [n, m], the share of each proposal that lies inside each instance.
        covered: float32 [n, m], the share of each instance that each proposal covers.
        areas: float32 [m], the area of each instance as a share of the image.
    """

    proposals: DescribedProposals
    iou: Tensor
    inside: Tensor
    covered: Tensor
    areas: Tensor

    def __len__(self) -> int:
        return len(self.proposals)


class KeptMasks:
    """Masks that were made once, as ``DescribedProposals.upsampled_masks``.

    Args:
        masks: All n masks of an image.
    """

    def __init__(self, masks: PackedMasks) -> None:
        self.masks = masks

    def __call__(self, rows: Tensor) -> PackedMasks:
        """The masks of some proposals, int64 [m] in [0, n)."""
        return self.masks[rows.cpu().numpy()]


def annotate(
    proposals: DescribedProposals,
    size: tuple[int, int],
    instances: Sequence[NDArray[np.bool_]],
    side: int = SIDE,
) -> AnnotatedProposals:
    """Compare the proposals of an image with its annotated instances.

    Args:
        proposals: The image's proposals.
        size: The image's height and width in pixels.
        instances: The mask of each annotated instance, bool [H, W].
        side: The longer side at which masks are compared, in pixels; less takes less memory.

    Returns:
        The proposals, ready to be ranked.
    """
    height, width = size
    scale = min(side / max(height, width), 1)
    make = proposals.upsampled_masks
    if isinstance(make, LogitMasks):
        make = replace(make, height=max(round(scale * height), 1), width=max(round(scale * width), 1))
    made = make(torch.arange(len(proposals)))
    masks = made.compared if isinstance(made, ChosenMasks) else made
    assert isinstance(masks, PackedMasks)
    reduced = masks.width, masks.height
    small = [cv2.resize(one.astype(np.uint8), reduced, interpolation=cv2.INTER_AREA) for one in instances]
    truth = PackedMasks.pack(np.array(small, bool).reshape(-1, *reduced[::-1]))
    shared = np.zeros((len(masks), len(truth)))
    for index, tiles in enumerate(truth.tiles):
        shared[:, index] = np.bitwise_count(masks.tiles & tiles).sum(axis=(1, 2, 3))
    union = masks.areas[:, None] + truth.areas - shared
    areas = [one.mean() for one in instances]
    return AnnotatedProposals(
        replace(proposals, upsampled_masks=KeptMasks(masks)),
        torch.from_numpy(shared / np.maximum(union, 1)).float(),
        torch.from_numpy(shared / np.maximum(masks.areas[:, None], 1)).float(),
        torch.from_numpy(shared / np.maximum(truth.areas, 1)).float(),
        torch.tensor(areas, dtype=torch.float32),
    )
