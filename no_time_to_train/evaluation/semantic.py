"""COCO-20i: the instances of a class are merged into one region, and mIoU is taken over all images of a fold."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation.coco_ap import Record, Records, format_table, mean_of_known
from no_time_to_train.method.memory_bank import Category

#: The lowest score of an instance that counts, unless the user sets another: that of the published evaluation.
DEFAULT_THRESHOLD = 0.5
#: The published mean is taken over the labels below this number.
PUBLISHED_LABELS = 20

#: Annotations or results by image id, in the order in which they are painted.
ByImage = Mapping[ImageId, Records]


def semantic_iou(coco: COCO, results: Records, categories: list[Category], threshold: float) -> tuple[Record, str]:
    """The IoU of each class, from the numbers of pixels in all images of the file.

    Every pixel has one label: the background or one of the classes. Where results overlap, the highest score wins.
    Where ground truth overlaps, the smallest object wins. Crowds are pixels of their class.

    Args:
        categories: The classes of the fold. Everything else is background.
        threshold: The lowest score of a result that counts.

    Returns:
        ``{"mIoU": mean over the classes that have ground truth, "mIoU_as_published": see :func:`published_miou`,
        "background": IoU, "threshold": ..., "per_class": {name: IoU}}``, and a table as text.
    """
    label = {category.id: index for index, category in enumerate(categories, start=1)}  # 0 is the background
    predictions = predictions_by_image(results, label, threshold)
    for records in predictions.values():
        records.reverse()
        records.sort(key=lambda record: record["score"])
    truth = {
        image_id: sorted(_of_classes(coco, image_id, label), key=lambda annotation: -annotation.get("area", 0))
        for image_id in coco.imgs
    }
    pixels = count_pixels(coco, truth, predictions, label, len(categories) + 1)
    overlap, union = overlap_and_union(pixels)
    background, *iou = (float(o / u) if t else None for o, u, t in zip(overlap, union, pixels.sum(axis=1), strict=True))
    mean, published = mean_of_known(iou), published_miou(coco, results, categories)
    per_class = {category.name: value for category, value in zip(categories, iou, strict=True)}
    rows = {"mean": mean, "mean as published": published, "background": background, **per_class}
    metrics = {
        "mIoU": mean,
        "mIoU_as_published": published,
        "background": background,
        "threshold": threshold,
        "per_class": per_class,
    }
    table = format_table(rows, ("class", "IoU"))
    return metrics, f"SEMANTIC RESULTS (scores from {threshold:g}):\n{table}\n"


def published_miou(coco: COCO, results: Records, categories: list[Category]) -> float | None:
    """The mIoU as the published evaluation computes it, which is another quantity than ours.

    The label of a class is its position in ``categories`` of the annotation file, 0 to 79 for COCO. The background has
    label 0 too, so it is one with the class at position 0. Where results overlap, the lowest score wins; where ground
    truth overlaps, the later annotation of the file wins. Crowds are left out. Results count from a score of 0.5.

    Returns:
        The mean IoU over those of the labels 0 to 19 that occur in the ground truth or in the results: the classes
        of the fold at higher positions do not count. None where there are no images.
    """
    chosen = {category.id for category in categories}
    positions = {category["id"]: position for position, category in enumerate(coco.dataset["categories"])}
    label = {category_id: position for category_id, position in positions.items() if category_id in chosen}
    predictions = predictions_by_image(results, label, DEFAULT_THRESHOLD)
    for records in predictions.values():
        records.sort(key=lambda record: -record["score"])
    truth = {
        image_id: [annotation for annotation in _of_classes(coco, image_id, label) if not annotation["iscrowd"]]
        for image_id in coco.imgs
    }
    overlap, union = overlap_and_union(count_pixels(coco, truth, predictions, label, len(positions)))
    known = zip(overlap[:PUBLISHED_LABELS], union[:PUBLISHED_LABELS], strict=True)
    return mean_of_known(float(o / u) if u else None for o, u in known)


def predictions_by_image(results: Records, label: dict[int, int], threshold: float) -> dict[ImageId, Records]:
    """The results of the categories that have a label, by image id, in the order of the file."""
    by_image = defaultdict(list)
    for record in results:
        if record["category_id"] in label and record["score"] >= threshold:
            if "segmentation" not in record:
                raise UserError(f"mIoU needs masks, but a result of image {record['image_id']} has no segmentation")
            by_image[record["image_id"]].append(record)
    return by_image


def count_pixels(
    coco: COCO, truth: ByImage, predictions: ByImage, label: dict[int, int], size: int
) -> NDArray[np.int64]:
    """Count the pixels of all images by their true and their predicted label: int64 [size, size].

    Args:
        truth: Annotations by image id, in the order in which they are painted.
        predictions: Results, likewise.
        label: The label of each category id, in [0, size).
    """
    pixels = np.zeros((size, size), np.int64)
    for image_id, image in coco.imgs.items():
        true, predicted = (paint(image, entries.get(image_id, []), label) for entries in (truth, predictions))
        pixels += np.bincount(true.ravel() * size + predicted.ravel(), minlength=size * size).reshape(size, size)
    return pixels


def overlap_and_union(pixels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The intersection and the union of each label in pixels, both int64 [L], from counts [L, L]."""
    overlap = np.diag(pixels)
    return overlap, pixels.sum(axis=0) + pixels.sum(axis=1) - overlap


def _of_classes(coco: COCO, image_id: ImageId, label: dict[int, int]) -> Records:
    """The annotations of an image whose class has a label, in the order of the file."""
    return [annotation for annotation in coco.imgToAnns[image_id] if annotation["category_id"] in label]


def paint(image: dict[str, Any], entries: Iterable[dict[str, Any]], label: dict[int, int]) -> NDArray[np.int64]:
    """Paint masks into a map of labels, int64 [H, W], 0 where there is none. Later masks cover earlier ones."""
    labels = np.zeros((image["height"], image["width"]), np.int64)
    for entry in entries:
        labels[annotation_mask(entry, *labels.shape)] = label[entry["category_id"]]
    return labels
