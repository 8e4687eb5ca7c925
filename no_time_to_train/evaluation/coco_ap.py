"""AP by pycocotools: COCO's, and PASCAL VOC's at an IoU of 0.5."""

import contextlib
import copy
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from no_time_to_train.data.coco import index_coco
from no_time_to_train.errors import first_of
from no_time_to_train.method.memory_bank import Category

#: An entry of a COCO file: a result, or an annotation.
Record = dict[str, Any]
Records = list[Record]

#: Figures by name; None where there is no ground truth.
Figures = dict[str, float | None]

#: The content of ``metrics.json``: figures by name, for each of "bbox", "segm", "semantic" and "errors".
Metrics = dict[str, dict[str, Any]]

#: The rows of pycocotools' summary table, in its order.
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class VocEval(COCOeval):  # type: ignore[misc]  # pycocotools has no type hints
    """COCO's evaluation with VOC's rule for difficult objects, which converted files mark ``iscrowd``.

    A detection that matches a difficult object is neither a true nor a false positive, however many detections match
    it, and a difficult object is never missed. COCO's rule for crowds differs: there the overlap is divided by the
    detection's own area, so that every detection inside a crowd is ignored. Here it is the IoU.

    VOC's own code differs in two ways: a detection that overlaps two objects of its class may here match the second if
    the first is already matched, and AP is here interpolated at 101 recalls.
    """

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """IoU of an image's detections, best first, and objects of a class, [n, m]."""
        objects, detections = self._gts[imgId, catId], self._dts[imgId, catId]
        best = np.argsort([-record["score"] for record in detections], kind="mergesort")[: self.params.maxDets[-1]]
        boxes = [detections[i]["bbox"] for i in best]
        return coco_mask.iou(boxes, [annotation["bbox"] for annotation in objects], [0] * len(objects))


def coco_ap(coco: COCO, results: Records, categories: list[Category]) -> tuple[Metrics, str]:
    """COCO's AP of boxes, and of masks where all ground truth and all results have one.

    Returns:
        ``{"bbox": {"AP": ..., ..., "per_class": {name: AP}}, "segm": ...}``, and the tables as text.
    """
    metrics: Metrics = {}
    tables = ""
    for iou_type in scorable_iou_types(coco, results, categories):
        evaluator, table = run_evaluator(COCOeval, coco, results, categories, iou_type)
        names = ap_per_class(evaluator, categories)
        metrics[iou_type] = {**summary(evaluator), "per_class": names}
        tables += table + format_table(names, ("class", "AP")) + "\n"
    return metrics, tables + why_not_scored(coco, results, categories, metrics)


def voc_ap(coco: COCO, results: Records, categories: list[Category]) -> tuple[Metrics, str]:
    """PASCAL VOC's AP of boxes, and nAP50 as published.

    The published evaluation is COCO's, where the overlap with a difficult object (``iscrowd``) is divided by the
    detection's area: every detection inside one is ignored.

    Returns:
        ``{"bbox": {"AP50": ..., "nAP50_as_published": ..., ..., "per_class": {name: AP50}}}`` with COCO's other
        figures, and the tables as text.
    """
    evaluator, table = run_evaluator(VocEval, coco, results, categories, "bbox")
    names = ap_per_class(evaluator, categories, first_threshold_only=True)
    plain, _ = run_evaluator(COCOeval, coco, results, categories, "bbox")
    published = summary(plain)["AP50"]
    table += format_table(names, ("class", "AP50")) + "\n" + format_table({"nAP50 as published": published}) + "\n"
    return {"bbox": {**summary(evaluator), "nAP50_as_published": published, "per_class": names}}, table


def truth_of(coco: COCO, categories: list[Category]) -> Records:
    """The annotations of some classes."""
    chosen = {category.id for category in categories}
    return [annotation for annotation in coco.anns.values() if annotation["category_id"] in chosen]


def scorable_iou_types(coco: COCO, results: Records, categories: list[Category]) -> list[str]:
    """What can be scored: "bbox" where all ground truth of the classes and all results have boxes, "segm" likewise."""
    truth = truth_of(coco, categories)
    return [
        iou_type
        for iou_type, key in (("bbox", "bbox"), ("segm", "segmentation"))
        if all(annotation.get(key) for annotation in truth) and all(key in record for record in results)
    ]


def why_not_scored(coco: COCO, results: Records, categories: list[Category], metrics: Metrics) -> str:
    """Why boxes or masks are not scored although some objects and results have one; empty where there is no reason.

    Where nothing is scored, all reasons are given.
    """
    truth, reasons = truth_of(coco, categories), ""
    for iou_type, key, noun in (("bbox", "bbox", "Boxes"), ("segm", "segmentation", "Masks")):
        lacking = [str(annotation["id"]) for annotation in truth if not annotation.get(key)]
        is_known = len(lacking) < len(truth) and any(key in record for record in results)
        if iou_type in metrics or (metrics and not is_known):
            continue
        which = f"annotation {first_of(lacking)} of the ground truth ({len(lacking)} of {len(truth)}) has no {key}"
        reasons += f"{noun} are not scored: {which if lacking else 'some results have none'}.\n"
    return reasons


def run_evaluator(
    evaluator_class: type[COCOeval], coco: COCO, results: Records, categories: list[Category], iou_type: str
) -> tuple[COCOeval, str]:
    """Run one of pycocotools' evaluators for "bbox" or "segm": the evaluator, and its table as text."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = evaluator_class(coco, load_results(coco, results, iou_type), iou_type)
        evaluator.params.catIds = [category.id for category in categories]
        evaluator.evaluate()
        evaluator.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as table:
        print(f"{iou_type.upper()} RESULTS:")
        evaluator.summarize()
    return evaluator, table.getvalue()


def load_results(coco: COCO, results: Records, iou_type: str) -> COCO:
    """Results, which are not changed, in pycocotools' form for "bbox" or "segm"."""
    if not results:  # which pycocotools does not accept
        return index_coco({**coco.dataset, "annotations": []})
    return coco.loadRes(boxes_or_masks(results, iou_type))


def boxes_or_masks(results: Records, iou_type: str) -> Records:
    """Copies of results into which evaluators may write, with boxes or masks only: their area is what is scored."""
    dropped = "segmentation" if iou_type == "bbox" else "bbox"
    return [{key: copy.copy(record[key]) for key in record if key != dropped} for record in results]


def summary(evaluator: COCOeval) -> Figures:
    """The figures of pycocotools' summary table by name; None instead of its -1, which means no ground truth."""
    figures = zip(SUMMARY, evaluator.stats.tolist(), strict=True)
    return {name: None if value == -1 else value for name, value in figures}


def ap_per_class(evaluator: COCOeval, categories: list[Category], first_threshold_only: bool = False) -> Figures:
    """The AP of each class by its name, or that at an IoU of 0.5 only; None for classes without ground truth."""
    precision = evaluator.eval["precision"]  # [IoU thresholds, recalls, classes, area ranges, detections per image]
    thresholds = slice(1) if first_threshold_only else slice(None)
    return {
        category.name: mean_of_valid(precision[thresholds, :, index, 0, -1])
        for index, category in enumerate(categories)
    }


def average_precision(precision: NDArray[np.floating], places: NDArray[np.integer]) -> float:
    """The mean, over some recalls, of the best precision at that recall or a higher one.

    Args:
        precision: float [m], the precision down to each detection or threshold, best first.
        places: int [r] in [0, m], where each recall is reached; m where it is not.
    """
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.append(best, best.dtype.type(0))[places].mean())


def mean_of_valid(values: NDArray[np.float64]) -> float | None:
    """The mean of figures except the evaluators' -1, which means no ground truth; None where all are -1."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of figures except None, which means no ground truth; None where all are None."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def format_table(figures: Figures, header: tuple[str, str] | None = None) -> str:
    """A table of fractions in percent by name, with "-" for None, and the titles of its two columns."""
    width = max(map(len, figures), default=0)
    rows = [header] if header else []
    rows += [(name, "-" if value is None else f"{100 * value:.1f}") for name, value in figures.items()]
    return "\n".join(f" {name:<{width}}  {cell:>5}" for name, cell in rows)
