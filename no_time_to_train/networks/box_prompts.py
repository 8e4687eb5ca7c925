"""Masks from box and point prompts: SAM 2 or SAM returns one mask per prompt."""

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor
from torch import nn
from torchvision.transforms import Normalize, Resize

from no_time_to_train.errors import UserError
from no_time_to_train.file_hashes import sha256
from no_time_to_train.method.encoder import check_finite
from no_time_to_train.networks.build import build_sam2
from no_time_to_train.networks.checkpoints import (
    describe,
    identify,
    load_strictly,
    read_checkpoint,
    read_shapes,
    recognize,
)
from no_time_to_train.networks.devices import to_device
from no_time_to_train.networks.registry import SAM2_NAMES, Network, default_checkpoint

#: Boxes decoded at once. Affects speed and memory only, never results.
BATCH = 64


class BoxSegmenter(ABC):
    """Makes masks from boxes, with the predictor which comes with a network.

    Args:
        name: Identifies the network and its weights. Masks of equal boxes are equal where the name is.
    """

    #: What messages call the network.
    network: str

    def __init__(self, predictor: Any, name: str) -> None:
        self.predictor = predictor
        self.name = name

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Make one mask per box, bool [n, H, W], which may be empty.

        The image is uint8 [H, W, 3] RGB; the boxes are float32 [n, 4], xyxy in pixels, n > 0.
        """
        size = image.shape[:2]
        self.predictor.set_image(image.copy())  # torch warns of read-only arrays, which PIL returns
        batches = [boxes[start : start + BATCH] for start in range(0, len(boxes), BATCH)]
        found = [masks_of(self._predict(batch, size), self.network) for batch in batches]
        return np.concatenate([masks.reshape(-1, *size) for masks in found])

    @abstractmethod
    def _predict(self, boxes: NDArray[np.float32], size: tuple[int, ...]) -> tuple[Any, Any, Any]:
        """One mask as logits per box of the image of this height and width, as :func:`masks_of` takes them."""


class Sam2Boxes(BoxSegmenter):
    """SAM 2 with the sam2 package's own predictor."""

    network = "SAM 2"

    def __init__(self, sam2: SAM2Base, name: str) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
            super().__init__(SAM2ImagePredictor(sam2), name)
        transforms = self.predictor._transforms  # a script can be neither pickled nor sent to another process
        normalize = Normalize(transforms.mean, transforms.std)
        transforms.transforms = nn.Sequential(Resize((transforms.resolution,) * 2), normalize)
        # The predictor assumes an input of 1024 pixels, but that of the nano network is smaller.
        self.predictor._bb_feat_sizes = [(sam2.image_size // stride,) * 2 for stride in (4, 8, 16)]

    def _predict(self, boxes: NDArray[np.float32], size: tuple[int, ...]) -> Any:
        return self.predictor.predict(box=boxes, multimask_output=False, return_logits=True)


class SamBoxes(BoxSegmenter):
    """SAM ViT-B, -L or -H, a ``segment_anything.modeling.Sam``, as the paper uses it.

    It needs the ``segment-anything`` package, which is not installed by default.
    """

    network = "SAM"

    def __init__(self, sam: Any, name: str) -> None:
        super().__init__(import_sam().SamPredictor(sam), name)

    def _predict(self, boxes: NDArray[np.float32], size: tuple[int, ...]) -> Any:
        prompts = torch.as_tensor(boxes, device=self.predictor.device)
        prompts = self.predictor.transform.apply_boxes_torch(prompts, size)
        return self.predictor.predict_torch(None, None, boxes=prompts, multimask_output=False, return_logits=True)


def masks_of(predicted: tuple[Any, Any, Any], network: str) -> NDArray[np.bool_]:
    """The masks, bool [n, ..., H, W], that a predictor returns as logits, which are checked.

    ``predicted`` has the logits at the image's size, float [n, ..., H, W], the predicted IoUs, and further values.
    """
    logits, predicted_iou = (torch.as_tensor(values) for values in predicted[:2])
    check_finite(torch.stack([values.sum(dtype=torch.float32) for values in (logits, predicted_iou)]), network)
    return np.asarray((logits > 0).cpu())


class PromptedImage:
    """One image whose features are kept, so that each further prompt takes the mask decoder only.

    Args:
        segmenter: SAM 2 or SAM.
        image: uint8 [H, W, 3] RGB.
    """

    def __init__(self, segmenter: Sam2Boxes | SamBoxes, image: NDArray[np.uint8]) -> None:
        self.network = segmenter.network
        self.predictor = copy.copy(segmenter.predictor)  # the same network, with features of its own
        with torch.inference_mode():
            self.predictor.set_image(image.copy())

    @torch.inference_mode()
    def masks(
        self,
        points: Sequence[tuple[float, float]] = (),
        negative_points: Sequence[tuple[float, float]] = (),
        box: Sequence[float] | None = None,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """The masks of the object that the prompts show, the best first.

        One point alone may show a part, an object or a group, so there are three masks. More prompts show one object,
        so there is one mask.

        Args:
            points: (x, y) in pixels, on the object.
            negative_points: (x, y) in pixels, outside the object.
            box: x1, y1, x2, y2 in pixels, around the object.

        Returns:
            bool [n, H, W], where n is at most 3 or 1, in descending order of their predicted IoU; none is empty. And
            the predicted IoUs, float32 [n].
        """
        places = np.array([*points, *negative_points], np.float32).reshape(-1, 2)
        several = len(places) == 1 and box is None
        predicted = self.predictor.predict(
            point_coords=places if len(places) else None,
            point_labels=np.array([1] * len(points) + [0] * len(negative_points)) if len(places) else None,
            box=None if box is None else np.array(box, np.float32),
            multimask_output=several,
            return_logits=True,
        )
        masks, predicted_iou = masks_of(predicted, self.network), np.asarray(predicted[1], np.float32)
        best = np.argsort(-predicted_iou, kind="stable")
        best = best[masks[best].any(axis=(1, 2))]
        return masks[best], predicted_iou[best]


def mask_or_box(mask: NDArray[np.bool_], box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The mask, bool [H, W], that a network made from a box, float32 [4], xyxy in pixels.

    It is the box itself where the mask is empty or lies wholly outside.
    """
    whole = rectangle(box, *mask.shape)
    return mask if (mask & whole).any() else whole


def rectangle(box: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels, bool [height, width], that a box touches, at least one; float32 [4], xyxy in pixels."""
    x1, y1 = int(np.clip(np.floor(box[0]), 0, width - 1)), int(np.clip(np.floor(box[1]), 0, height - 1))
    x2, y2 = int(np.clip(np.ceil(box[2]), x1 + 1, width)), int(np.clip(np.ceil(box[3]), y1 + 1, height))
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def import_sam() -> Any:
    """The ``segment_anything`` module."""
    try:
        import segment_anything
    except ImportError as error:
        raise UserError("--sam-checkpoint needs the segment-anything package: pip install segment-anything") from error
    return segment_anything


def build_sam(checkpoint: str | Path) -> Any:
    """Build the SAM that an official checkpoint belongs to, in eval mode on the CPU, without gradients.

    The weights show whether it is ViT-B, ViT-L or ViT-H. Returns a ``segment_anything.modeling.Sam``.
    """
    registry = import_sam().sam_model_registry
    shapes = read_shapes(checkpoint)
    kind = (identify(shapes) or "").removeprefix("sam_")
    if kind not in registry:
        raise UserError(f"checkpoint {checkpoint} is not one of SAM ViT-B, -L or -H: it holds {describe(shapes)}")
    sam = registry[kind]()
    load_strictly(sam, read_checkpoint(checkpoint), checkpoint)
    return sam.eval().requires_grad_(False)


def build_box_segmenter(
    sam2_cfg_file: str | None,
    sam2_ckpt_path: str | Path | None = None,
    sam_checkpoint: str | Path | None = None,
    device: str | None = None,
) -> BoxSegmenter:
    """Build SAM where its checkpoint is given, and SAM 2 otherwise, on a device.

    The segmenter's name contains the SHA-256 of the checkpoint, so that masks of equal names come from equal weights,
    wherever the file is.

    Args:
        sam2_cfg_file: Network name of SAM 2, such as ``sam2_hiera_l``, with or without ``.yaml``. None recognizes the
            network from its checkpoint.
        sam_checkpoint: Official checkpoint of SAM ViT-B, ViT-L or ViT-H, to use instead of SAM 2.
        device: Such as ``cuda:1`` or ``cpu``. Default: the GPU if there is one.
    """
    if sam_checkpoint is not None:
        sam = build_sam(sam_checkpoint)
        to_device(device, sam)
        return SamBoxes(sam, f"SAM {sha256(sam_checkpoint)}")
    checkpoint = Path(sam2_ckpt_path or default_checkpoint(sam2_cfg_file or ""))
    name = recognize(Network(sam2_cfg_file, checkpoint), SAM2_NAMES).removesuffix(".yaml")
    sam2 = build_sam2(name, checkpoint)
    to_device(device, sam2)
    return Sam2Boxes(sam2, f"{name} {sha256(checkpoint)}")
