"""What ``ReferenceSegmenter`` finds in an image, with names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.visual.drawing import draw_instances


@dataclass(frozen=True)
class Instance:
    """One object found in an image.

    Attributes:
        label: the class's name.
        score: in [0, 1].
        box: xyxy, the indices of the mask's first and last columns and rows, in pixels.
        mask: bool [H, W] at the image's own size.
    """

    label: str
    score: float
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]


class Instances(Sequence[Instance]):
    """The objects found in one image, by descending score.

    Attributes:
        image: uint8 [H, W, 3] RGB, upright.
        categories: the memory's classes, by ascending id.
        detections: masks, boxes, scores and class indices as tensors, on the CPU.
    """

    def __init__(self, image: NDArray[np.uint8], categories: list[Category], detections: Detections) -> None:
        self.image, self.categories, self.detections = image, categories, detections

    def __len__(self) -> int:
        return len(self.detections)

    @overload
    def __getitem__(self, index: int) -> Instance: ...

    @overload
    def __getitem__(self, index: slice) -> "Instances": ...

    def __getitem__(self, index: int | slice) -> "Instance | Instances":
        found = self.detections
        if isinstance(index, slice):
            chosen = Detections(found.masks[index], found.boxes[index], found.scores[index], found.classes[index])
            return Instances(self.image, self.categories, chosen)
        x1, y1, x2, y2 = found.boxes[index].tolist()
        label = self.categories[int(found.classes[index])].name
        return Instance(label, float(found.scores[index]), (x1, y1, x2, y2), found.masks[index].numpy())

    def __iter__(self) -> Iterator[Instance]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Instances({', '.join(f'{one.label} {one.score:.2f}' for one in self)})"

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """COCO result records with compressed RLE; ``categories`` gives the names of their category ids."""
        return to_coco_records(self.detections, image_id, [category.id for category in self.categories])

    def to_supervision(self) -> sv.Detections:
        """As the ``supervision`` package has detections; ``data["class_name"]`` holds the labels."""
        found = self.detections
        return sv.Detections(
            xyxy=found.boxes.numpy().astype(np.float32).reshape(-1, 4),
            mask=found.masks.numpy(),
            confidence=found.scores.numpy(),
            class_id=found.classes.numpy(),
            data={"class_name": np.array([one.label for one in self], dtype=str)},
        )

    def plot(self) -> Image.Image:
        """The image with each mask, its outline, label and score drawn over it."""
        found = self.detections
        labels = [f"{one.label} {one.score:.2f}" for one in self]
        return Image.fromarray(draw_instances(self.image, found.masks.numpy(), found.classes.numpy(), labels))
