"""The benchmarks' protocols: checking the ground truth and scoring results by one of them."""

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from no_time_to_train.data.coco import index_coco
from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.errors import UserError, suggest
from no_time_to_train.evaluation.coco_ap import Metrics, Records, VocEval, coco_ap, truth_of, voc_ap
from no_time_to_train.evaluation.lvis_ap import check_lvis, lvis_ap
from no_time_to_train.evaluation.semantic import DEFAULT_THRESHOLD, semantic_iou
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.plugins import find_plugin, is_plugin

#: The protocols: COCO's AP of boxes and masks; PASCAL VOC's AP of boxes, and nAP50 as published; LVIS's federated AP,
#: also for rare, common and frequent classes, and AP as published; COCO-20i's mIoU, also as published, and COCO's AP.
PROTOCOLS = ("coco", "voc", "lvis", "semantic")


def evaluate(
    coco: COCO,
    results: Records,
    categories: list[Category],
    protocol: str = "coco",
    semantic_threshold: float = DEFAULT_THRESHOLD,
    errors: bool = False,
) -> tuple[Metrics, str]:
    """Score COCO results against the ground truth of some classes.

    Args:
        coco: Ground truth. Missing areas are filled in, as by :func:`check_truth`.
        results: COCO result records, each with a box. Masks are scored where every record has one.
        categories: The classes that count. Ground truth and results of other classes are ignored.
        protocol: One of ``PROTOCOLS``; or a function of your own with the arguments and the result of ``coco_ap``.
        semantic_threshold: With ``semantic``, the lowest score of an instance that counts. ``mIoU_as_published``
            always takes 0.5.

    Returns:
        The metrics as ``metrics.json`` holds them, fractions in [0, 1] with None where there is no ground truth; and
        the tables as text. Both are empty where the ground truth has no annotation of the classes.
    """
    if protocol == "lvis" and errors:
        raise UserError("errors cannot be analyzed with LVIS, where not every class is verified in every image")
    check_truth(coco, categories, protocol, not results or any("segmentation" in one for one in results))
    if not truth_of(coco, categories):
        return {}, ""
    if 0 in coco.anns:
        coco = renumber_annotations(coco)
    if protocol == "lvis":
        return lvis_ap(coco, results, categories)
    score = find_plugin(protocol).part if is_plugin(protocol) else voc_ap if protocol == "voc" else coco_ap
    metrics, tables = score(coco, results, categories)
    if protocol == "semantic":
        metrics["semantic"], table = semantic_iou(coco, results, categories, semantic_threshold)
        tables += table
    if errors:
        from no_time_to_train_extras.missed_objects.error_analysis import analyze_errors

        iou_type = "segm" if "segm" in metrics else "bbox"
        evaluator_class = VocEval if protocol == "voc" else COCOeval
        metrics["errors"], table = analyze_errors(coco, results, categories, iou_type, evaluator_class)
        tables += table
    return metrics, tables


def check_truth(coco: COCO, categories: list[Category], protocol: str, masks: bool = True) -> None:
    """Check that annotations of the classes have what a protocol needs, and fill in missing areas from the masks.

    Args:
        masks: Whether results have masks, and not only boxes.
    """
    if protocol not in PROTOCOLS and not is_plugin(protocol):
        raise UserError(f"there is no protocol {protocol!r}{suggest(protocol, PROTOCOLS)}")
    if protocol == "lvis":
        check_lvis(coco)
    for annotation in truth_of(coco, categories):
        image, has_mask = coco.imgs[annotation["image_id"]], bool(annotation.get("segmentation"))
        if has_mask and (masks or "area" not in annotation) and not {"height", "width"} <= image.keys():
            raise UserError(f"masks cannot be scored: image {image['id']} states no height and width")
        if not has_mask and "area" not in annotation:
            raise UserError(f"annotation {annotation['id']} has neither segmentation nor bbox")
        if not has_mask and protocol == "semantic":
            raise UserError(f"mIoU needs masks, but annotation {annotation['id']} has no segmentation")
        if protocol == "voc" and annotation.get("difficult"):
            annotation["iscrowd"] = 1  # as in the files of ``prepare``
        if "area" not in annotation:
            annotation["area"] = float(annotation_mask(annotation, image["height"], image["width"]).sum())


def renumber_annotations(coco: COCO) -> COCO:
    """The same ground truth with annotation ids from 1: pycocotools reads a match with annotation 0 as no match."""
    annotations = [{**annotation, "id": i} for i, annotation in enumerate(coco.dataset["annotations"], start=1)]
    return index_coco({**coco.dataset, "annotations": annotations})
