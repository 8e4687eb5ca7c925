"""LVIS's AP, compared with figures by hand and with the package of its authors."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation import evaluate
from no_time_to_train.evaluation.lvis_ap import lvis_ap
from tests.conftest import Patch
from tests.evaluation.records import SIDE, Box, MakeTruth, annotation, detection, score, with_mask


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
    empty = score(coco, [], "lvis")["bbox"]
    assert (empty["AP"], empty["AP_as_published"]) == (0, 0)


def random_lvis(tmp_path: Path) -> tuple[COCO, list[dict[str, Any]]]:
    """Eight images and seven classes; noisy, duplicate, missing and false detections, over 400 in the first image."""
    rng = np.random.default_rng(0)
    images = [{"id": number} for number in range(1, 9)]
    for image in images:
        image["neg_category_ids"] = rng.choice(range(1, 8), 3, replace=False).tolist()
        image["not_exhaustive_category_ids"] = rng.choice(range(1, 8), 1).tolist()

    def box() -> Box:
        return (*rng.integers(0, 40, 2).tolist(), *rng.integers(4, 50, 2).tolist())

    annotations = [annotation(image["id"], int(c), box()) for image in images for c in rng.integers(1, 7, 6)]
    results = []
    for one in annotations:
        for _ in range(rng.integers(0, 4)):
            x, y, w, h = (np.array(one["bbox"]) + rng.integers(-3, 4, 4)).clip(1).tolist()
            results.append(detection(one["image_id"], one["category_id"], (x, y, w, h), float(rng.random())))
    for _ in range(60):
        results.append(detection(int(rng.integers(1, 9)), int(rng.integers(1, 8)), box(), float(rng.random())))
    results += [detection(1, int(rng.integers(1, 8)), box(), float(rng.random()) / 2) for _ in range(400)]
    return lvis_truth(tmp_path, images, annotations, "rrccfff"), list(map(with_mask, results))


def test_lvis_ap_equals_the_lvis_package(tmp_path: Path, monkeypatch: Patch) -> None:
    lvis = pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # the package is older than numpy 2
    coco, results = random_lvis(tmp_path)
    ours, _ = lvis_ap(coco, results, select_categories(coco, "lvis.json"), classes_at_once=2)
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


def test_message_names_a_missing_lvis_field(truth: MakeTruth) -> None:
    with pytest.raises(UserError, match="'neg_category_ids' as a list of ids: image id 1 lacks it"):
        score(truth([annotation(1, 1, (0, 0, 9, 9))]), [], "lvis")


@pytest.mark.parametrize(
    ("field", "value"),
    [("neg_category_ids", None), ("not_exhaustive_category_ids", ["1"]), ("frequency", "x"), ("frequency", ["r"])],
)
def test_message_names_an_lvis_field_of_another_form(tmp_path: Path, field: str, value: object) -> None:
    images = [{"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []}]
    coco = lvis_truth(tmp_path, images, [annotation(1, 1, (0, 0, 9, 9))], "r")
    (coco.dataset["categories"] if field == "frequency" else coco.dataset["images"])[0][field] = value
    with pytest.raises(UserError, match=f"needs '{field}' as .* id 1 has {re.escape(repr(value))}"):
        score(coco, [], "lvis")
