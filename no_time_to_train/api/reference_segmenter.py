"""The method from Python: show an object once or a few times, and find it in other images."""

from __future__ import annotations  # help() then shows ImageInput rather than all that it stands for

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from no_time_to_train.analysis.reference_report import ReferenceReport
from no_time_to_train.api.class_thresholds import (
    USUAL_THRESHOLD,
    MeasuredThresholds,
    Threshold,
    class_thresholds,
    renamed,
)
from no_time_to_train.api.describe_references import ReferenceDescriber
from no_time_to_train.api.image_proposals import ImageProposals, propose, propose_each
from no_time_to_train.api.measurement import Measurement
from no_time_to_train.api.prompted_references import PromptedReference, naming, read_prompted, read_reference
from no_time_to_train.api.sources import NetworkSource, Proposer, Source, as_given, build_sources, given_in
from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.images import ImageInput, MaskInput, as_rgb
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.mask_inputs import as_mask
from no_time_to_train.data.memory_files import NAMES, check_fits, load_memory, save_memory, weights_of
from no_time_to_train.data.names import as_known
from no_time_to_train.data.prompts import check_label, check_mask_size, check_rows, is_image_input, list_points
from no_time_to_train.data.proposal_files import GRID, source_names
from no_time_to_train.data.reference_forms.reference import Reference, check_measurable
from no_time_to_train.errors import UserError, UserNotice, plural, suggest
from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.fast.at_once import batches
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import PROPOSALS_PER_IMAGE, ContextRatio, Settings
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes
from no_time_to_train.networks.devices import check_defaults, check_precision, store_weights
from no_time_to_train.networks.pretrained import build_pretrained
from no_time_to_train.networks.registry import CHECKPOINT_OF, Precision, PresetName, default_context_ratio
from no_time_to_train.overlap import follow
from no_time_to_train.ranges import Fraction, NonNegative, Positive, Range, check_choice, check_number, check_type

if TYPE_CHECKING:
    from no_time_to_train_extras.class_names.second_cue import Names
    from no_time_to_train_extras.missed_objects.explain import Finding
    from no_time_to_train_extras.video.track_frames import TrackedFrame, Video


#: The pixels of an image, uint8 [H, W, 3] RGB, its file, and what others propose in it.
ReadImage = tuple[NDArray[np.uint8], Path | None, Sequence[Given | None]]

#: The side in pixels of the image that networks are compiled with. They see any image at their own sizes.
BLACK = 256


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

            found = segmenter.segment("photo.jpg", threshold=0.5)
            for instance in found:
                print(instance.label, instance.score, instance.box, instance.mask.shape)
            found.plot().save("found.jpg")

        Keep the memory in a file, which a later program adds to the classes that it knows, without the images::

            segmenter.save_memory("boats.memory")
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
        precision: What the networks compute in, "float32", "bfloat16" or "tf32" (docs/speed.md). References should be
            added with the precision that images are segmented with; SAM always computes in float32.

    Attributes:
        made_with: What the memory's vectors depend on besides the references.
        sources: What proposes masks; None stands for SAM 2's own prompts.
        names: The names of classes as a second cue; None without them, see :meth:`use_names`.
        compiled: Whether :meth:`compile` was called.
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
        self._memory: MemoryBank | None = None
        self.sources: list[Source] = [None]
        self.made_with: dict[str, Any] = {
            "encoder": str(encoder_name),
            "img_size": segmenter.encoder.size,
            "context_ratio": context_ratio,
            **({"debias": segmenter.encoder.debias} if segmenter.encoder.debias else {}),
        }
        self._measured = MeasuredThresholds()
        self.names: Names | None = None
        self.compiled = False

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
        proposer: Proposer | Sequence[Proposer] = GRID,
        proposals_per_image: int = PROPOSALS_PER_IMAGE,
    ) -> ReferenceSegmenter:
        """Build the networks from their checkpoints; the memory is empty.

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
            proposer: What proposes masks: "grid", the paper's grid of points or the preset's prompts; a file of boxes
                or masks, as COCO results; the name of a network; a function of an image uint8 [H, W, 3] RGB that
                returns a ``Given``; or several of these (docs/proposals.md).
            proposals_per_image: Of a file or network, the proposals of an image that are kept, the best ones.
        """
        check_defaults()
        check_type("settings", settings, Settings | None)
        check_type("sam_checkpoint", sam_checkpoint, str | Path | None)
        check_number("context_ratio", context_ratio, ContextRatio | None)  # before the networks are read
        check_choice("precision", precision, Precision)
        check_number("debias", debias, NonNegative)
        check_number("proposals_per_image", proposals_per_image, Positive)
        sources = build_sources(proposer, proposals_per_image, device)  # before the networks, to find mistakes early
        built = build_pretrained(sam2, dinov2, device, sam_checkpoint, settings, preset, debias)
        segmenter, prompts, encoder_name, sam2_file, encoder_file = built
        found = cls(segmenter, prompts, encoder_name, sam2_file, context_ratio, precision)
        found.made_with |= weights_of(encoder_file)
        found.sources = sources
        if found.sources != [None] and found.segmenter.settings.tiles > 1:
            raise UserError("tiles need the proposer grid: other proposals are those of the whole image")
        check_precision(precision, found.device)
        store_weights(precision, found.segmenter)
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

    def __copy__(self) -> ReferenceSegmenter:
        """The same networks with a memory of its own: what one of the two is shown, the other does not know."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), segmenter=copy(self.segmenter))
        other.segmenter._buffers = copy(self.segmenter._buffers)  # the memory is in these
        return other

    @property
    def memory(self) -> MemoryBank | None:
        """The references that were shown so far; None before the first. Set it to None to forget them all."""
        return self._memory

    @memory.setter
    def memory(self, memory: MemoryBank | None) -> None:
        self.set_memory(memory)

    @property
    def classes(self) -> list[str]:
        """The names of the classes in the memory, in ascending order of their ids."""
        return [] if self.memory is None else [category.name for category in self.memory.categories]

    @property
    def describer(self) -> ReferenceDescriber:
        """What turns references into vectors; it compares images without a mask with the memory."""
        return ReferenceDescriber(self.segmenter, self.prompts, self.context_ratio, self.precision, self.memory)

    def add_reference(
        self,
        label: str,
        image: ImageInput,
        mask: MaskInput | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
        negative: bool = False,
        points: Sequence[Sequence[float]] = (),
        negative_points: Sequence[Sequence[float]] = (),
    ) -> NDArray[np.bool_]:
        """Show one object: an image, and the object's mask, a box around it, points on it, or nothing.

        A mask may come with a box, and a box with points. With nothing, the object is found
        (docs/your_own_objects.md): it is compared with the references of its class so far. :meth:`add_references`
        compares all images with each other, which finds more objects. A :class:`UserNotice` says where the choice is
        doubtful.

        A negative reference is an object that resembles the class and is not of it; masks that are more like it than
        like the class get a lower score.

        Args:
            label: The name of the object's class. A name that the memory knows gets one more reference.
            image: A path, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4], or a tensor [H, W] or [3, H, W]; RGB,
                as integers of 8 or 16 bits or as floats in [0, 1]. The pixels of what is not a file are kept for
                :meth:`measure_thresholds`, as long as the reference is in the memory.
            mask: The object's mask at the image's size: a path, a PIL image, or an array or tensor [H, W], in which the
                object is brighter than the rest; or "whole" for all of the image. Without it, SAM 2 makes one.
            box: x1, y1, x2, y2 in pixels, ends excluded. The reference is cropped around it.
            point: x, y in pixels of a point on the object; the same as one in ``points``. Of a part, an object and a
                group at a single point, the mask with the best predicted IoU counts.
            negative: Show what the class is not. The class must be known.
            points: x, y in pixels of points on the object.
            negative_points: x, y in pixels of points outside the object, next to points on it or a box.

        Returns:
            The object's mask, bool [H, W].
        """
        label = check_label(label)
        check_type("negative", negative, bool | np.bool_)
        on_it = [*([] if point is None else [point]), *list_points(points)]
        prompted = read_prompted(image, mask, box, on_it, list_points(negative_points))
        return self._add(label, prompted, negative, str(image) if isinstance(image, str | Path) else None)

    def add_references(self, references: Iterable[Reference]) -> None:
        """Show several objects, with a progress bar. Where one cannot be used, those before it stay in the memory.

        Args:
            references: From ``data.reference_forms.find_references``, for example. Images without a mask among them get
                theirs from :meth:`find_masks`.
        """
        references = self.find_masks(references)
        for reference in tqdm(references, desc="references", unit=" object") if references else ():
            with naming(reference):
                label, prompted = check_label(reference.label), read_reference(reference)
                self._add(label, prompted, reference.negative, str(reference.image))

    def _add(self, label: str, prompted: PromptedReference, negative: bool, path: str | None) -> NDArray[np.bool_]:
        """Add a reference to the memory, and return its mask; ``path`` is the file of its image."""
        if negative and label not in self.classes:
            raise UserError(f"show a {label} before what is no {label}: the memory has no class {label!r}")
        bank, mask = self.describer.describe_prompted(label, prompted, negative, path)
        for source in self.sources:
            if isinstance(source, NetworkSource) and not negative:
                source.show(prompted.pixels, mask)
        bank.made_with = self.made_with
        (image,) = bank.images
        known = [] if self.memory is None else self.memory.images
        same = [one for one in known if image and one and one.name == image.name]
        if same:  # one copy of the pixels is kept
            bank.images = [replace(image, pixels=same[0].pixels)]
        self._join(bank)
        return mask

    def find_masks(self, references: Iterable[Reference]) -> list[Reference]:
        """Find the objects of those references that are images without a mask, and leave the memory as it is.

        The images of a class are compared with each other, with the references of the class that have a mask, a box
        or a point, and with those in the memory.

        Returns:
            The references in the same order; these images have masks now, except where none could be found.
        """
        return self.describer.find_masks(references).references

    def remove(self, label: str) -> None:
        """Forget a class."""
        label = as_known(str(label), self.classes)
        if self.memory is None or label not in self.classes:
            raise UserError(f"the memory has no class {label!r}{suggest(str(label), self.classes)}")
        self.set_memory(None if len(self.classes) == 1 else self.memory.remove([label]))

    def remove_reference(self, number: int) -> None:
        """Forget one reference. A class without a positive one is forgotten, with its negative ones.

        Args:
            number: Its place in the memory's ``vectors``, from 0. Those after it move up by one.
        """
        count = 0 if self.memory is None else len(self.memory)
        if self.memory is None or number not in range(count):
            raise UserError(f"the memory has no reference {number}: it has {count}")
        self.set_memory(self.memory.without(number))

    def set_memory(self, memory: MemoryBank | None) -> None:
        """Replace the memory.

        Args:
            memory: A post-processed one, made with the same encoder and context ratio; None forgets all classes.
        """
        check_type("memory", memory, MemoryBank | None)
        self._memory = memory
        if memory is not None:
            assert memory.prototypes is not None
            names = self.names
            prototypes = names.join(memory.prototypes, self.classes) if names else memory.prototypes
            self.segmenter.remember(prototypes, memory.negatives)

    def use_names(self, weight: float, model: str | Path | None = None) -> None:
        """Let the names of the classes count next to their references, with a TIPSv2 encoder (docs/encoders.md).

        What is saved stays as it is: the memory's own prototypes come from the references only.

        Args:
            weight: How much a name counts, in [0, 1]; references count one minus this. 0 switches names off.
            model: A folder with a TIPSv2 of the transformers package, or its name on the hub; None takes the hub's
                model of the encoder's size.
        """
        from no_time_to_train_extras.class_names.second_cue import build_names

        check_number("weight", weight, Fraction)
        encoder = str(self.made_with["encoder"])
        self.names = build_names(self.segmenter, encoder, weight, model, self.device) if weight else None
        self.set_memory(self.memory)

    def add_names(self, labels: Sequence[str], model: str | Path | None = None) -> None:
        """Look for classes that have a name and no reference, with a TIPSv2 encoder (docs/encoders.md).

        The memory must be empty, and gets no references afterwards: texts resemble images less than images do, so that
        a class with references would always win.

        Args:
            model: As in :meth:`use_names`.
        """
        from no_time_to_train_extras.class_names.second_cue import build_names

        check_type("labels", labels, list | tuple | np.ndarray)
        if self.memory is not None or len(set(map(check_label, labels))) < len(labels):
            raise UserError("names alone need an empty memory, and each name once")
        names = build_names(self.segmenter, str(self.made_with["encoder"]), 1, model, self.device)
        self.set_memory(names.memory([check_label(label) for label in labels], self.made_with))

    def compile(self) -> float:
        """Let ``torch.compile`` translate the networks, which takes minutes: further images take less time.

        The last digits of the results change. On a CPU, SAM 2's decoder is left as it is. With guided prompts, the
        memory must not be empty.

        Returns:
            The seconds that it took, with the first images, which are black: as many as the encoders take at once.
        """
        start = time.monotonic()
        self.segmenter.compile_encoders()
        if self.device.type != "cpu":
            self.segmenter.compile_decoder()
        self.compiled = True
        black = [(np.zeros((BLACK, BLACK, 3), np.uint8), (None,))] * self.segmenter.images.count
        list(propose_each(black, self.segmenter, self.precision))
        return time.monotonic() - start

    def renumber(self, ids: dict[str, int]) -> None:
        """Give the classes category ids, such as those of a ground truth.

        Args:
            ids: Category ids by class name, each another integer of 64 bits. Other classes of the memory get the ids
                after the largest one. Classes that the memory does not have keep their ids for themselves.
        """
        check_type("ids", ids, dict)
        for name, one in ids.items():
            check_number(f"the id of {name!r}", one, Annotated[int, Range(-(2**63))])
        ids = {name: int(one) for name, one in ids.items()}  # which may be numpy's
        if len(set(ids.values())) < len(ids):
            raise UserError("ids: two classes have the same id")
        if self.memory is not None and ids:
            self.set_memory(self.memory.renumber(ids))

    def save_memory(self, path: str | Path) -> None:
        """Write the memory to a file: vectors and pictures of the references, and no weights of the networks."""
        if self.memory is None:
            raise UserError("the memory is empty: add a reference first")
        save_memory(self.memory, path)

    def load_memory(self, path: str | Path) -> None:
        """Add the classes of a memory file to the known ones. A class that both know gets the references of both."""
        loaded = load_memory(path)
        check_fits(loaded, path, self.made_with, [])
        loaded.made_with = self.made_with
        self._join(loaded)

    def _join(self, bank: MemoryBank) -> None:
        """Add the classes and references of a bank to the memory."""
        if self.memory is not None and NAMES in self.memory.made_with:
            raise UserError("classes with references cannot join classes that have a name only: forget these first")
        self.set_memory(MemoryBank.join([bank] if self.memory is None else [self.memory, bank]))

    def _require_memory(self) -> MemoryBank:
        """The memory, which must not be empty."""
        if self.memory is None:
            raise UserError("the memory is empty: add a reference or load a memory first")
        return self.memory

    def measure_references(self, references: Iterable[Reference], each: bool = True) -> ReferenceReport:
        """Measure what references are worth, by leave-one-out on their own images (docs/references.md).

        The memory stays as it is; the references need not be in it.

        Args:
            references: From ``data.reference_forms.find_references``, for example.
            each: Measure what each reference is worth, too; ``thresholds`` of the report alone need less time.
        """
        return self.measurement(references, each).report()

    def measurement(self, references: Iterable[Reference], each: bool = True) -> Measurement:
        """What :meth:`measure_references` measures, to be done image by image."""
        describer = replace(self.describer, memory=None)
        check_measurable(found := describer.find_masks(references).references)
        whole = [reference for reference in found if not reference.is_cut_out]
        if len(whole) < len(found):
            count = plural(len(found) - len(whole), "cut-out")
            warnings.warn(f"{count} not measured: nothing is known around the objects", UserNotice, stacklevel=2)
        bank = MemoryBank.join([describer.describe(reference) for reference in whole])
        bank.made_with = self.made_with
        return Measurement(bank, self.segmenter, self.precision, each)

    def measure_thresholds(self) -> dict[str, float]:
        """The threshold of each class with the best F1 that is to be expected: what ``threshold="auto"`` takes.

        It is measured as in :meth:`measure_references`, on the images that the references in the memory were taken
        from. The networks look at these images once; after that, the result is known until the memory changes.

        Returns:
            The thresholds by class. A class of which nothing can be known is missing: that takes references in two
            images, and a memory file holds no images.
        """
        if self.names:
            raise UserError("thresholds cannot be measured with names: give numbers, or call use_names(0)")
        return self._measured.of(self._require_memory(), self.segmenter, self.precision)

    @overload
    def segment(  # type: ignore[overload-overlap]  # a str is a Sequence as well, and the first match counts
        self, image: ImageInput, threshold: Threshold = ..., *, score: Threshold | None = ...
    ) -> Instances: ...

    @overload
    def segment(
        self, image: Sequence[ImageInput], threshold: Threshold = ..., *, score: Threshold | None = ...
    ) -> list[Instances]: ...

    def segment(
        self,
        image: ImageInput | Sequence[ImageInput],
        threshold: Threshold = USUAL_THRESHOLD,
        *,
        score: Threshold | None = None,
    ) -> Instances | list[Instances]:
        """Find the objects of the memory's classes in an image, or in each of several.

        Args:
            image: An image as in :meth:`add_reference`, or a list of images. A tensor [B, 3, H, W] counts as a list.
            threshold: Instances with a lower score, in [0, 1], are left out. A mapping has the thresholds of some
                classes by name; 0.5 counts for the others. "auto" takes :meth:`measure_thresholds`.
            score: The old name of ``threshold``.

        Returns:
            The instances in descending order of score, at most ``settings.max_instances`` (100); for a list of images,
            a list of these.
        """
        threshold = renamed(threshold, score)
        if isinstance(image, Tensor) and image.ndim == 4:
            image = list(image)
        if is_image_input(image) or not isinstance(image, Iterable):
            return self._classify_with_notice(self.propose(image), threshold)
        return list(self.segment_many(image, threshold, progress=False))

    def segment_many(
        self,
        images: Iterable[ImageInput],
        threshold: Threshold = USUAL_THRESHOLD,
        progress: bool = True,
        *,
        score: Threshold | None = None,
    ) -> Iterator[Instances]:
        """Find the objects in many images, one after the other, so that only two have to fit into memory.

        While a thread classifies the proposals of an image, the networks work on the next one.

        Args:
            images: Images as in :meth:`add_reference`, such as ``sorted(Path("photos").glob("*.jpg"))``.
            threshold: As in :meth:`segment`; ``score`` is its old name.
            progress: Show a progress bar.

        Returns:
            An iterator over the instances of each image, in the order of the images. ``path`` of the instances says
            which file they were found in. One more image has been read than the iterator has returned.
        """
        if not isinstance(images, Iterable) or (is_image_input(images) and getattr(images, "ndim", 3) < 4):
            raise UserError(f"images is one {type(images).__name__}: give a list of images, or use segment")
        self._thresholds(threshold := renamed(threshold, score))  # mistakes are found at once
        images = tqdm(images, "segment", unit=" image", disable=not progress)
        proposals = self.propose_each((image, "", None) for image in images)
        return follow(proposals, partial(self._classify_with_notice, threshold=threshold))

    def track(
        self,
        video: Video,
        threshold: Threshold = USUAL_THRESHOLD,
        every: int = 1,
        returns: float = 10,
        propagate: int = 1,
    ) -> Iterator[TrackedFrame]:
        """Find the objects of the known classes in a video or a live picture, each with its identity (docs/video.md).

        Args:
            video: A video, a folder of its frames, the number of a camera, the address of a stream, or pairs of
                seconds and an image as in :meth:`add_reference`.
            threshold: As in :meth:`segment`. An instance continues a track with a fifth of it.
            every: One frame in this many is used.
            returns: Seconds in which an object that was hidden or has left gets its identity back. 0 where none comes
                back, as on a belt.
            propagate: Objects are looked for in one in this many of these frames. SAM 2's memory carries their masks
                through the others, where the score is the predicted IoU.
        """
        from no_time_to_train_extras.video.track_frames import track

        return track(self, video, self._thresholds(threshold), every, returns, propagate)

    def propose(
        self,
        image: ImageInput,
        boxes: Sequence[Sequence[float]] | NDArray[Any] | None = None,
        scores: Sequence[float] | NDArray[Any] | None = None,
        name: str = "",
        image_id: ImageId | None = None,
    ) -> ImageProposals:
        """Run the networks on an image: masks, and a vector for each of them.

        This is nearly all the work. :meth:`classify` does the rest in a fraction of a second, again and again where the
        memory changes. ``segment(image)`` is ``classify(propose(image))``.

        Args:
            image: An image as in :meth:`add_reference`.
            boxes: n times x1, y1, x2, y2 in pixels, ends excluded: SAM 2 makes masks of these boxes only.
            scores: n numbers in [0, 1], how good the boxes are.
            name: What files of proposals call the image; by default, its path.
            image_id: Its id in these files.

        Returns:
            The proposals. They do not depend on the memory, except with ``Settings(prompts="guided")``, which proposes
            masks only where the image resembles a class of the memory: propose again once the memory has changed.
        """
        return next(self._propose([self._read(image, name, image_id, boxes, scores)]))

    def propose_each(self, images: Iterable[tuple[ImageInput, str, ImageId | None]]) -> Iterator[ImageProposals]:
        """:meth:`propose` for many images, of which the encoders take ``images_per_batch`` of the settings at once.

        Args:
            images: Each image, with ``name`` and ``image_id`` of :meth:`propose`.
        """
        rows = check_rows("images", images, "image, name, image_id")
        for batch in batches((self._read(*one) for one in rows), self.segmenter.images.count):
            yield from self._propose(batch)

    def _propose(self, images: Sequence[ReadImage]) -> Iterator[ImageProposals]:
        """Run the networks on images: all proposals come from here."""
        described = propose_each([(pixels, given) for pixels, _, given in images], self.segmenter, self.precision)
        for (pixels, path, _), proposals in zip(images, described, strict=True):
            yield ImageProposals(pixels, path, proposals)

    def _read(
        self,
        image: ImageInput,
        name: str = "",
        image_id: ImageId | None = None,
        boxes: Sequence[Sequence[float]] | NDArray[Any] | None = None,
        scores: Sequence[float] | NDArray[Any] | None = None,
    ) -> ReadImage:
        """An image as :meth:`propose` takes it."""
        check_type("name", name, str | None)
        pixels = as_rgb(image)
        if self.segmenter.settings.prompts == "guided":
            self._require_memory()
        path = Path(image) if isinstance(image, str | Path) else None
        if scores is not None and boxes is None:
            raise UserError("scores are those of boxes: give boxes, too")
        if boxes is not None:
            return pixels, path, [as_given(boxes, scores, *pixels.shape[:2])]
        return pixels, path, given_in(self.sources, pixels, name or (path.as_posix() if path else ""), image_id)

    def classify(self, proposals: ImageProposals, threshold: Threshold = USUAL_THRESHOLD) -> Instances:
        """Find the instances of the memory's classes among the proposals of an image, from :meth:`propose`."""
        check_type("proposals", proposals, ImageProposals)
        memory, thresholds = self._require_memory(), self._thresholds(threshold)
        found = self.segmenter.match_and_merge(proposals.proposals)
        lowest = torch.tensor([thresholds[category.name] for category in memory.categories])
        kept = found.scores >= lowest[found.classes]
        if not kept.all():  # else a copy of all masks would only take memory
            found = found[kept]
        found = replace(found, prompts=proposals.proposals.prompts)
        names = source_names(self.sources) if len(self.sources) > 1 else []
        return Instances(proposals.pixels, memory.categories, found, proposals.path, names)

    def _classify_with_notice(self, proposals: ImageProposals, threshold: Threshold) -> Instances:
        """Classify, with a notice where there are as many instances as the settings allow."""
        threshold = self._thresholds(threshold)  # of the classes that are known by now
        found, most = self.classify(proposals, threshold), self.segmenter.settings.max_instances
        if len(found) == most and min(threshold.values()) > 0:
            most_of = f"{proposals.path or 'an image'} has {plural(most, 'instance')}, the most that are returned"
            warnings.warn(f"{most_of}; there may be more: raise Settings.max_instances", UserNotice, 4)
        return found

    def explain(
        self, image: ImageInput, truth: Sequence[tuple[str, MaskInput]], threshold: float = 0.5, iou: float = 0.5
    ) -> list[Finding | None]:
        """Say of each object of an image why it was not found.

        Args:
            truth: The objects in the image: the label and the mask of each.
            threshold: The score that an instance needs, in [0, 1].
            iou: The IoU with an object that an instance needs to find it, in [0, 1].

        Returns:
            For each object, why it is missed, or None where it is found. Objects and instances are matched as by COCO.
        """
        from no_time_to_train_extras.missed_objects.explain import explain_image

        check_number("threshold", threshold, Fraction)
        check_number("iou", iou, Fraction)
        masks = [(check_label(label), as_mask(mask)) for label, mask in check_rows("truth", truth, "label, mask")]
        proposals = self.propose(image)
        for _, mask in masks:
            check_mask_size(mask, proposals.pixels)

        def propose_by(other: Segmenter) -> DescribedProposals:
            return proposals.proposals if other is self.segmenter else propose(proposals.pixels, other, self.precision)

        found = self.classify(proposals, threshold)
        return explain_image(masks, found, self.segmenter, propose_by, iou, threshold)

    def _thresholds(self, threshold: Threshold) -> dict[str, float]:
        """The threshold of each class."""
        self._require_memory()
        return class_thresholds(threshold, self.classes, self.measure_thresholds)

    rank, check_references = classify, measure_references  # their old names, for this version
