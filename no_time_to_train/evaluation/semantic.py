"""COCO-20i: the instances of a class are merged into one region, and mIoU is taken over all images of a fold."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation.coco_ap import format_table, mean_of_known
from no_time_to_train.method.memory_bank import Category

#: The lowest score of an instance that counts, unless the user sets another: that of the published evaluation.
DEFAULT_THRESHOLD = 0.5


def semantic_iou(
    coco: COCO, results: list[dict[str, Any]], categories: list[Category], threshold: float
) -> tuple[dict[str, Any], str]:
    """The IoU of each class, from the numbers of pixels in all images of the file.

    Every pixel has one label: the background or one of the classes. Where results overlap, the highest score wins.
    Where ground truth overlaps, the smallest object wins. Crowds are pixels of their class.

    Args:
        coco: Ground truth with masks.
        results: COCO result records with masks.
        categories: The classes of the fold. Everything else is background.
        threshold: The lowest score of a result that counts.

    Returns:
        ``{"mIoU": mean over the classes that have ground truth, "background": IoU, "threshold": ...,
        "per_class": {name: IoU}}``, and a table as text.

    Raises:
        UserError: An annotation or a result has no usable mask.
    """
    label = {category.id: index for index, category in enumerate(categories, start=1)}  # 0 is the background
    by_image = defaultdict(list)
    for record in results:
        if record["category_id"] in label and record["score"] >= threshold:
            if "segmentation" not in record:
                raise UserError(f"mIoU needs masks, but a result of image {record['image_id']} has no segmentation")
            by_image[record["image_id"]].append(record)
    size = len(categories) + 1
    pixels = np.zeros((size, size), np.int64)  # [true label, predicted label]
    for image_id, image in coco.imgs.items():
        objects = [annotation for annotation in coco.imgToAnns[image_id] if annotation["category_id"] in label]
        objects.sort(key=lambda annotation: -annotation.get("area", 0))
        predictions = sorted(reversed(by_image[image_id]), key=lambda record: record["score"])
        true, predicted = (paint(image, entries, label) for entries in (objects, predictions))
        pixels += np.bincount(true.ravel() * size + predicted.ravel(), minlength=size * size).reshape(size, size)

    overlap = np.diag(pixels)
    in_truth = pixels.sum(axis=1)
    union = pixels.sum(axis=0) + in_truth - overlap
    background, *iou = (float(o / u) if t else None for o, u, t in zip(overlap, union, in_truth, strict=True))
    mean = mean_of_known(iou)
    per_class = {category.name: value for category, value in zip(categories, iou, strict=True)}
    table = format_table({"mean": mean, "background": background, **per_class}, ("class", "IoU"))
    metrics = {"mIoU": mean, "background": background, "threshold": threshold, "per_class": per_class}
    return metrics, f"SEMANTIC RESULTS (scores from {threshold:g}):\n{table}\n"


def paint(image: dict[str, Any], entries: Iterable[dict[str, Any]], label: dict[int, int]) -> NDArray[np.int64]:
    """Paint masks into a map of labels. Later masks cover earlier ones.

    Args:
        image: The image's entry in ``images``.
        entries: COCO annotations or results with masks.
        label: The label of each category id.

    Returns:
        int64 [H, W]; 0 where there is no mask.

    Raises:
        UserError: A mask is unusable.
    """
    labels = np.zeros((image["height"], image["width"]), np.int64)
    for entry in entries:
        labels[annotation_mask(entry, *labels.shape)] = label[entry["category_id"]]
    return labels
