"""Masks from points and boxes: those of SAM 2's own predictor, the same from Python, files and clicks in the app."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor

from no_time_to_train import ReferenceSegmenter
from no_time_to_train.cli import main
from no_time_to_train.data.images import read_rgb
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.networks.box_prompts import PromptedImage, Sam2Boxes
from no_time_to_train.networks.build import build_sam2
from no_time_to_train.networks.registry import default_checkpoint
from tests.conftest import Patch, Photo

SCENE = draw_scene(np.random.default_rng(0), NOVEL_CLASSES, (90, 120))
OTHER = draw_scene(np.random.default_rng(1), NOVEL_CLASSES, (60, 80))
Y, X = (int(values.mean()) for values in np.nonzero(SCENE.masks[0]))


@pytest.fixture(scope="module")
def sam2() -> Sam2Boxes:
    return Sam2Boxes(build_sam2("sam2_nano", default_checkpoint("sam2_nano")), "sam2_nano")


def test_prompts_give_the_masks_of_the_predictor_itself(sam2: Sam2Boxes) -> None:
    image = PromptedImage(sam2, SCENE.image)
    one, predicted = image.masks([(X, Y)])
    masks, predicted_iou = image.masks([(X, Y), (X + 2, Y)], [(2, 3)], (5, 6, 80, 70))
    predictor = SAM2ImagePredictor(sam2.predictor.model)
    predictor._bb_feat_sizes = sam2.predictor._bb_feat_sizes
    with torch.inference_mode():
        predictor.set_image(SCENE.image)
        expected, expected_iou, _ = predictor.predict(
            np.array([[X, Y], [X + 2, Y], [2, 3]], np.float32),
            np.array([1, 1, 0]),
            np.array([5, 6, 80, 70], np.float32),
            multimask_output=False,
        )
    assert one.shape == (3, 90, 120)
    assert list(predicted) == sorted(predicted, reverse=True), "the best mask of a single point comes first"
    assert np.array_equal(masks, expected.astype(bool))
    assert np.array_equal(predicted_iou, expected_iou)


def test_images_keep_their_features_while_others_are_prompted(sam2: Sam2Boxes, monkeypatch: Patch) -> None:
    first, second = PromptedImage(sam2, SCENE.image), PromptedImage(sam2, OTHER.image)
    expected = first.masks([(X, Y)])[0]
    monkeypatch.setattr(sam2.predictor.model, "forward_image", None)  # no image can be encoded any more
    second.masks([(20, 20)])
    assert np.array_equal(first.masks([(X, Y)])[0], expected)
    assert second.masks([(20, 20)])[0].shape == (3, 60, 80)


def places(photo: Photo) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Two points on the object and one outside it."""
    rows, columns = np.nonzero(photo.mask)
    outside = np.argwhere(~photo.mask)[0]
    return [(columns[n], rows[n]) for n in (len(rows) // 3, len(rows) // 2)], [(outside[1], outside[0])]


def test_points_give_the_mask_that_clicks_in_the_app_give(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    points, negative_points = places(photo)
    clicked, box = PromptedImage(segmenter.prompts, read_rgb(photo.path)), (5, 6, 110, 80)
    mask = segmenter.add_reference("thing", photo.path, points=points, negative_points=negative_points)
    assert np.array_equal(mask, clicked.masks(points, negative_points)[0][0])
    mask = segmenter.add_reference("thing", photo.path, box=box, negative_points=negative_points)
    assert np.array_equal(mask, clicked.masks([], negative_points, box)[0][0])
    mask = segmenter.add_reference("thing", photo.path, box=box)
    assert np.array_equal(mask, clicked.masks(box=box)[0][0])


def test_of_a_box_the_part_in_the_image_counts(segmenter: ReferenceSegmenter) -> None:
    inside = segmenter.add_reference("thing", SCENE.image, box=(X, Y, 120, 90))
    assert np.array_equal(segmenter.add_reference("thing", SCENE.image, box=(X, Y, 200, 400)), inside)


def test_one_point_is_the_same_as_a_list_of_it(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    (first, second), _ = places(photo)
    alone = segmenter.add_reference("thing", photo.path, point=first)
    assert np.array_equal(alone, segmenter.add_reference("thing", photo.path, points=np.array([first])))
    both = segmenter.add_reference("thing", photo.path, point=first, points=[second])
    assert np.array_equal(both, segmenter.add_reference("thing", photo.path, points=[first, second]))


def test_the_page_of_references_says_which_prompts_made_a_mask(photo: Photo, tmp_path: Path) -> None:
    (x1, y1), (x2, y2) = places(photo)[0]
    main([
        "segment", "--nano", "--device", "cpu", "--check-references", "--out", str(tmp_path / "out"),
        "--reference", f"thing:{photo.path}:point={x1},{y1}:point={x2},{y2}:negative_point=1,1",
    ])  # fmt: skip
    page = (tmp_path / "out/references.html").read_text()
    assert "mask made from 2 points and 1 negative point" in page
