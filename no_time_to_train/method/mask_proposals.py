"""SAM 2: class-agnostic mask proposals from a grid of point prompts (docs/method.md, 3.3 and 3.4)."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from no_time_to_train.errors import UserNotice
from no_time_to_train.method.encoder import Normalize, check_finite
from no_time_to_train.method.fast.cpu_threads import map_on_threads
from no_time_to_train.method.fast.mask_decoder import MaskDecoder
from no_time_to_train.method.proposals import Proposals
from no_time_to_train.method.settings import Settings

#: Prompts that a GPU decodes at once where nobody has chosen a number.
POINTS_PER_BATCH = 1024


def point_grid(points_per_side: int, size: int) -> Tensor:
    """Point prompts on a square grid over a square image: float32 [n * n, 2], (x, y) in pixels; x varies slowest.

    The points already lie half a pixel off, and SAM 2's prompt encoder adds another half. The published figures were
    measured with both.
    """
    coordinates = torch.linspace(0, size - 1, points_per_side) + 0.5
    return torch.cartesian_prod(coordinates, coordinates)


@dataclass
class Seen:
    """What a proposer may know of one square, which shows the whole image or a tile of it.

    Attributes:
        image: float [3, S, S] in [0, 1], where S is SAM 2's input size.
        features: float [D, g, g], its feature map, not normalized.
        prototypes: float [C, D], those of the memory, not normalized; None where there is none.
        height: The height in pixels of what it shows.
        width: The width in pixels of what it shows.
        settings: Those of the method.
    """

    image: Tensor
    features: Tensor
    prototypes: Tensor | None
    height: int
    width: int
    settings: Settings


#: Whatever proposes masks in an image: the grid of the paper, guided points, boxes and masks that others give.
Proposer = Callable[["MaskProposer", Seen], Proposals]


def propose_grid(proposer: "MaskProposer", seen: Seen) -> Proposals:
    """The paper's proposals: those of all points of the grid."""
    return proposer(seen.image)


class MaskProposer(nn.Module):
    """The frozen SAM 2: for an image, the best of three masks at every point of a grid.

    Attributes:
        size: Side of the input in pixels (1024).
        points_per_batch: Prompts decoded at once, halved whenever the GPU's memory is full. A CPU decodes fewer.
    """

    def __init__(self, sam2: SAM2Base, settings: Settings | None = None) -> None:
        super().__init__()
        settings = settings or Settings()
        self.sam2 = sam2
        self.decoder = MaskDecoder(sam2)
        self.normalize = Normalize()
        self.size: int = sam2.image_size
        self.points_per_side = settings.points_per_side
        self.points_per_batch = settings.points_per_batch or POINTS_PER_BATCH
        self.was_chosen = settings.points_per_batch is not None
        self.pred_iou_thresh = settings.pred_iou_thresh
        self.multimask, self.no_mem_embed = settings.multimask, settings.no_mem_embed
        self._last: tuple[Tensor, tuple[Tensor, list[Tensor]]] | None = None

    def forward(self, image: Tensor) -> Proposals:
        """The proposals in an image, float [3, size, size] in [0, 1], in the order of the grid's points."""
        return self.decode(*self.encode(image), point_grid(self.points_per_side, self.size).to(image.device))

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Image features as SAM 2's ``_prepare_backbone_features`` returns them, without ``no_mem_embed``.

        ``SAM2ImagePredictor`` adds ``no_mem_embed``; the paper's figures come without it.

        Returns:
            The embedding [1, C, size / 16, size / 16]; and the two finer maps that the decoder adds, at 1/4 and 1/8 of
            the size.
        """
        last = self._last
        if last is not None and last[0] is image:  # of which another source proposes masks
            return last[1]
        backbone = self.sam2.forward_image(self.normalize(image[None]))
        _, features, _, sizes = self.sam2._prepare_backbone_features(backbone)
        *high_res, embedding = [
            feature.permute(1, 2, 0).unflatten(2, size) for feature, size in zip(features, sizes, strict=True)
        ]
        if self.no_mem_embed:
            embedding = embedding + self.sam2.no_mem_embed.view(1, -1, 1, 1)
        self._last = image, (embedding, high_res)
        return embedding, high_res

    def decode(
        self,
        embedding: Tensor,
        high_res_features: list[Tensor],
        points: Tensor,
        pred_iou_thresh: float | None = None,
    ) -> Proposals:
        """Decode points, float [n, 2], (x, y) in pixels of the input, in batches that fit the device's memory.

        Each point is one positive prompt. Proposals whose predicted IoU is not above the threshold are left out.
        Boxes, float [n, 4] xyxy, are prompts as well.
        """
        shared = self.decoder.share(embedding, high_res_features)
        at_once = self.points_per_batch
        run: Callable[..., Iterable[tuple[Tensor, Tensor]]] = map
        if points.device.type == "cpu":
            at_once, run = min(at_once, self.decoder.cpu_prompts), map_on_threads
        threshold = self.pred_iou_thresh if pred_iou_thresh is None else pred_iou_thresh
        decode = partial(self.decoder, shared=shared, pred_iou_thresh=threshold, multimask=self.multimask)
        while True:
            try:
                batches = list(run(decode, points.split(at_once)))
                break
            except torch.OutOfMemoryError:
                if at_once == 1:
                    raise
            torch.cuda.empty_cache()  # outside the handler, because the exception keeps the decoded masks alive
            at_once = self.points_per_batch = at_once // 2
            if self.was_chosen:
                warnings.warn(
                    f"the GPU's memory is full: from now on {at_once} prompts at once, which changes at most the last "
                    "digits of results (model_cfg.sam2_infer_cfgs.testing_point_bs)",
                    UserNotice,
                    stacklevel=2,
                )
        logits, predicted_iou = zip(*batches, strict=True)
        check_finite(torch.stack([part.sum(dtype=torch.float32) for part in (*logits, *predicted_iou)]), "SAM 2")
        return Proposals(torch.cat(logits).float(), torch.cat(predicted_iou).float(), len(points))
