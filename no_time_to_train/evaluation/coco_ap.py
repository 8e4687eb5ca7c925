"""AP by pycocotools: COCO's, and VOC's at an IoU of 0.5."""

import contextlib
import copy
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from no_time_to_train.method.memory_bank import Category

#: The rows of pycocotools' summary table, in its order.
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

Metrics = dict[str, dict[str, Any]]


class VocEval(COCOeval):  # type: ignore[misc]
    """COCO's evaluation with VOC's reading of difficult objects, which converted files mark ``iscrowd``.

    A detection that matches a difficult object counts neither as right nor as wrong, however many do, and none is
    missed. COCO's crowds differ: any detection inside one goes unpunished, for the overlap is taken over the
    detection's area alone. Here it is the plain IoU. Unlike VOC's own code, a detection that overlaps two objects of
    its class may take the second where the first is taken, and AP is interpolated at 101 points of recall.
    """

    def computeIoU(self, imgId: int, catId: int) -> Any:
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        best = np.argsort([-record["score"] for record in found], kind="mergesort")[: self.params.maxDets[-1]]
        return rle.iou([found[i]["bbox"] for i in best], [one["bbox"] for one in truth], [0] * len(truth))


def coco_ap(coco: COCO, results: list[dict[str, Any]], categories: list[Category]) -> tuple[Metrics, str]:
    """COCO's AP of boxes, and of masks where all ground truth and all results have one.

    Args:
        coco: ground truth.
        results: COCO result records.
        categories: classes that count.

    Returns:
        ``{"bbox": {"AP": ..., ..., "per_class": {name: AP}}, "segm": ...}`` and the tables as text.
    """
    metrics: Metrics = {}
    tables = ""
    for iou_type in scorable(coco, results, categories):
        evaluator, table = run(COCOeval, coco, results, categories, iou_type)
        metrics[iou_type], names = summary(evaluator), per_class(evaluator, categories)
        metrics[iou_type]["per_class"] = names
        tables += table + per_class_table(names) + "\n"
    return metrics, tables


def voc_ap(coco: COCO, results: list[dict[str, Any]], categories: list[Category]) -> tuple[Metrics, str]:
    """VOC's AP of boxes: ``{"bbox": {"AP50": ..., "per_class": {name: AP50}}}`` beside COCO's figures, and a table."""
    evaluator, table = run(VocEval, coco, results, categories, "bbox")
    names = per_class(evaluator, categories, first_threshold_only=True)
    metrics = {"bbox": {**summary(evaluator), "per_class": names}}
    return metrics, table + per_class_table(names, "AP50") + "\n"


def scorable(coco: COCO, results: list[dict[str, Any]], categories: list[Category]) -> list[str]:
    """ "bbox" and "segm", so far as all ground truth of the classes and all results have boxes and masks."""
    chosen = {category.id for category in categories}
    truth = [annotation for annotation in coco.anns.values() if annotation["category_id"] in chosen]
    return [
        iou_type
        for iou_type, key in (("bbox", "bbox"), ("segm", "segmentation"))
        if all(annotation.get(key) for annotation in truth) and all(key in record for record in results)
    ]


def run(
    evaluator_class: type[COCOeval], coco: COCO, results: list[dict[str, Any]], categories: list[Category], kind: str
) -> tuple[COCOeval, str]:
    """Evaluate boxes ("bbox") or masks ("segm"): pycocotools' evaluator after ``summarize``, and its table."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = evaluator_class(coco, load_results(coco, results, kind), kind)
        evaluator.params.catIds = [category.id for category in categories]
        evaluator.evaluate()
        evaluator.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as table:
        print(f"{kind.upper()} RESULTS:")
        evaluator.summarize()
    return evaluator, table.getvalue()


def load_results(coco: COCO, results: list[dict[str, Any]], iou_type: str) -> COCO:
    """Results as a COCO object. Masks are taken without their boxes, so that a mask's area is its own."""
    if not results:
        empty = COCO()
        empty.dataset = {**coco.dataset, "annotations": []}
        empty.createIndex()
        return empty
    return coco.loadRes(records_of(results, iou_type))


def records_of(results: list[dict[str, Any]], iou_type: str) -> list[dict[str, Any]]:
    """Copies of the records with only the box or only the mask: evaluators write into theirs."""
    dropped = "segmentation" if iou_type == "bbox" else "bbox"
    return [{key: copy.copy(record[key]) for key in record if key != dropped} for record in results]


def summary(evaluator: COCOeval) -> dict[str, Any]:
    """pycocotools' summary table by name."""
    return {name: fraction(value) for name, value in zip(SUMMARY, evaluator.stats.tolist(), strict=True)}


def per_class(
    evaluator: COCOeval, categories: list[Category], first_threshold_only: bool = False
) -> dict[str, float | None]:
    """AP of each class over all IoU thresholds, or at the first of them."""
    precision = evaluator.eval["precision"]  # [IoU threshold, recall, class, area range, detections an image]
    thresholds = slice(1) if first_threshold_only else slice(None)
    return {
        category.name: mean_of_valid(precision[thresholds, :, index, 0, -1])
        for index, category in enumerate(categories)
    }


def mean_of_valid(values: NDArray[np.float64]) -> float | None:
    """The mean without pycocotools' -1, "no ground truth"; None where nothing else is there."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None


def fraction(value: float) -> float | None:
    """pycocotools' -1, "no ground truth", as None."""
    return None if value == -1 else value


def per_class_table(per_class: dict[str, float | None], measure: str = "AP") -> str:
    """A figure of each class in per cent, aligned."""
    width = max(map(len, per_class), default=0)
    rows = [
        f" {name:<{width}}  {'-' if value is None else f'{100 * value:.1f}':>5}" for name, value in per_class.items()
    ]
    return "\n".join([f" {'class':<{width}}  {measure:>5}", *rows])
