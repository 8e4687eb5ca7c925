"""The result of the method for one image."""

from dataclasses import dataclass

from torch import Tensor

from no_time_to_train.method.fast.masks import Masks


@dataclass
class Detections:
    """The instances found in one image, in descending order of score, on the CPU.

    Attributes:
        masks: n masks at the image's own size.
        boxes: int64 [n, 4], xyxy pixel indices of the masks; x2 and y2 are included, so a box one pixel wide has
            x1 == x2 (as in the published code). With ``Settings.output_box`` "proposal", float32.
        scores: float32 [n] in [0, 1].
        classes: int64 [n], index of the class in the memory.
        prompts: The number of prompts that were decoded to find them; 0 where it is not known.
        vectors: float32 [n, D], what the encoder says about each mask; None where they were read from a file.
        sources: int64 [n], which of several sources of proposals each is from; None where there is one.
    """

    masks: Masks
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    prompts: int = 0
    sources: Tensor | None = None
    vectors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Tensor | slice) -> "Detections":
        sources, vectors = (None if one is None else one[index] for one in (self.sources, self.vectors))
        rows = self.masks[index], self.boxes[index], self.scores[index], self.classes[index]
        return Detections(*rows, self.prompts, sources, vectors)
