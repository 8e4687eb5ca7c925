"""SAM 2: class-agnostic mask proposals from a grid of point prompts (docs/method.md, 3.3 and 3.4)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import cast

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from no_time_to_train.method.encoder import Normalize, check_finite
from no_time_to_train.method.fast.at_once import AtOnce
from no_time_to_train.method.fast.cpu_threads import map_on_threads
from no_time_to_train.method.fast.mask_decoder import MaskDecoder
from no_time_to_train.method.proposals import Proposals
from no_time_to_train.method.settings import Settings

#: Prompts that a GPU decodes at once where nobody has chosen a number.
POINTS_PER_BATCH = 1024

#: The side of SAM 2's input divided by those of its encoder's maps, each of which has a position encoding.
STRIDES = (4, 8, 16, 32)


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
    """

    image: Tensor
    features: Tensor
    prototypes: Tensor | None
    height: int
    width: int
    settings: Settings


#: What the decoder needs of an image; see ``MaskProposer.encode``.
Encoded = tuple[Tensor, list[Tensor]]

#: Whatever proposes masks in an image: the grid of the paper, guided points, boxes and masks that others give.
Proposer = Callable[["MaskProposer", Seen], Proposals]


def propose_grid(proposer: "MaskProposer", seen: Seen) -> Proposals:
    """The paper's proposals: those of all points of the grid."""
    return proposer(seen.image)


class MaskProposer(nn.Module):
    """The frozen SAM 2: for an image, the best of three masks at every point of a grid.

    Attributes:
        size: Side of the input in pixels (1024).
        points: How many prompts are decoded at once. A CPU decodes fewer.
    """

    def __init__(self, sam2: SAM2Base, settings: Settings | None = None) -> None:
        super().__init__()
        settings = settings or Settings()
        self.sam2 = sam2
        self.decoder = MaskDecoder(sam2)
        self.normalize = Normalize()
        self.size: int = sam2.image_size
        self.points_per_side = settings.points_per_side
        chosen, name = settings.points_per_batch, "model_cfg.sam2_infer_cfgs.testing_point_bs"
        self.points = AtOnce(chosen or POINTS_PER_BATCH, "prompts", name if chosen else None)
        self.pred_iou_thresh = settings.pred_iou_thresh
        self.multimask, self.no_mem_embed = settings.multimask, settings.no_mem_embed
        self._expected: tuple[Sequence[Tensor], AtOnce] = (), AtOnce(1)
        self._known: list[tuple[Tensor, Encoded]] = []

    def forward(self, image: Tensor) -> Proposals:
        """The proposals in an image, float [3, size, size] in [0, 1], in the order of the grid's points."""
        return self.decode(*self.encode(image), point_grid(self.points_per_side, self.size).to(image.device))

    def expect(self, images: Sequence[Tensor], at_once: AtOnce) -> None:
        """Encode these images together once the first one of them is encoded."""
        self._expected = images, at_once

    def encode(self, image: Tensor) -> Encoded:
        """Image features as SAM 2's ``_prepare_backbone_features`` returns them, without ``no_mem_embed``.

        ``SAM2ImagePredictor`` adds ``no_mem_embed``; the paper's figures come without it. The features of the last
        images are known, of which another source may propose masks.

        Returns:
            The embedding [1, C, size / 16, size / 16]; and the two finer maps that the decoder adds, at 1/4 and 1/8 of
            the size.
        """
        known = self._known
        if not any(one is image for one, _ in known):
            expected, at_once = self._expected
            together = expected if any(one is image for one in expected) else [image]
            maps = chain.from_iterable(at_once.run(self._encode, together))
            known = self._known = list(zip(together, maps, strict=True))
        return next(encoded for one, encoded in known if one is image)

    def _encode(self, images: Sequence[Tensor]) -> list[Encoded]:
        """The features of each of several images."""
        batch = self.normalize(torch.stack(tuple(images)))
        positions = self.sam2.image_encoder.neck.position_encoding
        for stride in () if positions.cache else STRIDES:  # else a compiled encoder fills it, and is translated again
            positions(batch.new_empty(1, 1, self.size // stride, self.size // stride))
        backbone = self.sam2.forward_image(batch)
        _, features, _, sizes = self.sam2._prepare_backbone_features(backbone)
        *high_res, embedding = [
            feature.permute(1, 2, 0).unflatten(2, size) for feature, size in zip(features, sizes, strict=True)
        ]
        if self.no_mem_embed:
            embedding = embedding + self.sam2.no_mem_embed.view(1, -1, 1, 1)
        finer = zip(*(each.split(1) for each in high_res), strict=True)
        return [(one, list(maps)) for one, maps in zip(embedding.split(1), finer, strict=True)]

    def decode(
        self, embedding: Tensor, high_res_features: list[Tensor], points: Tensor, pred_iou_thresh: float | None = None
    ) -> Proposals:
        """Decode points, float [n, 2], (x, y) in pixels of the input, in batches that fit the device's memory.

        Each point is one positive prompt. Proposals whose predicted IoU is not above the threshold are left out.
        Boxes, float [n, 4] xyxy, are prompts as well.
        """
        shared = self.decoder.share(embedding, high_res_features)
        most, run = None, cast(Callable[..., Iterable[tuple[Tensor, Tensor]]], map)
        if points.device.type == "cpu":
            most, run = self.decoder.cpu_prompts, map_on_threads
        threshold = self.pred_iou_thresh if pred_iou_thresh is None else pred_iou_thresh
        decode = partial(self.decoder, shared=shared, pred_iou_thresh=threshold, multimask=self.multimask)
        batches = self.points.run(decode, points, most, run)
        logits, predicted_iou = zip(*batches, strict=True)
        check_finite(torch.stack([part.sum(dtype=torch.float32) for part in (*logits, *predicted_iou)]), "SAM 2")
        return Proposals(torch.cat(logits).float(), torch.cat(predicted_iou).float(), len(points))
