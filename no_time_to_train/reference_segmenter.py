"""The method from Python: show an object once or a few times, and find it in other images."""

from __future__ import annotations  # help() then shows ImageInput rather than all that it stands for

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

from no_time_to_train.data.describe_references import ReferenceDescriber
from no_time_to_train.data.image_proposals import ImageProposals
from no_time_to_train.data.images import ImageInput, MaskInput, as_rgb
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.memory_files import check_fits, load_memory, save_memory
from no_time_to_train.data.prompts import IMAGE_TYPES, check_image, check_label
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.shown_objects import read_shown_object
from no_time_to_train.errors import UserError, suggest
from no_time_to_train.evaluation.reference_doctor import examine
from no_time_to_train.evaluation.reference_images import memory_of, shot_images
from no_time_to_train.evaluation.reference_report import ReferenceReport
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.prototypes import prototypes_of
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import ContextRatio, Settings
from no_time_to_train.method.target_image import target_squares
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes
from no_time_to_train.networks.devices import computing_in, notice_slow_bfloat16
from no_time_to_train.networks.pretrained import build_pretrained
from no_time_to_train.networks.registry import CHECKPOINT_OF, Precision, PresetName, default_context_ratio
from no_time_to_train.overlap import follow
from no_time_to_train.ranges import Fraction, NonNegative, check_choice, check_number


class ReferenceSegmenter:
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
        if context_ratio is None:
            context_ratio = default_context_ratio(encoder_name)
        check_number("context_ratio", context_ratio, ContextRatio)
        self.segmenter, self.prompts, self.sam2_checkpoint = segmenter, prompts, sam2_checkpoint
        self.context_ratio, self.precision = context_ratio, precision
        self.memory: MemoryBank | None = None
        self.made_with = {
            "encoder": encoder_name,
            "img_size": segmenter.encoder.size,
            "context_ratio": context_ratio,
            **({"debias": segmenter.encoder.debias} if segmenter.encoder.debias else {}),
        }

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
            context_ratio: See :class:`ReferenceSegmenter`.
            precision: See :class:`ReferenceSegmenter`.
            preset: "accurate", the networks and prompts of the paper; "balanced" or "fast", smaller networks and guided
                prompts (docs/speed.md). What the other arguments give overrides it. None takes "accurate".
            debias: How many directions that encode positions are removed from the encoder's tokens (docs/encoders.md);
                0 removes none, as in the paper.

        Returns:
            A segmenter with an empty memory.

        Raises:
            UserError: A name is unknown, checkpoints are missing (all of them are named), damaged or of another
                network, the device cannot be used, or the context ratio is not in its range.
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

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.segmenter.encoder.normalize.mean.device

    @property
    def classes(self) -> list[str]:
        """The names of the classes in the memory, in ascending order of their ids."""
        return [] if self.memory is None else [category.name for category in self.memory.categories]

    def add_reference(
        self,
        label: str,
        image: ImageInput,
        mask: MaskInput | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
        negative: bool = False,
    ) -> NDArray[np.bool_]:
        """Show one object: an image, and the object's mask, a box around it, a point on it, or nothing.

        The only combination is a mask with a box. With nothing, the object is found (docs/your_own_objects.md). The
        first picture of a class is then judged alone; a later one is compared with the references of its class so far,
        which stay as they are. :meth:`add_references` compares all pictures with each other, which finds more objects.
        A :class:`UserNotice` says where the choice is doubtful.

        A negative reference is an object that resembles the class and is not of it; masks that are more like it than
        like the class get a lower score.

        Args:
            label: The name of the object's class. A name that the memory knows gets one more shot.
            image: A path, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4], or a tensor [H, W] or [3, H, W]; RGB,
                as integers of 8 or 16 bits or as floats in [0, 1].
            mask: The object's mask at the image's size: a path, a PIL image, or an array or tensor [H, W], in which the
                object is brighter than the rest; or "whole" for all of the image. Without it, SAM 2 makes one.
            box: x1, y1, x2, y2 in pixels, ends excluded. With a mask as well, the reference is cropped around the box.
            point: x, y in pixels.
            negative: Show what the class is not. The class must be known.

        Returns:
            The object's mask, bool [H, W].

        Raises:
            UserError: The label is blank, or not known where the reference is negative; the image or the mask cannot be
                read, they do not fit together, the prompt lies outside the image or marks nothing, there are too many,
                or no object was found.
        """
        label = check_label(label)
        if negative and label not in self.classes:
            raise UserError(f"show a {label} before what is no {label}: the memory has no class {label!r}")
        shown = read_shown_object(image, mask, box, point)
        name = str(image) if isinstance(image, str | Path) else f"a picture of {label}"
        shot, inside = self.describer.shot(label, shown, negative, name)
        shot.made_with = self.made_with
        self._join(shot)
        return inside

    def add_references(self, references: Iterable[Reference]) -> None:
        """Show several objects, with a progress bar.

        Args:
            references: From ``data.reference_forms.find_references``, for example. Plain pictures among them get their
                masks from :meth:`find_masks`.

        Raises:
            UserError: See :meth:`add_reference`; the message names the reference.
        """
        references = self.find_masks(list(references))
        for reference in tqdm(references, desc="references", unit=" object", disable=not references):
            try:
                image, mask = reference.read()
                self.add_reference(reference.label, image, mask, reference.box, reference.point, reference.negative)
            except UserError as error:
                raise UserError(f"reference {reference.image} ({reference.label}): {error}") from error

    def find_masks(self, references: Sequence[Reference]) -> list[Reference]:
        """Find the objects of those references that are pictures only, and leave the memory as it is.

        The pictures of a class are compared with each other, with the references of the class that have a mask, a box
        or a point, and with the class's shots in the memory.

        Args:
            references: The references.

        Returns:
            The references in the same order; the pictures have masks now, except where none could be found.
        """
        return self.describer.find_masks(references)

    def check_references(self, references: Iterable[Reference], each: bool = True) -> ReferenceReport:
        """Measure what references are worth, by leave-one-out on their own images (docs/references.md).

        The memory stays as it is; the references need not be in it.

        Args:
            references: From ``data.reference_forms.find_references``, for example.
            each: Measure what each reference is worth, too; ``thresholds`` of the report alone need less time.

        Raises:
            UserError: There is no reference, or one cannot be used; the message names it.
        """
        describer = replace(self.describer, memory=None)
        shown = describer.find_masks(list(references))
        bank, masks = memory_of(shown, describer)
        bank.made_with = self.made_with

        def propose(image: Path, memory: MemoryBank | None) -> ImageProposals:
            if memory is not None:  # which only guided prompts look at
                self._remember(memory)
            return self.propose(image)

        earlier = self.memory
        try:
            images = shot_images(shown, bank, masks, propose)
            return examine(bank, images, self.segmenter.settings, self.segmenter.encoder, each)
        finally:
            self.memory = earlier
            if earlier is not None:
                self._remember(earlier)

    def remove(self, label: str) -> None:
        """Forget a class.

        Args:
            label: Its name.

        Raises:
            UserError: The memory has no such class.
        """
        if self.memory is None or label not in self.classes:
            raise UserError(f"the memory has no class {label!r}{suggest(str(label), self.classes)}")
        if len(self.classes) == 1:
            self.memory = None
        else:
            self._remember(self.memory.remove([label]))

    def remove_reference(self, number: int) -> None:
        """Forget one reference. A class without a positive one is forgotten, with its negative ones.

        Args:
            number: Its place in the memory's ``vectors``, from 0. Those after it move up by one.

        Raises:
            UserError: The memory has no such reference.
        """
        count = 0 if self.memory is None else len(self.memory)
        if self.memory is None or not 0 <= number < count:
            raise UserError(f"the memory has no reference {number}: it has {count}")
        self.set_memory(self.memory.without(number))

    def set_memory(self, memory: MemoryBank | None) -> None:
        """Replace the memory.

        Args:
            memory: A post-processed one, made with the same encoder and context ratio; None forgets all classes.
        """
        if memory is None:
            self.memory = None
        else:
            self._remember(memory)

    def renumber(self, ids: dict[str, int]) -> None:
        """Give the classes category ids, such as those of a ground truth.

        Args:
            ids: Category ids by class name. Other classes of the memory get the ids after the largest one.
        """
        if self.memory is not None and ids:
            self._remember(self.memory.renumber(ids))

    @overload
    def segment(  # type: ignore[overload-overlap]  # a str is a Sequence as well, and the first match counts
        self, image: ImageInput, score: float = ...
    ) -> Instances: ...

    @overload
    def segment(self, image: Sequence[ImageInput], score: float = ...) -> list[Instances]: ...

    def segment(self, image: ImageInput | Sequence[ImageInput], score: float = 0.5) -> Instances | list[Instances]:
        """Find the objects of the memory's classes in an image, or in each of several.

        Args:
            image: An image as in :meth:`add_reference`, or a list of images. A tensor [B, 3, H, W] counts as a list.
            score: Instances with a lower score, in [0, 1], are left out.

        Returns:
            The instances in descending order of score, at most ``settings.max_instances`` (100); for a list of images,
            a list of these.

        Raises:
            UserError: The memory is empty, an image cannot be read, or the score is not a number from 0 to 1.
        """
        if isinstance(image, Tensor) and image.ndim == 4:
            image = list(image)
        if isinstance(image, IMAGE_TYPES) or not isinstance(image, Iterable):
            return self.rank(self.propose(image), score)
        return list(self.segment_many(image, score, progress=False))

    def segment_many(
        self, images: Iterable[ImageInput], score: float = 0.5, progress: bool = True
    ) -> Iterator[Instances]:
        """Find the objects in many images, one after the other, so that only two have to fit into memory.

        While a thread ranks the proposals of an image, the networks work on the next one.

        Args:
            images: Images as in :meth:`add_reference`, such as ``sorted(Path("photos").glob("*.jpg"))``.
            score: See :meth:`segment`.
            progress: Show a progress bar.

        Returns:
            An iterator over the instances of each image, in the order of the images. ``path`` of the instances says
            which file they were found in. One more image has been read than the iterator has returned.

        Raises:
            UserError: See :meth:`segment`. An image that cannot be read ends the iteration after those before it.
        """
        check_number("score", score, Fraction)
        if not isinstance(images, Iterable) or (isinstance(images, IMAGE_TYPES) and getattr(images, "ndim", 3) < 4):
            raise UserError(f"images is one {type(images).__name__}: give a list of images, or use segment")
        self._require_memory()
        images = tqdm(images, "segment", unit=" image", disable=not progress)
        return follow(images, self.propose, partial(self.rank, score=score))

    def propose(self, image: ImageInput) -> ImageProposals:
        """Run the networks on an image: masks, and a vector for each of them.

        This is nearly all the work. :meth:`rank` does the rest in a fraction of a second, again and again where the
        memory changes. ``segment(image)`` is ``rank(propose(image))``.

        Args:
            image: See :meth:`add_reference`.

        Returns:
            The proposals. They do not depend on the memory, except with ``Settings(prompts="guided")``, which proposes
            masks only where the image resembles a class of the memory: propose again once the memory has changed.

        Raises:
            UserError: The image cannot be read; or the prompts are guided and the memory is empty.
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

    def rank(self, proposals: ImageProposals, score: float = 0.5) -> Instances:
        """Find the instances of the memory's classes among the proposals of an image.

        Args:
            proposals: From :meth:`propose`.
            score: See :meth:`segment`.

        Returns:
            See :meth:`segment`.

        Raises:
            UserError: The memory is empty, or the score is not a number from 0 to 1.
        """
        check_number("score", score, Fraction)
        memory = self._require_memory()
        found = self.segmenter.match_and_merge(proposals.proposals)
        kept = found.scores >= score
        if not kept.all():  # else a copy of all masks would only take memory
            found = found[kept]
        found = replace(found, prompts=proposals.proposals.prompts)
        return Instances(proposals.pixels, memory.categories, found.cpu(), proposals.path)

    def _require_memory(self) -> MemoryBank:
        """The memory, which must not be empty."""
        if self.memory is None:
            raise UserError("the memory is empty: add a reference or load a memory first")
        return self.memory

    def save_memory(self, path: str | Path) -> None:
        """Write the memory to a file: vectors and pictures of the references, and no weights of the networks.

        Args:
            path: The file.

        Raises:
            UserError: The memory is empty, or the file cannot be written.
        """
        if self.memory is None:
            raise UserError("the memory is empty: add a reference first")
        save_memory(self.memory, path)

    def load_memory(self, path: str | Path) -> None:
        """Add the classes of a memory file to the known ones. Where both know a class, it gets the shots of both.

        Args:
            path: A file that :meth:`save_memory` or a stage of the command line wrote.

        Raises:
            UserError: The file cannot be read, or was made with another encoder or context ratio.
        """
        loaded = load_memory(path)
        check_fits(loaded, path, self.made_with, [])
        loaded.made_with = self.made_with
        self._join(loaded)

    def _join(self, bank: MemoryBank) -> None:
        """Add the classes and shots of a bank to the memory."""
        self._remember(MemoryBank.join([bank] if self.memory is None else [self.memory, bank]))

    def _remember(self, memory: MemoryBank) -> None:
        """Replace the memory."""
        self.memory = memory
        self.segmenter.remember(prototypes_of(memory, self.segmenter.settings.prototype), memory.negatives)

    @property
    def describer(self) -> ReferenceDescriber:
        """What turns references into shots."""
        return ReferenceDescriber(self.segmenter, self.prompts, self.context_ratio, self.precision, self.memory)
