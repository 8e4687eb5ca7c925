"""What networks return, as proposals."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.encoder import check_finite
from no_time_to_train.method.fast.masks import Masks


def given_boxes_within(boxes: Tensor, scores: Tensor, height: int, width: int) -> Given:
    """Boxes, xyxy in pixels, [n, 4], as far as they lie in the image and are not thinner than a pixel, best first."""
    check_finite(torch.cat([boxes, scores[:, None]], dim=1), "the source of proposals")
    boxes = clip_boxes_to_image(boxes, (height, width)).cpu()
    rows = remove_small_boxes(boxes, min_size=1)
    return Given(boxes[rows], scores.cpu()[rows]).best(len(rows))


def given_masks(masks: Sequence[Masks], scores: Tensor, height: int, width: int) -> Given:
    """Masks of an image, none of them empty, with their boxes, best first."""
    check_finite(scores, "the source of proposals")
    joined = Masks.join([Masks.pack(np.zeros((0, height, width), bool)), *masks])
    return Given.of_masks(joined, scores.cpu()).best(len(joined))


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box of a mask, bool [H, W], that is not empty: xyxy in pixels; x2 and y2 are excluded."""
    x1, y1, x2, y2 = Masks.pack(mask[None]).boxes[0].tolist()
    return x1, y1, x2 + 1, y2 + 1
