"""SAM's and MobileSAM's masks of everything in an image, by the mask generator of their packages."""

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.networks.box_prompts import build_sam, import_sam
from no_time_to_train.networks.checkpoints import load_strictly, read_checkpoint
from no_time_to_train.networks.devices import to_device
from no_time_to_train_extras.proposers.outputs import given_masks


def build_generator(name: str, checkpoint: str, device: str | torch.device | None = None) -> Any:
    """The ``SamAutomaticMaskGenerator`` of ``sam`` or ``mobile_sam``, as its authors set it, with a checkpoint."""
    if name == "sam":
        module, sam = import_sam(), build_sam(checkpoint)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its module replaces names in timm's list of networks
            module = import_module("mobile_sam")
        sam = module.sam_model_registry["vit_t"]().requires_grad_(False)
        load_strictly(sam, read_checkpoint(checkpoint), checkpoint)
    to_device(device, sam)
    return module.SamAutomaticMaskGenerator(sam.eval())  # eval again: MobileSAM derives tensors from its weights there


class Everything:
    """The masks that a generator, such as ``SamAutomaticMaskGenerator``, makes, with their predicted IoUs."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def __call__(self, pixels: NDArray[np.uint8]) -> Given:
        found = [one for one in self.generator.generate(pixels) if one["segmentation"].any()]
        scores = torch.tensor([one["predicted_iou"] for one in found]).clamp(0, 1)
        return given_masks([Masks.pack(one["segmentation"][None]) for one in found], scores, *pixels.shape[:2])
