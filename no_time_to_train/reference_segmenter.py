"""The method from Python: show an object once or a few times, and find it in other images."""

from __future__ import annotations  # help() then shows ImageInput rather than all that it stands for

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from no_time_to_train.data.images import ImageInput, MaskInput, as_mask, as_rgb
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.memory_files import check_fits, load_memory, save_memory
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.errors import UserError
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fill_memory import CONTEXT_RATIO, crop_reference
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes, build_sam, mask_of_point, rectangle
from no_time_to_train.networks.build import build_dinov2, build_sam2
from no_time_to_train.networks.registry import (
    CHECKPOINT_OF,
    DINOV2_NAMES,
    DINOV2_NANO,
    SAM2_NAMES,
    SAM2_NANO,
    encoder_input_size,
    find_network,
)


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
    ) -> None:
        self.segmenter, self.prompts, self.sam2_checkpoint = segmenter, prompts, sam2_checkpoint
        self.memory: MemoryBank | None = None
        self.made_with = {
            "encoder": encoder_name,
            "img_size": segmenter.encoder.size,
            "context_ratio": CONTEXT_RATIO,
        }

    @classmethod
    def from_pretrained(
        cls,
        sam2: str | Path = "sam2_hiera_large",
        dinov2: str | Path | None = None,
        device: str | torch.device | None = None,
        sam_checkpoint: str | Path | None = None,
        settings: Settings | None = None,
    ) -> ReferenceSegmenter:
        """Build the networks from their checkpoints.

        Args:
            sam2: The name or path of a SAM 2 checkpoint (``no-time-to-train download --list`` shows the names), or
                "nano" for the two small networks that ship with this package.
            dinov2: The name or path of a DINOv2 checkpoint; None takes ``dinov2_vitl14``.
            device: Such as "cuda:1" or "cpu"; None takes the GPU if there is one.
            sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H, to make masks from boxes and points with SAM
                instead of SAM 2, as the paper does. Needs the ``segment-anything`` package.
            settings: The method's numbers; None takes the paper's.

        Returns:
            A segmenter with an empty memory.

        Raises:
            UserError: A name is unknown, a checkpoint is missing or damaged, or the device cannot be used.
        """
        if sam2 == "nano":
            sam2, dinov2 = SAM2_NANO, dinov2 or DINOV2_NANO
        proposing = find_network(sam2, SAM2_NAMES)
        encoding = find_network(dinov2 or "dinov2_vitl14", DINOV2_NAMES)
        settings = settings or Settings()
        size = encoder_input_size(encoding.name)
        encoder = Encoder(build_dinov2(encoding.name, size, checkpoint=encoding.checkpoint))
        network = build_sam2(*proposing)
        segmenter = Segmenter(encoder, MaskProposer(network, settings), settings=settings)
        sam = build_sam(sam_checkpoint) if sam_checkpoint else None
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            segmenter.to(device)
            if sam is not None:
                sam.to(device)
        except (RuntimeError, AssertionError) as error:  # torch raises either where it lacks the device
            raise UserError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from error
        prompts = Sam2Boxes(network, proposing.name) if sam is None else SamBoxes(sam, str(sam_checkpoint))
        return cls(segmenter, prompts, encoding.name, proposing.checkpoint)

    def __repr__(self) -> str:
        sam2 = self.sam2_checkpoint and self.sam2_checkpoint.stem
        encoder = self.made_with["encoder"]
        dinov2 = CHECKPOINT_OF.get(str(encoder), encoder)
        return f"ReferenceSegmenter(sam2={sam2!r}, dinov2={dinov2!r}, device='{self.device}', memory={self.memory!r})"

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.segmenter.encoder.normalize.mean.device

    def add_reference(
        self,
        label: str,
        image: ImageInput,
        mask: MaskInput | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
    ) -> NDArray[np.bool_]:
        """Show one object: an image with the object's mask, a box around it, or a point on it.

        Args:
            label: The name of the object's class. A name that the memory knows gets one more shot.
            image: A path, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4], or a tensor [H, W] or [3, H, W]; RGB,
                as integers of 8 or 16 bits or as floats in [0, 1].
            mask: The object's mask at the image's size: a path, a PIL image, or an array or tensor [H, W], in which the
                object is brighter than the rest. Without it, SAM 2 makes one from the box or the point.
            box: x1, y1, x2, y2 in pixels, ends excluded. With a mask as well, the reference is cropped around the box.
            point: x, y in pixels.

        Returns:
            The object's mask, bool [H, W].

        Raises:
            UserError: The image or the mask cannot be read, they do not fit together, the prompt lies outside the image
                or marks nothing, or there is no prompt.
        """
        inside = None if mask is None else as_mask(mask)
        pixels = as_rgb(image, None if inside is None else inside.shape)
        height, width = pixels.shape[:2]
        if inside is None:
            inside = self._mask_of_prompt(pixels, box, point)
        elif inside.shape != (height, width):
            raise UserError(
                f"the mask is {inside.shape[1]}x{inside.shape[0]} pixels, its image {width}x{height}: "
                "is it the mask of another image?"
            )
        bbox: list[float] = list(cv2.boundingRect(inside.astype(np.uint8)))
        if box is not None:
            x1, y1, x2, y2 = box
            bbox = [x1, y1, x2 - x1, y2 - y1]
        crop, mask_crop = crop_reference(pixels, inside, bbox, self.segmenter.encoder.size)
        vector, weight = self.segmenter.describe_reference(crop.to(self.device), mask_crop.to(self.device))
        shot = MemoryBank.empty([Category(1, label)], len(vector))
        shot.made_with = self.made_with
        shot.add(0, vector.cpu(), weight.cpu(), crop=_encode_crop(crop, mask_crop))
        self._join(shot)
        return inside

    def add_references(self, references: Iterable[Reference]) -> None:
        """Show several objects, with a progress bar.

        Args:
            references: From ``data.reference_forms.find_references``, for example.

        Raises:
            UserError: See :meth:`add_reference`; the message names the reference.
        """
        for reference in tqdm(references, desc="references", unit="object"):
            try:
                mask = reference.read_mask()
                image = as_rgb(reference.image, reference.size if mask is None else mask.shape)
                height, width = image.shape[:2]
                if reference.size not in (None, (height, width)):
                    stated = f"{reference.size[1]}x{reference.size[0]}"
                    raise UserError(f"the image is {width}x{height} pixels, its annotation is for {stated}")
                self.add_reference(reference.label, image, mask, reference.box, reference.point)
            except UserError as error:
                raise UserError(f"reference {reference.image} ({reference.label}): {error}") from error

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
            UserError: The memory is empty, or an image cannot be read.
        """
        if isinstance(image, Tensor) and image.ndim == 4:
            image = list(image)
        if isinstance(image, str | Path | Image.Image | np.ndarray | Tensor):
            return self._segment(as_rgb(image), score)
        return [self._segment(as_rgb(one), score) for one in image]

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
            UserError: The file cannot be read, or was made with another encoder.
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
        assert memory.prototypes is not None
        self.segmenter.prototypes = memory.prototypes.to(self.device)

    def _segment(self, image: NDArray[np.uint8], score: float) -> Instances:
        assert self.segmenter.proposer is not None
        if self.memory is None:
            raise UserError("the memory is empty: add a reference or load a memory first")
        square = target_tensor(image, self.segmenter.proposer.size).to(self.device)
        found = self.segmenter.segment(square, *image.shape[:2])
        return Instances(image, self.memory.categories, found[found.scores >= score].cpu())

    def _mask_of_prompt(
        self, image: NDArray[np.uint8], box: Sequence[float] | None, point: Sequence[float] | None
    ) -> NDArray[np.bool_]:
        """The mask of the object in a box or at a point, bool [H, W], not empty."""
        height, width = image.shape[:2]
        if box is not None:
            x1, y1, x2, y2 = box
            if not (max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height)):
                raise UserError(f"box {_join_numbers(box)} (x1,y1,x2,y2) holds no pixel of the {width}x{height} image")
            corners = np.array([box], np.float32)
            mask = self.prompts(image, corners)[0]
            return mask if mask.any() else rectangle(corners[0], height, width)
        if point is None:
            raise UserError("a reference needs the object's mask, a box around it or a point on it")
        x, y = point
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"point {_join_numbers(point)} (x,y) lies outside the {width}x{height} image")
        mask = mask_of_point(self.prompts, image, (x, y))
        if not mask.any():
            raise UserError(f"nothing was found at point {_join_numbers(point)}: give a box around the object")
        return mask


def _encode_crop(crop: Tensor, mask: Tensor) -> Tensor:
    """A reference's picture as a PNG file, uint8 [bytes]; ``visual.memory_pictures.decode_crop`` is the inverse.

    Args:
        crop: float32 [3, S, S] in [0, 1].
        mask: float32 [1, h, w] in {0, 1}; the picture is transparent outside it.
    """
    colors = (255 * crop.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    inside = cv2.resize(255 * mask[0].byte().numpy(), colors.shape[:2], interpolation=cv2.INTER_NEAREST)
    encoded = cv2.imencode(".png", np.dstack([colors[..., ::-1], inside]))[1]
    return torch.from_numpy(encoded.ravel())


def _join_numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
