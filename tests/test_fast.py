"""The fast implementation gives the same results as the plain one (``method/plain.py``) on random inputs."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from torch import Tensor
from torchvision.ops import masks_to_boxes

from no_time_to_train import MemoryBank, Settings
from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.data.rle import check_rle, decode_crop, decode_mask, encode_crop, encode_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.method import plain
from no_time_to_train.method.beyond.negatives import Negatives
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.mask_decoder import MaskDecoder
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.fill_memory import crop_reference
from no_time_to_train.method.mask_proposals import MaskProposer, point_grid
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.pool import pool
from no_time_to_train.method.proposals import Proposals
from no_time_to_train.method.segmenter import Segmenter, describe_proposals
from no_time_to_train.method.soft_merge import soft_merge
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.method.upsample import upsample
from no_time_to_train.networks.build import build_sam2
from tests.conftest import Patch, assert_same_results, nano_segmenter
from tests.seeded_weights import seeded_state_dict

sizes = st.integers(1, 80)
seeds = st.integers(0, 2**32 - 1)


def blobs(rng: np.random.Generator, n: int, height: int, width: int) -> Tensor:
    """Random masks, bool [n, height, width]: ellipses, noise, single pixels, empty and full ones."""
    y, x = np.mgrid[:height, :width]
    masks = np.zeros((n, height, width), bool)
    for mask in masks:
        kind = rng.integers(5)
        if kind == 0:
            cy, cx, ry, rx = rng.uniform(0, [height, width, height, width])
            mask[:] = ((y - cy) / (ry + 1)) ** 2 + ((x - cx) / (rx + 1)) ** 2 < 1
        elif kind == 1:
            mask[:] = rng.random((height, width)) < rng.random()
        elif kind == 2:
            mask[rng.integers(height), rng.integers(width)] = True
        elif kind == 3:
            mask[:] = True
    return torch.from_numpy(masks)


@settings(deadline=None)
@given(seeds, sizes, sizes, st.integers(0, 12))
def test_packed_masks_unpack_and_intersect_exactly(seed: int, height: int, width: int, n: int) -> None:
    masks = blobs(np.random.default_rng(seed), n, height, width).numpy()
    packed = Masks.pack(masks)
    np.testing.assert_array_equal(packed, masks)
    np.testing.assert_array_equal(Masks.from_crops(map(packed.crop, range(n)), height, width), masks)
    chosen = np.random.default_rng(seed).integers(max(n, 1), size=n)
    np.testing.assert_array_equal(packed[chosen], masks[chosen])
    filled = masks.any(axis=(1, 2))
    assert packed[filled].boxes.equal(masks_to_boxes(torch.from_numpy(masks[filled])).long())
    pixels = masks.reshape(n, height * width).astype(np.int64)
    np.testing.assert_array_equal(packed.areas, pixels.sum(axis=1))
    np.testing.assert_array_equal(packed.intersections(), pixels @ pixels.T)


@settings(deadline=None)
@given(seeds, sizes, sizes)
def test_masks_are_encoded_as_by_pycocotools(seed: int, height: int, width: int) -> None:
    for mask in blobs(np.random.default_rng(seed), 5, height, width).numpy():
        expected = rle.encode(np.asfortranarray(mask, np.uint8))
        encoded = {"size": expected["size"], "counts": expected["counts"].decode()}
        assert encode_mask(mask) == encoded
        check_rle(encoded)
        np.testing.assert_array_equal(decode_mask(encoded), mask)
        crop, top, left = decode_crop(encoded)
        part = np.zeros_like(mask)
        part[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        np.testing.assert_array_equal(part, mask)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        y, x = (int(places[0]) if len(places) else 0 for places in (rows, columns))
        assert encode_crop(mask[y:, x:], y, x, height, width) == encoded


@settings(deadline=None)
@given(seeds, sizes, sizes, st.integers(1, 12), st.sampled_from([1, 3, 1203]))
def test_soft_merging_equals_plain_soft_merging(seed: int, height: int, width: int, n: int, class_count: int) -> None:
    rng = np.random.default_rng(seed)
    masks = blobs(rng, n, height, width)
    masks = masks[masks.any(dim=(1, 2))]
    n = len(masks)
    vectors = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(n, 8))).float(), dim=1)
    scores = torch.from_numpy(rng.random(n)).float()
    classes = torch.from_numpy(rng.integers(class_count, size=n))
    fast = soft_merge(scores, classes, Masks.pack(masks.numpy()), vectors)
    torch.testing.assert_close(fast, plain.soft_merge(scores, classes, masks, vectors), atol=1e-4, rtol=0)


@settings(deadline=None)
@given(seeds, st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 8))
def test_pooling_equals_plain_pooling(seed: int, height: int, width: int, grid: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    regions = blobs(rng, n, height, width)
    regions = regions[regions.any(dim=(1, 2))]
    features = torch.from_numpy(rng.normal(size=(5, grid, grid))).float()
    torch.testing.assert_close(pool(features, regions), plain.pool(features, regions), atol=2e-5, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(seeds, sizes, sizes, st.integers(0, 60), st.sampled_from([1, 4, 1203]), st.booleans(), st.booleans())
def test_matching_and_merging_equal_plain_matching_and_merging(
    seed: int, height: int, width: int, n: int, class_count: int, ties: bool, with_negatives: bool
) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.nn.functional.interpolate(
        torch.from_numpy(rng.normal(size=(max(n, 1), 1, 5, 5))).float(), (32, 32), mode="bilinear"
    )[:n, 0]
    predicted_iou = torch.from_numpy(rng.integers(3, size=n) / 3 if ties else rng.random(n)).float()
    proposals = Proposals(logits, predicted_iou)
    features = torch.from_numpy(rng.normal(size=(16, 5, 5))).float()
    prototypes = torch.from_numpy(rng.normal(size=(class_count, 16))).float()
    negatives, by_class = None, {}
    if with_negatives:
        vectors, of = torch.from_numpy(rng.normal(size=(5, 16))).float(), rng.integers(class_count, size=5)
        negatives = Negatives(vectors, torch.from_numpy(of))
        by_class = {index: vectors[of == index] for index in of.tolist()}
    segmenter = Segmenter(torch.nn.Identity(), prototypes=prototypes, settings=Settings(), negatives=negatives)
    fast = segmenter.match_and_merge(describe_proposals(proposals, features, height, width))
    expected = plain.match_and_merge(
        plain.Proposals(logits, predicted_iou), features, prototypes, height, width, by_class
    )
    torch.testing.assert_close(fast.scores, expected.scores, atol=1e-4, rtol=0)
    apart = fast.scores.diff().abs().min() > 1e-4 if len(fast) > 1 else True  # else neighbors may swap
    if apart:
        np.testing.assert_array_equal(fast.masks, expected.masks)
        assert torch.equal(fast.classes, expected.classes)
        assert torch.equal(fast.boxes, expected.boxes)


def test_upsampling_in_parts_equals_upsampling_at_once(monkeypatch: Patch) -> None:
    logits = torch.randn(5, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = upsample(logits, 50, 70).dense()
    monkeypatch.setattr("no_time_to_train.method.upsample.UPSAMPLED_AT_ONCE", 2 * 50 * 70)
    np.testing.assert_array_equal(upsample(logits, 50, 70).dense(), whole)


@pytest.fixture(scope="module")
def proposer() -> MaskProposer:
    """A seeded SAM 2.1 tiny."""
    sam2 = build_sam2("sam2.1_hiera_t")
    sam2.load_state_dict(seeded_state_dict({k: v.shape for k, v in sam2.state_dict().items()}, 1))
    return MaskProposer(sam2, Settings(points_per_side=4))


@torch.inference_mode()
def test_mask_decoder_equals_the_decoder_of_the_sam2_package(proposer: MaskProposer) -> None:
    features = proposer.encode(torch.rand(3, 1024, 1024, generator=torch.Generator().manual_seed(0)))
    points = point_grid(4, 1024)[:6]
    expected = Proposals(*plain.decode(proposer.sam2, *features, points))
    decoder = MaskDecoder(proposer.sam2)
    threshold = float(expected.predicted_iou.sort().values[2:4].mean())
    for batch in (1, 6):
        shared = decoder.share(*features)
        parts = [decoder(part, shared, threshold) for part in points.split(batch)]
        kept = expected[expected.predicted_iou > threshold]
        torch.testing.assert_close(torch.cat([iou for _, iou in parts]), kept.predicted_iou, atol=1e-4, rtol=0)
        torch.testing.assert_close(torch.cat([logits for logits, _ in parts]), kept.logits, atol=1e-2, rtol=0)


SIZE = (240, 320)


class Both(NamedTuple):
    """The trained nano networks, and the memory that each implementation made of the same references.

    Attributes:
        segmenter: The fast implementation.
        bank: Its memory, with negative references.
        prototypes: The prototypes of the page, [C, D].
        negatives: The vectors of the negative references of each class that has some.
    """

    segmenter: Segmenter
    bank: MemoryBank
    prototypes: Tensor
    negatives: dict[int, Tensor]


@pytest.fixture(scope="module")
@torch.inference_mode()
def both() -> Both:
    """Four classes; the second has a negative reference, which shows another one of them."""
    segmenter = nano_segmenter(16).segmenter
    encoder = segmenter.encoder
    categories = [Category(index + 1, one.name) for index, one in enumerate(NOVEL_CLASSES[:4])]
    bank = MemoryBank.empty(categories, encoder.dim)
    vectors: list[list[Tensor]] = [[], [], [], []]
    negatives: list[Tensor] = []
    for seed in range(4):
        scene = draw_scene(np.random.default_rng(seed), NOVEL_CLASSES[:4], SIZE)
        for label, mask in zip(scene.labels.tolist(), scene.masks, strict=True):
            x1, y1, x2, y2 = masks_to_boxes(torch.from_numpy(mask[None]))[0].tolist()
            box = [x1, y1, x2 + 1 - x1, y2 + 1 - y1]
            page = plain.fill(encoder.vit, scene.image, mask, box)
            ours, weight = segmenter.describe_reference(*crop_reference(scene.image, mask, box, encoder.size))
            torch.testing.assert_close(ours, page, atol=1e-5, rtol=1e-4)
            bank.add(label, ours, weight)
            vectors[label].append(page)
            if label == 2:
                bank.add(1, ours, weight, negative=True)
                negatives.append(page)
    bank.postprocess()
    return Both(segmenter, bank, plain.average([torch.stack(each) for each in vectors]), {1: torch.stack(negatives)})


def test_the_page_makes_the_same_memory(both: Both) -> None:
    assert both.bank.counts.min() > 0
    torch.testing.assert_close(both.bank.prototypes, both.prototypes, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("with_negatives", [False, True])
def test_the_page_finds_the_same_instances(both: Both, with_negatives: bool) -> None:
    segmenter, bank, prototypes, negatives = both
    proposer = segmenter.proposer
    segmenter.remember(bank.prototypes, bank.negatives if with_negatives else None)
    dropped = 0
    ours, page = [], []
    for seed in range(100, 106):
        image = draw_scene(np.random.default_rng(seed), NOVEL_CLASSES[:5], SIZE).image
        square = plain.square(image, proposer.size)
        assert square.equal(target_tensor(image, proposer.size))
        predicted_iou = plain.propose(proposer.sam2, square, 16).predicted_iou
        dropped += int((predicted_iou <= proposer.pred_iou_thresh).sum())
        found = plain.segment(
            segmenter.encoder.vit, proposer.sam2, prototypes, image, negatives if with_negatives else None, 16
        )
        detections = Detections(Masks.pack(found.masks), *found[1:])
        page += to_coco_records(detections, seed, [1, 2, 3, 4])
        ours += to_coco_records(segmenter.segment(square, *SIZE), seed, [1, 2, 3, 4])
    assert len(page) > 40
    assert dropped > 0, "some proposals are below the threshold of the predicted IoU"
    assert_same_results(ours, page)


def test_a_thin_reference_gives_the_same_vector(both: Both) -> None:
    """A mask one pixel wide at the border of the image, which falls between the sampled pixels."""
    image = draw_scene(np.random.default_rng(0), NOVEL_CLASSES[:4], SIZE).image
    mask = np.zeros(SIZE, bool)
    mask[5:200, 3] = True
    encoder, box = both.segmenter.encoder, [3.0, 5.0, 1.0, 195.0]
    with torch.inference_mode():
        page = plain.fill(encoder.vit, image, mask, box)
        ours, _ = both.segmenter.describe_reference(*crop_reference(image, mask, box, encoder.size))
    assert page.isfinite().all()
    torch.testing.assert_close(ours, page, atol=1e-5, rtol=1e-4)
