"""The whole method in one class: references to vectors, an image to its instances."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from no_time_to_train.config import Sam2InferCfg
from no_time_to_train.errors import UserError
from no_time_to_train.method.crops import patch_weights
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.mask_proposals import MaskProposer, Proposals
from no_time_to_train.method.matching import DescribedProposals, mask_vectors, match, region_boxes
from no_time_to_train.method.memory_bank import instance_vector
from no_time_to_train.method.soft_merge import PackedMasks, soft_merge

#: Pixels upsampled at once: 2**24 float32 are 64 MiB.
UPSAMPLED_AT_ONCE = 2**24


class Segmenter(nn.Module):
    """Two frozen networks and a memory of prototypes.

    Args:
        encoder: describes what is inside a mask.
        proposer: proposes masks; None where only references are described.
        prototypes: float [C, D], one a class; None where only references are described.
        settings: the method's numbers.
    """

    prototypes: Tensor

    def __init__(
        self,
        encoder: Encoder,
        proposer: MaskProposer | None = None,
        prototypes: Tensor | None = None,
        settings: Sam2InferCfg | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.proposer = proposer
        self.settings = settings or Sam2InferCfg()
        self.register_buffer("prototypes", prototypes, persistent=False)

    def compile_encoders(self) -> None:
        """Have ``torch.compile`` translate the two image encoders at their first call, which takes minutes."""
        self.encoder.compile()
        if self.proposer is not None:
            self.proposer.sam2.image_encoder.compile()

    @torch.inference_mode()
    def describe(self, crop: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 1: the vector of a reference instance.

        Args:
            crop: float [3, S, S] in [0, 1], S the encoder's input size.
            mask: float [1, h, w] in {0, 1} at the crop's own size (see ``images.reference_tensors``).

        Returns:
            The instance vector [D], and the sum of its mask weights.
        """
        weights = patch_weights(mask, self.encoder.size, self.encoder.grid)
        tokens = finite(self.encoder(crop[None])[0])
        with float32(crop):
            return instance_vector(tokens, weights), weights.sum()

    def segment(self, image: Tensor, height: int, width: int) -> Detections:
        """Stage 3: find the instances of the memory's classes in an image.

        Args:
            image: float [3, S, S] in [0, 1], squashed to SAM 2's input size (see ``images.target_tensor``).
            height, width: the image's own size in pixels, which masks and boxes refer to.
        """
        return self.name_and_merge(self.propose(image, height, width))

    @torch.inference_mode()
    def propose(self, image: Tensor, height: int, width: int) -> DescribedProposals:
        """Steps 2 to 5: what both networks say of an image, whatever the references. Arguments as :meth:`segment`'s."""
        assert self.proposer is not None
        features, proposals = finite(self.encoder.feature_map(image[None])[0]), self.proposer(image)
        with float32(image):
            return describe_proposals(proposals, features, height, width)

    @torch.inference_mode()
    def name_and_merge(self, proposals: DescribedProposals) -> Detections:
        """Steps 5 to 9: the proposals of an image to its instances."""
        settings = self.settings
        with float32(self.prototypes):
            candidates = match(
                proposals, self.prototypes, settings.nms_thr, settings.num_out_instance, settings.cls_num_per_mask
            )
            masks = proposals.masks(candidates.rows)
            filled = np.flatnonzero(masks.areas)
            masks, candidates = masks[filled], candidates[torch.from_numpy(filled).to(candidates.rows.device)]
            scores = soft_merge(candidates.scores, candidates.classes, masks, proposals.vectors[candidates.rows])
        best = scores.argsort(descending=True, stable=True)[: settings.num_out_instance]
        regions = torch.from_numpy(masks[best.cpu().numpy()].unpack())
        return Detections(regions, region_boxes(regions), scores[best].cpu(), candidates.classes[best].cpu())


def finite(features: Tensor) -> Tensor:
    """The features as they are; a UserError where one is NaN or infinite, which would silently name nothing."""
    if not features.isfinite().all():
        raise UserError("the encoder gives values that are not finite: is its checkpoint sound?")
    return features


def float32(like: Tensor) -> torch.autocast:
    """Keeps autocast to the networks: what is done on the device of ``like`` in this context is done in float32."""
    return torch.autocast(like.device.type, enabled=False)


def describe_proposals(proposals: Proposals, features: Tensor, height: int, width: int) -> DescribedProposals:
    """Step 5: mask vectors and boxes of the proposals of an image; those with an empty region drop out.

    Args:
        proposals: of the image.
        features: [D, g, g], the image's feature map.
        height, width: the image's own size in pixels.
    """
    regions = proposals.logits > 0
    filled = regions.any(dim=(1, 2)).nonzero()[:, 0]
    proposals, regions = proposals[filled], regions[filled]
    return DescribedProposals(
        proposals.predicted_iou,
        region_boxes(regions),
        mask_vectors(features, regions),
        masks=lambda rows: upsample(proposals.logits[rows], height, width),
    )


def upsample(logits: Tensor, height: int, width: int) -> PackedMasks:
    """Step 7: the regions of mask logits [n, h, w] at the image's own size, by bilinear, antialiased resizing.

    A few masks at a time, so that the floats of all of them never exist at once.
    """
    parts = [
        PackedMasks.pack(
            (F.interpolate(part, (height, width), mode="bilinear", antialias=True)[:, 0] > 0).cpu().numpy()
        )
        for part in logits[:, None].split(max(UPSAMPLED_AT_ONCE // (height * width), 1))
        if len(part)
    ]
    return PackedMasks.join([PackedMasks.pack(np.zeros((0, height, width), bool)), *parts])
