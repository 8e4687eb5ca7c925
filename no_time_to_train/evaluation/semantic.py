"""COCO-20i: the instances of a class merged into one region, scored by mIoU over the whole fold."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO

from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation.coco_ap import per_class_table
from no_time_to_train.method.memory_bank import Category

#: Score under which an instance is not painted, unless the user says otherwise: that of the published evaluation.
DEFAULT_THRESHOLD = 0.5


def semantic_iou(
    coco: COCO, results: list[dict[str, Any]], categories: list[Category], threshold: float
) -> tuple[dict[str, Any], str]:
    """IoU of each class over all images of the file, from counts of pixels.

    Every pixel has one label: background, or one of the classes. Where results overlap, the highest score wins; where
    ground truth overlaps, the smallest object. Crowds are pixels of their class.

    Args:
        coco: ground truth with masks.
        results: COCO result records with masks.
        categories: the fold's classes; the rest is background.
        threshold: lowest score that is painted.

    Returns:
        ``{"mIoU": mean over the classes that have ground truth, "background": IoU, "threshold": ...,
        "per_class": {name: IoU}}`` and a table.

    Raises:
        UserError: an annotation or a result has no usable mask.
    """
    label = {category.id: index for index, category in enumerate(categories, start=1)}  # 0 is the background
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in results:
        if record["category_id"] in label and record["score"] >= threshold:
            by_image[record["image_id"]].append(record)
    size = len(categories) + 1
    counts = np.zeros((size, size), np.int64)  # [true label, predicted label], pixels
    for image_id, entry in coco.imgs.items():
        shape = (entry["height"], entry["width"])
        truth = [a for a in coco.imgToAnns[image_id] if a["category_id"] in label]
        truth.sort(key=lambda annotation: -annotation.get("area", 0))
        true = paint(shape, ((label[a["category_id"]], annotation_mask(a, *shape)) for a in truth))
        found = sorted(reversed(by_image.get(image_id, [])), key=lambda record: record["score"])
        predicted = paint(shape, ((label[r["category_id"]], result_mask(r, *shape)) for r in found))
        counts += np.bincount(true.ravel() * size + predicted.ravel(), minlength=size * size).reshape(size, size)
    overlap = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - overlap
    iou = [float(o / u) if t else None for o, u, t in zip(overlap, union, counts.sum(axis=1), strict=True)]
    known = [value for value in iou[1:] if value is not None]
    mean, background = float(np.mean(known)) if known else None, iou[0]
    names = {category.name: value for category, value in zip(categories, iou[1:], strict=True)}
    table = per_class_table({"mean": mean, "background": background, **names}, "IoU")
    metrics = {"mIoU": mean, "background": background, "threshold": threshold, "per_class": names}
    return metrics, f"SEMANTIC RESULTS (scores from {threshold:g}):\n{table}\n"


def paint(shape: tuple[int, int], regions: Iterable[tuple[int, NDArray[np.bool_]]]) -> NDArray[np.int64]:
    """A map of labels [H, W], 0 where no region is; later regions cover earlier ones."""
    canvas = np.zeros(shape, np.int64)
    for label, mask in regions:
        canvas[mask] = label
    return canvas


def result_mask(record: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a result record, bool [height, width]."""
    where = f"a result of image {record['image_id']}, category {record['category_id']}"
    if "segmentation" not in record:
        raise UserError(f"{where} has no segmentation: mIoU needs masks")
    mask: NDArray[np.bool_] = rle.decode(record["segmentation"]).astype(bool)
    if mask.shape != (height, width):
        raise UserError(f"{where}: its mask is {mask.shape[1]}x{mask.shape[0]}, the image {width}x{height}")
    return mask
