"""COCO-20i's mIoU, compared with figures by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation import evaluate
from tests.evaluation.records import SIDE, MakeTruth, annotation, detection, score, with_mask


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

    shown = [annotation(1, id_of(one), box, iscrowd=crowd, area=box[2] * box[3]) for one, box, crowd in objects]
    data = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in (1, 2)],
        "categories": [{"id": id_of(position), "name": f"class {position}"} for position in range(31)],
        "annotations": [{"id": i, **with_mask(one)} for i, one in enumerate(shown, start=1)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(data))
    coco = read_coco(tmp_path / "truth.json")
    fold = select_categories(coco, "truth.json", cat_names=[f"class {position}" for position in (0, 5, 7, 19, 30)])
    records = [with_mask(detection(1, id_of(position), box, score)) for position, box, score in results]

    by_hand = [11900 / 16100, 2900 / 4000, 0]  # IoU of the labels 0, 5 and 7, in both images
    for threshold in (0.5, 0.95):  # the published threshold is fixed
        metrics = evaluate(coco, records, fold, "semantic", semantic_threshold=threshold)[0]["semantic"]
        assert metrics["mIoU_as_published"] == pytest.approx(np.mean(by_hand))
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
