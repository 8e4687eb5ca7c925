"""References become shots: the networks make the masks that are missing, and describe the objects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from no_time_to_train.api.find_masks import PlainPicture, describe_picture, find_masks, find_objects, notice_doubt
from no_time_to_train.api.prompted_references import ShownObject, read_reference
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_image import OwnImage
from no_time_to_train.data.reference_pictures import encode_crop
from no_time_to_train.errors import UserError
from no_time_to_train.method.fill_memory import crop_reference
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.networks.registry import Precision


@dataclass
class ReferenceDescriber:
    """Describes references with the networks.

    Attributes:
        segmenter: The networks and the method. Its memory is not used.
        prompts: The network that makes masks from boxes and points.
        context_ratio: How much of the image around a reference its crop shows.
        precision: What the networks compute in.
        memory: The shots that are known; None where there are none.
    """

    segmenter: Segmenter
    prompts: Sam2Boxes | SamBoxes
    context_ratio: float
    precision: Precision
    memory: MemoryBank | None

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.segmenter.encoder.normalize.mean.device

    def shot(self, label: str, shown: ShownObject, negative: bool, name: str) -> tuple[MemoryBank, NDArray[np.bool_]]:
        """Describe an object.

        Args:
            label: The name of its class.
            shown: The object. Where nothing marks it, it is found.
            negative: Whether it shows what the class is not.
            name: What a notice calls the picture.

        Returns:
            A memory with this one shot; and the object's mask, bool [H, W].
        """
        mask = self.mask(label, shown, negative, name)
        size = self.segmenter.encoder.size
        crop, mask_crop = crop_reference(shown.pixels, mask, shown.crop_box(mask), size, self.context_ratio)
        with computing_in(self.precision, self.device):
            vector, weight = self.segmenter.describe_reference(crop.to(self.device), mask_crop.to(self.device))
        shot = MemoryBank.empty([Category(1, label)], len(vector))
        shot.add(0, vector.cpu(), weight.cpu(), crop=encode_crop(crop, mask_crop), negative=negative)
        return shot, mask

    def mask(self, label: str, shown: ShownObject, negative: bool, name: str) -> NDArray[np.bool_]:
        """The mask of an object, bool [H, W]; see :meth:`shot`."""
        if shown.is_plain:
            picture = self.picture(shown.pixels)
            (choice,) = find_objects([picture], self.known_shots(label, negative))
            mask = picture.mask(choice)
            notice_doubt(name, choice)
            return mask
        if shown.mask is None:
            precision = self.precision if isinstance(self.prompts, Sam2Boxes) else "float32"  # all SAM's code allows
            with computing_in(precision, self.device):
                return shown.mask_of_prompt(self.prompts)
        return shown.mask

    def picture(self, pixels: NDArray[np.uint8]) -> PlainPicture:
        """What may be the object in a picture; see :func:`~no_time_to_train.api.find_masks.describe_picture`."""
        return describe_picture(self.segmenter, pixels, self.precision)

    def find_masks(self, references: Sequence[Reference]) -> list[Reference]:
        """Give plain pictures their masks; see ``ReferenceSegmenter.find_masks``."""

        def describe(reference: Reference) -> PlainPicture:
            return self.picture(reference.read()[0])

        def vector(reference: Reference) -> Tensor:
            shown = read_reference(reference)
            return self.shot(reference.label, shown, reference.negative, str(reference.image))[0].vectors

        return find_masks(references, describe, vector, self.known_shots)

    def known_shots(self, label: str, negative: bool) -> Tensor:
        """The vectors of a class's positive or negative shots in the memory, float [k, D], on the device."""
        labels = [] if self.memory is None else [category.name for category in self.memory.categories]
        if self.memory is None or label not in labels:
            return torch.zeros(0, self.segmenter.encoder.dim, device=self.device)
        of_class = self.memory.class_index == labels.index(label)
        return self.memory.vectors[of_class & (self.memory.negative == negative)].to(self.device)


def memory_of(references: Sequence[Reference], describer: ReferenceDescriber) -> MemoryBank:
    """The memory of some references, at least one positive, with their images."""
    banks: list[MemoryBank] = []
    for reference in references:
        try:
            shown = read_reference(reference)
            bank, mask = describer.shot(reference.label, shown, reference.negative, str(reference.image))
        except UserError as error:
            raise UserError(f"reference {reference.image} ({reference.label}): {error}") from error
        bank.images = [OwnImage.of(str(reference.image), shown.pixels, mask)]
        banks.append(bank)
    return MemoryBank.join(banks)
