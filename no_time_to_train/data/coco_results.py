"""Detections as COCO result records, and back."""

from collections.abc import Sequence
from typing import Any

import torch

from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.rle import decode_crop, encode_crop
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks


def to_coco_records(
    detections: Detections, image_id: ImageId, category_ids: list[int], sources: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """COCO result records of an image's detections, in their order.

    Args:
        image_id: The image's id in its annotation file.
        category_ids: The COCO category id of each class index.
        sources: What the sources of proposals are called, where there are several.

    Returns:
        One record per detection. Its ``bbox`` is [x1, y1, x2 - x1, y2 - y1] from the mask's pixel indices, without the
        usual + 1, as in the published code; its ``segmentation`` is compressed RLE.
    """
    masks = detections.masks
    names: list[dict[str, str]] = [{}] * len(detections)
    if sources and detections.sources is not None:
        names = [{"source": sources[index]} for index in detections.sources.tolist()]
    values = zip(detections.classes.tolist(), detections.boxes.tolist(), detections.scores.tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[class_index],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
            "segmentation": encode_crop(*masks.crop(index), masks.height, masks.width),
            **names[index],
        }
        for index, (class_index, (x1, y1, x2, y2), score) in enumerate(values)
    ]


def from_coco_records(records: list[dict[str, Any]], category_ids: list[int], height: int, width: int) -> Detections:
    """The detections that :func:`to_coco_records` was given.

    Args:
        records: All records of one image.
        category_ids: The COCO category id of each class index.

    Returns:
        The detections, in the order of the records.

    Raises:
        TypeError: A score is no number, or a box no list.
        ValueError: A mask is no RLE of this size, or a box not four numbers.
    """
    for number, record in enumerate(records, start=1):
        h, w = record["segmentation"]["size"]
        if (h, w) != (height, width):
            raise ValueError(f"mask {number} is {w}x{h}, its image {width}x{height}")
    crops = (decode_crop(record["segmentation"]) for record in records)
    corners = [[x, y, x + w, y + h] for x, y, w, h in (record["bbox"] for record in records)]
    return Detections(
        Masks.from_crops(crops, height, width),
        torch.tensor(corners, dtype=torch.int64).view(-1, 4),
        torch.tensor([record["score"] + 0.0 for record in records]),
        torch.tensor([category_ids.index(record["category_id"]) for record in records], dtype=torch.int64),
    )
