"""The proposals of an image whose objects are annotated: which of them covers which object."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.proposals import DescribedProposals

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


def annotate(
    proposals: DescribedProposals, size: tuple[int, int], instances: Sequence[NDArray[np.bool_]], side: int = SIDE
) -> AnnotatedProposals:
    """Compare the proposals of an image with its annotated instances.

    Args:
        size: The image's height and width in pixels.
        instances: The mask of each annotated instance, bool [H, W].
        side: The longer side at which masks are compared, in pixels; less takes less memory.
    """
    rows = torch.arange(len(proposals))
    if proposals.logits is None:
        masks = proposals.upsampled_masks(rows)
        size = masks.height, masks.width  # the app's masks are smaller than its photos
    else:
        size = proposals.logits.compared_size(side)
        masks = proposals.logits.at_size(rows, *size)
    small = [cv2.resize(one.astype(np.uint8), size[::-1], interpolation=cv2.INTER_AREA) for one in instances]
    truth = Masks.pack(np.array(small, bool).reshape(-1, *size))
    shared = Masks.join([masks, truth]).intersections()[: len(masks), len(masks) :]
    union = masks.areas[:, None] + truth.areas - shared
    areas = [one.mean() for one in instances]
    return AnnotatedProposals(
        replace(proposals, upsampled_masks=masks.__getitem__, logits=None),
        torch.from_numpy(shared / np.maximum(union, 1)).float(),
        torch.from_numpy(shared / np.maximum(masks.areas[:, None], 1)).float(),
        torch.from_numpy(shared / np.maximum(truth.areas, 1)).float(),
        torch.tensor(areas, dtype=torch.float32),
    )
