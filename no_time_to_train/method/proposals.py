"""What the method knows of an image's masks, from SAM 2's proposals to candidates with a class and a score."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from no_time_to_train.method.fast.mask_logits import MaskLogits
from no_time_to_train.method.fast.masks import Masks


@dataclass
class Proposals:
    """Class-agnostic masks that SAM 2 proposes for one image, in the order of the point prompts.

    Attributes:
        logits: float32 [n, h, w], where h = w = a quarter of SAM 2's input (256); a mask's region is ``logits > 0``.
        predicted_iou: float32 [n], SAM 2's own estimate of each mask's IoU with the object.
        prompts: The number of points that were decoded.
    """

    logits: Tensor
    predicted_iou: Tensor
    prompts: int = 0

    def __len__(self) -> int:
        return len(self.predicted_iou)

    def __getitem__(self, index: Tensor) -> "Proposals":
        return Proposals(self.logits[index], self.predicted_iou[index], self.prompts)


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
        prompts: The number of points that were decoded.
        logits: What the masks are made from; None where they were read or made before, at the image's own size.
    """

    predicted_iou: Tensor
    boxes: Tensor
    vectors: Tensor
    upsampled_masks: Callable[[Tensor], Masks]
    prompts: int = 0
    logits: MaskLogits | None = None

    def __len__(self) -> int:
        return len(self.predicted_iou)

    def __getitem__(self, rows: Tensor) -> "DescribedProposals":
        """Some of the proposals, int64 [m], ready for merging."""
        return replace(
            self,
            predicted_iou=self.predicted_iou[rows],
            boxes=self.boxes[rows],
            vectors=self.vectors[rows],
            upsampled_masks=lambda chosen: self.upsampled_masks(rows[chosen]),
            logits=None,
        )

    def at_full_size(self, rows: Tensor, masks: Masks) -> Masks:
        """The masks of some proposals at the image's own size; ``masks`` are those that were made for merging."""
        return masks if self.logits is None else self.logits.at_full_size(rows, masks)

    def to(self, device: torch.device) -> "DescribedProposals":
        """The same proposals with their tensors on a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("predicted_iou", "boxes", "vectors")}
        return replace(self, **tensors)


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
