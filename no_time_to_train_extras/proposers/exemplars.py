"""SAM 3 shown one object: it looks for others of the same kind in the same picture.

SAM 3 takes exemplars from the target image only. Its authors advise to put reference and target into one picture
(github.com/facebookresearch/sam3, issue 183). Negative exemplars do harm there (arXiv 2604.05433): negative references
judge SAM 3's masks afterwards, as they judge all proposals.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from no_time_to_train.errors import UserError
from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train_extras.proposers.outputs import box_of, given_masks
from no_time_to_train_extras.proposers.pretrained_models import load_model

#: The side of the reference's strip, as a share of the target's side next to which it is not: 3 in 10 of the canvas.
STRIP = 3 / 7

#: How much of the reference is seen around the object on each side, as a share of the object's size.
AROUND = 0.5

#: Gray where the canvas is empty: SAM 3's mean.
GRAY = 128

#: The lowest score of a proposal; SAM 3 always returns 200.
LOWEST = 0.05


class Exemplar(NamedTuple):
    """An object that is to be found again: an image, uint8 [H, W, 3] RGB, and its mask there, bool [H, W]."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


class Sam3Exemplars:
    """SAM 3's masks of what looks like the references, from one canvas for each of them.

    Attributes:
        exemplars: The positive references. Objects that look alike, but are none, do not belong here.
    """

    def __init__(
        self, weights: str, device: str | torch.device | None = None, exemplars: Sequence[Exemplar] = ()
    ) -> None:
        self.exemplars = list(exemplars)
        self.model, self.prepare = load_model("Sam3Model", "Sam3Processor", weights, device)

    def __call__(self, pixels: NDArray[np.uint8]) -> Given:
        if not self.exemplars:
            raise UserError("sam3 proposes what looks like the references: show it one first")
        found = [one for exemplar in self.exemplars for one in self._look_for(exemplar, pixels)]
        scores = torch.tensor([score for _, score in found])
        return given_masks([mask for mask, _ in found], scores, *pixels.shape[:2])

    @torch.inference_mode()
    def _look_for(self, exemplar: Exemplar, pixels: NDArray[np.uint8]) -> Iterator[tuple[Masks, float]]:
        """The masks with their scores that SAM 3 finds in an image for one exemplar."""
        canvas, box = draw_canvas(exemplar, pixels)
        inputs = self.prepare(
            images=Image.fromarray(canvas), input_boxes=[[box]], input_boxes_labels=[[1]], return_tensors="pt"
        )
        found = self.model(**inputs.to(self.model.device))
        scores = (found.pred_logits.sigmoid() * found.presence_logits.sigmoid())[0].tolist()
        for logits, score in zip(found.pred_masks[0], scores, strict=True):
            if score >= LOWEST:
                mask = F.interpolate(logits[None, None], canvas.shape[:2], mode="bilinear")[0, 0] > 0
                part = mask[: pixels.shape[0], : pixels.shape[1]]
                if 2 * part.sum() >= mask.sum() > 0:  # most of the object is in the target
                    yield Masks.pack(part[None]), score


def draw_canvas(exemplar: Exemplar, target: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[float]]:
    """The target at the upper left, as it is, and the reference's surroundings to its right or below it.

    The reference lies next to the target's longer side, because SAM 3 makes every picture a square.

    Returns:
        The canvas, uint8 [H', W', 3], and the box of the object in it, xyxy in pixels; x2 and y2 are excluded.
    """
    if not exemplar.mask.any():
        raise UserError("sam3 cannot look for a reference whose mask is empty")
    height, width = target.shape[:2]
    beside = height >= width
    strip = max(1, round(min(height, width) * STRIP))
    rows, columns = (height, strip) if beside else (strip, width)
    top, left = (0, width) if beside else (height, 0)
    x1, y1, x2, y2 = box_of(exemplar.mask)
    margin_x, margin_y = round((x2 - x1) * AROUND), round((y2 - y1) * AROUND)
    crop_x, crop_y = max(x1 - margin_x, 0), max(y1 - margin_y, 0)
    crop = exemplar.image[crop_y : y2 + margin_y, crop_x : x2 + margin_x]
    scale = min(rows / crop.shape[0], columns / crop.shape[1])
    size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))  # width and height
    canvas = np.full((max(height, top + rows), max(width, left + columns), 3), GRAY, np.uint8)
    canvas[:height, :width] = target
    canvas[top : top + size[1], left : left + size[0]] = Image.fromarray(crop).resize(size)
    scale_x, scale_y = size[0] / crop.shape[1], size[1] / crop.shape[0]
    box = [
        left + (x1 - crop_x) * scale_x,
        top + (y1 - crop_y) * scale_y,
        left + (x2 - crop_x) * scale_x,
        top + (y2 - crop_y) * scale_y,
    ]
    return canvas, box
