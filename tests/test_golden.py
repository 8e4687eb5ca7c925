"""The published code's numbers, for known weights (tests/data/README.md)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from no_time_to_train import MemoryBank, Settings
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.reference_sets import read_references, sample_references, validate_references
from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.method import plain
from no_time_to_train.method.beyond.ablations import area_weighted_prototypes
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.fill_memory import crop_reference, patch_weights
from no_time_to_train.method.mask_proposals import MaskProposer, point_grid
from no_time_to_train.method.proposals import Proposals
from no_time_to_train.method.segmenter import Segmenter, describe_proposals
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.build import build_sam2, build_vit
from tests.conftest import DATA, assert_same_results

Golden = dict[str, Any]
Expected = dict[str, list[dict[str, Any]]]
IDS = range(103, 108)

#: The targets, with most of the instances, that the page looks at: it takes seconds for each.
PAGE_IMAGES = (104, 107)


@pytest.fixture(scope="module")
def encoder(checkpoints: tuple[Path, Path]) -> Encoder:
    return Encoder(build_vit("dinov2_small", checkpoint=checkpoints[1]))


@pytest.fixture
def proposer(checkpoints: tuple[Path, Path]) -> MaskProposer:
    return MaskProposer(build_sam2("sam2_hiera_t", checkpoints[0]), Settings(points_per_side=8))


@pytest.fixture(scope="module")
def bank(encoder: Encoder) -> MemoryBank:
    """The memory of the reference set, through stages 1 and 2."""
    coco = read_coco(DATA / "references.json")
    categories = select_categories(coco, "references.json")
    references = validate_references(
        read_references(DATA / "references.pkl"), coco, "references.json", categories, shots=2
    )
    segmenter, bank = Segmenter(encoder), MemoryBank.empty(categories, encoder.dim)
    for index, category in enumerate(categories):
        for shot in references[category.id]:
            bank.add(index, *segmenter.describe_reference(*crop_and_mask(coco, shot["ann_ids"][0])))
    bank.postprocess()
    return bank


def pixels_mask_and_box(coco: Any, ann_id: int) -> tuple[Any, Any, Any]:
    annotation = coco.anns[ann_id]
    image = coco.imgs[annotation["image_id"]]
    mask = annotation_mask(annotation, image["height"], image["width"])
    return read_rgb(DATA / "images" / image["file_name"]), mask, annotation["bbox"]


def crop_and_mask(coco: Any, ann_id: int) -> tuple[Tensor, Tensor]:
    return crop_reference(*pixels_mask_and_box(coco, ann_id), 518)


def target(image_id: int) -> tuple[Tensor, int, int]:
    image = read_coco(DATA / "targets.json").imgs[image_id]
    return target_tensor(read_rgb(DATA / "images" / image["file_name"]), 1024), image["height"], image["width"]


def test_memory_equals_the_published_one(bank: MemoryBank, golden: Golden) -> None:
    assert [category.id for category in bank.categories] == golden["category_ids"].tolist()
    np.testing.assert_allclose(bank.vectors.view(3, 2, -1), golden["mem_instance_avg"], atol=1e-4)
    np.testing.assert_allclose(bank.prototypes, golden["mem_instance_avg"].mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(area_weighted_prototypes(bank), golden["mem_class_avg"], atol=1e-4)


def test_mask_weights_equal_the_published_ones(golden: Golden) -> None:
    coco = read_coco(DATA / "references.json")
    references = read_references(DATA / "references.pkl")
    weights = [
        [patch_weights(crop_and_mask(coco, shot["ann_ids"][0])[1], 518, 37).numpy() for shot in references[category_id]]
        for category_id in sorted(references)
    ]
    np.testing.assert_allclose(weights, golden["mem_masks"], atol=1e-4)


@torch.inference_mode()
def test_encoder_features_equal_the_published_ones(encoder: Encoder, golden: Golden) -> None:
    features = encoder.feature_map(target(103)[0][None])[0].flatten(1).T
    np.testing.assert_allclose(features[:64], golden["encoder_features_first64"], atol=1e-4)


@torch.inference_mode()
def test_sam2_proposals_equal_the_published_ones(proposer: MaskProposer, golden: Golden) -> None:
    np.testing.assert_array_equal(point_grid(8, 1024), golden["sam_points"])
    proposer.pred_iou_thresh, proposer.points.count = -1, 30  # a batch that does not divide the grid loses no point
    proposals = proposer(target(103)[0])
    np.testing.assert_allclose(proposals.predicted_iou, golden["sam_iou"], atol=1e-5)
    np.testing.assert_allclose(proposals.logits[:8], golden["sam_logits_first8"], atol=1e-2)


@torch.inference_mode()
def test_the_threshold_drops_the_proposals_below_it(proposer: MaskProposer, golden: Golden) -> None:
    """All stored predicted IoUs are above 0.4, so the threshold is set between two of them."""
    proposer.pred_iou_thresh = float(np.sort(golden["sam_iou"])[31:33].mean())
    kept = golden["sam_iou"] > proposer.pred_iou_thresh
    assert kept.sum() == 32
    proposals = proposer(target(103)[0])
    np.testing.assert_allclose(proposals.predicted_iou, golden["sam_iou"][kept], atol=1e-5)
    first = kept[:8]
    np.testing.assert_allclose(proposals.logits[: first.sum()], golden["sam_logits_first8"][first], atol=1e-2)


@torch.inference_mode()
def test_results_from_stand_in_proposals_equal_the_published_ones(
    encoder: Encoder, bank: MemoryBank, golden: Golden, golden_results: Expected
) -> None:
    segmenter = Segmenter(encoder, prototypes=bank.prototypes)
    results = []
    for image_id in IDS:
        image, height, width = target(image_id)
        proposals = ellipses(golden[f"ellipses_{image_id}"], golden[f"iou_{image_id}"])
        features = encoder.feature_map(image[None])[0]
        detections = segmenter.match_and_merge(describe_proposals(proposals, features, height, width))
        results += to_coco_records(detections, image_id, golden["category_ids"].tolist())
    assert_same_results(results, golden_results["results"])


def ellipses(parameters: np.ndarray, predicted_iou: np.ndarray) -> Proposals:
    """Stand-in proposals: the logits that tests/data/README.md defines, of a predicted IoU over 0.4."""
    cx, cy, rx, ry = (torch.from_numpy(column.astype(np.float32))[:, None, None] for column in parameters.T)
    x, y = torch.arange(256.0)[None, None, :], torch.arange(256.0)[None, :, None]
    logits = 10 * (1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2)
    proposals = Proposals(logits, torch.from_numpy(predicted_iou.astype(np.float32)))
    return proposals[proposals.predicted_iou > 0.4]


def test_results_end_to_end_equal_the_published_ones(
    encoder: Encoder, proposer: MaskProposer, bank: MemoryBank, golden: Golden, golden_results: Expected
) -> None:
    segmenter = Segmenter(encoder, proposer, bank.prototypes, Settings())
    results = []
    for image_id in IDS:
        image, height, width = target(image_id)
        results += to_coco_records(segmenter.segment(image, height, width), image_id, golden["category_ids"].tolist())
    assert_same_results(results, golden_results["results_end_to_end"])


@torch.inference_mode()
def test_the_page_equals_the_published_code(
    encoder: Encoder, proposer: MaskProposer, golden: Golden, golden_results: Expected
) -> None:
    """``plain.py`` alone, from the image files on."""
    coco, references = read_coco(DATA / "references.json"), read_references(DATA / "references.pkl")

    def fill(ann_id: int) -> Tensor:
        return plain.fill(encoder.vit, *pixels_mask_and_box(coco, ann_id))

    shown = [[one["ann_ids"][0] for one in references[category_id]] for category_id in sorted(references)]
    vectors = [torch.stack(list(map(fill, each))) for each in shown]
    np.testing.assert_allclose(torch.stack(vectors), golden["mem_instance_avg"], atol=1e-4)
    results = []
    for image_id in PAGE_IMAGES:
        pixels = read_rgb(DATA / "images" / read_coco(DATA / "targets.json").imgs[image_id]["file_name"])
        found = plain.segment(encoder.vit, proposer.sam2, plain.average(vectors), pixels, points_per_side=8)
        detections = Detections(Masks.pack(found.masks), *found[1:])
        results += to_coco_records(detections, image_id, golden["category_ids"].tolist())
    expected = [one for one in golden_results["results_end_to_end"] if one["image_id"] in PAGE_IMAGES]
    assert_same_results(results, expected)


def test_sampled_references_equal_the_papers() -> None:
    coco = read_coco(DATA / "sampling" / "instances.json")
    expected = json.loads((DATA / "sampling" / "expected.json").read_text())
    for case, references in expected.items():
        split, seed, shots = case.split("/")
        categories = select_categories(coco, "instances.json", class_split=split)
        sampled = sample_references(coco, categories, int(shots.removesuffix("shot")), int(seed.removeprefix("seed")))
        pairs = {
            str(category_id): [[shot["img_id"], *shot["ann_ids"]] for shot in entries]
            for category_id, entries in sampled.items()
        }
        assert pairs == references
        assert list(pairs) == list(references)
