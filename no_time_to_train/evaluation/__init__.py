"""Scoring COCO results by the protocol of each benchmark."""

import contextlib
import io
from typing import Any

from pycocotools.coco import COCO

from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation.coco_ap import Metrics, VocEval, coco_ap, voc_ap
from no_time_to_train.evaluation.error_analysis import analyse_errors
from no_time_to_train.evaluation.lvis_ap import check_lvis, lvis_ap
from no_time_to_train.evaluation.semantic import DEFAULT_THRESHOLD, semantic_iou
from no_time_to_train.method.memory_bank import Category

#: Protocol -> what it measures.
PROTOCOLS = {
    "coco": "COCO's AP of boxes and masks",
    "voc": "PASCAL VOC's: AP of boxes, difficult objects neither count nor punish",
    "lvis": "LVIS's federated AP of boxes and masks, with rare, common and frequent classes apart",
    "semantic": "COCO-20i's mIoU, the instances of a class merged, beside COCO's AP",
}


def evaluate(
    coco: COCO,
    results: list[dict[str, Any]],
    categories: list[Category],
    protocol: str = "coco",
    semantic_threshold: float = DEFAULT_THRESHOLD,
    errors: bool = False,
) -> tuple[Metrics, str]:
    """Score COCO results against the ground truth of some classes.

    Args:
        coco: ground truth.
        results: COCO result records, each with a box; masks are scored where every record has one.
        categories: classes that count; ground truth and results of others are left out.
        protocol: a key of ``PROTOCOLS``.
        semantic_threshold: for "semantic", the score under which an instance is not painted.
        errors: also say where the AP goes; see ``error_analysis``.

    Returns:
        Metrics as ``metrics.json`` holds them, fractions in [0, 1] with None where there is no ground truth, and the
        tables as text. Without ground truth of the classes both are empty.

    Raises:
        UserError: the protocol needs what the ground truth or the results lack.
    """
    if protocol == "lvis" and errors:
        raise UserError("the error analysis needs every class verified in every image, which LVIS has not")
    check_truth(coco, categories, protocol)
    chosen = {category.id for category in categories}
    if not any(annotation["category_id"] in chosen for annotation in coco.anns.values()):
        return {}, ""
    if 0 in coco.anns:
        coco = without_id_0(coco)
    if protocol == "lvis":
        return lvis_ap(coco, results, categories)
    metrics, tables = voc_ap(coco, results, categories) if protocol == "voc" else coco_ap(coco, results, categories)
    if protocol == "semantic":
        metrics["semantic"], table = semantic_iou(coco, results, categories, semantic_threshold)
        tables += table
    if errors:
        iou_type = "segm" if "segm" in metrics else "bbox"
        evaluator = VocEval if protocol == "voc" else None
        metrics["errors"], table = analyse_errors(coco, results, categories, iou_type, evaluator)
        tables += table
    return metrics, tables


def check_truth(coco: COCO, categories: list[Category], protocol: str) -> None:
    """Raise a UserError where the ground truth lacks what the protocol needs; areas are filled in from the masks."""
    if protocol == "lvis":
        check_lvis(coco)
    chosen = {category.id for category in categories}
    for annotation in coco.anns.values():
        if annotation["category_id"] not in chosen:
            continue
        if annotation.get("segmentation") and not {"height", "width"} <= coco.imgs[annotation["image_id"]].keys():
            raise UserError(f"masks cannot be scored, as image {annotation['image_id']} states no height and width")
        if "area" not in annotation:
            if not annotation.get("segmentation"):
                raise UserError(f"annotation {annotation['id']} has neither segmentation nor bbox")
            size = (coco.imgs[annotation["image_id"]][key] for key in ("height", "width"))
            annotation["area"] = float(annotation_mask(annotation, *size).sum())
        if protocol == "semantic" and not annotation.get("segmentation"):
            raise UserError(f"mIoU needs masks, and annotation {annotation['id']} has no segmentation")


def without_id_0(coco: COCO) -> COCO:
    """The same ground truth numbered from 1: to pycocotools, a detection that hits annotation 0 has hit nothing."""
    annotations = [{**annotation, "id": i} for i, annotation in enumerate(coco.dataset["annotations"], start=1)]
    numbered = COCO()
    numbered.dataset = {**coco.dataset, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        numbered.createIndex()
    return numbered


__all__ = ["DEFAULT_THRESHOLD", "PROTOCOLS", "Metrics", "check_truth", "evaluate"]
