"""Tiles: what the networks see, which proposals are joined, and that runs with tiles are as repeatable as others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import masks_to_boxes

from no_time_to_train import Instances, ReferenceSegmenter
from no_time_to_train.demo.scenes import MAX_SIDE, NOVEL_CLASSES, draw_scene
from no_time_to_train.method.beyond.tiles import FINER, Window, target_squares, tile_windows, to_frame, uncut
from no_time_to_train.method.fast import mask_logits
from no_time_to_train.method.fast.mask_logits import MaskLogits
from no_time_to_train.method.proposals import Proposals
from no_time_to_train.method.segmenter import describe_proposals
from no_time_to_train.method.target_image import resize_to_square
from no_time_to_train.method.upsample import upsample
from tests.conftest import Patch, Photo, nano_segmenter

SIDE = 16


def blob(top: int, left: int, bottom: int, right: int, side: int = SIDE) -> Tensor:
    """Logits of a rectangle, float [side, side], with a slope so that upsampling has something to interpolate."""
    logits = -torch.rand(side, side, generator=torch.Generator().manual_seed(top)) - 0.1
    logits[top:bottom, left:right] *= -1
    return logits


@pytest.mark.parametrize(("height", "width"), [(900, 1200), (1, 1), (1, 7), (2, 3), (33, 5)])
@pytest.mark.parametrize(("tiles", "overlap"), [(1, 0.2), (2, 0.0), (2, 0.2), (3, 0.5), (5, 0.9)])
def test_tiles_cover_the_image_and_come_after_the_whole(height: int, width: int, tiles: int, overlap: float) -> None:
    windows = tile_windows(height, width, tiles, overlap)
    assert windows[0] == (0, 0, height, width)
    assert len(windows) == len(set(windows)) <= (1 if tiles == 1 else 1 + tiles**2)
    covered = np.zeros((height, width), bool)
    for top, left, h, w in windows[1:]:
        assert 0 <= top < top + h <= height
        assert 0 <= left < left + w <= width
        covered[top : top + h, left : left + w] = True
    assert covered.all() or len(windows) == 1


def test_neighboring_tiles_share_the_overlap() -> None:
    _, first, second, *_ = tile_windows(900, 1200, 3, 0.25)
    assert (first.height, first.width) == (360, 480)
    assert first.left + first.width - second.left == 120
    assert len(tile_windows(900, 1200, 3, 0.25)) == 10


def test_a_tile_is_seen_as_a_square_of_its_own_and_one_tile_as_today() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    assert torch.equal(target_squares(image, 32), resize_to_square(image, 32))
    squares = target_squares(image, 32, 2, 0.0)
    assert (squares.shape, squares.dtype) == ((5, 3, 32, 32), torch.uint8)
    assert torch.equal(squares[0], resize_to_square(image, 32))
    inside = resize_to_square(image[15:, 20:], 32)[:, 4:, 4:]
    assert torch.equal(squares[4][:, 4:, 4:], inside), "the pixels of the lower right tile, but for its inner border"
    larger = np.asarray(Image.fromarray(image).resize((80, 60), Image.Resampling.NEAREST))
    stated = target_squares(larger, 32, 2, 0.0, stated=(30, 40))
    assert (stated.float() - squares.float()).abs().mean() < 30, "the same parts of an image of another size"
    assert len(target_squares(image[:1, :1], 32, 4, 0.2)) == 1, "of one pixel there are no tiles"


def test_masks_at_an_inner_border_are_dropped_and_those_at_the_border_of_the_image_stay() -> None:
    logits = torch.stack([blob(0, 4, 5, 8), blob(4, 0, 8, 5), blob(4, 4, 16, 8), blob(4, 4, 8, 16), blob(4, 4, 8, 8)])
    boxes = masks_to_boxes(logits > 0).long()

    def kept(window: Window) -> list[int]:
        return uncut(boxes, SIDE, window, 100, 100).tolist()

    assert kept(Window(0, 0, 100, 100)) == [0, 1, 2, 3, 4]
    assert kept(Window(0, 0, 60, 60)) == [0, 1, 4], "upper left: cut off below and on the right"
    assert kept(Window(40, 40, 60, 60)) == [2, 3, 4]
    assert kept(Window(20, 20, 60, 60)) == [4]


def test_an_object_has_the_same_box_in_the_frame_whichever_square_shows_it() -> None:
    height, width, side = 800, 1600, 256
    whole = to_frame(torch.tensor([[64, 64, 71, 79]]), Window(0, 0, height, width), height, width, side)
    tile = to_frame(torch.tensor([[128, 128, 143, 159]]), Window(0, 0, height // 2, width // 2), height, width, side)
    other = to_frame(torch.tensor([[0, 64, 15, 95]]), Window(100, 400, 400, 800), height, width, side)
    assert whole.tolist() == tile.tolist() == other.tolist() == [[1024, 1024, 1151, 1279]]
    pixel = to_frame(torch.tensor([[9, 9, 9, 9]]), Window(7, 7, 50, 100), height, width, side)
    assert (pixel[:, 2:] >= pixel[:, :2]).all(), "a box is never inside out"
    assert pixel.max() < FINER * side


@pytest.mark.parametrize(("height", "width"), [(50, 70), (9, 200), (5, 6), (1, 1)])
def test_the_mask_of_a_square_is_that_of_its_upsampled_logits_at_its_place(height: int, width: int) -> None:
    window = Window(3, 2, height, width)
    logits = torch.stack([blob(0, 0, 16, 16), blob(3, 5, 9, 7), blob(10, 0, 11, 16), blob(15, 15, 16, 16)])
    expected = np.zeros((4, height + 5, width + 5), bool)
    expected[:, 3 : 3 + height, 2 : 2 + width] = upsample(logits, height, width).dense()
    described = describe_proposals(Proposals(logits, torch.ones(4)), torch.randn(8, 4, 4), height, width)
    every = MaskLogits(height + 5, width + 5)
    every.add(window, described.logits, torch.arange(4), described.boxes)
    masks = every(torch.tensor([3, 0, 1, 2]))
    order = np.array([1, 2, 3, 0])
    filled = masks[order].areas > 0
    np.testing.assert_array_equal(masks[order].areas, expected.sum(axis=(1, 2)))
    found = masks[order[filled]]
    np.testing.assert_array_equal(found, expected[filled])
    pixels = expected[filled].reshape(len(found), -1).astype(float)
    np.testing.assert_array_equal(found.intersections(), pixels @ pixels.T)
    for box, mask in zip(found.boxes.tolist(), expected[filled], strict=True):
        ys, xs = mask.nonzero()
        assert box == [xs.min(), ys.min(), xs.max(), ys.max()]


def test_stored_masks_are_those_that_were_joined_and_forged_ones_are_refused() -> None:
    masks = MaskLogits(60, 80)
    logits = torch.stack([blob(3, 5, 9, 7), blob(15, 0, 16, 3)]).half().float()
    boxes = torch.tensor([[5, 3, 6, 8], [0, 15, 2, 15]])
    masks.add((0, 0, 60, 80), MaskLogits.of_image(logits, 60, 80), torch.arange(2), boxes)
    masks.add((10, 20, 30, 40), MaskLogits.of_image(logits[:1], 30, 40), torch.arange(1), boxes[:1])
    tensors = masks.to_tensors()
    rows = torch.arange(3)
    np.testing.assert_array_equal(MaskLogits.from_tensors(60, 80, tensors)(rows), masks(rows))
    forged = {
        "squares": [torch.tensor([[0, 0, 61, 80, 16]] * 2), torch.tensor([[0, 0, 60, 80, 2**40]] * 2)],
        "places": [tensors["places"] * 2, tensors["places"] - 3, torch.zeros(3, 5)],
        "logits": [tensors["logits"][1:]],
    }
    for name, values in forged.items():
        for value in values:
            with pytest.raises(ValueError, match="a mask"):
                MaskLogits.from_tensors(60, 80, {**tensors, name: value})


Shown = Callable[..., ReferenceSegmenter]


@pytest.fixture
def shown(photo: Photo) -> Shown:
    """The nano networks with the given settings, which were shown one object of a drawn scene."""

    def of(points_per_side: int = 8, **settings: Any) -> ReferenceSegmenter:
        segmenter = nano_segmenter(points_per_side, **settings)
        segmenter.add_reference("pattern", photo.path, photo.mask)
        return segmenter

    return of


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 2), (5, 300)])
def test_tiny_images_have_tiles(shown: Shown, photo: Photo, shape: tuple[int, int]) -> None:
    pixels: NDArray[np.uint8] = np.asarray(Image.open(photo.path).resize(shape[::-1]))
    found = shown(tiles=3, points_per_side=2).segment(pixels, threshold=0)
    assert found.masks.shape[1:] == shape
    assert found.masks.any(axis=(1, 2)).all()
    assert found.detections.prompts == 4 * len(tile_windows(*shape, 3, 0.2))


def test_guided_prompts_have_a_budget_per_square(shown: Shown, photo: Photo) -> None:
    found = shown(tiles=2, prompts="guided", prompt_budget=0.1).segment(photo.path, threshold=0)
    assert 0 < found.detections.prompts <= 5 * 6
    nothing = shown(tiles=2, prompts="guided", prompt_threshold=1).segment(photo.path, threshold=0)
    assert len(nothing) == nothing.detections.prompts == 0


def test_tiles_find_objects_that_are_too_small_for_the_whole_image() -> None:
    scene = draw_scene(np.random.default_rng(1000), NOVEL_CLASSES[:1], (900, 900), (6, 6), (0.04, 0.06), MAX_SIDE)
    example = draw_scene(np.random.default_rng(1001), NOVEL_CLASSES[:1], (400, 400))
    recall = []
    for tiles in (1, 3):
        segmenter = nano_segmenter(12, tiles=tiles)
        for mask in example.masks[:3]:
            segmenter.add_reference("stripes", example.image, mask)
        found = segmenter.segment(scene.image, threshold=0.3).masks
        shared = (found[:, None] & scene.masks).sum(axis=(2, 3))
        either = (found[:, None] | scene.masks).sum(axis=(2, 3))
        recall.append(int((shared / either > 0.6).any(axis=0).sum()))
    assert recall[1] >= 4 > recall[0] + 1


def test_masks_of_a_large_image_are_compared_at_a_smaller_size_and_returned_at_its_own(
    shown: Shown, photo: Photo, tmp_path: Path, monkeypatch: Patch
) -> None:
    whole = shown(tiles=2).segment(photo.path, threshold=0)
    monkeypatch.setattr(mask_logits, "COMPARED_PIXELS", 90 * 120 // 4)
    found = shown(tiles=2).segment(photo.path, threshold=0)
    assert len(found) == len(whole) > 1
    np.testing.assert_allclose(found.scores, whole.scores, atol=0.1)
    np.testing.assert_array_equal(found[0].mask, whole[0].mask)
    np.testing.assert_array_equal(found[0].box, whole[0].box)
    np.testing.assert_array_equal(found.areas, found.masks.sum(axis=(1, 2)))
    found[:2].save(tmp_path / "best.json")
    loaded = Instances.load(tmp_path / "best.json")
    np.testing.assert_array_equal(loaded.masks, found.masks[:2])
    assert loaded.to_coco() == found[:2].to_coco()
