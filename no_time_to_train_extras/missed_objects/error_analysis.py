"""Which kinds of errors a detector makes, and how much AP50 each kind costs.

The kinds are those of TIDE (Bolya et al., ECCV 2020). A detection that is not a hit has the first kind that applies:

- location: IoU of 0.1 to 0.5 with an object of its class;
- class: IoU of at least 0.5 with an object of another class;
- duplicate: IoU of at least 0.5 with an object of its class that a detection with a higher score already hits;
- both: IoU of 0.1 to 0.5 with an object of another class;
- background: IoU of at most 0.1 with every object.

An object is missed if no detection hits it, or would hit it if its class or its location were corrected.

The gain of a kind is the AP50 after the errors of this kind alone are corrected, minus the AP50 before:

- class, location: for each object that is not hit, the error with the highest score becomes a hit; the others are
  removed;
- duplicate, both, background: the errors are removed;
- missed: the objects are removed.
"""

import contextlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from no_time_to_train.data.coco import ImageId
from no_time_to_train.evaluation.coco_ap import Record, Records, average_precision, load_results, mean_of_known
from no_time_to_train.method.memory_bank import Category

KINDS = ("class", "location", "both", "duplicate", "background", "missed")

#: IoU from which a detection hits an object, and IoU above which it touches it.
HIT, TOUCH = 0.5, 0.1

#: AP50 by category id; None for classes without objects.
ApByClass = dict[int, float | None]


@dataclass
class ScoredDetection:
    """A detection and how it was judged.

    Attributes:
        record: Its result record, with ``bbox`` or compressed ``segmentation``.
        is_hit: Whether it hits an object of its class.
        kind: Its kind of error; empty for a hit.
        target: For errors of class and location, the id of the object that it would hit if corrected.
    """

    category_id: int
    image_id: ImageId
    score: float
    record: Record
    is_hit: bool
    kind: str = ""
    target: int | None = None


class ImageMatches(NamedTuple):
    """The detections and objects of one image, and their IoU, float [detections, objects]."""

    detections: list[ScoredDetection]
    objects: Records
    iou: NDArray[np.float64]


@dataclass
class Matches:
    """The detections and objects of the chosen classes, without those that the evaluator ignores.

    Attributes:
        iou_type: "bbox" or "segm".
        detections: The detections in the evaluator's order.
        objects: The annotations by id.
        hit_objects: Ids of the objects that a detection of their class hits.
    """

    iou_type: str
    detections: list[ScoredDetection] = field(default_factory=list)
    objects: dict[int, Record] = field(default_factory=dict)
    hit_objects: set[int] = field(default_factory=set)

    def missed_objects(self) -> set[int]:
        """Ids of the objects that no detection hits, even if corrected. Needs the kinds of the detections."""
        return self.objects.keys() - self.hit_objects - {detection.target for detection in self.detections}

    def images(self) -> Iterator[ImageMatches]:
        """The matches of one image at a time."""
        detections, objects = defaultdict(list), defaultdict(list)
        for detection in self.detections:
            detections[detection.image_id].append(detection)
        for annotation in self.objects.values():
            objects[annotation["image_id"]].append(annotation)
        key = "bbox" if self.iou_type == "bbox" else "segmentation"
        for image_id in sorted(detections.keys() | objects.keys()):
            ours, theirs = detections[image_id], objects[image_id]
            iou = np.zeros((len(ours), len(theirs)))
            if iou.size:
                regions = [detection.record[key] for detection in ours], [annotation[key] for annotation in theirs]
                iou = coco_mask.iou(*regions, [0] * len(theirs))
            yield ImageMatches(ours, theirs, iou)


def analyze_errors(
    coco: COCO, results: Records, categories: list[Category], iou_type: str, evaluator: type[COCOeval] = COCOeval
) -> tuple[Record, str]:
    """Sort the errors of a detector by kind, and compute what each kind costs.

    Returns:
        ``{"iou_type": ..., "AP50": ..., "gain": {kind: AP50 gained}, "count": {kind: n}, "per_class": {name: {"AP50":
        ..., kind: n}}, "confusion": {true class: {predicted class or "missed": n}}}``, and the tables as text.
    """
    matches = find_matches(coco, results, categories, iou_type, evaluator)
    names = {category.id: category.name for category in categories}
    confusion: dict[str, Counter[str]] = {name: Counter() for name in names.values()}
    for image in matches.images():
        assign_kinds(image)
        for true, predicted in true_and_predicted(image):
            confusion[names[true]][names.get(predicted, "missed")] += 1
    counts = count_errors(matches, names)
    ap50 = ap_by_class(matches.detections, matches.objects.values(), names)
    mean = mean_of_known(ap50.values()) or 0.0
    metrics = {
        "iou_type": iou_type,
        "AP50": mean,
        "gain": {kind: ap_without(matches, kind, names) - mean for kind in KINDS},
        "count": {kind: sum(row[kind] for row in counts.values()) for kind in KINDS},
        "per_class": {names[category_id]: {"AP50": ap, **counts[category_id]} for category_id, ap in ap50.items()},
        "confusion": {name: dict(row.most_common()) for name, row in confusion.items()},
    }
    return metrics, error_tables(metrics)


def find_matches(
    coco: COCO, results: Records, categories: list[Category], iou_type: str, scoring: type[COCOeval], hit: float = HIT
) -> Matches:
    """Let one of pycocotools' evaluators find the hits, which need an IoU of ``hit``; errors get no kinds here."""
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = load_results(coco, results, iou_type)
        evaluator = scoring(coco, loaded, iou_type)
        evaluator.params.catIds = [category.id for category in categories]
        evaluator.params.iouThrs = np.array([hit])
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.evaluate()
    matches = Matches(iou_type)
    for result in filter(None, evaluator.evalImgs):  # one per class and image
        where = result["category_id"], result["image_id"]
        for result_id, score, match, ignored in zip(
            result["dtIds"], result["dtScores"], result["dtMatches"][0], result["dtIgnore"][0], strict=True
        ):
            if not ignored:
                matches.detections.append(ScoredDetection(*where, score, loaded.anns[result_id], match > 0))
        for object_id, match, ignored in zip(result["gtIds"], result["gtMatches"][0], result["gtIgnore"], strict=True):
            if not ignored:
                matches.objects[object_id] = coco.anns[object_id]
                if match > 0:
                    matches.hit_objects.add(object_id)
    return matches


def assign_kinds(image: ImageMatches, hit: float = HIT) -> None:
    """Set the kind of error of each detection in an image, and the target of errors of class and location."""
    classes = np.array([annotation["category_id"] for annotation in image.objects])
    for detection, iou in zip(image.detections, image.iou, strict=True):
        if detection.is_hit:
            continue
        own = np.where(classes == detection.category_id, iou, 0.0)
        other = np.where(classes != detection.category_id, iou, 0.0)
        best_own, best_other = own.max(initial=0), other.max(initial=0)
        if TOUCH < best_own < hit:
            detection.kind, detection.target = "location", image.objects[own.argmax()]["id"]
        elif best_other >= hit:
            detection.kind, detection.target = "class", image.objects[other.argmax()]["id"]
        elif best_own >= hit:
            detection.kind = "duplicate"
        elif best_other > TOUCH:
            detection.kind = "both"
        else:
            detection.kind = "background"


def true_and_predicted(image: ImageMatches) -> Iterator[tuple[int, int]]:
    """The true category id of each object in an image, and the predicted one, or -1 where nothing hits the object.

    Each object is matched with the detection of the highest score that hits it, whatever its class.
    """
    free = np.ones(len(image.objects), bool)
    for index in sorted(range(len(image.detections)), key=lambda i: -image.detections[i].score):
        iou = np.where(free, image.iou[index], 0.0)
        if iou.max(initial=0) >= HIT:
            best = iou.argmax()
            free[best] = False
            yield image.objects[best]["category_id"], image.detections[index].category_id
    for index in np.flatnonzero(free).tolist():
        yield image.objects[index]["category_id"], -1


def count_errors(matches: Matches, names: dict[int, str]) -> dict[int, dict[str, int]]:
    """The number of errors of each kind in each class: missed objects in their own, others in the predicted one."""
    counts = Counter((detection.category_id, detection.kind) for detection in matches.detections)
    counts.update((matches.objects[object_id]["category_id"], "missed") for object_id in matches.missed_objects())
    return {category_id: {kind: counts[category_id, kind] for kind in KINDS} for category_id in names}


def ap_without(matches: Matches, kind: str, names: dict[int, str]) -> float:
    """The mean AP50 over classes after all errors of one of ``KINDS`` are corrected."""
    removed = matches.missed_objects() if kind == "missed" else set()
    return corrected_ap(matches, lambda detection: detection.kind == kind, removed, names)


def corrected_ap(
    matches: Matches, is_corrected: Callable[[ScoredDetection], bool], removed: set[int], names: dict[int, str]
) -> float:
    """The mean AP over classes after some errors are corrected, and the objects in ``removed`` do not count.

    Of these errors, the one with the highest score becomes a hit of its target, unless that is hit already; the others
    are removed. The detections have kinds of errors; ``names`` are those of the classes by category id.
    """
    objects = [annotation for object_id, annotation in matches.objects.items() if object_id not in removed]
    hit_objects = set(matches.hit_objects)
    detections = []
    for detection in sorted(matches.detections, key=lambda detection: -detection.score):
        if not is_corrected(detection):
            detections.append(detection)
        elif detection.target is not None and detection.target not in hit_objects:
            hit_objects.add(detection.target)
            category_id = matches.objects[detection.target]["category_id"]
            detections.append(replace(detection, category_id=category_id, is_hit=True))
    return mean_of_known(ap_by_class(detections, objects, names).values()) or 0.0


def ap_by_class(detections: Iterable[ScoredDetection], objects: Iterable[Record], names: dict[int, str]) -> ApByClass:
    """The AP of each class at 101 recalls, as pycocotools computes it."""
    counts = Counter(annotation["category_id"] for annotation in objects)
    hits = defaultdict(list)
    for detection in sorted(detections, key=lambda detection: -detection.score):
        hits[detection.category_id].append(detection.is_hit)
    found: ApByClass = dict.fromkeys(names)
    for category_id in counts.keys() & names.keys():
        right = np.cumsum(hits[category_id], dtype=float)
        precision = right / np.arange(1, len(right) + 1)
        places = np.searchsorted(right / counts[category_id], np.linspace(0, 1, 101), side="left")
        found[category_id] = average_precision(precision, places)
    return found


def error_tables(metrics: dict[str, Any], confusions: int = 10) -> str:
    """The tables of an error analysis: each kind's number and gain, and the most frequent confusions of classes."""
    rows = [f"ERRORS ({metrics['iou_type']}, AP50 {100 * metrics['AP50']:.1f}):", f" {'kind':<10}  {'n':>7}  gain"]
    rows += [f" {kind:<10}  {metrics['count'][kind]:>7}  {100 * metrics['gain'][kind]:4.1f}" for kind in KINDS]
    pairs = [
        (count, true, predicted)
        for true, row in metrics["confusion"].items()
        for predicted, count in row.items()
        if predicted not in (true, "missed")
    ]
    if pairs:
        rows.append(" most frequent confusions:")
    for count, true, predicted in sorted(pairs, reverse=True)[:confusions]:
        rows.append(f" {count:>7}  {true} taken for {predicted}")
    return "\n".join([*rows, ""])
