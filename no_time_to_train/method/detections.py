"""What comes out of an image: instances with masks, boxes, scores and classes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor


@dataclass
class Detections:
    """The instances found in one image, by descending score.

    Attributes:
        masks: bool [n, H, W] at the image's own size.
        boxes: int64 [n, 4], xyxy of the masks' pixel indices: no +1 anywhere.
        scores: float [n] in [0, 1].
        classes: int64 [n], index of the class in the memory.
    """

    masks: Tensor
    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Tensor) -> "Detections":
        return Detections(self.masks[index], self.boxes[index], self.scores[index], self.classes[index])

    def cpu(self) -> "Detections":
        return Detections(self.masks.cpu(), self.boxes.cpu(), self.scores.cpu(), self.classes.cpu())

    def to_coco(self, image_id: int, category_ids: list[int]) -> list[dict[str, Any]]:
        """COCO result records with compressed RLE; ``category_ids`` by class index."""
        masks = self.masks.cpu().numpy().astype(np.uint8)
        encoded = [rle.encode(np.asfortranarray(mask)) for mask in masks]
        return [
            {
                "image_id": image_id,
                "category_id": category_ids[class_index],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
                "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
            }
            for class_index, (x1, y1, x2, y2), score, mask in zip(
                self.classes.tolist(), self.boxes.tolist(), self.scores.tolist(), encoded, strict=True
            )
        ]

    @classmethod
    def from_coco(cls, records: list[dict[str, Any]], category_ids: list[int], height: int, width: int) -> "Detections":
        """The same detections again from what :meth:`to_coco` made of them; ``height``, ``width`` of the image."""
        masks = [torch.from_numpy(rle.decode(record["segmentation"]).astype(bool)) for record in records]
        boxes = torch.tensor([record["bbox"] for record in records], dtype=torch.int64).view(-1, 4)
        return cls(
            torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool),
            torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
            torch.tensor([record["score"] for record in records]),
            torch.tensor([category_ids.index(record["category_id"]) for record in records], dtype=torch.int64),
        )
