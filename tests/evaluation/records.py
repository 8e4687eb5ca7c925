"""Small ground truth and results, and figures by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.evaluation import evaluate

Box = tuple[float, float, float, float]


MakeTruth = Callable[..., COCO]


SIDE = 100


def annotation(image_id: int, category_id: int, box: Box, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), **more}


def detection(image_id: int, category_id: int, box: Box, score: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}


def with_mask(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a mask that fills its box."""
    x, y, w, h = map(int, record["bbox"])
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + h, x : x + w] = True
    return {**record, "segmentation": encode_mask(mask)}


def average_precision(hits: str, objects: int) -> float:
    """By definition: the mean over 101 recalls of the best precision at that recall or a higher one.

    Args:
        hits: The detections, best first: "+" for a true positive, "-" for a false one.
        objects: Number of objects.
    """
    points = [(hits[: i + 1].count("+") / objects, hits[: i + 1].count("+") / (i + 1)) for i in range(len(hits))]
    return sum(max([p for r, p in points if r >= k / 100], default=0) for k in range(101)) / 101


def score(coco: COCO, results: list[dict[str, Any]], *args: Any, **kwargs: Any) -> dict[str, Any]:
    return evaluate(coco, results, select_categories(coco, "truth.json"), *args, **kwargs)[0]
