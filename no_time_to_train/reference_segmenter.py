"""The method from Python: show an object once or a few times, and find it in other images."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from no_time_to_train.data.images import ImageInput, MaskInput, as_mask, as_rgb
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.memory_files import check_fits, load_memory, save_memory
from no_time_to_train.errors import UserError
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fill_memory import crop_reference
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes, build_sam, mask_of_point, rectangle
from no_time_to_train.networks.build import build_dinov2, build_sam2
from no_time_to_train.networks.registry import (
    DINOV2_NAMES,
    DINOV2_NANO,
    IMG_SIZE,
    NANO_IMG_SIZE,
    SAM2_NAMES,
    SAM2_NANO,
    find_network,
)

#: Context around a reference: the crop's side over the box's longer side, less one.
CONTEXT_RATIO = 0.2


class ReferenceSegmenter:
    """Two frozen networks and the memory of the objects shown to them.

    Make one with :meth:`from_pretrained`, show it objects with :meth:`add_reference` or :meth:`load_memory`, and find
    them with :meth:`segment`.

    Attributes:
        memory: the classes shown so far; None before the first.
        sam2_checkpoint: where SAM 2's weights are from; None where they are of no file.
    """

    memory: MemoryBank | None = None
    sam2_checkpoint: Path | None = None

    def __init__(self, segmenter: Segmenter, prompts: Sam2Boxes | SamBoxes, encoder_name: str) -> None:
        self.segmenter, self.prompts = segmenter, prompts
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
    ) -> "ReferenceSegmenter":
        """Build the networks.

        Args:
            sam2: a SAM 2 by its checkpoint's name (``no-time-to-train download --list``) or path; or "nano", for the
                two small networks that ship with this package.
            dinov2: a DINOv2 likewise; without it ``dinov2_vitl14``.
            device: such as "cuda:1" or "cpu"; without it the GPU if there is one.
            sam_checkpoint: official checkpoint of SAM ViT-B, -L or -H, to make masks from boxes and points instead of
                SAM 2; needs the ``segment-anything`` package.
            settings: the method's numbers, where they shall not be the paper's.

        Raises:
            UserError: a name is unknown, a checkpoint is missing or broken, or the device cannot be used.
        """
        if sam2 == "nano":
            sam2, dinov2 = SAM2_NANO, dinov2 or DINOV2_NANO
        proposing = find_network(sam2, SAM2_NAMES)
        encoding = find_network(dinov2 or "dinov2_vitl14", DINOV2_NAMES)
        settings = settings or Settings()
        size = NANO_IMG_SIZE if encoding.name == DINOV2_NANO else IMG_SIZE
        encoder = Encoder(build_dinov2(encoding.name, size, checkpoint=encoding.checkpoint))
        network = build_sam2(*proposing)
        proposer = MaskProposer(network, settings)
        segmenter = Segmenter(encoder, proposer, settings=settings)
        sam = build_sam(sam_checkpoint) if sam_checkpoint else None
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            segmenter.to(device)
            if sam is not None:
                sam.to(device)
        except (RuntimeError, AssertionError) as error:  # torch raises either where it lacks the device
            raise UserError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from error
        prompts = Sam2Boxes(network, proposing.name) if sam is None else SamBoxes(sam, str(sam_checkpoint))
        made = cls(segmenter, prompts, encoding.name)
        made.sam2_checkpoint = proposing.checkpoint
        return made

    @property
    def device(self) -> torch.device:
        return self.segmenter.encoder.normalize.mean.device

    def add_reference(
        self,
        label: str,
        image: ImageInput,
        mask: MaskInput | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
    ) -> NDArray[np.bool_]:
        """Show one object: an image with the object's mask, or a box around it, or a point on it.

        Args:
            label: the class's name; a known one gets one more shot.
            image: see ``image_inputs.ImageInput``.
            mask: of the image's size. Without it SAM 2 makes one from the box or the point.
            box: x1, y1, x2, y2 in pixels.
            point: x, y in pixels.

        Returns:
            The object's mask, bool [H, W].

        Raises:
            UserError: the image or the mask cannot be read, they do not fit, or nothing is marked.
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
        x1, y1, x2, y2 = box if box is not None else _box_of(inside)
        crop, mask_crop = crop_reference(
            pixels, inside, [x1, y1, x2 - x1, y2 - y1], self.segmenter.encoder.size, CONTEXT_RATIO
        )
        vector, weight = self.segmenter.describe_reference(crop.to(self.device), mask_crop.to(self.device))
        shot = MemoryBank.empty([Category(1, label)], len(vector))
        shot.made_with = self.made_with
        shot.add(0, vector.cpu(), weight.cpu(), crop=_picture(crop, mask_crop))
        self._remember(MemoryBank.join([*self._known(), shot]))
        return inside

    def renumber(self, ids: dict[str, int]) -> None:
        """Give classes category ids by name, such as those of a ground truth; the others get free ones."""
        if self.memory is not None and ids:
            self._remember(self.memory.renumber(ids))

    def _mask_of_prompt(
        self, image: NDArray[np.uint8], box: Sequence[float] | None, point: Sequence[float] | None
    ) -> NDArray[np.bool_]:
        height, width = image.shape[:2]
        if box is not None:
            x1, y1, x2, y2 = box
            if not (max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height)):
                raise UserError(f"box {_numbers(box)} (x1,y1,x2,y2) holds no pixel of the {width}x{height} image")
            corners = np.array([box], np.float32)
            mask = self.prompts(image, corners)[0]
            return mask if mask.any() else rectangle(corners[0], height, width)
        if point is None:
            raise UserError("a reference needs the object's mask, a box around it or a point on it")
        x, y = point
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"point {_numbers(point)} (x,y) lies outside the {width}x{height} image")
        mask = mask_of_point(self.prompts, image, (x, y))
        if not mask.any():
            raise UserError(f"nothing was found at point {_numbers(point)}: give a box around the object")
        return mask

    def _remember(self, memory: MemoryBank) -> None:
        self.memory = memory
        assert memory.prototypes is not None
        self.segmenter.prototypes = memory.prototypes.to(self.device)

    @overload
    def segment(self, image: ImageInput, score: float = ...) -> Instances: ...  # type: ignore[overload-overlap]

    @overload
    def segment(self, image: Sequence[ImageInput], score: float = ...) -> list[Instances]: ...

    def segment(self, image: ImageInput | Sequence[ImageInput], score: float = 0.5) -> Instances | list[Instances]:
        """Find the memory's objects in an image, or in each of several.

        Args:
            image: see ``image_inputs.ImageInput``; or a list of such. A tensor [B, 3, H, W] counts as a list.
            score: the lowest score of what is returned, in [0, 1].

        Raises:
            UserError: the memory is empty, or an image cannot be read.
        """
        if isinstance(image, Tensor) and image.ndim == 4:
            image = list(image)
        if isinstance(image, list | tuple):
            return [self._segment(as_rgb(one), score) for one in image]
        return self._segment(as_rgb(image), score)  # type: ignore[arg-type]

    def _segment(self, image: NDArray[np.uint8], score: float) -> Instances:
        assert self.segmenter.proposer is not None
        if self.memory is None:
            raise UserError("the memory is empty: add a reference or load a memory first")
        square = target_tensor(image, self.segmenter.proposer.size).to(self.device)
        found = self.segmenter.segment(square, *image.shape[:2])
        return Instances(image, self.memory.categories, found[found.scores >= score].cpu())

    def save_memory(self, path: str | Path) -> None:
        """Write the memory: vectors and pictures of the references, no weights of the networks."""
        if self.memory is None:
            raise UserError("the memory is empty: add a reference first")
        save_memory(self.memory, path)

    def load_memory(self, path: str | Path) -> None:
        """Add the classes of a memory to those known; a class of a known name gets the shots of both.

        Raises:
            UserError: the file is no memory, or was made with another encoder.
        """
        loaded = load_memory(path)
        check_fits(loaded, path, self.made_with, [])
        loaded.made_with = self.made_with
        self._remember(MemoryBank.join([*self._known(), loaded]))

    def _known(self) -> list[MemoryBank]:
        """The memory so far, if there is one."""
        return [] if self.memory is None else [self.memory]


def _box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box of a mask's pixels, xyxy, ends excluded."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height


def _picture(crop: Tensor, mask: Tensor) -> Tensor:
    """A reference's crop [3, S, S] in [0, 1] as PNG, uint8 [bytes], transparent outside its mask [1, h, w]."""
    colours = (255 * crop.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    inside = cv2.resize(255 * mask[0].byte().numpy(), colours.shape[:2], interpolation=cv2.INTER_NEAREST)
    encoded = cv2.imencode(".png", np.dstack([colours[..., ::-1], inside]))[1]
    return torch.from_numpy(encoded.ravel())


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
