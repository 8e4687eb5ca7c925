"""SAM 2: class-agnostic mask proposals from a grid of point prompts (stage 3, steps 3 and 4)."""

from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from no_time_to_train.encoder import Normalise


@dataclass
class Proposals:
    """Mask proposals of one image, in the order of the grid's points.

    Attributes:
        logits: float [n, h, w], h = w = a quarter of SAM 2's input (256); the region is ``logits > 0``.
        predicted_iou: float [n], SAM 2's own estimate of each mask's IoU.
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
        embedding, high_res_features = self.encode(image)
        points = point_grid(self.points_per_side, self.size).to(image.device)
        batches = []
        for batch in points.split(self.points_per_batch):
            proposals = self.decode(batch, embedding, high_res_features)
            batches.append(proposals[proposals.predicted_iou > self.iou_thr])
        return Proposals(
            torch.cat([batch.logits for batch in batches]), torch.cat([batch.predicted_iou for batch in batches])
        )

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

    def decode(self, points: Tensor, embedding: Tensor, high_res_features: list[Tensor]) -> Proposals:
        """Decode each point as one positive prompt; of the three multi-mask outputs keep that of the best IoU.

        Args:
            points: float [n, 2] (x, y) in pixels of the square image.
            embedding, high_res_features: from :meth:`encode`.
        """
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        sparse, dense = self.sam2.sam_prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        logits, predicted_iou, _, _ = self.sam2.sam_mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self.sam2.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=True,
            high_res_features=high_res_features,
        )
        best = predicted_iou[:, 1:].argmax(dim=1) + 1  # output 0 is the single-mask output
        rows = torch.arange(len(points), device=points.device)
        return Proposals(logits[rows, best], predicted_iou[rows, best])
