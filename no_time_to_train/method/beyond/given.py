"""Proposals that others make: boxes or masks of one image, from a file, a detector or another segmenter.

The paper's grid is one way to propose masks. Whatever proposes them, the memory judges them in the same way.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from no_time_to_train.method.fast.masks import Masks


@dataclass
class Given:
    """The boxes or masks that one source proposes in an image, in descending order of score.

    Attributes:
        boxes: float32 [n, 4], xyxy in pixels of the image; x2 and y2 are excluded.
        scores: float32 [n] in [0, 1], how good each proposal is.
        masks: n masks at the image's own size; None where SAM 2 shall make one from each box.
    """

    boxes: Tensor
    scores: Tensor
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def best(self, count: int) -> "Given":
        """The ``count`` proposals of the highest scores; ties stay in their order."""
        rows = self.scores.argsort(descending=True, stable=True)[:count]
        return Given(self.boxes[rows], self.scores[rows], None if self.masks is None else self.masks[rows])

    @classmethod
    def nothing(cls) -> "Given":
        """No proposal."""
        return cls(torch.zeros(0, 4), torch.zeros(0))
