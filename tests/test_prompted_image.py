"""Prompts on one image: masks as SAM 2's own predictor gives them, from features that are computed once."""

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor

from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.networks.box_prompts import PromptedImage, Sam2Boxes
from no_time_to_train.networks.build import build_sam2
from no_time_to_train.networks.registry import default_checkpoint

SCENE = draw_scene(np.random.default_rng(0), NOVEL_CLASSES, (90, 120))
OTHER = draw_scene(np.random.default_rng(1), NOVEL_CLASSES, (60, 80))
Y, X = (int(values.mean()) for values in np.nonzero(SCENE.masks[0]))


@pytest.fixture(scope="module")
def sam2() -> Sam2Boxes:
    return Sam2Boxes(build_sam2("sam2_nano", default_checkpoint("sam2_nano")), "sam2_nano")


def test_prompts_give_the_masks_of_the_predictor_itself(sam2: Sam2Boxes) -> None:
    image = PromptedImage(sam2, SCENE.image)
    one, _ = image.masks([(X, Y)])
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
    assert np.array_equal(masks, expected.astype(bool))
    assert np.array_equal(predicted_iou, expected_iou)


def test_the_masks_of_one_point_come_in_descending_predicted_iou(sam2: Sam2Boxes) -> None:
    masks, predicted_iou = PromptedImage(sam2, SCENE.image).masks([(X, Y)])
    assert list(predicted_iou) == sorted(predicted_iou, reverse=True)
    assert len(masks) == len(predicted_iou) == 3


def test_images_keep_their_features_whatever_other_image_is_prompted(
    sam2: Sam2Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = PromptedImage(sam2, SCENE.image), PromptedImage(sam2, OTHER.image)
    expected = first.masks([(X, Y)])[0]
    monkeypatch.setattr(sam2.predictor.model, "forward_image", None)  # no image can be encoded any more
    second.masks([(20, 20)])
    assert np.array_equal(first.masks([(X, Y)])[0], expected)
    assert second.masks([(20, 20)])[0].shape == (3, 60, 80)
