"""The method from Python: show an object once or a few times, and find it in other images."""

from __future__ import annotations  # help() then shows ImageInput rather than all that it stands for

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from no_time_to_train.analysis.explain import Finding, explain_image
from no_time_to_train.analysis.leave_one_out import measured_images
from no_time_to_train.analysis.measure_references import examine
from no_time_to_train.analysis.reference_report import ReferenceReport
from no_time_to_train.api.class_memory import ClassMemory
from no_time_to_train.api.describe_references import memory_of
from no_time_to_train.data.image_proposals import ImageProposals
from no_time_to_train.data.images import ImageInput, MaskInput, as_mask, as_rgb
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.prompts import (
    IMAGE_TYPES,
    USUAL_SCORE,
    LowestScore,
    check_image,
    lowest_scores,
)
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.method.beyond.tiles import target_squares
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import ContextRatio, Settings
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes
from no_time_to_train.networks.devices import computing_in, notice_slow_bfloat16
from no_time_to_train.networks.pretrained import build_pretrained
from no_time_to_train.networks.registry import CHECKPOINT_OF, Precision, PresetName
from no_time_to_train.overlap import follow
from no_time_to_train.ranges import Fraction, NonNegative, check_choice, check_number


class ReferenceSegmenter(ClassMemory):
    """Finds objects like the ones that it was shown.

    Two frozen networks do the work: SAM 2 proposes masks, and DINOv2 describes what is inside them. Nothing is trained.
    Each reference becomes a vector in the memory, and each proposed mask takes the class whose vectors are most similar
    to its own.

    Example:
        Build the networks, show them a boat or two, and find the boats in another photo::

            from no_time_to_train import ReferenceSegmenter

            segmenter = ReferenceSegmenter.from_pretrained("sam2_hiera_large", "dinov2_vitl14")
            segmenter.add_reference("boat", "ref.jpg", mask="ref_mask.png")
            segmenter.add_reference("boat", "ref.jpg", box=(10, 20, 200, 180))  # SAM 2 makes the mask

            found = segmenter.segment("photo.jpg", score=0.5)
            for instance in found:
                print(instance.label, instance.score, instance.box, instance.mask.shape)
            found.plot().save("found.jpg")

        Keep the memory in a file::

            segmenter.save_memory("boats.memory")

        A later program adds it to the classes that it knows, without the images::

            segmenter.load_memory("boats.memory")

    ``from_pretrained("nano")`` needs no download. Its two small networks know drawn patterns only; use them to try the
    code. The arguments of the class itself are for networks that are already built.

    Args:
        segmenter: The networks and the method.
        prompts: The network that makes masks from boxes and points.
        encoder_name: The name of the encoder in the configuration, such as ``dinov2_large``.
        sam2_checkpoint: The file of SAM 2's weights, if there is one.
        context_ratio: How much of the image around a reference its crop shows: the crop's side is the box's longer side
            times one plus this. None takes what suits the encoder: 0.2, or 4 for ``dinov2_nano``.
        precision: What the networks compute in, "float32" or "bfloat16" (docs/speed.md). References should be added
            with the precision that images are segmented with; SAM always computes in float32.

    Attributes:
        memory: The classes that were shown so far; None before the first. Set it to None to forget them all.
        made_with: What the memory's vectors depend on besides the references.
        segmenter: The networks and the method.
        prompts: The network that makes masks from boxes and points.
        sam2_checkpoint: The file of SAM 2's weights, if there is one.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        prompts: Sam2Boxes | SamBoxes,
        encoder_name: str,
        sam2_checkpoint: Path | None = None,
        context_ratio: float | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(segmenter, prompts, encoder_name, context_ratio, precision)
        self.sam2_checkpoint = sam2_checkpoint
        self._measured: tuple[MemoryBank, Settings, dict[str, float]] | None = None

    @classmethod
    def from_pretrained(
        cls,
        sam2: str | Path | None = None,
        dinov2: str | Path | None = None,
        device: str | torch.device | None = None,
        sam_checkpoint: str | Path | None = None,
        settings: Settings | None = None,
        context_ratio: float | None = None,
        precision: Precision = "float32",
        preset: PresetName | None = None,
        debias: int = 0,
    ) -> ReferenceSegmenter:
        """Build the networks from their checkpoints.

        Args:
            sam2: The name or path of a SAM 2 checkpoint (``no-time-to-train download --list`` shows the names), or
                "nano" for the two small networks that ship with this package. A file may have any name: its tensors
                show which SAM 2 it is. None takes the preset's.
            dinov2: The name or path of the encoder's checkpoint, or NAME=PATH; None takes the preset's DINOv2. Other
                encoders, among them any vision transformer of timm, are in docs/encoders.md.
            device: Such as "cuda:1" or "cpu"; None takes the GPU if there is one.
            sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H, to make masks from boxes and points with SAM
                instead of SAM 2, as the paper does. Needs the ``segment-anything`` package.
            settings: The method's numbers; None takes the paper's with the preset's prompts.
            preset: "accurate", the networks and prompts of the paper; "balanced" or "fast", smaller networks and guided
                prompts (docs/speed.md). What the other arguments give overrides it. None takes "accurate".
            debias: How many directions that encode positions are removed from the encoder's tokens (docs/encoders.md);
                0 removes none, as in the paper.

        Returns:
            A segmenter with an empty memory.
        """
        check_number("context_ratio", context_ratio, ContextRatio | None)  # before the networks are read
        check_choice("precision", precision, Precision)
        check_number("debias", debias, NonNegative)
        built = build_pretrained(sam2, dinov2, device, sam_checkpoint, settings, preset, debias)
        found = cls(*built, context_ratio=context_ratio, precision=precision)
        if precision == "bfloat16":
            notice_slow_bfloat16(found.device)
        return found

    def __repr__(self) -> str:
        sam2 = self.sam2_checkpoint and self.sam2_checkpoint.stem
        encoder = self.made_with["encoder"]
        dinov2 = CHECKPOINT_OF.get(str(encoder), encoder)
        return f"ReferenceSegmenter(sam2={sam2!r}, dinov2={dinov2!r}, device='{self.device}', memory={self.memory!r})"

    def check_references(self, references: Iterable[Reference], each: bool = True) -> ReferenceReport:
        """Measure what references are worth, by leave-one-out on their own images (docs/references.md).

        The memory stays as it is; the references need not be in it.

        Args:
            references: From ``data.reference_forms.find_references``, for example.
            each: Measure what each reference is worth, too; ``thresholds`` of the report alone need less time.
        """
        describer = replace(self.describer, memory=None)
        return self._examine(memory_of(describer.find_masks(list(references)), describer), each)

    def measure_thresholds(self) -> dict[str, float]:
        """The score of each class with the best F1 that is to be expected: what ``score="auto"`` takes.

        It is measured by leave-one-out on the images that the references in the memory were taken from, as in
        :meth:`check_references`. The networks look at these images once; after that, the result is known until the
        memory changes.

        Returns:
            The scores by class. A class of which nothing can be known is missing: that takes references in two images,
            and a memory file holds no images.
        """
        memory, settings = self._require_memory(), self.segmenter.settings
        if self._measured is None or self._measured[0] is not memory or self._measured[1] != settings:
            known = memory.keep_references([shot for shot, image in enumerate(memory.images) if image is not None])
            if known is None:
                raise UserError(
                    "score 'auto' measures the references on their own images, which a memory file does not have: add "
                    "references, or give the score as a number"
                )
            self._measured = memory, settings, self._examine(known, each=False).thresholds
        return dict(self._measured[2])

    def _examine(self, bank: MemoryBank, each: bool) -> ReferenceReport:
        """Measure what the shots of a bank are worth; it has their images. The memory stays as it is."""
        earlier = self.memory

        def propose(pixels: NDArray[np.uint8], memory: MemoryBank | None) -> ImageProposals:
            if memory is not None:  # which only guided prompts look at
                self.set_memory(memory)
            return self.propose(pixels)

        try:
            bank.made_with = self.made_with
            return examine(bank, measured_images(bank, propose), self.segmenter.settings, self.segmenter.encoder, each)
        finally:
            self.set_memory(earlier)

    @overload
    def segment(  # type: ignore[overload-overlap]  # a str is a Sequence as well, and the first match counts
        self, image: ImageInput, score: LowestScore = ...
    ) -> Instances: ...

    @overload
    def segment(self, image: Sequence[ImageInput], score: LowestScore = ...) -> list[Instances]: ...

    def segment(
        self, image: ImageInput | Sequence[ImageInput], score: LowestScore = USUAL_SCORE
    ) -> Instances | list[Instances]:
        """Find the objects of the memory's classes in an image, or in each of several.

        Args:
            image: An image as in :meth:`add_reference`, or a list of images. A tensor [B, 3, H, W] counts as a list.
            score: Instances with a lower score, in [0, 1], are left out. A mapping has the scores of some classes by
                name; 0.5 counts for the others. "auto" takes :meth:`measure_thresholds`.

        Returns:
            The instances in descending order of score, at most ``settings.max_instances`` (100); for a list of images,
            a list of these.
        """
        if isinstance(image, Tensor) and image.ndim == 4:
            image = list(image)
        if isinstance(image, IMAGE_TYPES) or not isinstance(image, Iterable):
            lowest = self._lowest(score)
            return self.rank(self.propose(image), lowest)
        return list(self.segment_many(image, score, progress=False))

    def segment_many(
        self, images: Iterable[ImageInput], score: LowestScore = USUAL_SCORE, progress: bool = True
    ) -> Iterator[Instances]:
        """Find the objects in many images, one after the other, so that only two have to fit into memory.

        While a thread ranks the proposals of an image, the networks work on the next one.

        Args:
            images: Images as in :meth:`add_reference`, such as ``sorted(Path("photos").glob("*.jpg"))``.
            progress: Show a progress bar.

        Returns:
            An iterator over the instances of each image, in the order of the images. ``path`` of the instances says
            which file they were found in. One more image has been read than the iterator has returned.
        """
        if not isinstance(images, Iterable) or (isinstance(images, IMAGE_TYPES) and getattr(images, "ndim", 3) < 4):
            raise UserError(f"images is one {type(images).__name__}: give a list of images, or use segment")
        lowest = self._lowest(score)
        images = tqdm(images, "segment", unit=" image", disable=not progress)
        return follow(images, self.propose, partial(self.rank, score=lowest))

    def propose(self, image: ImageInput) -> ImageProposals:
        """Run the networks on an image: masks, and a vector for each of them.

        This is nearly all the work. :meth:`rank` does the rest in a fraction of a second, again and again where the
        memory changes. ``segment(image)`` is ``rank(propose(image))``.

        Returns:
            The proposals. They do not depend on the memory, except with ``Settings(prompts="guided")``, which proposes
            masks only where the image resembles a class of the memory: propose again once the memory has changed.
        """
        assert self.segmenter.proposer is not None
        pixels = as_rgb(check_image(image))
        if self.segmenter.settings.prompts == "guided":
            self._require_memory()
        settings = self.segmenter.settings
        squares = target_squares(pixels, self.segmenter.proposer.size, settings.tiles, settings.tile_overlap)
        with computing_in(self.precision, self.device):
            proposals = self.segmenter.describe(squares.to(self.device), *pixels.shape[:2])
        return ImageProposals(pixels, Path(image) if isinstance(image, str | Path) else None, proposals)

    def rank(self, proposals: ImageProposals, score: LowestScore = USUAL_SCORE) -> Instances:
        """Find the instances of the memory's classes among the proposals of an image.

        Args:
            proposals: From :meth:`propose`.
        """
        memory, lowest = self._require_memory(), self._lowest(score)
        found = self.segmenter.match_and_merge(proposals.proposals)
        kept = found.scores >= torch.tensor([lowest[category.name] for category in memory.categories])[found.classes]
        if not kept.all():  # else a copy of all masks would only take memory
            found = found[kept]
        found = replace(found, prompts=proposals.proposals.prompts)
        return Instances(proposals.pixels, memory.categories, found, proposals.path)

    def explain(
        self, image: ImageInput, truth: Sequence[tuple[str, MaskInput]], threshold: float = 0.5, iou: float = 0.5
    ) -> list[Finding | None]:
        """Say of each object of an image why it was not found.

        Args:
            image: An image as in :meth:`add_reference`.
            truth: The objects in the image: the label and the mask of each.
            threshold: The score that an instance needs, in [0, 1].
            iou: The IoU with an object that an instance needs to find it, in [0, 1].

        Returns:
            For each object, why it is missed, or None where it is found. Objects and instances are matched as by COCO.
        """
        check_number("iou", iou, Fraction)
        proposals = self.propose(image)

        def propose(wider: Segmenter) -> DescribedProposals:
            other = copy.copy(self)
            other.segmenter = wider
            return proposals.proposals if wider is self.segmenter else other.propose(image).proposals

        masks = [(label, as_mask(mask)) for label, mask in truth if mask is not None]
        return explain_image(masks, self.rank(proposals, threshold), self.segmenter, propose, iou, threshold)

    def _lowest(self, score: LowestScore) -> dict[str, float]:
        """The lowest score of each class; see :meth:`segment`."""
        self._require_memory()
        if not isinstance(score, str) or score != "auto":
            return lowest_scores(score, self.classes)
        measured = self.measure_thresholds()
        missing = [label for label in self.classes if label not in measured]
        if not measured:
            raise UserError(
                f"score 'auto' cannot be measured for {', '.join(missing)}: that needs references of a class in two "
                "images; add some, or give the score as a number"
            )
        if missing:
            why = "not measured: that needs references in two images"
            warnings.warn(f"score 'auto': {', '.join(missing)}: {USUAL_SCORE:g} ({why})", UserNotice, stacklevel=3)
        return lowest_scores(measured, self.classes)
