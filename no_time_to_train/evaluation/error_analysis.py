"""Where the AP goes: what kinds of mistakes a detector makes, and the AP that each kind costs.

The kinds are TIDE's (Bolya et al., ECCV 2020), at IoU thresholds of 0.5 for a hit and 0.1 for no contact; a mistake is
of the first kind that fits:

- location: an IoU of 0.1 to 0.5 with an object of its class;
- class: an IoU of 0.5 or more with an object of another class;
- duplicate: an IoU of 0.5 or more with an object of its class, which a better-scored detection has found;
- both: an IoU of 0.1 to 0.5 with an object of another class;
- background: an IoU of at most 0.1 with everything;
- missed: an object that no detection finds, nor would if its class or location were mended.

An error of a kind is mended alone: class and location errors become hits (the best-scored one for each object that
nothing finds; the others go), duplicate, background and both go, missed objects no longer count. The gain is the AP50
after less the AP50 before.
"""

import contextlib
import io
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from no_time_to_train.evaluation.coco_ap import load_results
from no_time_to_train.method.memory_bank import Category

KINDS = ("class", "location", "both", "duplicate", "background", "missed")
HIT, CONTACT = 0.5, 0.1  # IoU thresholds


@dataclass(frozen=True)
class Found:
    """A detection: its class and image, its score, and what became of it.

    Attributes:
        record: the result record, with the ``bbox`` or the encoded ``segmentation``.
        hit: it is right.
        kind: the kind of mistake, where it is wrong.
        target: id of the object that it would hit, were a mistake of class or location mended.
    """

    category_id: int
    image_id: int
    score: float
    record: dict[str, Any]
    hit: bool
    kind: str = ""
    target: int = -1


@dataclass
class Matches:
    """All detections and all objects of the chosen classes.

    Attributes:
        found: detections, those that only touch what is ignored left out, in the evaluator's order.
        truth: object's id -> annotation, without ignored ones.
        hit: ids of the objects that were found.
        missed: ids of the objects that nothing finds, whatever is mended.
    """

    found: list[Found]
    truth: dict[int, dict[str, Any]]
    hit: set[int]
    missed: set[int] = field(default_factory=set)


def analyse_errors(
    coco: COCO,
    results: list[dict[str, Any]],
    categories: list[Category],
    iou_type: str,
    evaluator_class: type[COCOeval] | None = None,
) -> tuple[dict[str, Any], str]:
    """Sort the mistakes of a detector by kind, and say what each costs.

    Args:
        coco: ground truth.
        results: COCO result records.
        categories: classes that count.
        iou_type: "bbox" or "segm", what overlaps are taken of.
        evaluator_class: finds the hits; None: COCO's.

    Returns:
        ``{"iou_type": ..., "AP50": ..., "gain": {kind: AP50 gained}, "count": {kind: n}, "per_class": {name: {"AP50":
        ..., kind: n}}, "confusion": {true class: {predicted class or "missed": n}}}``, and tables. In "confusion"
        every object is given to the best-scored detection that hits it, whatever its class.
    """
    matches = find_matches(coco, results, categories, iou_type, evaluator_class or COCOeval)
    names = {category.id: category.name for category in categories}
    key = "bbox" if iou_type == "bbox" else "segmentation"
    confusion: dict[str, dict[str, int]] = {category.name: defaultdict(int) for category in categories}
    by_image: dict[int, list[int]] = defaultdict(list)
    for index, one in enumerate(matches.found):
        by_image[one.image_id].append(index)
    objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in matches.truth.values():
        objects[annotation["image_id"]].append(annotation)
    for image_id in by_image.keys() | objects.keys():
        found, truth = [matches.found[i] for i in by_image[image_id]], objects[image_id]
        iou = overlaps([one.record[key] for one in found], [one[key] for one in truth])
        for i, named in zip(by_image[image_id], name_mistakes(found, truth, iou), strict=True):
            matches.found[i] = named
        for true, predicted in pair_up(found, truth, iou):
            confusion[names[true]][names.get(predicted, "missed")] += 1
    mendable = {one.target for one in matches.found if one.kind in ("class", "location")}
    matches.missed = matches.truth.keys() - matches.hit - mendable

    base = ap50_by_class(matches.found, matches.truth.values(), names)
    average = mean(base)
    gain = {kind: mean(mended(matches, kind, names)) - average for kind in KINDS}
    per_class = {name: {"AP50": base[category_id], **dict.fromkeys(KINDS, 0)} for category_id, name in names.items()}
    for one in matches.found:
        if one.kind:
            per_class[names[one.category_id]][one.kind] += 1  # type: ignore[operator]
    for ann_id in matches.missed:
        per_class[names[matches.truth[ann_id]["category_id"]]]["missed"] += 1  # type: ignore[operator]
    count = {kind: sum(int(row[kind] or 0) for row in per_class.values()) for kind in KINDS}
    metrics = {
        "iou_type": iou_type,
        "AP50": average,
        "gain": gain,
        "count": count,
        "per_class": per_class,
        "confusion": {name: dict(sorted(row.items(), key=lambda item: -item[1])) for name, row in confusion.items()},
    }
    return metrics, error_tables(metrics)


def find_matches(
    coco: COCO,
    results: list[dict[str, Any]],
    categories: list[Category],
    iou_type: str,
    evaluator_class: type[COCOeval],
) -> Matches:
    """Let pycocotools find the hits at an IoU of 0.5."""
    detections = load_results(coco, results, iou_type)
    evaluator = evaluator_class(coco, detections, iou_type)
    evaluator.params.catIds = [category.id for category in categories]
    evaluator.params.iouThrs = np.array([HIT])
    evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
    matches = Matches([], {}, set())
    for result in filter(None, evaluator.evalImgs):  # one a class and image
        where, hits, ignored = (
            (result["category_id"], result["image_id"]),
            result["dtMatches"][0],
            result["dtIgnore"][0],
        )
        for dt_id, score, hit, ignore in zip(result["dtIds"], result["dtScores"], hits, ignored, strict=True):
            if not ignore:
                matches.found.append(Found(*where, score, detections.anns[dt_id], hit > 0))
        for ann_id, ignore, hit in zip(result["gtIds"], result["gtIgnore"], result["gtMatches"][0], strict=True):
            if not ignore:
                matches.truth[ann_id] = coco.anns[ann_id]
                matches.hit.update([ann_id] if hit > 0 else [])
    return matches


def overlaps(found: list[Any], truth: list[Any]) -> NDArray[np.float64]:
    """IoU of boxes or of encoded masks: [detections, objects]."""
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    iou: NDArray[np.float64] = rle.iou(found, truth, [0] * len(truth))
    return iou


def name_mistakes(found: list[Found], truth: list[dict[str, Any]], iou: NDArray[np.float64]) -> list[Found]:
    """The detections of an image with their kinds of mistake, and the targets of those of class and location."""
    classes = np.array([annotation["category_id"] for annotation in truth])
    named = []
    for one, row in zip(found, iou, strict=True):
        own, other = np.where(classes == one.category_id, row, 0.0), np.where(classes != one.category_id, row, 0.0)
        kind, target = "background", -1
        if one.hit:
            kind = ""
        elif CONTACT < own.max(initial=0) < HIT:
            kind, target = "location", truth[int(own.argmax())]["id"]
        elif other.max(initial=0) >= HIT:
            kind, target = "class", truth[int(other.argmax())]["id"]
        elif own.max(initial=0) >= HIT:
            kind = "duplicate"
        elif other.max(initial=0) > CONTACT:
            kind = "both"
        named.append(replace(one, kind=kind, target=target))
    return named


def pair_up(found: list[Found], truth: list[dict[str, Any]], iou: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(true category id, predicted category id or -1) of each object, whichever class the best-scored hit says."""
    free = np.ones(len(truth), bool)
    pairs = []
    for index in sorted(range(len(found)), key=lambda i: -found[i].score):
        row = np.where(free, iou[index], 0.0)
        if row.max(initial=0) >= HIT:
            best = int(row.argmax())
            free[best] = False
            pairs.append((truth[best]["category_id"], found[index].category_id))
    return pairs + [(truth[i]["category_id"], -1) for i in np.flatnonzero(free)]


def mended(matches: Matches, kind: str, names: dict[int, str]) -> dict[int, float | None]:
    """AP50 of each class once all mistakes of a kind are mended."""
    truth = {i: a for i, a in matches.truth.items() if kind != "missed" or i not in matches.missed}
    taken = set(matches.hit)
    found = []
    for one in sorted(matches.found, key=lambda one: -one.score):
        if one.kind != kind:
            found.append(one)
        elif one.target >= 0 and one.target not in taken:
            taken.add(one.target)
            found.append(replace(one, category_id=matches.truth[one.target]["category_id"], hit=True))
    return ap50_by_class(found, truth.values(), names)


def ap50_by_class(found: list[Found], truth: Any, names: dict[int, str]) -> dict[int, float | None]:
    """pycocotools' AP, interpolated at 101 points of recall, by class; None where a class has no object."""
    hits: dict[int, list[tuple[float, bool]]] = {category_id: [] for category_id in names}
    for one in found:
        hits[one.category_id].append((one.score, one.hit))
    objects = dict.fromkeys(names, 0)
    for annotation in truth:
        objects[annotation["category_id"]] += 1
    return {c: average_precision(hits[c], objects[c]) if objects[c] else None for c in names}


def average_precision(found: list[tuple[float, bool]], objects: int) -> float:
    """AP of (score, hit) pairs: the mean over 101 recalls of the best precision at that recall or a higher one."""
    hits = np.array([hit for _, hit in sorted(found, key=lambda pair: -pair[0])], dtype=float).cumsum()
    recall = hits / objects
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.append(best, 0.0)[at].mean())


def mean(values: dict[int, float | None]) -> float:
    """The mean over the classes that have objects, 0 without any."""
    known = [value for value in values.values() if value is not None]
    return float(np.mean(known)) if known else 0.0


def error_tables(metrics: dict[str, Any], confusions: int = 10) -> str:
    """The kinds with their counts and gains, and the most frequent confusions."""
    rows = [f"ERRORS ({metrics['iou_type']}, AP50 {100 * metrics['AP50']:.1f}):", f" {'kind':<10}  {'n':>7}  gain"]
    rows += [f" {kind:<10}  {metrics['count'][kind]:>7}  {100 * metrics['gain'][kind]:4.1f}" for kind in KINDS]
    pairs = [
        (count, true, predicted)
        for true, row in metrics["confusion"].items()
        for predicted, count in row.items()
        if predicted not in (true, "missed")
    ]
    if pairs:
        rows.append(" taken for another class most often:")
        rows += [f" {count:>7}  {true} for {name}" for count, true, name in sorted(pairs, reverse=True)[:confusions]]
    return "\n".join([*rows, ""])
