"""The whole method: references become vectors, and an image becomes its instances.

:meth:`Segmenter.segment` is stage 3 of the paper. It reads in two halves, because the first one does not depend on the
memory (except with guided prompts) and its result can be stored for the next reference set: :meth:`Segmenter.describe`
(encode, propose, pool) and :meth:`Segmenter.match_and_merge` (classify, suppress, upsample, merge, keep the best).
``plain.py`` is the paper on one page, without any savings.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import masks_to_boxes

from no_time_to_train.method.beyond.ablations import hard_merge, merge_by_overlap
from no_time_to_train.method.beyond.diffusion import diffuse
from no_time_to_train.method.beyond.feature_grid import grid_weights, on_grid, pool_on_grid
from no_time_to_train.method.beyond.given import Given, Square, given_boxes, join_sources, propose_given
from no_time_to_train.method.beyond.guided import propose_guided
from no_time_to_train.method.beyond.negatives import Negatives
from no_time_to_train.method.beyond.soft_nms import soft_nms
from no_time_to_train.method.beyond.tiles import describe_tiles
from no_time_to_train.method.classify import classify
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import Encoder, check_finite, without_autocast
from no_time_to_train.method.fast.at_once import AtOnce, batches, images_at_once
from no_time_to_train.method.fast.mask_logits import MaskLogits
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.fill_memory import instance_vector, patch_weights
from no_time_to_train.method.mask_proposals import MaskProposer, Proposer, Seen, propose_grid
from no_time_to_train.method.pool import pool
from no_time_to_train.method.proposals import Candidates, DescribedProposals, Proposals
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.soft_merge import soft_merge
from no_time_to_train.method.suppress import nms, suppress
from no_time_to_train.method.target_image import as_float
from no_time_to_train.plugins import choose

#: The ways of proposing, pooling, scoring, suppressing and merging by their names in the settings.
PROPOSE: dict[str, Proposer] = {"grid": propose_grid, "guided": propose_guided}
POOL: dict[str, Callable[..., Tensor]] = {
    "upsampled": lambda features, regions, masks: pool(features, regions),
    "grid": pool_on_grid,
}
SCORE = {
    "cosine": lambda candidates, proposals: candidates.scores,
    "cosine_iou": lambda candidates, proposals: (
        candidates.scores * proposals.predicted_iou[candidates.rows].clamp(0, 1)
    ),
}
SUPPRESS = {"nms": nms, "soft_nms": soft_nms, "none": lambda candidates, proposals, threshold: candidates}
MERGE = {"soft": soft_merge, "diffusion": diffuse, "overlap": merge_by_overlap, "hard": hard_merge}
COMPARED_AT: dict[str, Callable[..., Masks]] = {
    "image": lambda masks, grid: masks,
    "grid": lambda masks, grid: Masks.pack(on_grid(masks, grid)),
}
WEIGHTS: dict[str, Callable[..., Tensor]] = {"upsampled": patch_weights, "grid": grid_weights}
BOXES: dict[str, Callable[..., Tensor]] = {"mask": lambda boxes, given: boxes, "proposal": given_boxes}


class Segmenter(nn.Module):
    """Two frozen networks and the prototypes of a memory.

    Args:
        encoder: DINOv2, which describes what is inside a mask.
        proposer: SAM 2, which proposes masks; None where only references are described.
        prototypes: float32 [C, D], those of the memory, not normalized; None where only references are described.
        negatives: Those of the memory (``MemoryBank.negatives``); None where it has none.
    """

    prototypes: Tensor
    negative_vectors: Tensor | None
    negative_classes: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        proposer: MaskProposer | None = None,
        prototypes: Tensor | None = None,
        settings: Settings | None = None,
        negatives: Negatives | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.proposer = proposer
        self.settings = settings or Settings()
        self.register_buffer("prototypes", prototypes, persistent=False)
        self._images: AtOnce | None = None
        self._copied: tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]] = (), ()
        vectors, classes = negatives or (None, None)
        self.register_buffer("negative_vectors", vectors, persistent=False)
        self.register_buffer("negative_classes", classes, persistent=False)

    @property
    def negatives(self) -> Negatives | None:
        """The negative references of the memory; None where it has none."""
        vectors, classes = self.negative_vectors, self.negative_classes
        return None if vectors is None or classes is None else Negatives(vectors, classes)

    def remember(self, prototypes: Tensor, negatives: Negatives | None = None) -> None:
        """Replace the memory; the tensors are moved to the device of the networks."""
        device = self.encoder.normalize.mean.device
        self.prototypes = prototypes.to(device)
        self.negative_vectors, self.negative_classes = negatives.to(device) if negatives else (None, None)

    def memory_on_host(self) -> tuple[Tensor, Negatives | None]:
        """The prototypes and the negatives on the CPU, copied once."""
        memory = self.prototypes, self.negative_vectors, self.negative_classes
        if not self._copied[0] or any(one is not other for one, other in zip(memory, self._copied[0], strict=True)):
            self._copied = memory, tuple(None if tensor is None else tensor.cpu() for tensor in memory)
        prototypes, vectors, classes = self._copied[1]
        assert prototypes is not None
        return prototypes, None if vectors is None or classes is None else Negatives(vectors, classes)

    def compile_encoders(self) -> None:
        """Let ``torch.compile`` translate both image encoders at their first call, which takes minutes.

        They then take one image at a time where no number was chosen, and else always that number.
        """
        self._images = AtOnce(self.settings.images_per_batch or 1, "images", "images_per_batch", fixed=True)
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

    def describe_reference(self, crop: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 1: the vector of a reference, float32 [D], and the sum of its mask weights (docs/method.md, 1).

        Args:
            crop: float [3, S, S] in [0, 1], where S is the encoder's input size (see ``fill_memory.crop_reference``);
                where the encoder keeps the aspect ratio, at the size of ``encoder_view``.
            mask: float [1, h, w] in {0, 1}, at the size of the crop before resizing.
        """
        return self.describe_references([(crop, mask)])[0]

    @torch.inference_mode()
    def describe_references(self, references: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """:meth:`describe_reference` for several: the encoder takes ``images_per_batch`` crops of one size at once."""
        crops = [crop for crop, _ in references]
        most = None if len({crop.shape for crop in crops}) == 1 else 1
        encoded = self.images.run(lambda part: self.encoder(torch.stack(part)), crops, most)
        described = []
        for (crop, mask), tokens in zip(references, (one for part in encoded for one in part), strict=True):
            check_finite(tokens, "DINOv2")
            weights = WEIGHTS[self.settings.pooling](mask, crop.shape[1:], self.encoder.grid_of(crop))
            with without_autocast(crop):
                described.append((instance_vector(tokens, weights), weights.sum()))
        return described

    def segment(self, image: Tensor, height: int, width: int) -> Detections:
        """Stage 3: find the instances of the memory's classes in an image (docs/method.md, 3).

        Args:
            image: float [3, S, S] in [0, 1], where S is SAM 2's input size (see ``target_image.target_tensor``). With
                tiles, uint8 [k, 3, S, S] (see ``tiles.target_squares``).
            height: The image's own height in pixels, which masks and boxes refer to.
        """
        proposals = self.describe(image, height, width)
        return replace(self.match_and_merge(proposals), prompts=proposals.prompts)

    @torch.inference_mode()
    def describe(
        self,
        image: Tensor,
        height: int,
        width: int,
        sources: Sequence[Given | None] = (None,),
        view: Tensor | None = None,
    ) -> DescribedProposals:
        """Encode, propose, pool: what both networks say about an image, whatever the references.

        With guided prompts, the prototypes decide which points are decoded.

        Args:
            sources: What others propose in the image, and None for SAM 2's own prompts, which are the paper's grid.
            view: uint8 [3, h, w], what the encoder sees, where that is not the square (``free_encoder.encoder_view``).
        """
        return next(self.describe_each([Square(image, height, width, sources, view)]))

    @torch.inference_mode()
    def describe_each(self, targets: Iterable[Square]) -> Iterator[DescribedProposals]:
        """:meth:`describe` for many images: the encoders take ``images_per_batch`` of them, or of their tiles, at once.

        What changes is the last digits. An image is taken from the iterable when its batch is.
        """
        if self.settings.tiles == 1:
            yield from self._describe_squares(targets)
            return
        tiling = self.settings.tiles, self.settings.tile_overlap
        for image, height, width, *_ in targets:
            yield describe_tiles(self._describe_squares, image, height, width, *tiling)

    @property
    def images(self) -> AtOnce:
        """How many images, or tiles of one, the encoders take at once."""
        if self._images is None:
            self._images = images_at_once(self.settings.images_per_batch, self.encoder.normalize.mean.device)
        return self._images

    def _describe_squares(self, squares: Iterable[Square]) -> Iterator[DescribedProposals]:
        """The proposals of squares, each of which shows a whole image or a tile of this size."""
        assert self.proposer is not None
        for batch in batches(squares, self.images.count):
            images = [as_float(one.image) if one.image.dtype == torch.uint8 else one.image for one in batch]
            self.proposer.expect(images, self.images)
            for image, features, square in zip(images, self._feature_maps(images, batch), batch, strict=True):
                yield self._describe_square(image, features, square)

    def _feature_maps(self, images: list[Tensor], batch: list[Square]) -> Iterable[Tensor]:
        """The feature map of each image, float32 [D, g, g]; those that keep their aspect ratio are seen one by one."""
        if batch[0].view is not None:
            return (self.encoder.feature_map(as_float(one.view)[None])[0] for one in batch if one.view is not None)
        return torch.cat(self.images.run(lambda part: self.encoder.feature_map(torch.stack(part)), images))

    def _describe_square(self, image: Tensor, features: Tensor, square: Square) -> DescribedProposals:
        """The proposals of a square, of whose image, float [3, S, S], the feature map is known."""
        assert self.proposer is not None
        _, height, width, sources, _ = square
        seen = Seen(image, features, self.prototypes, height, width, self.settings)
        own = PROPOSE[self.settings.prompts]
        proposers = [own if given is None else partial(propose_given, given) for given in sources]
        proposed = [propose(self.proposer, seen) for propose in proposers]
        check_finite(features, "DINOv2")  # not before, because a GPU's host waits here
        with without_autocast(image):
            pooling = self.settings.pooling
            return join_sources([describe_proposals(each, features, height, width, pooling) for each in proposed])

    @torch.inference_mode()
    def match_and_merge(self, proposals: DescribedProposals) -> Detections:
        """Classify, suppress, upsample, merge, keep the best: the proposals of an image become its instances.

        It runs on the CPU, where the masks are compared, so that the host waits for a GPU once and not at every step.
        """
        prototypes, negatives = self.memory_on_host()
        check_finite(prototypes, "the memory", "file")
        proposals = proposals.to_host()
        with without_autocast(prototypes):
            candidates, masks = classify_and_merge(proposals, prototypes, self.settings, negatives)
            settings = self.settings
            return keep_best(proposals, candidates, masks, settings.max_instances, settings.output_box)


def classify_and_merge(
    proposals: DescribedProposals, prototypes: Tensor, settings: Settings, negatives: Negatives | None = None
) -> tuple[Candidates, Masks]:
    """All of :meth:`Segmenter.match_and_merge` except keeping the best.

    Returns:
        The candidates with their final scores, in descending order of predicted IoU, and the mask of each.
    """
    lower = choose(SUPPRESS, settings.suppression)
    candidates = score(proposals, prototypes, settings, negatives)
    numbers = settings.box_nms_thresh, settings.max_instances
    candidates = suppress(candidates, proposals, *numbers, lower, settings.min_similarity)
    return merge(proposals, candidates, settings)


def score(
    proposals: DescribedProposals, prototypes: Tensor, settings: Settings, negatives: Negatives | None = None
) -> Candidates:
    """Classify, with the negatives, and with the score of the settings.

    The score ``cosine_iou`` is the similarity times the predicted IoU, so that of two masks that are as similar the one
    with the better outline wins. The classes stay the same.
    """
    adjust = None if negatives is None else negatives.lower
    candidates = classify(proposals, prototypes, settings.classes_per_mask, adjust, settings.min_similarity)
    return replace(candidates, scores=choose(SCORE, settings.score)(candidates, proposals))


def merge(proposals: DescribedProposals, candidates: Candidates, settings: Settings) -> tuple[Candidates, Masks]:
    """Upsample and merge. Candidates whose mask is empty are dropped; the published code yields NaN there."""
    masks = proposals.upsampled_masks(candidates.rows)
    filled = np.flatnonzero(masks.areas)
    masks, candidates = masks[filled], candidates[torch.from_numpy(filled).to(candidates.rows.device)]
    lower, vectors = choose(MERGE, settings.merging), proposals.vectors[candidates.rows]
    compared = COMPARED_AT[settings.compared_at](masks, proposals.grid)
    scores = lower(candidates.scores, candidates.classes, compared, vectors, settings.merge_exponent)
    return replace(candidates, scores=scores), masks


def describe_proposals(
    proposals: Proposals, features: Tensor, height: int, width: int, pooling: str = "upsampled"
) -> DescribedProposals:
    """Pool the features inside each proposal. Proposals with an empty region are dropped.

    Args:
        features: float [D, g, g], the image's feature map, not normalized.
        pooling: As in ``Settings``.
    """
    regions = proposals.logits > 0
    filled = regions.any(dim=(1, 2)).nonzero()[:, 0]
    if len(filled) < len(proposals):  # else a copy of all logits would only take memory
        proposals, regions = proposals[filled], regions[filled]
    boxes, logits = masks_to_boxes(regions).long(), MaskLogits.of_image(proposals.logits, height, width)
    given_masks = proposals.masks
    masks = logits if given_masks is None else lambda rows: given_masks[rows.cpu()]
    return DescribedProposals(
        proposals.predicted_iou,
        boxes,
        POOL[pooling](features, regions, masks),
        masks,
        proposals.prompts,
        logits if given_masks is None else None,
        (features.shape[1], features.shape[2]),
        proposals.given,
    )


def keep_best(
    proposals: DescribedProposals, candidates: Candidates, masks: Masks, max_instances: int, output_box: str = "mask"
) -> Detections:
    """The candidates of the highest scores, with boxes of their masks, on the CPU (docs/method.md, 3.9)."""
    best = candidates.scores.argsort(descending=True, stable=True)[:max_instances].cpu()
    rows = candidates.rows.cpu()[best]
    kept = proposals.at_full_size(rows, masks[best])
    given, sources = (None if one is None else one.cpu()[rows] for one in (proposals.given, proposals.sources))
    boxes, vectors = BOXES[output_box](kept.boxes, given), proposals.vectors.cpu()[rows]
    chosen = candidates.scores.cpu()[best], candidates.classes.cpu()[best]
    return Detections(kept, boxes, *chosen, sources=sources, vectors=vectors)
