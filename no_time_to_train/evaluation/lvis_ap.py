"""LVIS's federated AP, by faster-coco-eval (the LVIS authors' own package does not run with numpy 2)."""

import copy
from typing import Any

import numpy as np
from faster_coco_eval import COCO as LvisCOCO
from faster_coco_eval import COCOeval_faster
from numpy.typing import NDArray
from pycocotools.coco import COCO

from no_time_to_train.data.class_splits import LVIS_SPLITS
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation.coco_ap import Metrics, mean_of_valid, records_of, scorable
from no_time_to_train.method.memory_bank import Category

#: Detections an image at most, of all classes together.
MAX_DETECTIONS = 300
#: Classes evaluated at once: the evaluator keeps a table of images x classes, gigabytes for all 1,203.
CLASSES_AT_ONCE = 100


def lvis_ap(
    coco: COCO,
    results: list[dict[str, Any]],
    categories: list[Category],
    classes_at_once: int = CLASSES_AT_ONCE,
) -> tuple[Metrics, str]:
    """LVIS's AP of boxes and masks of ground truth that ``check_lvis`` has passed.

    An image counts for the classes that it shows and for those in its ``neg_category_ids``; detections of others are
    left out. Of classes in its ``not_exhaustive_category_ids`` no detection is wrong.

    Args:
        coco: ground truth in LVIS's format.
        results: COCO result records; the best 300 of an image are taken.
        categories: classes that count.
        classes_at_once: bounds the memory, not the result.

    Returns:
        ``{"bbox": {"AP": ..., "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR300", "per_class": ...},
        "segm": ...}`` and a table.
    """
    frequency = {category["id"]: category["frequency"] for category in coco.dataset["categories"]}
    best = verified(coco, best_of_each_image(results))
    metrics: Metrics = {}
    rows = []
    for iou_type in scorable(coco, results, categories):
        tables = [
            evaluate_classes(coco, best, categories[start : start + classes_at_once], iou_type)
            for start in range(0, len(categories), classes_at_once)
        ]
        precision = np.concatenate([table[0] for table in tables], axis=2)
        recall = np.concatenate([table[1] for table in tables], axis=1)
        figures: dict[str, Any] = {
            "AP": mean_of_valid(precision[:, :, :, 0]),
            "AP50": mean_of_valid(precision[0, :, :, 0]),
            "AP75": mean_of_valid(precision[5, :, :, 0]),
        }
        for index, size in enumerate("sml", start=1):
            figures[f"AP{size}"] = mean_of_valid(precision[:, :, :, index])
        for letter in LVIS_SPLITS.values():
            group = [i for i, category in enumerate(categories) if frequency[category.id] == letter]
            figures[f"AP{letter}"] = mean_of_valid(precision[:, :, group, 0])
        figures[f"AR{MAX_DETECTIONS}"] = mean_of_valid(recall[:, :, 0])
        rows += [f"{iou_type.upper()} RESULTS (LVIS):"]
        rows += [f" {name:<5}  {'-' if v is None else f'{100 * v:.1f}':>5}" for name, v in figures.items()]
        figures["per_class"] = {c.name: mean_of_valid(precision[:, :, i, 0]) for i, c in enumerate(categories)}
        metrics[iou_type] = figures
    return metrics, "\n".join([*rows, ""])


def check_lvis(coco: COCO) -> None:
    """Raise a UserError where an entry lacks what LVIS's protocol needs."""
    for section, keys in (
        ("images", ("neg_category_ids", "not_exhaustive_category_ids")),
        ("categories", ("frequency",)),
    ):
        for entry in coco.dataset[section]:
            for key in keys:
                if key not in entry:
                    raise UserError(f"LVIS's protocol needs {key!r}, which {section[:-1]} id {entry['id']} lacks")


def best_of_each_image(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ``MAX_DETECTIONS`` results of the highest score in each image."""
    by_image: dict[int, list[dict[str, Any]]] = {}
    for record in results:
        by_image.setdefault(record["image_id"], []).append(record)
    return [
        record
        for records in by_image.values()
        for record in sorted(records, key=lambda record: -record["score"])[:MAX_DETECTIONS]
    ]


def verified(coco: COCO, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results whose class is known to be in their image, or not to be.

    The evaluator leaves out the others itself, but stops with an exception where an image has none but those.
    """
    known = {(a["image_id"], a["category_id"]) for a in coco.dataset["annotations"]}
    known.update((image["id"], c) for image in coco.dataset["images"] for c in image["neg_category_ids"])
    return [record for record in results if (record["image_id"], record["category_id"]) in known]


def evaluate_classes(
    coco: COCO, results: list[dict[str, Any]], categories: list[Category], iou_type: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision [10 IoU thresholds, 101 recalls, C, 4 areas] and recall [10, C, 4]; -1 without ground truth."""
    chosen = {category.id for category in categories}
    truth = [copy.copy(a) for a in coco.dataset["annotations"] if a["category_id"] in chosen]
    ours = LvisCOCO({**coco.dataset, "annotations": truth})
    found = [record for record in records_of(results, iou_type) if record["category_id"] in chosen]
    evaluator = COCOeval_faster(ours, ours.loadRes(found), iou_type, lvis_style=True)
    evaluator.params.catIds = sorted(chosen)
    evaluator.params.maxDets = [MAX_DETECTIONS]
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval["precision"][..., -1], evaluator.eval["recall"][..., -1]
