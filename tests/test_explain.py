"""Why objects were missed: each reason planted by hand, the trace against the method, and what reasons cost."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.nn import functional as F
from torchvision.ops import masks_to_boxes

from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import index_coco
from no_time_to_train.method.beyond.negatives import Negatives
from no_time_to_train.method.fast import mask_logits
from no_time_to_train.method.fast.mask_logits import MaskLogits
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import Settings
from no_time_to_train_extras.missed_objects.error_analysis import find_matches
from no_time_to_train_extras.missed_objects.explain import (
    Finding,
    MissedObjects,
    explain_objects,
    overlap,
    wider_settings,
)
from no_time_to_train_extras.missed_objects.miss_costs import miss_costs
from no_time_to_train_extras.missed_objects.trace import trace
from tests.evaluation.records import annotation, average_precision, detection

SIDE = 64
Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels, ends excluded


def rectangle(x1: int, y1: int, x2: int, y2: int) -> NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def proposals(*each: tuple[Box, float, tuple[float, ...]]) -> DescribedProposals:
    """Rectangles with their predicted IoUs and their similarities to the classes."""
    masks = np.array([rectangle(*box) for box, _, _ in each], bool).reshape(-1, SIDE, SIDE)
    packed = Masks.pack(masks)
    similarities = torch.tensor([similarity for _, _, similarity in each], dtype=torch.float32)
    rest = (1 - (similarities**2).sum(dim=1, keepdim=True)).clamp(min=0).sqrt()
    return DescribedProposals(
        torch.tensor([predicted for _, predicted, _ in each], dtype=torch.float32),
        masks_to_boxes(torch.from_numpy(masks)).long(),
        torch.cat([similarities, rest], dim=1),
        lambda rows: packed[rows.numpy()],
    )


def with_masks(found: DescribedProposals, *masks: NDArray[np.bool_]) -> DescribedProposals:
    """The proposals with other masks than their boxes."""
    packed = Masks.pack(np.array(masks))
    found.upsampled_masks = lambda rows: packed[rows.numpy()]
    return found


def segmenter_of(classes: int = 2, **settings: Any) -> Segmenter:
    """A segmenter without networks, whose class c has the c-th unit vector as its prototype."""
    prototypes = torch.eye(classes + 1)[:classes]
    return Segmenter(torch.nn.Identity(), None, prototypes, Settings(**settings))  # type: ignore[arg-type]


def explain(
    objects: list[Box],
    segmenter: Segmenter,
    found: DescribedProposals,
    min_score: float = 0.0,
    by_boxes: bool = False,
    **wider: DescribedProposals,
) -> list[Finding]:
    """The findings of objects of class 0."""
    boxes = np.array([(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in objects], float)
    masks = None if by_boxes else np.array([rectangle(*one) for one in objects])
    missed = MissedObjects(["cup", "coin"], [0] * len(objects), boxes, masks, SIDE, SIDE)
    searches = [(reason, lambda more=more: more) for reason, more in wider.items()]
    return explain_objects(missed, segmenter, found, searches, min_score=min_score)[0]


OBJECT, AWAY = (10, 10, 30, 30), (40, 40, 60, 60)
RIGHT, WRONG = (0.9, 0.1), (0.3, 0.8)


def test_an_object_that_no_mask_covers_was_never_proposed() -> None:
    found = proposals(((10, 10, 30, 18), 0.9, RIGHT), (AWAY, 0.8, RIGHT))
    more = proposals(((10, 10, 30, 19), 0.2, WRONG))
    (finding,) = explain([OBJECT], segmenter_of(), found, predicted_iou=more)
    assert finding.reason == "never_proposed"
    assert finding.best_iou == pytest.approx(0.45)
    (finding,) = explain([OBJECT], segmenter_of(), proposals((AWAY, 0.8, RIGHT)))
    assert (finding.reason, finding.best_iou, finding.mask) == ("never_proposed", 0, None)


def test_a_mask_below_the_predicted_iou_and_one_of_a_point_that_was_left_out() -> None:
    found, low = proposals((AWAY, 0.8, RIGHT)), proposals((OBJECT, 0.3, RIGHT), ((10, 10, 29, 30), 0.35, RIGHT))
    (finding,) = explain([OBJECT], segmenter_of(), found, predicted_iou=low)
    assert (finding.reason, finding.best_iou) == ("predicted_iou", 1)
    assert finding.iou == pytest.approx(0.95)
    assert finding.predicted_iou == pytest.approx(0.35)
    (finding,) = explain([OBJECT], segmenter_of(), found, predicted_iou=found, no_prompt=low)
    assert finding.reason == "no_prompt"
    assert list(wider_settings(Settings())) == ["predicted_iou"]
    assert list(wider_settings(Settings(prompts="guided"))) == ["predicted_iou", "no_prompt"]


@pytest.mark.parametrize("classes_per_mask", [1, -1])
def test_a_mask_that_is_more_similar_to_another_class(classes_per_mask: int) -> None:
    segmenter = segmenter_of(classes_per_mask=classes_per_mask)
    (finding,) = explain([OBJECT], segmenter, proposals((OBJECT, 0.9, WRONG)))
    assert (finding.reason, finding.taken_for, finding.iou) == ("class", "coin", 1)
    assert [finding.score, finding.taken_score] == pytest.approx([0.3, 0.8])


def suppressing(similarity: tuple[float, float]) -> DescribedProposals:
    """A mask of the object, after one with a box that is similar and a region that is not."""
    found = proposals(((10, 10, 30, 22), 0.9, similarity), (OBJECT, 0.8, RIGHT))
    return with_masks(found, rectangle(10, 10, 30, 12), rectangle(*OBJECT))


def test_a_mask_that_nms_dropped() -> None:
    (finding,) = explain([OBJECT], segmenter_of(), suppressing(RIGHT))
    assert (finding.reason, finding.final_score) == ("suppressed", None)
    assert finding.score == pytest.approx(0.9)
    assert explain([OBJECT], segmenter_of(box_nms_thresh=0.7), suppressing(RIGHT))[0].reason == "shared"


def test_a_mask_whose_score_soft_nms_lowered() -> None:
    segmenter = segmenter_of(suppression="soft_nms", merge_exponent=0.0)
    reasons = [explain([OBJECT], segmenter, suppressing((0.95, 0.1)), score)[0].reason for score in (0.3, 0.6, 0.93)]
    assert reasons == ["shared", "suppressed", "score"]


def test_a_mask_whose_score_merging_lowered_below_the_score_or_out_of_the_best() -> None:
    part = (4, 4, 60, 60)  # covers the object whole; the boxes' IoU is small
    found = proposals((part, 0.9, RIGHT), (OBJECT, 0.8, RIGHT), ((40, 2, 50, 3), 0.7, (0.5, 0.1)))
    (finding,) = explain([OBJECT], segmenter_of(), found, min_score=0.5)
    assert finding.reason == "merged"
    assert finding.final_score < 0.5 < finding.score  # type: ignore[operator]
    (finding,) = explain([OBJECT], segmenter_of(max_instances=2), found)
    assert finding.reason == "merged"


def test_a_mask_below_the_score_and_one_out_of_the_best() -> None:
    found = proposals((OBJECT, 0.9, (0.4, 0.1)), (AWAY, 0.8, RIGHT))
    assert explain([OBJECT], segmenter_of(), found, min_score=0.5)[0].reason == "score"
    many = [((x, y, x + 1, y + 1), 0.95, RIGHT) for x in range(0, 8, 2) for y in (0, 2)]
    beyond = proposals(*many, (OBJECT, 0.9, RIGHT))  # of which merging takes eight
    for one in (found, beyond):
        assert explain([OBJECT], segmenter_of(max_instances=1), one)[0].reason == "limit"


def test_a_detection_that_counts_for_another_object() -> None:
    assert explain([OBJECT], segmenter_of(), proposals((OBJECT, 0.9, RIGHT)))[0].reason == "shared"


def test_the_mask_that_came_furthest_explains_the_object_also_if_nms_dropped_another() -> None:
    part = ((10, 10, 30, 28), 0.85, (0.4, 0.1))
    for other in ((OBJECT, 0.9, WRONG), (OBJECT, 0.8, RIGHT)):
        (finding,) = explain([OBJECT], segmenter_of(), proposals(other, part), min_score=0.5)
        assert (finding.reason, finding.best_iou) == ("score", 1)
        assert [finding.iou, finding.score] == pytest.approx([0.9, 0.4])


def test_masks_that_are_compared_at_a_smaller_size_are_measured_at_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_logits, "COMPARED_PIXELS", SIDE**2 // 4)
    crop = torch.full((16, 16), -1.0)
    crop[4:12, 4:12] = 1
    logits = MaskLogits(SIDE, SIDE, [(0, 0, SIDE, SIDE, 16)], [(0, 0, 0)], [crop])
    mask = logits.at_size(torch.arange(1), SIDE, SIDE)[0]
    found = DescribedProposals(torch.ones(1), torch.zeros(1, 4), torch.eye(1), logits, logits=logits)
    assert overlap(MissedObjects(["one"], [0], np.zeros((1, 4)), mask[None], SIDE, SIDE), found).tolist() == [[1.0]]


def test_hits_may_be_decided_by_boxes() -> None:
    ring = rectangle(*OBJECT) & ~rectangle(12, 12, 28, 28)
    found = with_masks(proposals((OBJECT, 0.9, WRONG)), ring)
    assert explain([OBJECT], segmenter_of(), found)[0].reason == "never_proposed"
    assert explain([OBJECT], segmenter_of(), found, by_boxes=True)[0].reason == "class"


def random_proposals(rng: np.random.Generator) -> DescribedProposals:
    corners, sides = rng.integers(0, SIDE - 24, (120, 2)), rng.integers(1, 24, (120, 2))
    boxes = np.hstack([corners, corners + sides]).tolist()
    found = proposals(*[(box, float(rng.uniform(0.4, 1)), tuple(rng.uniform(-0.2, 0.5, 3))) for box in boxes])
    found.vectors = F.normalize(found.vectors, dim=1)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_trace_ends_with_exactly_what_the_method_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    segmenter = segmenter_of(
        3,
        max_instances=int(rng.choice([3, 20, 100])),
        classes_per_mask=int(rng.choice([1, 2, -1])),
        box_nms_thresh=float(rng.uniform(0.2, 0.8)),
        score=str(rng.choice(["cosine", "cosine_iou"])),
        suppression=str(rng.choice(["nms", "soft_nms", "none"])),
        merging=str(rng.choice(["soft", "diffusion"])),
        merge_exponent=float(rng.choice([0, 0.5, 1])),
    )
    if seed % 3 == 0:
        negatives = Negatives(torch.rand(2, 4), torch.tensor([0, 2]))
        segmenter.negative_vectors, segmenter.negative_classes = negatives
    found = random_proposals(rng)
    expected, traced = segmenter.match_and_merge(found), trace(segmenter, found)
    assert len(expected) > 0
    for name in ("masks", "boxes", "scores", "classes"):
        assert np.array_equal(getattr(traced.detections, name), getattr(expected, name))
    assert torch.equal(traced.merged[traced.kept], expected.scores)
    assert torch.equal(traced.candidates.classes[traced.kept], expected.classes)
    regions = found.upsampled_masks(traced.candidates.rows[traced.kept])
    assert np.array_equal(regions, expected.masks)


def truth_of(*objects: tuple[int, Box]) -> COCO:
    """Ground truth of one image with the classes 1 and 2: the class and the box of each object."""
    annotations = [annotation(1, category, box(*one), id=index) for index, (category, one) in enumerate(objects, 1)]
    image = {"id": 1, "file_name": "1.png", "height": SIDE, "width": SIDE}
    categories = [{"id": index, "name": f"class {index}"} for index in (1, 2)]
    areas = [{**one, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0} for one in annotations]
    return index_coco({"images": [image], "categories": categories, "annotations": areas})


def box(x1: int, y1: int, x2: int, y2: int) -> Box:
    """x, y, width and height."""
    return x1, y1, x2 - x1, y2 - y1


def test_what_each_reason_costs_by_hand() -> None:
    """Class 1 has four objects: one is found, one is taken for class 2, and two are missed."""
    boxes = [(10 * index, 0, 10 * index + 8, 8) for index in range(4)]
    coco = truth_of(*[(1, one) for one in boxes], (2, AWAY))
    results = [
        detection(1, 1, box(*boxes[0]), 0.9),
        detection(1, 2, box(*boxes[1]), 0.8),
        detection(1, 2, box(*AWAY), 0.7),
        detection(1, 1, box(0, 50, 9, 59), 0.5),
    ]
    categories = select_categories(coco, "truth.json")
    matches = find_matches(coco, results, categories, "bbox", COCOeval)
    reasons = {2: "class", 3: "suppressed", 4: "never_proposed"}
    costs = miss_costs(matches, reasons, {one.id: one.name for one in categories})
    before = (average_precision("+-", 4) + average_precision("-+", 1)) / 2
    assert (costs["objects"], costs["misses"], costs["AP"]) == (5, 3, pytest.approx(before))
    # The error of class becomes a hit of class 1; each of the other two objects no longer counts.
    gains = {
        "class": (average_precision("++-", 4) + average_precision("+", 1)) / 2,
        "suppressed": (average_precision("+-", 3) + average_precision("-+", 1)) / 2,
        "score": before,
    }
    for reason, after in gains.items():
        assert costs["reasons"][reason]["gain"] == pytest.approx(after - before)
    assert costs["gain"] == pytest.approx(1 - before)
    assert costs["per_class"] == {"class 1": {"class": 1, "suppressed": 1, "never_proposed": 1}}
    assert sum(part["count"] for part in costs["parts"].values()) == 3
