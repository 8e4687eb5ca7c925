"""The fast implementation gives the same results as the plain one (``method/plain.py``) on random inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from torch import Tensor

from no_time_to_train.data.rle import decode_crop, encode_crop, encode_mask
from no_time_to_train.method import plain
from no_time_to_train.method.beyond.negatives import Negatives
from no_time_to_train.method.fast.mask_decoder import MaskDecoder
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.mask_proposals import MaskProposer, point_grid
from no_time_to_train.method.pool import pool
from no_time_to_train.method.proposals import Proposals
from no_time_to_train.method.segmenter import Segmenter, describe_proposals
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.soft_merge import soft_merge
from no_time_to_train.method.upsample import upsample
from no_time_to_train.networks.build import build_sam2
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
    np.testing.assert_array_equal(packed.dense(), masks)
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
    negatives = None
    if with_negatives:
        vectors = torch.from_numpy(rng.normal(size=(5, 16))).float()
        negatives = Negatives(vectors, torch.from_numpy(rng.integers(class_count, size=5)))
    segmenter = Segmenter(torch.nn.Identity(), prototypes=prototypes, settings=Settings(), negatives=negatives)
    fast = segmenter.match_and_merge(describe_proposals(proposals, features, height, width))
    expected = plain.match_and_merge(proposals, features, prototypes, height, width, negatives)
    torch.testing.assert_close(fast.scores, expected.scores, atol=1e-4, rtol=0)
    apart = fast.scores.diff().abs().min() > 1e-4 if len(fast) > 1 else True  # else neighbors may swap
    if apart:
        assert torch.equal(fast.masks, expected.masks)
        assert torch.equal(fast.classes, expected.classes)
        assert torch.equal(fast.boxes, expected.boxes)


def test_upsampling_in_parts_equals_upsampling_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
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
    expected = plain.decode(proposer.sam2, *features, points)
    decoder = MaskDecoder(proposer.sam2)
    threshold = float(expected.predicted_iou.sort().values[2:4].mean())
    for batch in (1, 6):
        shared = decoder.share(*features)
        parts = [decoder(part, shared, threshold) for part in points.split(batch)]
        kept = expected[expected.predicted_iou > threshold]
        torch.testing.assert_close(torch.cat([iou for _, iou in parts]), kept.predicted_iou, atol=1e-4, rtol=0)
        torch.testing.assert_close(torch.cat([logits for logits, _ in parts]), kept.logits, atol=1e-2, rtol=0)
