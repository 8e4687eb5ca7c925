"""What the method knows of an image's masks, from SAM 2's proposals to candidates with a class and a score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from no_time_to_train.method.fast.mask_logits import MaskLogits
from no_time_to_train.method.fast.masks import Masks


@dataclass
class Proposals:
    """Class-agnostic masks that are proposed for one image, by SAM 2 in the order of the point prompts.

    Attributes:
        logits: float32 [n, h, w], where h = w = a quarter of SAM 2's input (256); a mask's region is ``logits > 0``.
        predicted_iou: float32 [n], SAM 2's own estimate of each mask's IoU with the object.
        prompts: The number of prompts that were decoded.
        given: float32 [n, 4], the boxes that were prompts, xyxy in pixels of the image; None where there were none.
        masks: The masks at the image's own size, where these were proposed and the logits only show their regions.
    """

    logits: Tensor
    predicted_iou: Tensor
    prompts: int = 0
    given: Tensor | None = None
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.predicted_iou)

    def __getitem__(self, index: Tensor) -> "Proposals":
        given = None if self.given is None else self.given[index]
        masks = None if self.masks is None else self.masks[index.cpu()]
        return Proposals(self.logits[index], self.predicted_iou[index], self.prompts, given, masks)


@dataclass
class DescribedProposals:
    """The proposals of one image with all that classifying and merging them needs.

    They do not depend on the memory, except with guided prompts.

    Attributes:
        predicted_iou: float32 [n], SAM 2's own estimate of each mask's IoU.
        boxes: int64 [n, 4], xyxy pixel indices of the regions at SAM 2's mask size (256); x2 and y2 are included. With
            tiles, in a finer frame of the whole image (``tiles.join``).
        vectors: float32 [n, D] mask vectors, L2-normalized.
        upsampled_masks: Makes the masks of some proposals, given as int64 [m] row numbers, for merging. Most proposals
            are suppressed before their masks are needed.
        prompts: The number of prompts that were decoded.
        logits: What the masks are made from; None where they were read or made before, at the image's own size.
        grid: Height and width of the feature map that the vectors are from; (0, 0) where nobody asks for it.
        given: float32 [n, 4], the box that each was made from, xyxy in pixels of the image, and NaN where it was made
            from none; None where no boxes were given.
        sources: int64 [n], which of several sources proposed each; None where there is one source.
    """

    predicted_iou: Tensor
    boxes: Tensor
    vectors: Tensor
    upsampled_masks: Callable[[Tensor], Masks]
    prompts: int = 0
    logits: MaskLogits | None = None
    grid: tuple[int, int] = (0, 0)
    given: Tensor | None = None
    sources: Tensor | None = None

    def __len__(self) -> int:
        return len(self.predicted_iou)

    def __getitem__(self, rows: Tensor) -> "DescribedProposals":
        """Some of the proposals, int64 [m], ready for merging."""
        tensors = {name: tensor[rows] for name, tensor in self.tensors().items()}
        return replace(self, **tensors, upsampled_masks=lambda chosen: self.upsampled_masks(rows[chosen]), logits=None)

    def at_full_size(self, rows: Tensor, masks: Masks) -> Masks:
        """The masks of some proposals at the image's own size; ``masks`` are those that were made for merging."""
        return masks if self.logits is None else self.logits.at_full_size(rows, masks)

    def to(self, device: torch.device) -> "DescribedProposals":
        """The same proposals with their tensors on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def to_host(self) -> "DescribedProposals":
        """The same proposals with their tensors on the CPU. The numbers that every image has are copied at once."""
        if self.boxes.is_cpu:
            return self
        numbers = torch.cat([self.predicted_iou[:, None], self.boxes.to(self.vectors), self.vectors], dim=1).cpu()
        moved = replace(self, predicted_iou=numbers[:, 0], boxes=numbers[:, 1:5].long(), vectors=numbers[:, 5:])
        return moved.to(numbers.device)

    def tensors(self) -> dict[str, Any]:
        """Those attributes that are tensors, each with one row per proposal."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


def concatenate(parts: Sequence[DescribedProposals]) -> dict[str, Any]:
    """The tensors that all proposals have, by name: those of several parts in their order."""
    return {name: torch.cat([getattr(part, name) for part in parts]) for name in ("predicted_iou", "boxes", "vectors")}


@dataclass
class Candidates:
    """Proposals with a class and a score, in descending order of predicted IoU.

    Attributes:
        rows: int64 [n], the row of each candidate's proposal. A proposal with several classes appears once per class.
        scores: float32 [n] in [0, 1], cosine similarity with the class's prototype.
        classes: int64 [n] in [0, C).
    """

    rows: Tensor
    scores: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Tensor | slice) -> "Candidates":
        return Candidates(self.rows[index], self.scores[index], self.classes[index])
