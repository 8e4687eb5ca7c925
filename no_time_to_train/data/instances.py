"""What is found in an image, with the names of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.memory_bank import Category

if TYPE_CHECKING:
    import supervision as sv

#: Instances that a repr names.
NAMED = 10


@dataclass(frozen=True)
class Instance:
    """One object found in an image. Two instances are equal if they have the same label, score and box.

    Attributes:
        label: The name of its class.
        score: In [0, 1].
        box: x1, y1, x2, y2 in pixels: the first and last column and row of the mask, so a box one pixel wide has
            x1 == x2.
        mask: bool [H, W] at the image's own size.
    """

    label: str
    score: float
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_] = field(repr=False, compare=False)


class Instances(Sequence[Instance]):
    """The objects found in one image, in descending order of score.

    It is a sequence of :class:`Instance`. A slice is an ``Instances`` again, and a notebook shows its :meth:`plot`.

    Example:
        ::

            found = segmenter.segment("photo.jpg")
            found                                # Instances(image=640x480, boat 0.93, gull 0.71)
            found[0].mask                        # bool [480, 640]
            [one.box for one in found if one.label == "boat"]
            found[:5].plot().save("best.jpg")
            found.to_coco(image_id=7)            # result records for pycocotools
            found.to_supervision()               # for the annotators and trackers of supervision

    Args:
        image: The image, uint8 [H, W, 3] RGB.
        categories: The classes of the memory in ascending order of their ids.
        detections: On the CPU.

    Attributes:
        image: The image, uint8 [H, W, 3] RGB, turned upright as its EXIF orientation says.
        categories: The classes of the memory in ascending order of their ids.
        detections: The same instances as tensors.
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
            return Instances(self.image, self.categories, found[index])
        x1, y1, x2, y2 = found.boxes[index].tolist()
        label = self.categories[int(found.classes[index])].name
        return Instance(label, float(found.scores[index]), (x1, y1, x2, y2), found.masks[index].numpy())

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        more = [f"and {len(self) - NAMED} more"] if len(self) > NAMED else []
        return f"Instances({', '.join([f'image={width}x{height}', *self[:NAMED]._captions(), *more])})"

    def _repr_png_(self) -> bytes | None:
        return self.plot()._repr_png_()

    def _captions(self) -> list[str]:
        return [f"{one.label} {one.score:.2f}" for one in self]

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Convert to COCO result records; ``categories`` holds the names of their category ids.

        Args:
            image_id: The image's id in its annotation file.

        Returns:
            One record per instance, with ``segmentation`` as compressed RLE and ``bbox`` [x1, y1, x2 - x1, y2 - y1]
            (without the usual + 1, as in the published code).
        """
        return to_coco_records(self.detections, image_id, [category.id for category in self.categories])

    def to_supervision(self) -> "sv.Detections":
        """Convert to the detections of the ``supervision`` package; ``data["class_name"]`` holds the labels."""
        import supervision as sv

        found = self.detections
        return sv.Detections(
            xyxy=found.boxes.numpy().astype(np.float32).reshape(-1, 4),
            mask=found.masks.numpy(),
            confidence=found.scores.numpy(),
            class_id=found.classes.numpy(),
            data={"class_name": np.array([one.label for one in self], dtype=str)},
        )

    def plot(self) -> Image.Image:
        """Draw each mask with its outline, label and score over the image."""
        from no_time_to_train.visual.drawing import draw_instances

        found = self.detections
        return Image.fromarray(draw_instances(self.image, found.masks.numpy(), found.classes.numpy(), self._captions()))
