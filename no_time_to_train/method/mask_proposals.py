"""SAM 2: class-agnostic mask proposals from a grid of point prompts (stage 3, steps 3 and 4)."""

import warnings
from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from no_time_to_train.errors import UserNotice
from no_time_to_train.method.encoder import Normalise
from no_time_to_train.method.mask_decoder import MaskDecoder

#: Prompts that a CPU decodes at once: fastest of 1, 2, 4 and 8, as their maps (4 MB each) stay in its cache.
CPU_BATCH = 2


@dataclass
class Proposals:
    """Mask proposals of one image, in the order of the grid's points.

    Attributes:
        logits: float32 [n, h, w], h = w = a quarter of SAM 2's input (256); the region is ``logits > 0``.
        predicted_iou: float32 [n], SAM 2's own estimate of each mask's IoU.
    """

    logits: Tensor
    predicted_iou: Tensor

    def __len__(self) -> int:
        return len(self.predicted_iou)

    def __getitem__(self, index: Tensor) -> "Proposals":
        return Proposals(self.logits[index], self.predicted_iou[index])


def point_grid(points_per_side: int, size: int) -> Tensor:
    """Point prompts over a square image: float [n * n, 2] (x, y) in pixels, x varying slowest.

    The prompt encoder adds half a pixel of its own on top of the one in these; the published figures come from both.
    """
    coordinates = torch.linspace(0, size - 1, points_per_side) + 0.5
    return torch.cartesian_prod(coordinates, coordinates)


class MaskProposer(nn.Module):
    """The frozen SAM 2: an image to the best of three masks at every point of a grid.

    Args:
        sam2: the network.
        points_per_side: points of the grid a side (32).
        points_per_batch: prompts decoded at once; any number gives the same proposals.
        iou_thr: proposals need a predicted IoU above this (0.4).

    Attributes:
        size: side of the input, in pixels (1024).
    """

    def __init__(
        self, sam2: SAM2Base, points_per_side: int = 32, points_per_batch: int = 64, iou_thr: float = 0.4
    ) -> None:
        super().__init__()
        self.sam2 = sam2
        self.decoder = MaskDecoder(sam2)
        self.normalise = Normalise()
        self.size: int = sam2.image_size
        self.points_per_side = points_per_side
        self.points_per_batch = points_per_batch
        self.iou_thr = iou_thr

    def forward(self, image: Tensor) -> Proposals:
        """Propose masks.

        Args:
            image: float [3, size, size] in [0, 1].
        """
        return self.decode(*self.encode(image), point_grid(self.points_per_side, self.size).to(image.device))

    def decode(self, embedding: Tensor, high_res_features: list[Tensor], points: Tensor) -> Proposals:
        """Step 3 from the image's features on, those of :meth:`encode`; points float [n, 2] (x, y) in pixels."""
        shared = self.decoder.share(embedding, high_res_features)
        at_once = min(self.points_per_batch, CPU_BATCH) if points.device.type == "cpu" else self.points_per_batch
        while True:
            try:
                batches = [self.decoder(batch, shared, self.iou_thr) for batch in points.split(at_once)]
                break
            except torch.OutOfMemoryError:
                if at_once == 1:
                    raise
            torch.cuda.empty_cache()  # here, for the exception held on to what was decoded
            at_once = self.points_per_batch = at_once // 2
            warnings.warn(
                f"the GPU's memory is full: from now on {at_once} prompts at once, which changes no result "
                "(model_cfg.sam2_infer_cfgs.testing_point_bs)",
                UserNotice,
                stacklevel=2,
            )
        logits, predicted_iou = zip(*batches, strict=True)
        return Proposals(torch.cat(logits).float(), torch.cat(predicted_iou).float())

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Image features as SAM 2's ``_prepare_backbone_features`` gives them, without ``no_mem_embed``.

        Args:
            image: float [3, size, size] in [0, 1].

        Returns:
            The embedding [1, C, size / 16, size / 16], and the two finer maps that the mask decoder adds: at a quarter
            and at an eighth of the size.
        """
        backbone = self.sam2.forward_image(self.normalise(image[None]))
        _, features, _, sizes = self.sam2._prepare_backbone_features(backbone)
        *high_res, embedding = [
            feature.permute(1, 2, 0).unflatten(2, size) for feature, size in zip(features, sizes, strict=True)
        ]
        return embedding, high_res
