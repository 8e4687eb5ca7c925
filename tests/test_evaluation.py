"""Every evaluator is compared with figures computed by hand, or with the package of its protocol's authors."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from no_time_to_train.cli import main
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation import evaluate
from no_time_to_train.evaluation.lvis_ap import best_of_each_image, lvis_ap

Box = tuple[float, float, float, float]
MakeTruth = Callable[..., COCO]

SIDE = 100


def annotation(image_id: int, category_id: int, box: Box, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), **more}


def detection(image_id: int, category_id: int, box: Box, score: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}


def with_mask(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a mask that fills its box."""
    x, y, w, h = map(int, record["bbox"])
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + h, x : x + w] = True
    return {**record, "segmentation": encode_mask(mask)}


@pytest.fixture
def truth(tmp_path: Path) -> MakeTruth:
    """Write and read ground truth with images 1 to ``images`` and classes 1 to ``classes``."""

    def make(annotations: list[dict[str, Any]], images: int = 1, classes: int = 1, first_id: int = 1) -> COCO:
        data = {
            "images": [{"id": i + 1, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in range(images)],
            "categories": [{"id": c + 1, "name": f"class {c + 1}"} for c in range(classes)],
            "annotations": [{"id": first_id + i, **a} for i, a in enumerate(annotations)],
        }
        (tmp_path / "truth.json").write_text(json.dumps(data))
        return read_coco(tmp_path / "truth.json")

    return make


def average_precision(hits: str, objects: int) -> float:
    """By definition: the mean over 101 recalls of the best precision at that recall or a higher one.

    Args:
        hits: The detections, best first: "+" for a true positive, "-" for a false one.
        objects: Number of objects.
    """
    points = [(hits[: i + 1].count("+") / objects, hits[: i + 1].count("+") / (i + 1)) for i in range(len(hits))]
    return sum(max([p for r, p in points if r >= k / 100], default=0) for k in range(101)) / 101


def score(coco: COCO, results: list[dict[str, Any]], *args: Any, **kwargs: Any) -> dict[str, Any]:
    return evaluate(coco, results, select_categories(coco, "truth.json"), *args, **kwargs)[0]


@pytest.mark.parametrize("first_id", [0, 1])  # pycocotools alone reads a match with annotation 0 as none
def test_coco_ap_by_hand(truth: MakeTruth, first_id: int) -> None:
    left, right = (0, 0, 20, 20), (60, 60, 20, 20)
    coco = truth([annotation(1, 1, left), annotation(1, 1, right)], first_id=first_id)
    results = [detection(1, 1, left, 0.9), detection(1, 1, (30, 30, 9, 9), 0.8), detection(1, 1, right, 0.7)]
    metrics = score(coco, results)
    by_hand = (51 * 1 + 50 * 2 / 3) / 101  # recalls to 0.50 at precision 1, the rest at 2/3
    assert metrics["bbox"]["AP"] == pytest.approx(by_hand)
    assert metrics["bbox"]["per_class"] == {"class 1": pytest.approx(by_hand)}
    assert "segm" not in metrics


def test_voc_ignores_detections_of_difficult_objects(truth: MakeTruth) -> None:
    plain, difficult = (0, 0, 20, 20), (40, 40, 40, 40)
    coco = truth([annotation(1, 1, plain), annotation(1, 1, difficult, iscrowd=1)])
    on_difficult = [detection(1, 1, difficult, 0.95), detection(1, 1, (41, 41, 40, 40), 0.9)]
    assert score(coco, [*on_difficult, detection(1, 1, plain, 0.5)], "voc")["bbox"]["AP50"] == pytest.approx(1)
    inside = detection(1, 1, (45, 45, 9, 9), 0.85)  # overlaps the difficult object too little to be ignored
    metrics = score(coco, [*on_difficult, inside, detection(1, 1, plain, 0.5)], "voc")
    assert metrics["bbox"]["AP50"] == pytest.approx(1 / 2)
    assert metrics["bbox"]["per_class"] == {"class 1": pytest.approx(1 / 2)}
    assert score(coco, [*on_difficult, inside, detection(1, 1, plain, 0.5)])["bbox"]["AP50"] == pytest.approx(1)


def test_voc_ap50_accepts_a_box_that_overlaps_by_half(truth: MakeTruth) -> None:
    coco = truth([annotation(1, 1, (0, 0, 20, 20))])
    results = [detection(1, 1, (0, 0, 20, 11), 0.9)]  # IoU 0.55: meets two of COCO's ten thresholds
    metrics = score(coco, results, "voc")["bbox"]
    assert metrics["AP50"] == pytest.approx(1)
    assert metrics["per_class"]["class 1"] == pytest.approx(1)
    assert metrics["AP"] == pytest.approx(0.2)


def overlap(first: Box, second: Box) -> float:
    """The area in which two boxes overlap."""
    (x, y, w, h), (a, b, c, d) = first, second
    return max(min(x + w, a + c) - max(x, a), 0) * max(min(y + h, b + d) - max(y, b), 0)


def judge_as_published(objects: list[Box], difficult: list[Box], detections: list[Box]) -> str:
    """The hits of one image at an IoU of 0.5: detections that lie in a difficult object by half are excused.

    Args:
        objects: The objects that are not difficult.
        difficult: The difficult objects.
        detections: The detections, best first.
    """
    left, hits = list(objects), ""
    for box in detections:
        area = box[2] * box[3]
        ious = [overlap(box, one) / (area + one[2] * one[3] - overlap(box, one)) for one in left]
        if max(ious, default=0) >= 0.5:
            del left[int(np.argmax(ious))]
            hits += "+"
        elif not any(overlap(box, one) / area >= 0.5 for one in difficult):
            hits += "-"
    return hits


def test_voc_as_published_excuses_detections_inside_a_difficult_object(truth: MakeTruth) -> None:
    objects: list[Box] = [(0, 0, 20, 20), (0, 40, 20, 20)]
    difficult: list[Box] = [(40, 40, 40, 40)]
    detections: list[Box] = [
        (45, 45, 9, 9),  # inside the difficult object: excused as published, but its IoU is small
        (75, 50, 20, 10),  # a quarter of it is inside: wrong for both
        (0, 0, 20, 20),
        (35, 60, 10, 10),  # half of it is inside: excused as published
        (0, 42, 20, 20),
    ]
    coco = truth([annotation(1, 1, box) for box in objects] + [annotation(1, 1, difficult[0], iscrowd=1, difficult=1)])
    metrics = score(coco, [detection(1, 1, box, 0.9 - i / 10) for i, box in enumerate(detections)], "voc")["bbox"]
    hits = judge_as_published(objects, difficult, detections)
    assert hits == "-++"
    assert metrics["nAP50_as_published"] == pytest.approx(average_precision(hits, 2))
    assert metrics["AP50"] == pytest.approx(average_precision("--+-+", 2))


def lvis_truth(tmp_path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], letters: str) -> COCO:
    data = {
        "images": [{"file_name": f"{i['id']}.png", "height": SIDE, "width": SIDE, **i} for i in images],
        "categories": [{"id": i + 1, "name": f"class {i + 1}", "frequency": f} for i, f in enumerate(letters)],
        "annotations": [
            {"id": i + 1, "area": a["bbox"][2] * a["bbox"][3], **a} for i, a in enumerate(map(with_mask, annotations))
        ],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(data))
    return read_coco(path)


def test_lvis_counts_only_verified_classes(tmp_path: Path) -> None:
    box, elsewhere = (10, 10, 20, 20), (60, 60, 20, 20)
    images = [
        {"id": 1, "neg_category_ids": [2], "not_exhaustive_category_ids": [1]},
        {"id": 2, "neg_category_ids": [], "not_exhaustive_category_ids": []},
    ]
    coco = lvis_truth(tmp_path, images, [annotation(1, 1, box), annotation(2, 2, box)], "rf")
    results = [
        detection(1, 1, elsewhere, 0.9),  # class 1 is not exhaustive in image 1: ignored
        detection(1, 1, box, 0.8),  # right
        detection(2, 1, box, 0.9),  # class 1 is not verified in image 2: ignored
        detection(1, 2, box, 0.9),  # class 2 is verified absent from image 1: wrong
        detection(2, 2, box, 0.8),  # right
    ]
    metrics = score(coco, list(map(with_mask, results)), "lvis")
    for iou_type in ("bbox", "segm"):
        assert metrics[iou_type]["per_class"] == {"class 1": pytest.approx(1), "class 2": pytest.approx(1 / 2)}
        assert metrics[iou_type]["AP"] == pytest.approx(3 / 4)
        assert metrics[iou_type]["APr"] == pytest.approx(1)
        assert metrics[iou_type]["APf"] == pytest.approx(1 / 2)
        assert metrics[iou_type]["APc"] is None
    rare = select_categories(coco, "lvis.json", class_split="lvis_rare")
    assert [category.id for category in rare] == [1]
    assert evaluate(coco, results, rare, "lvis")[0]["bbox"]["AP"] == pytest.approx(1)


def test_lvis_ap_as_published_counts_every_image_for_every_class(tmp_path: Path) -> None:
    box, elsewhere = (10, 10, 20, 20), (60, 60, 20, 20)
    images = [
        {"id": 1, "neg_category_ids": [2], "not_exhaustive_category_ids": [1]},
        {"id": 2, "neg_category_ids": [], "not_exhaustive_category_ids": []},
    ]
    coco = lvis_truth(tmp_path, images, [annotation(1, 1, box), annotation(2, 2, box)], "rfc")
    results = [
        detection(1, 1, elsewhere, 0.95),  # not exhaustive: ignored by LVIS, wrong as published
        detection(2, 1, box, 0.9),  # not verified: ignored by LVIS, wrong as published
        detection(1, 1, box, 0.8),
        detection(1, 2, box, 0.9),  # verified absent: wrong for both
        detection(2, 2, box, 0.8),
        detection(2, 3, box, 0.8),  # class 3 has no ground truth and does not count
    ]
    metrics = score(coco, list(map(with_mask, results)), "lvis")
    plain = (average_precision("--+", 1) + average_precision("-+", 1)) / 2
    federated = (average_precision("+", 1) + average_precision("-+", 1)) / 2
    for iou_type in ("bbox", "segm"):
        assert metrics[iou_type]["AP_as_published"] == pytest.approx(plain)
        assert metrics[iou_type]["AP"] == pytest.approx(federated)
    empty = score(coco, [], "lvis")["bbox"]
    assert (empty["AP"], empty["AP_as_published"]) == (0, 0)


@pytest.mark.parametrize(("false_ones", "published"), [(99, 1 / 100), (100, 0)])
def test_lvis_ap_as_published_takes_100_detections(tmp_path: Path, false_ones: int, published: float) -> None:
    images = [{"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": [1]}]
    coco = lvis_truth(tmp_path, images, [annotation(1, 1, (10, 10, 20, 20))], "r")
    results = [detection(1, 1, (60, 60, 20, 20), 0.9)] * false_ones + [detection(1, 1, (10, 10, 20, 20), 0.5)]
    metrics = score(coco, results, "lvis")["bbox"]
    assert metrics["AP_as_published"] == pytest.approx(published)
    assert metrics["AP"] == pytest.approx(1)


def test_lvis_ap_as_published_equals_pycocotools(tmp_path: Path) -> None:
    coco, results = random_lvis(tmp_path)
    ours, _ = lvis_ap(coco, results, select_categories(coco, "lvis.json"), classes_at_once=3)
    for iou_type in ("bbox", "segm"):
        evaluator = COCOeval(coco, coco.loadRes(results), iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        assert ours[iou_type]["AP_as_published"] == pytest.approx(evaluator.stats[0])
        assert ours[iou_type]["AP_as_published"] < ours[iou_type]["AP"]


def random_lvis(tmp_path: Path) -> tuple[COCO, list[dict[str, Any]]]:
    """Eight images and seven classes; noisy, duplicate, missing and false detections, over 400 in the first image."""
    rng = np.random.default_rng(0)
    images = [
        {
            "id": i,
            "neg_category_ids": rng.choice(range(1, 8), 3, replace=False).tolist(),
            "not_exhaustive_category_ids": rng.choice(range(1, 8), 1).tolist(),
        }
        for i in range(1, 9)
    ]

    def box() -> Box:
        return (*rng.integers(0, 40, 2).tolist(), *rng.integers(4, 50, 2).tolist())

    annotations = [annotation(image["id"], int(c), box()) for image in images for c in rng.integers(1, 7, 6)]
    results = []
    for one in annotations:
        for _ in range(rng.integers(0, 4)):
            x, y, w, h = (np.array(one["bbox"]) + rng.integers(-3, 4, 4)).clip(1).tolist()
            results.append(detection(one["image_id"], one["category_id"], (x, y, w, h), float(rng.random())))
    results += [
        detection(int(rng.integers(1, 9)), int(rng.integers(1, 8)), box(), float(rng.random())) for _ in range(60)
    ]
    results += [detection(1, int(rng.integers(1, 8)), box(), float(rng.random()) / 2) for _ in range(400)]
    return lvis_truth(tmp_path, images, annotations, "rrccfff"), list(map(with_mask, results))


def test_lvis_ap_equals_the_lvis_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lvis = pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # the package is older than numpy 2
    coco, results = random_lvis(tmp_path)
    ours, _ = lvis_ap(coco, results, select_categories(coco, "lvis.json"))
    for iou_type, dropped in (("bbox", "segmentation"), ("segm", "bbox")):
        records = [{key: value for key, value in record.items() if key != dropped} for record in results]
        package = lvis.LVIS(str(tmp_path / "lvis.json"))
        evaluator = lvis.LVISEval(package, lvis.LVISResults(package, records), iou_type)
        evaluator.run()
        for name, value in evaluator.get_results().items():
            key = {"AR@300": "AR300"}.get(name, name)
            if key in ours[iou_type]:
                assert ours[iou_type][key] == (None if value == -1 else pytest.approx(value)), (iou_type, name)
        assert 0.1 < ours[iou_type]["AP"] < 0.9


def test_lvis_ap_does_not_depend_on_classes_at_once(tmp_path: Path) -> None:
    coco, results = random_lvis(tmp_path)
    categories = select_categories(coco, "lvis.json")
    assert lvis_ap(coco, results, categories, classes_at_once=2) == lvis_ap(coco, results, categories)
    best = best_of_each_image(results)
    assert max(sum(r["image_id"] == i for r in best) for i in range(1, 9)) == 300


def test_message_names_a_missing_lvis_field(truth: MakeTruth) -> None:
    with pytest.raises(UserError, match="'neg_category_ids', which image id 1 lacks"):
        score(truth([annotation(1, 1, (0, 0, 9, 9))]), [], "lvis")


def test_semantic_iou_by_hand(truth: MakeTruth) -> None:
    objects = [
        annotation(1, 1, (0, 0, 40, 100), area=4000),
        annotation(1, 2, (20, 0, 20, 50), area=1000),  # smaller: covers class 1, which keeps 3000 pixels
        annotation(2, 2, (0, 0, 10, 10), area=100),
    ]
    coco = truth([with_mask(a) for a in objects], images=2, classes=3)
    results = [
        detection(1, 1, (0, 0, 50, 100), 0.9),  # covers the next where they overlap
        detection(1, 2, (40, 0, 20, 100), 0.8),
        detection(1, 1, (0, 0, 100, 100), 0.4),  # below the threshold
        detection(2, 1, (0, 0, 10, 5), 0.7),
    ]
    metrics = score(coco, [with_mask(r) for r in results], "semantic", semantic_threshold=0.5)["semantic"]
    # class 1: 3000 hit of 3000 true + 5000 + 50 predicted; class 2: none hit
    # background: 20,000 - 4,000 - 100 true pixels, of which results cover 1,000 + 1,000 in image 1
    by_hand = {"class 1": 3000 / (5000 + 50), "class 2": 0.0, "class 3": None}
    assert metrics["per_class"] == {k: v if v is None else pytest.approx(v) for k, v in by_hand.items()}
    assert metrics["mIoU"] == pytest.approx(by_hand["class 1"] / 2)
    # true background predicted as background: 4,000 in image 1, 9,900 in image 2; 50 pixels of class 2 are predicted so
    assert metrics["background"] == pytest.approx((4000 + 9900) / (15900 + 50))
    everything = score(coco, [with_mask(r) for r in results], "semantic", semantic_threshold=0.0)["semantic"]
    assert everything["background"] == pytest.approx(9900 / (15900 + 50))


def test_semantic_iou_as_published(tmp_path: Path) -> None:
    """Labels are positions in the file, so those of the classes are 0 (like the background), 5, 7, 19 and 30."""
    objects = [  # position of the class, box, whether it is a crowd; later ones cover earlier ones
        (5, (0, 0, 40, 100), 0),
        (0, (20, 0, 20, 50), 0),
        (30, (60, 0, 20, 100), 0),
        (5, (80, 0, 20, 100), 1),
        (11, (0, 0, 100, 100), 0),  # not a class of the fold
    ]
    results = [  # lower scores cover higher ones
        (7, (90, 90, 10, 10), 0.5),
        (30, (40, 0, 30, 100), 0.6),
        (5, (0, 0, 50, 100), 0.9),
        (0, (0, 0, 10, 10), 0.55),
        (5, (0, 0, 100, 100), 0.49),  # below 0.5
        (11, (0, 0, 100, 100), 0.7),
    ]

    def id_of(position: int) -> int:
        return 200 - position

    data = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in (1, 2)],
        "categories": [{"id": id_of(position), "name": f"class {position}"} for position in range(31)],
        "annotations": [
            {"id": i, **with_mask(annotation(1, id_of(position), box, iscrowd=crowd, area=box[2] * box[3]))}
            for i, (position, box, crowd) in enumerate(objects, start=1)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(data))
    coco = read_coco(tmp_path / "truth.json")
    fold = select_categories(coco, "truth.json", cat_names=[f"class {position}" for position in (0, 5, 7, 19, 30)])
    records = [with_mask(detection(1, id_of(position), box, score)) for position, box, score in results]

    def label_map(entries: list[tuple[int, Box]]) -> np.ndarray:
        labels = np.zeros((SIDE, SIDE), int)
        for position, (x, y, w, h) in entries:
            labels[y : y + h, x : x + w] = position
        return labels

    nothing = np.zeros((SIDE, SIDE), int)  # the second image has neither ground truth nor results
    true = np.stack([label_map([(p, box) for p, box, crowd in objects if not crowd and p != 11]), nothing])
    best_first = sorted(results, key=lambda entry: -entry[2])
    counted = [(p, box) for p, box, score in best_first if score >= 0.5 and p != 11]
    predicted = np.stack([label_map(counted), nothing])
    ious = {
        label: float(np.mean((true == label)[union] & (predicted == label)[union]))
        for label in range(20)
        if (union := (true == label) | (predicted == label)).any()
    }
    assert ious == {0: pytest.approx(11900 / 16100), 5: pytest.approx(2900 / 4000), 7: 0}, "by hand"
    for threshold in (0.5, 0.95):  # the published threshold is fixed
        metrics = evaluate(coco, records, fold, "semantic", semantic_threshold=threshold)[0]["semantic"]
        assert metrics["mIoU_as_published"] == pytest.approx(np.mean(list(ious.values())))
    assert metrics["mIoU"] == 0, "our threshold is not fixed"
    ours = evaluate(coco, records, fold, "semantic")[0]["semantic"]
    assert ours["per_class"]["class 7"] is None, "ours counts the classes that have ground truth"
    assert ours["per_class"]["class 30"] > 0


def test_semantic_needs_masks(truth: MakeTruth) -> None:
    box = (0, 0, 9, 9)
    with pytest.raises(UserError, match="annotation 1 has no segmentation"):
        score(truth([annotation(1, 1, box)]), [], "semantic")
    coco = truth([with_mask(annotation(1, 1, box))])
    with pytest.raises(UserError, match="mIoU needs masks, but a result of image 1 has no segmentation"):
        score(coco, [detection(1, 1, box, 0.9)], "semantic")
    other_size = {**detection(1, 1, box, 0.9), "segmentation": encode_mask(np.ones((5, 7), bool))}
    with pytest.raises(UserError, match=f"a result of image 1: its mask is 7x5, its image {SIDE}x{SIDE}"):
        score(coco, [with_mask(detection(1, 1, box, 0.9)), other_size], "semantic")


def test_unknown_protocol_is_an_error(truth: MakeTruth) -> None:
    with pytest.raises(UserError, match="no protocol 'vok'; did you mean 'voc'"):
        score(truth([annotation(1, 1, (0, 0, 9, 9))]), [], "vok")


def test_each_kind_of_error_by_hand(truth: MakeTruth) -> None:
    boxes: list[Box] = [(0, 0, 20, 20), (30, 0, 20, 20), (60, 0, 20, 20), (0, 40, 20, 20), (30, 40, 20, 20)]
    coco = truth([annotation(1, 1, box) for box in boxes[:4]] + [annotation(1, 2, boxes[4])], classes=2)
    results = [
        detection(1, 1, boxes[0], 0.99),  # right
        detection(1, 1, (0, 1, 20, 20), 0.9),  # duplicate
        detection(1, 1, (30, 12, 20, 20), 0.8),  # location: IoU 0.25 with the second object
        detection(1, 2, boxes[2], 0.7),  # class: it is the third object, of class 1
        detection(1, 1, (80, 80, 10, 10), 0.6),  # background
        detection(1, 1, (30, 52, 20, 20), 0.5),  # both: IoU 0.25 with class 2's object
        # the fourth object of class 1 and class 2's only one are missed
    ]
    errors = score(coco, results, errors=True)["errors"]
    ones = dict.fromkeys(["class", "location", "both", "duplicate", "background"], 1)
    assert errors["count"] == {**ones, "missed": 2}
    assert errors["per_class"]["class 2"] == {"AP50": 0.0, **dict.fromkeys(ones, 0), "class": 1, "missed": 1}

    ap = average_precision
    base = ap("+----", 4) / 2  # class 2 has none right
    assert errors["AP50"] == pytest.approx(base) == score(coco, results)["bbox"]["AP50"]
    assert errors["gain"] == {
        "class": pytest.approx(ap("+--+--", 4) / 2 - base),  # its score is higher than those of background and both
        "location": pytest.approx(ap("+-+--", 4) / 2 - base),
        "both": pytest.approx(ap("+---", 4) / 2 - base),
        "duplicate": pytest.approx(ap("+---", 4) / 2 - base),
        "background": pytest.approx(ap("+---", 4) / 2 - base),
        "missed": pytest.approx(ap("+----", 3) - base),  # class 2 has no object left and is not averaged
    }
    assert errors["confusion"] == {
        "class 1": {"missed": 2, "class 1": 1, "class 2": 1},
        "class 2": {"missed": 1},
    }


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_id": 7}, "record 1 has image_id 7, which the ground truth does not have"),
        ({"category_id": 9}, "record 1 has category_id 9, which"),
        ({"image_id": [1]}, r"record 1 has image_id \[1\]"),
        ({"score": "high"}, "record 1 has score 'high', not a number"),
        ({"score": float("nan")}, "record 1 has score nan"),
        ({"bbox": [1, 2, 3]}, r"record 1 has bbox \[1, 2, 3\], not four numbers"),
        ({"bbox": None}, "record 1 has bbox None, not four numbers"),
        ({"segmentation": {"size": [5, 5], "counts": "04"}}, r"a mask of size \[5, 5\], its image is \[100, 100\]"),
        ({"segmentation": [[0, 0, 5, 5]]}, "record 1 has a segmentation that is not RLE"),
        (None, "record 1 is a NoneType, not an object"),
    ],
)
def test_message_names_a_bad_record(
    truth: MakeTruth, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any] | None, complaint: str
) -> None:
    truth([annotation(1, 1, (0, 0, 9, 9))])
    good = detection(1, 1, (0, 0, 9, 9), 0.5)
    results = tmp_path / "detector" / "results.json"
    results.parent.mkdir()
    results.write_text(json.dumps([good, change and {**good, **change}]))
    with pytest.raises(SystemExit):
        main(["evaluate", "--gt", str(tmp_path / "truth.json"), "--results", str(results)])
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert re.search(complaint, message), message


def test_evaluate_scores_results_of_any_detector(
    truth: MakeTruth, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other tools write masks without boxes, and uncompressed RLE."""
    coco = truth([with_mask(annotation(1, 1, (0, 0, 20, 20)))], classes=2)
    results = tmp_path / "other" / "results.json"
    results.parent.mkdir()
    mask = {"size": [SIDE, SIDE], "counts": [0, *[20, 80] * 19, 20, 80 + 80 * SIDE]}
    results.write_text(json.dumps([{"image_id": 1, "category_id": 1, "score": 1, "segmentation": mask}]))
    command = ["evaluate", "--gt", str(tmp_path / "truth.json"), "--results", str(results), "--cat-names", "class 1"]
    main([*command, "--method", "Other", "--n-shot", "10", "--dataset-name", "few_shot_classes", "--errors"])
    assert "ERRORS (segm, AP50 100.0)" in capsys.readouterr().out
    metrics = json.loads((results.parent / "metrics.json").read_text())
    assert metrics["bbox"]["AP"] == metrics["segm"]["AP"] == pytest.approx(1)
    assert (metrics["method"], metrics["n_shot"]) == ("Other", 10)
    section = json.loads((results.parent / "run.json").read_text())["evaluate"]
    assert section["status"] == "finished"
    assert len(section["files"]["results"]["sha256"]) == 64
    assert coco.cats.keys() == {1, 2}
