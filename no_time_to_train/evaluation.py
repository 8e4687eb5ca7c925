"""COCO evaluation: bbox and segm AP by pycocotools, over all images of the target set and the split's classes."""

import contextlib
import copy
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from no_time_to_train.coco import Category

#: The rows of pycocotools' summary table, in its order.
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

Metrics = dict[str, dict[str, Any]]


def evaluate(coco: COCO, results: list[dict[str, Any]], categories: list[Category]) -> tuple[Metrics, str]:
    """Score COCO results against the ground truth of some classes.

    Args:
        coco: ground truth.
        results: COCO result records.
        categories: classes that count; ground truth and results of others are left out.

    Returns:
        ``{"bbox": {"AP": ..., ..., "per_class": {name: AP}}, "segm": ...}`` with fractions in [0, 1] and None where
        there is no ground truth, and the tables as text. Without annotations both are empty; where annotations have
        boxes only, there is no "segm".
    """
    chosen = {category.id for category in categories}
    truth = [annotation for annotation in coco.anns.values() if annotation["category_id"] in chosen]
    metrics: Metrics = {}
    tables = io.StringIO()
    for iou_type, key in (("bbox", "bbox"), ("segm", "segmentation")):
        if truth and all(annotation.get(key) for annotation in truth):
            with contextlib.redirect_stdout(io.StringIO()):
                evaluator = COCOeval(coco, load_results(coco, results, iou_type), iou_type)
                evaluator.params.catIds = [category.id for category in categories]
                evaluator.evaluate()
                evaluator.accumulate()
            with contextlib.redirect_stdout(tables):
                print(f"{iou_type.upper()} RESULTS:")
                evaluator.summarize()
            metrics[iou_type] = {
                name: fraction(value) for name, value in zip(SUMMARY, evaluator.stats.tolist(), strict=True)
            }
            precision = evaluator.eval["precision"]  # [IoU threshold, recall, class, area range, detections an image]
            metrics[iou_type]["per_class"] = {
                category.name: fraction(mean_of_valid(precision[:, :, index, 0, -1]))
                for index, category in enumerate(categories)
            }
            tables.write(per_class_table(metrics[iou_type]["per_class"]) + "\n")
    return metrics, tables.getvalue()


def load_results(coco: COCO, results: list[dict[str, Any]], iou_type: str) -> COCO:
    """Results as a COCO object. Masks are taken without their boxes, so that a mask's area is its own."""
    if not results:
        empty = COCO()
        empty.dataset = {**coco.dataset, "annotations": []}
        empty.createIndex()
        return empty
    dropped = "segmentation" if iou_type == "bbox" else "bbox"
    return coco.loadRes([{key: copy.copy(record[key]) for key in record if key != dropped} for record in results])


def mean_of_valid(values: np.ndarray) -> float:
    """The mean without pycocotools' -1, or -1 where nothing else is there."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0


def fraction(value: float) -> float | None:
    """pycocotools' -1, "no ground truth", as None."""
    return None if value == -1 else value


def per_class_table(per_class: dict[str, float | None]) -> str:
    """AP of each class in per cent, aligned."""
    width = max(map(len, per_class), default=0)
    rows = [
        f" {name:<{width}}  {'-' if value is None else f'{100 * value:.1f}':>5}" for name, value in per_class.items()
    ]
    return "\n".join([f" {'class':<{width}}  {'AP':>5}", *rows])
