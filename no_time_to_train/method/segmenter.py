"""The whole method: references become vectors, and an image becomes its instances.

:meth:`Segmenter.segment` is stage 3 of the paper. It reads in two halves, because the first one does not depend on the
memory (except with guided prompts) and its result can be stored for the next reference set: :meth:`Segmenter.describe`
(encode, propose, pool) and :meth:`Segmenter.match_and_merge` (classify, suppress, upsample, merge, keep the best).
``plain.py`` is the same on one page, without any savings.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import masks_to_boxes

from no_time_to_train.method.beyond.diffusion import diffuse
from no_time_to_train.method.beyond.guided import choose_points
from no_time_to_train.method.beyond.negatives import Negatives
from no_time_to_train.method.beyond.tiles import Window, drop_cut, join, tile_windows
from no_time_to_train.method.classify import classify
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fast.packed_masks import Masks
from no_time_to_train.method.fill_memory import instance_vector, patch_weights
from no_time_to_train.method.finite import check_finite
from no_time_to_train.method.mask_proposals import MaskProposer, point_grid
from no_time_to_train.method.pool import pool
from no_time_to_train.method.proposals import Candidates, DescribedProposals, Proposals
from no_time_to_train.method.prototypes import Prototypes
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.soft_merge import soft_merge
from no_time_to_train.method.suppress import suppress
from no_time_to_train.method.target_image import as_float
from no_time_to_train.method.upsample import LogitMasks

#: The ways of merging by their names in the settings.
MERGE = {"soft": soft_merge, "diffusion": diffuse}


class Segmenter(nn.Module):
    """Two frozen networks and the prototypes of a memory.

    Args:
        encoder: DINOv2, which describes what is inside a mask.
        proposer: SAM 2, which proposes masks; None where only references are described.
        prototypes: The memory's prototypes (``prototypes_of``); None where only references are described.
        settings: The method's numbers.
        negatives: The negative shots of the memory (``MemoryBank.negatives``); None where it has none.
    """

    prototype_vectors: Tensor
    prototype_classes: Tensor
    negative_vectors: Tensor | None
    negative_classes: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        proposer: MaskProposer | None = None,
        prototypes: Prototypes | None = None,
        settings: Settings | None = None,
        negatives: Negatives | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.proposer = proposer
        self.settings = settings or Settings()
        vectors, classes = prototypes or (None, None)
        self.register_buffer("prototype_vectors", vectors, persistent=False)
        self.register_buffer("prototype_classes", classes, persistent=False)
        vectors, classes = negatives or (None, None)
        self.register_buffer("negative_vectors", vectors, persistent=False)
        self.register_buffer("negative_classes", classes, persistent=False)

    @property
    def prototypes(self) -> Prototypes:
        """The prototypes of the memory."""
        return Prototypes(self.prototype_vectors, self.prototype_classes)

    @property
    def negatives(self) -> Negatives | None:
        """The negative shots of the memory; None where it has none."""
        vectors, classes = self.negative_vectors, self.negative_classes
        return None if vectors is None or classes is None else Negatives(vectors, classes)

    def remember(self, prototypes: Prototypes, negatives: Negatives | None = None) -> None:
        """Replace the memory; the tensors are moved to the device of the networks."""
        device = self.encoder.normalize.mean.device
        self.prototype_vectors, self.prototype_classes = (tensor.to(device) for tensor in prototypes)
        self.negative_vectors = None if negatives is None else negatives.vectors.to(device)
        self.negative_classes = None if negatives is None else negatives.classes.to(device)

    def compile_encoders(self) -> None:
        """Let ``torch.compile`` translate both image encoders at their first call, which takes minutes."""
        self.encoder.compile()
        if self.proposer is not None:
            self.proposer.sam2.image_encoder.compile()

    def compile_decoder(self) -> None:
        """Let ``torch.compile`` translate SAM 2's mask decoder at its first calls, one for each size of a batch.

        For GPUs, where it runs as CUDA graphs: it then makes the masks of all points, so that nothing waits for the
        predicted IoUs. On a CPU it takes minutes and gains little.
        """
        if self.proposer is not None:
            self.proposer.decoder.static = True

    @torch.inference_mode()
    def describe_reference(self, crop: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 1: the vector of a reference instance (docs/method.md, 1).

        Args:
            crop: float [3, S, S] in [0, 1], where S is the encoder's input size (see ``fill_memory.crop_reference``).
            mask: float [1, h, w] in {0, 1}, at the size of the crop before resizing.

        Returns:
            The instance's vector, float32 [D], and the sum of its mask weights, a float32 scalar.
        """
        weights = patch_weights(mask, self.encoder.size, self.encoder.grid)
        tokens = check_finite(self.encoder(crop[None])[0], "DINOv2")
        with without_autocast(crop):
            return instance_vector(tokens, weights), weights.sum()

    def segment(self, image: Tensor, height: int, width: int) -> Detections:
        """Stage 3: find the instances of the memory's classes in an image (docs/method.md, 3).

        Args:
            image: float [3, S, S] in [0, 1], where S is SAM 2's input size (see ``target_image.target_tensor``). With
                tiles, uint8 [k, 3, S, S] (see ``target_image.target_squares``).
            height: The image's own height in pixels, which masks and boxes refer to.

        Returns:
            At most ``settings.max_instances`` instances in descending order of score.
        """
        proposals = self.describe(image, height, width)
        return replace(self.match_and_merge(proposals), prompts=proposals.prompts)

    @torch.inference_mode()
    def describe(self, image: Tensor, height: int, width: int) -> DescribedProposals:
        """Encode, propose, pool: what both networks say about an image, whatever the references.

        With guided prompts, the prototypes decide which points are decoded.

        Returns:
            The image's proposals with their mask vectors.
        """
        if self.settings.tiles == 1:
            return self._describe_square(image, Window(0, 0, height, width), height, width)
        windows = tile_windows(height, width, self.settings.tiles, self.settings.tile_overlap)
        parts = (
            (window, self._describe_square(square, window, height, width))
            for square, window in zip(image, windows, strict=True)
        )
        return join(parts, height, width)

    def _describe_square(self, square: Tensor, window: Window, height: int, width: int) -> DescribedProposals:
        """The proposals of one square, which shows the whole image or a tile of it."""
        image = as_float(square) if square.dtype == torch.uint8 else square
        features = self.encoder.feature_map(image[None])[0]
        proposals, prompts = self._propose(image, features)
        check_finite(features, "DINOv2")  # not before, because a GPU's host waits here
        with without_autocast(image):
            proposals = drop_cut(proposals, window, height, width)
            return replace(describe_proposals(proposals, features, window.height, window.width), prompts=prompts)

    def _propose(self, image: Tensor, features: Tensor) -> tuple[Proposals, int]:
        """The proposals of an image with the feature map ``features``, and the number of points that were decoded."""
        proposer, settings = self.proposer, self.settings
        assert proposer is not None
        if settings.prompts == "grid":
            return proposer(image), settings.points_per_side**2
        points = point_grid(settings.points_per_side, proposer.size).to(image.device)
        check_finite(self.prototype_vectors, "the memory", "file")
        with without_autocast(image):
            chosen = choose_points(
                features, self.prototypes, points, proposer.size, settings.prompt_threshold, settings.prompt_budget
            )
        if not len(chosen):
            side = proposer.size // 4
            return Proposals(features.new_zeros(0, side, side), features.new_zeros(0)), 0
        return proposer.decode(*proposer.encode(image), points[chosen]), len(chosen)

    @torch.inference_mode()
    def match_and_merge(self, proposals: DescribedProposals) -> Detections:
        """Classify, suppress, upsample, merge, keep the best: the proposals of an image become its instances.

        Args:
            proposals: From :meth:`describe`.
        """
        check_finite(self.prototype_vectors, "the memory", "file")
        with without_autocast(self.prototype_vectors):
            candidates, masks = name_and_merge(proposals, self.prototypes, self.settings, self.negatives)
            return keep_best(candidates.scores, candidates.classes, masks, self.settings.max_instances)


def name_and_merge(
    proposals: DescribedProposals, prototypes: Prototypes, settings: Settings, negatives: Negatives | None = None
) -> tuple[Candidates, Masks]:
    """Classify, suppress, upsample, merge: all of :meth:`Segmenter.match_and_merge` except keeping the best.

    Args:
        proposals: The proposals of one image.
        prototypes: The prototypes of the memory.
        settings: The method's numbers.
        negatives: The negative shots of the memory.

    Returns:
        The candidates with their final scores, in descending order of predicted IoU, and the mask of each.
    """
    candidates = classify(proposals, prototypes, settings.classes_per_mask, negatives, settings.score)
    candidates = suppress(candidates, proposals, settings.box_nms_thresh, settings.max_instances, settings.suppression)
    candidates, masks = drop_empty(candidates, proposals.upsampled_masks(candidates.rows))
    vectors, merge = proposals.vectors[candidates.rows], MERGE[settings.merging]
    scores = merge(candidates.scores, candidates.classes, masks, vectors, settings.merge_exponent)
    return replace(candidates, scores=scores), masks


def describe_proposals(proposals: Proposals, features: Tensor, height: int, width: int) -> DescribedProposals:
    """Pool the features inside each proposal. Proposals with an empty region are dropped.

    Args:
        proposals: The proposals of one image.
        features: float [D, g, g], the image's feature map, not normalized.

    Returns:
        The proposals with boxes and mask vectors.
    """
    regions = proposals.logits > 0
    filled = regions.any(dim=(1, 2)).nonzero()[:, 0]
    if len(filled) < len(proposals):  # else a copy of all logits would only take memory
        proposals, regions = proposals[filled], regions[filled]
    return DescribedProposals(
        proposals.predicted_iou,
        masks_to_boxes(regions).long(),
        pool(features, regions),
        LogitMasks(proposals.logits, height, width),
    )


def drop_empty(candidates: Candidates, masks: Masks) -> tuple[Candidates, Masks]:
    """Drop candidates whose mask is empty at the image's own size; the published code yields NaN there."""
    filled = np.flatnonzero(masks.areas)
    return candidates[torch.from_numpy(filled).to(candidates.rows.device)], masks[filled]


def keep_best(scores: Tensor, classes: Tensor, masks: Masks, max_instances: int) -> Detections:
    """The candidates of the highest scores, with boxes of their masks, on the CPU (docs/method.md, 3.9)."""
    best = scores.argsort(descending=True, stable=True)[:max_instances].cpu()
    regions, boxes = masks[best.numpy()].at_full_size()
    return Detections(regions, boxes, scores.cpu()[best], classes.cpu()[best])


def without_autocast(like: Tensor) -> torch.autocast:
    """A context in which the device of ``like`` computes in float32: autocast is for the networks only."""
    return torch.autocast(like.device.type, enabled=False)
