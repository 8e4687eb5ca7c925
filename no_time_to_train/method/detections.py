"""The result of the method for one image."""

from dataclasses import dataclass

from torch import Tensor

from no_time_to_train.method.fast.mask_crops import MaskCrops


@dataclass
class Detections:
    """The instances found in one image, in descending order of score.

    Attributes:
        masks: bool [n, H, W] at the image's own size. With tiles or from a file, masks that would take more than a
            gigabyte are a ``MaskCrops``, which makes one of them at a time.
        boxes: int64 [n, 4], xyxy pixel indices of the masks; x2 and y2 are included, so a box one pixel wide has
            x1 == x2 (as in the published code).
        scores: float32 [n] in [0, 1].
        classes: int64 [n], index of the class in the memory.
        prompts: The number of points that were decoded to find them; 0 where it is not known.
    """

    masks: Tensor | MaskCrops
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    prompts: int = 0

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Tensor | slice) -> "Detections":
        return Detections(self.masks[index], self.boxes[index], self.scores[index], self.classes[index], self.prompts)

    def cpu(self) -> "Detections":
        """The same detections with all tensors on the CPU."""
        return Detections(self.masks.cpu(), self.boxes.cpu(), self.scores.cpu(), self.classes.cpu(), self.prompts)
