"""LVIS's federated AP, and plain COCO AP as published.

Both are by faster-coco-eval: the LVIS authors' own package does not run with numpy 2.
"""

import copy
from collections import defaultdict
from reprlib import repr as short_repr

import numpy as np
from faster_coco_eval import COCO as LvisCOCO
from faster_coco_eval import COCOeval_faster
from numpy.typing import NDArray
from pycocotools.coco import COCO

from no_time_to_train.data.class_splits import LVIS_SPLITS
from no_time_to_train.data.coco import index_coco
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation.coco_ap import (
    Figures,
    Metrics,
    Records,
    boxes_or_masks,
    format_table,
    mean_of_valid,
    scorable_iou_types,
)
from no_time_to_train.method.memory_bank import Category

#: Detections per image at most, of all classes together.
MAX_DETECTIONS = 300
#: Detections per image and class at most, in the plain COCO AP.
PLAIN_MAX_DETECTIONS = 100
#: Classes evaluated at once: the evaluator keeps a table of images x classes, which needs gigabytes for all 1,203.
AT_ONCE = 100


def lvis_ap(
    coco: COCO, results: Records, categories: list[Category], classes_at_once: int = AT_ONCE
) -> tuple[Metrics, str]:
    """LVIS's AP of boxes and masks, and the AP as published.

    In LVIS's AP, an image counts for the classes annotated in it and for those in its ``neg_category_ids``; detections
    of other classes are ignored. Unmatched detections of the classes in its ``not_exhaustive_category_ids`` are ignored
    too. The AP as published is plain COCO AP: every image counts for every class. The best 300 results of each image
    count; as published, the best 100 of each image and class.

    Returns:
        ``{"bbox": {"AP": ..., "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR300",
        "AP_as_published", "per_class": ...}, "segm": ...}``, and a table as text.
    """
    coco, results = with_numbered_images(coco, results)
    best = verified_results(coco, best_of_each_image(results))
    frequency = {category["id"]: category["frequency"] for category in coco.dataset["categories"]}
    frequencies = [frequency[category.id] for category in categories]
    metrics: Metrics = {}
    tables = ""
    for iou_type in scorable_iou_types(coco, results, categories):
        precision, recall = evaluate_classes(coco, best, categories, iou_type, True, classes_at_once)
        plain, _ = evaluate_classes(coco, results, categories, iou_type, False, classes_at_once)
        figures = lvis_figures(precision, recall, frequencies)
        figures["AP_as_published"] = mean_of_valid(plain[:, :, :, 0])
        per_class = {c.name: mean_of_valid(precision[:, :, i, 0]) for i, c in enumerate(categories)}
        metrics[iou_type] = {**figures, "per_class": per_class}
        tables += f"{iou_type.upper()} RESULTS (LVIS):\n{format_table(figures)}\n"
    return metrics, tables


def with_numbered_images(coco: COCO, results: Records) -> tuple[COCO, Records]:
    """Ground truth and results with image ids that are integers, which faster-coco-eval needs."""
    if all(isinstance(image_id, int) for image_id in coco.imgs):
        return coco, results
    number = {image_id: index for index, image_id in enumerate(sorted(coco.imgs), start=1)}
    images = [{**image, "id": number[image["id"]]} for image in coco.dataset["images"]]
    annotations, results = (
        [{**record, "image_id": number[record["image_id"]]} for record in records]
        for records in (coco.dataset["annotations"], results)
    )
    return index_coco({**coco.dataset, "images": images, "annotations": annotations}), results


def lvis_figures(precision: NDArray[np.float64], recall: NDArray[np.float64], frequencies: list[str]) -> Figures:
    """LVIS's summary figures from those of :func:`evaluate_classes`, and the ``frequency`` of each class."""
    figures = {
        "AP": mean_of_valid(precision[:, :, :, 0]),
        "AP50": mean_of_valid(precision[0, :, :, 0]),
        "AP75": mean_of_valid(precision[5, :, :, 0]),
    }
    for index, size in enumerate("sml", start=1):
        figures[f"AP{size}"] = mean_of_valid(precision[:, :, :, index])
    for letter in LVIS_SPLITS.values():
        group = [i for i, frequency in enumerate(frequencies) if frequency == letter]
        figures[f"AP{letter}"] = mean_of_valid(precision[:, :, group, 0])
    figures[f"AR{MAX_DETECTIONS}"] = mean_of_valid(recall[:, :, 0])
    return figures


def check_lvis(coco: COCO) -> None:
    """Check that the ground truth has the fields that LVIS's protocol needs."""
    for kind, entries, keys, form in (
        ("image", coco.dataset["images"], ("neg_category_ids", "not_exhaustive_category_ids"), "a list of ids"),
        ("category", coco.dataset["categories"], ("frequency",), "r, c or f"),
    ):
        for entry in entries:
            for key in keys:
                value = entry.get(key)
                are_ids = isinstance(value, list) and all(type(one) is int for one in value)
                if not (are_ids if kind == "image" else value in LVIS_SPLITS.values()):
                    found = f"has {short_repr(value)}" if key in entry else "lacks it"
                    raise UserError(f"LVIS's protocol needs {key!r} as {form}: {kind} id {entry['id']} {found}")


def best_of_each_image(results: Records) -> Records:
    """The ``MAX_DETECTIONS`` results with the highest scores in each image."""
    by_image = defaultdict(list)
    for record in results:
        by_image[record["image_id"]].append(record)
    best = (sorted(records, key=lambda record: -record["score"])[:MAX_DETECTIONS] for records in by_image.values())
    return [record for records in best for record in records]


def verified_results(coco: COCO, results: Records) -> Records:
    """The results whose class is verified to be present in their image, or to be absent from it.

    The evaluator ignores the others too, but fails on an image that has no verified ones.
    """
    verified = {(a["image_id"], a["category_id"]) for a in coco.dataset["annotations"]}
    verified.update((image["id"], c) for image in coco.dataset["images"] for c in image["neg_category_ids"])
    return [record for record in results if (record["image_id"], record["category_id"]) in verified]


def evaluate_classes(
    coco: COCO, results: Records, categories: list[Category], iou_type: str, federated: bool, at_once: int = AT_ONCE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run the evaluator on C classes, some at a time.

    Args:
        iou_type: "bbox" or "segm".
        federated: Whether an image counts only for the classes that are verified in it; else by COCO's rules.

    Returns:
        Precision, float [10 IoU thresholds, 101 recalls, C, 4 area ranges], and recall, float [10, C, 4]; -1 where
        there is no ground truth.
    """
    precision, recall = [], []
    for start in range(0, len(categories), at_once):
        chosen = {category.id for category in categories[start : start + at_once]}
        truth = [copy.copy(a) for a in coco.dataset["annotations"] if a["category_id"] in chosen]
        lvis = LvisCOCO({**coco.dataset, "annotations": truth})
        detections = boxes_or_masks([record for record in results if record["category_id"] in chosen], iou_type)
        evaluator = COCOeval_faster(lvis, lvis.loadRes(detections), iou_type, lvis_style=federated)
        evaluator.params.catIds = sorted(chosen)
        evaluator.params.maxDets = [MAX_DETECTIONS if federated else PLAIN_MAX_DETECTIONS]
        evaluator.evaluate()
        evaluator.accumulate()
        precision.append(evaluator.eval["precision"][..., -1])
        recall.append(evaluator.eval["recall"][..., -1])
    return np.concatenate(precision, axis=2), np.concatenate(recall, axis=1)
