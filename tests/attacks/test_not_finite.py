"""Networks and memories whose numbers are not finite: an error that names the suspect file, and never a score."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from no_time_to_train import Settings, UserError
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.box_prompts import PromptedImage, Sam2Boxes, SamBoxes, masks_of
from no_time_to_train.networks.build import build_sam2, build_vit
from tests.conftest import Checkpoints

#: Parts of SAM 2 whose values do not pass through each other.
PARTS: dict[str, Callable[[SAM2Base], Tensor]] = {
    "image encoder": lambda sam2: sam2.image_encoder.neck.convs[-1].conv.bias,
    "upscaling": lambda sam2: sam2.sam_mask_decoder.output_upscaling[3].bias,
    "one mask token": lambda sam2: sam2.sam_mask_decoder.output_hypernetworks_mlps[2].layers[-1].bias,
}


def damaged(part: Callable[[SAM2Base], Tensor], value: float) -> SAM2Base:
    """A SAM 2 with one value that is not finite."""
    torch.manual_seed(0)
    sam2 = build_sam2("sam2_nano")
    sam2.sam_mask_decoder.iou_prediction_head.layers[-1].bias.data[:] = 5  # every proposal is kept
    part(sam2).data[0] = value
    return sam2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
def test_proposals_that_are_not_finite_are_an_error(part: Callable[[SAM2Base], Tensor], value: float) -> None:
    proposer = MaskProposer(damaged(part, value), Settings(points_per_side=4, pred_iou_thresh=0.0))
    with torch.inference_mode(), pytest.raises(UserError, match="SAM 2 gives values that are not finite"):
        proposer(torch.rand(3, proposer.size, proposer.size))


def test_a_predicted_iou_of_nan_is_not_below_the_threshold() -> None:
    sam2 = damaged(lambda sam2: sam2.sam_mask_decoder.iou_prediction_head.layers[-1].bias[2:], float("nan"))
    proposer = MaskProposer(sam2, Settings(points_per_side=4, pred_iou_thresh=1.0))
    with torch.inference_mode(), pytest.raises(UserError, match="SAM 2 gives values that are not finite"):
        proposer(torch.rand(3, proposer.size, proposer.size))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", [PARTS["image encoder"], PARTS["upscaling"]], ids=["image encoder", "upscaling"])
def test_masks_of_prompts_that_are_not_finite_are_an_error(part: Callable[[SAM2Base], Tensor], value: float) -> None:
    segmenter, image = Sam2Boxes(damaged(part, value), ""), np.zeros((32, 48, 3), np.uint8)
    with pytest.raises(UserError, match="SAM 2 gives values that are not finite"):
        segmenter(image, np.array([[1, 1, 20, 20]], np.float32))
    with pytest.raises(UserError, match="SAM 2 gives values that are not finite"):
        PromptedImage(segmenter, image).masks([(5, 5)])


def fake_sam(value: float) -> Any:
    """SAM's predictor with logits of a given value, for images of 2 x 3 pixels."""

    def predict(*_: Any, boxes: Tensor, return_logits: bool, **__: Any) -> tuple[Tensor, Tensor, None]:
        assert return_logits
        return torch.full((len(boxes), 1, 2, 3), value), torch.ones(len(boxes), 1), None

    return Mock(device="cpu", predict_torch=predict, transform=Mock(apply_boxes_torch=lambda boxes, _: boxes))


def test_masks_of_sam_that_are_not_finite_are_an_error() -> None:
    segmenter = SamBoxes.__new__(SamBoxes)
    boxes = np.zeros((70, 4), np.float32)
    segmenter.predictor = fake_sam(1.5)
    assert segmenter(np.zeros((2, 3, 3), np.uint8), boxes).all()
    assert segmenter(np.zeros((2, 3, 3), np.uint8), boxes).shape == (70, 2, 3)
    segmenter.predictor = fake_sam(float("nan"))
    with pytest.raises(UserError, match="SAM gives values that are not finite"):
        segmenter(np.zeros((2, 3, 3), np.uint8), boxes)


def test_logits_of_large_areas_do_not_overflow() -> None:
    """In float16 the sum of half a million logits is infinite, although each is finite."""
    assert not masks_of((torch.full((1, 1024, 1024), -20.0, dtype=torch.float16), torch.ones(1), None), "SAM 2").any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_an_error(value: float, nano_checkpoints: Checkpoints) -> None:
    vit = build_vit("dinov2_nano", 224, checkpoint=nano_checkpoints[1])
    vit.norm.bias.data[0] = value
    proposer = MaskProposer(build_sam2("sam2_nano", nano_checkpoints[0]), Settings(points_per_side=2))
    segmenter = Segmenter(Encoder(vit), proposer, torch.ones(2, vit.embed_dim))
    with pytest.raises(UserError, match="DINOv2 gives values that are not finite"):
        segmenter.segment(torch.rand(3, 256, 256), 30, 40)


def test_a_prototype_that_is_not_finite_is_an_error() -> None:
    vit = build_vit("dinov2_nano", 224)
    prototypes = torch.ones(2, vit.embed_dim)
    prototypes[1, 3] = float("nan")
    segmenter = Segmenter(Encoder(vit), None, prototypes)
    with pytest.raises(UserError, match="the memory gives values that are not finite: is its file damaged"):
        segmenter.match_and_merge(None)  # type: ignore[arg-type]  # refused before the proposals are used
