"""Proposals that others make: boxes or masks of one image, from a file, a detector or another segmenter.

The paper's grid is one way to propose masks. Whatever proposes them, the memory judges them in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.mask_proposals import MaskProposer, Seen
from no_time_to_train.method.proposals import DescribedProposals, Proposals, concatenate


@dataclass
class Given:
    """The boxes or masks that one source proposes in an image.

    Attributes:
        boxes: float32 [n, 4], xyxy in pixels of the image; x2 and y2 are excluded.
        scores: float32 [n] in [0, 1], how good each proposal is.
        masks: n masks at the image's own size; None where SAM 2 shall make one from each box.
        regions: bool [n, h, w], the pixels of SAM 2's mask size over which each mask's vector is pooled; None takes
            those of which ``masks`` covers at least a half.
    """

    boxes: Tensor
    scores: Tensor
    masks: Masks | None = None
    regions: Tensor | None = None

    @classmethod
    def of_masks(cls, masks: Masks, scores: Tensor, regions: Tensor | None = None) -> "Given":
        """Masks, none of them empty, with their boxes."""
        boxes = masks.boxes.float()
        boxes[:, 2:] += 1  # the last column and row are inside
        return cls(boxes, scores, masks, regions)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Tensor) -> "Given":
        masks = None if self.masks is None else self.masks[rows]
        regions = None if self.regions is None else self.regions[rows]
        return Given(self.boxes[rows], self.scores[rows], masks, regions)

    def best(self, count: int) -> "Given":
        """The ``count`` proposals of the highest scores; ties stay in their order."""
        return self[self.scores.argsort(descending=True, stable=True)[:count]]

    @classmethod
    def nothing(cls) -> "Given":
        """No proposal."""
        return cls(torch.zeros(0, 4), torch.zeros(0))


class Square(NamedTuple):
    """An image, or a square that shows a tile of one, and what others propose in it; see ``Segmenter.describe``."""

    image: Tensor
    height: int
    width: int
    sources: Sequence[Given | None] = (None,)
    view: Tensor | None = None


def propose_given(given: Given, proposer: MaskProposer, seen: Seen) -> Proposals:
    """SAM 2's masks of the given boxes, or the given masks as they are, with their scores as quality."""
    side, device = proposer.size // 4, seen.image.device
    boxes, scores = given.boxes.to(device), given.scores.to(device)
    if not len(given):
        return Proposals(torch.zeros(0, side, side, device=device), scores, given=boxes)
    if given.masks is not None:
        regions = _regions(given.masks, side) if given.regions is None else given.regions
        return Proposals(regions.to(device).float() - 0.5, scores, given=boxes, masks=given.masks)
    scale = boxes.new_tensor([proposer.size / seen.width, proposer.size / seen.height] * 2)
    found = proposer.decode(*proposer.encode(seen.image), boxes * scale, pred_iou_thresh=-torch.inf)
    found.given = boxes
    if seen.settings.quality == "given":
        return replace(found, predicted_iou=scores)
    return found[(found.predicted_iou > seen.settings.pred_iou_thresh).nonzero()[:, 0]]


def _regions(masks: Masks, side: int) -> Tensor:
    """The pixels bool [n, side, side] of which each mask covers a half, or any part where it is too small for that."""
    parts = [torch.zeros(0, side, side, dtype=torch.bool)]
    for index in range(len(masks)):
        share = F.interpolate(torch.from_numpy(masks[index])[None, None].float(), (side, side), mode="area")[0]
        parts.append((share >= min(0.5, float(share.max()))) & (share > 0))
    return torch.cat(parts)


def join_sources(parts: Sequence[DescribedProposals]) -> DescribedProposals:
    """The proposals of several sources in one image, which know where each is from."""
    if len(parts) == 1:
        return parts[0]
    firsts = np.cumsum([0, *map(len, parts)])

    def masks(rows: Tensor) -> Masks:
        source = np.searchsorted(firsts, rows.cpu(), side="right") - 1
        order = np.argsort(source, kind="stable")
        made = [parts[index].upsampled_masks(rows[source == index] - first) for index, first in enumerate(firsts[:-1])]
        return Masks.join(made)[np.argsort(order)]

    none = torch.full((1, 4), torch.nan, device=parts[0].boxes.device)
    given = [none.expand(len(part), -1) if part.given is None else part.given for part in parts]
    sources = [torch.full_like(part.boxes[:, 0], index) for index, part in enumerate(parts)]
    return replace(
        parts[0],
        **concatenate(parts),
        upsampled_masks=masks,
        prompts=sum(part.prompts for part in parts),
        logits=None,
        given=torch.cat(given),
        sources=torch.cat(sources),
    )


def given_boxes(boxes: Tensor, given: Tensor | None) -> Tensor:
    """The given boxes, float32 [n, 4], and those of the masks where there was none."""
    return boxes if given is None else given.where(given.isfinite(), boxes.to(given))
