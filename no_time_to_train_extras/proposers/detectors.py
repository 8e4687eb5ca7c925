"""Boxes of detectors, whose scores say how likely it is that there is an object, of whatever class."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import box_convert

from no_time_to_train.method.beyond.given import Given
from no_time_to_train_extras.proposers.outputs import given_boxes_within
from no_time_to_train_extras.proposers.pretrained_models import load_model


class Owlv2:
    """OWLv2's boxes with their objectness, one per patch of the image; it is asked for no class."""

    def __init__(self, weights: str, device: str | torch.device | None = None) -> None:
        self.model, self.prepare = load_model("Owlv2ForObjectDetection", "Owlv2ImageProcessor", weights, device)

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8]) -> Given:
        inputs = self.prepare(images=Image.fromarray(pixels), return_tensors="pt").to(self.model.device)
        grid = self.model.image_embedder(pixel_values=inputs["pixel_values"])[0]
        patches = grid.flatten(1, 2)
        height, width = pixels.shape[:2]
        side = max(height, width)  # the image is padded to a square at its right or lower side
        boxes = box_convert(self.model.box_predictor(patches, grid)[0], "cxcywh", "xyxy") * side
        return given_boxes_within(boxes, self.model.objectness_predictor(patches)[0].sigmoid(), height, width)


class MMGroundingDino:
    """MM-Grounding-DINO's boxes for a generic text, with the score of the word that fits a box best.

    Args:
        text: Words or phrases with full stops between them, such as "cat. red bus.".
    """

    def __init__(self, weights: str, device: str | torch.device | None = None, text: str = "object.") -> None:
        self.text = f"{text.strip().lower().rstrip('.')}."  # the form in which the network learned texts
        self.model, self.prepare = load_model(
            "MMGroundingDinoForObjectDetection", "GroundingDinoProcessor", weights, device
        )

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8]) -> Given:
        inputs = self.prepare(images=Image.fromarray(pixels), text=self.text, return_tensors="pt")
        found = self.model(**inputs.to(self.model.device))
        height, width = pixels.shape[:2]
        boxes = box_convert(found.pred_boxes[0], "cxcywh", "xyxy")
        boxes *= boxes.new_tensor([width, height, width, height])
        return given_boxes_within(boxes, found.logits[0].sigmoid().amax(dim=1), height, width)
