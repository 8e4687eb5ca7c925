"""COCO's and VOC's AP, errors by kind, and results of any detector, compared with figures by hand."""

import json
from pathlib import Path

import pytest

from no_time_to_train.cli import main
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation import evaluate
from tests.conftest import Capture
from tests.evaluation.records import SIDE, Box, MakeTruth, annotation, average_precision, detection, score, with_mask


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


@pytest.mark.parametrize(("lacking", "scored", "noun"), [("segmentation", "bbox", "Masks"), ("bbox", "segm", "Boxes")])
def test_an_object_without_a_mask_or_a_box_is_named_where_these_are_not_scored(
    lacking: str, scored: str, noun: str, truth: MakeTruth
) -> None:
    boxes = [(0, 0, 20, 20), (60, 60, 20, 20)]
    first, second = (with_mask(annotation(1, 1, box)) for box in boxes)
    coco = truth([first, {**second, lacking: []}])
    results = [with_mask(detection(1, 1, box, 0.9)) for box in boxes]
    metrics, tables = evaluate(coco, results, select_categories(coco, "truth.json"))
    assert set(metrics) == {scored}
    assert f"{noun} are not scored: annotation 2 of the ground truth (1 of 2) has no {lacking}." in tables


@pytest.mark.parametrize("masks", [0, 1])
def test_why_nothing_can_be_scored_is_said(masks: int, truth: MakeTruth) -> None:
    boxes = [(0, 0, 20, 20), (60, 60, 20, 20)]
    coco = truth([{**with_mask(annotation(1, 1, box)), "bbox": None} for box in boxes])
    results = [detection(1, 1, box, 0.9) for box in boxes]
    results[:masks] = map(with_mask, results[:masks])
    metrics, tables = evaluate(coco, results, select_categories(coco, "truth.json"))
    assert metrics == {}
    assert "Boxes are not scored: annotation 1, 2 of the ground truth (2 of 2) has no bbox." in tables
    assert "Masks are not scored: some results have none." in tables


def test_a_missing_area_is_that_of_the_mask(truth: MakeTruth) -> None:
    small = with_mask(annotation(1, 1, (0, 0, 20, 20)))
    coco = truth([{**small, "bbox": [0, 0, 40, 40]}])  # whose area would be medium
    metrics = score(coco, [with_mask(detection(1, 1, (0, 0, 20, 20), 0.9))])["segm"]
    assert (metrics["APs"], metrics["APm"]) == (pytest.approx(1), None)


def test_boxes_are_scored_where_the_ground_truth_states_no_sizes(truth: MakeTruth) -> None:
    coco = truth([{**with_mask(annotation(1, 1, (0, 0, 20, 20))), "area": 400}])
    for key in ("height", "width"):
        del coco.imgs[1][key]
    assert score(coco, [detection(1, 1, (0, 0, 20, 20), 0.9)])["bbox"]["AP"] == pytest.approx(1)
    with pytest.raises(UserError, match="image 1 states no height and width"):
        score(coco, [with_mask(detection(1, 1, (0, 0, 20, 20), 0.9))])


def test_voc_ignores_detections_of_difficult_objects(truth: MakeTruth) -> None:
    plain, difficult = (0, 0, 20, 20), (40, 40, 40, 40)
    coco = truth([annotation(1, 1, plain), annotation(1, 1, difficult, iscrowd=1)])
    marked = truth([annotation(1, 1, plain), annotation(1, 1, difficult, difficult=1)])  # as VOC's XML files are read
    on_difficult = [detection(1, 1, difficult, 0.95), detection(1, 1, (41, 41, 40, 40), 0.9)]
    assert score(coco, [*on_difficult, detection(1, 1, plain, 0.5)], "voc")["bbox"]["AP50"] == pytest.approx(1)
    assert score(marked, [*on_difficult, detection(1, 1, plain, 0.5)], "voc")["bbox"]["AP50"] == pytest.approx(1)
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


def test_voc_as_published_excuses_detections_inside_a_difficult_object(truth: MakeTruth) -> None:
    objects: list[Box] = [(0, 0, 20, 20), (0, 40, 20, 20)]
    difficult = (40, 40, 40, 40)
    detections: list[Box] = [
        (45, 45, 9, 9),  # inside the difficult object: excused as published, but its IoU is small
        (75, 50, 20, 10),  # a quarter of it is inside: wrong for both
        (0, 0, 20, 20),
        (35, 60, 10, 10),  # half of it is inside: excused as published
        (0, 42, 20, 20),
    ]
    coco = truth([annotation(1, 1, box) for box in objects] + [annotation(1, 1, difficult, iscrowd=1, difficult=1)])
    metrics = score(coco, [detection(1, 1, box, 0.9 - i / 10) for i, box in enumerate(detections)], "voc")["bbox"]
    assert metrics["nAP50_as_published"] == pytest.approx(average_precision("-++", 2))
    assert metrics["AP50"] == pytest.approx(average_precision("--+-+", 2))


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
    assert errors["confusion"] == {"class 1": {"missed": 2, "class 1": 1, "class 2": 1}, "class 2": {"missed": 1}}


def test_results_of_any_detector_are_scored(truth: MakeTruth, tmp_path: Path, capsys: Capture) -> None:
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
