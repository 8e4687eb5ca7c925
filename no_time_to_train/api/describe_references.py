"""References become vectors: the networks make the masks that are missing, and describe the objects."""

import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from no_time_to_train.analysis.recurring import Choice, Picture, choose_recurring, salient
from no_time_to_train.api.prompted_references import CUT_OUT_CONTEXT, PromptedReference, naming, read_reference
from no_time_to_train.data.prompts import check_label
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_image import ReferenceImage, encode_picture
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.method.fill_memory import crop_reference
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.method.upsample import upsample
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.networks.registry import Precision
from no_time_to_train.ranges import check_type

NOT_FOUND = "no object was found in the picture: give its mask, a box or a point, or mask=whole if all of it counts"


@dataclass
class UnmarkedImage:
    """An image without a mask, whose object is to be found among its proposals; its size is in pixels."""

    proposals: Picture
    height: int
    width: int

    def mask(self, choice: Choice) -> NDArray[np.bool_]:
        """The mask of a proposal at the image's own size, bool [H, W]."""
        logits = self.proposals.logits[[choice.row]]
        mask: NDArray[np.bool_] = upsample(logits, self.height, self.width)[0]
        if not mask.any():
            raise UserError(NOT_FOUND)
        return mask


class FoundMasks(NamedTuple):
    """References with the masks that were found.

    Attributes:
        references: In the order in which they were given.
        choices: How sure each mask is that was found, by the number of its reference.
    """

    references: list[Reference]
    choices: dict[int, Choice]


@dataclass
class ReferenceDescriber:
    """Describes references with the networks.

    Attributes:
        segmenter: The networks and the method. Its prototypes are not used.
        prompts: The network that makes masks from boxes and points.
        context_ratio: How much of the image around a reference its crop shows.
        memory: The references that are known; None where there are none.
    """

    segmenter: Segmenter
    prompts: Sam2Boxes | SamBoxes
    context_ratio: float
    precision: Precision
    memory: MemoryBank | None = None

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.segmenter.encoder.normalize.mean.device

    def describe(self, reference: Reference) -> MemoryBank:
        """A memory with this one reference, whose mistakes name it."""
        with naming(reference):
            label, path = check_label(reference.label), str(reference.image)
            return self.describe_prompted(label, read_reference(reference), reference.negative, path)[0]

    def describe_prompted(
        self, label: str, prompted: PromptedReference, negative: bool, path: str | None
    ) -> tuple[MemoryBank, NDArray[np.bool_]]:
        """Describe one reference.

        Args:
            path: The file of its image; None where it is none.

        Returns:
            A memory with this one reference; and its mask, bool [H, W].
        """
        mask = self.mask(label, prompted, negative, path or f"a picture of {label}")
        context = min(self.context_ratio, CUT_OUT_CONTEXT) if prompted.cut_out else self.context_ratio
        pixels, shown, box = prompted.to_crop(mask, context)
        crop, mask_crop = crop_reference(pixels, shown, box, self.segmenter.encoder.size, context)
        with computing_in(self.precision, self.device):
            vector, weight = self.segmenter.describe_reference(crop.to(self.device), mask_crop.to(self.device))
        bank = MemoryBank.empty([Category(1, label)], len(vector))
        image = None if prompted.cut_out else ReferenceImage.of(path, prompted.pixels, mask)
        picture = encode_picture(crop, mask_crop)
        bank.add(0, vector.cpu(), weight.cpu(), crop=picture, negative=negative, image=image)
        return bank, mask

    def mask(self, label: str, prompted: PromptedReference, negative: bool, name: str) -> NDArray[np.bool_]:
        """The mask of a reference, bool [H, W]: as given, made from its prompts, or found; a notice calls it ``name``.

        An object is found alone here, with the help of the references in the memory.
        """
        if prompted.mask is not None:
            return prompted.mask
        if prompted.is_unmarked:
            image = self.propose(prompted.pixels)
            with torch.inference_mode():
                (choice,) = choose_recurring([image.proposals], self._known(label, negative))
            mask = image.mask(choice)
            _notice_doubt(name, choice)
            return mask
        precision = self.precision if isinstance(self.prompts, Sam2Boxes) else "float32"  # all SAM's code allows
        with computing_in(precision, self.device):
            return prompted.mask_of_prompt(self.prompts)

    @torch.inference_mode()
    def propose(self, pixels: NDArray[np.uint8]) -> UnmarkedImage:
        """What may be the object in an image, uint8 [H, W, 3] RGB.

        All points of the grid are decoded, whatever the settings say for targets.
        """
        encoder, proposer = self.segmenter.encoder, self.segmenter.proposer
        assert proposer is not None
        settings = replace(self.segmenter.settings, prompts="grid", tiles=1)
        square = target_tensor(pixels, proposer.size).to(self.device)
        height, width = pixels.shape[:2]
        with computing_in(self.precision, self.device):
            described = Segmenter(encoder, proposer, settings=settings).describe(square, height, width)
        if not len(described):
            raise UserError(NOT_FOUND)
        assert described.logits is not None
        return UnmarkedImage(salient(described, torch.stack(described.logits.crops)), height, width)

    def find_masks(self, references: Iterable[Reference]) -> FoundMasks:
        """Give images without a mask the masks of their objects; a notice names the doubtful ones.

        The images of a class are compared with each other and with its other references, also those in the memory;
        those of negative references with negative ones. An image that cannot be read or in which nothing is proposed
        stays as it is: the error is raised where it is used, with the reference's name.
        """
        check_type("references", references, Iterable)
        references = list(references)
        for one in references:
            check_type("each of the references", one, Reference)
        found, choices = references[:], {}
        groups: dict[tuple[str, bool], list[int]] = {}
        for index, reference in enumerate(references):
            groups.setdefault((reference.label, reference.negative), []).append(index)
        count = sum(reference.is_unmarked for reference in references)
        with tqdm(total=count, desc="pictures", unit=" picture", disable=not count) as progress:
            for (label, negative), group in groups.items():
                images: dict[int, UnmarkedImage] = {}
                for index in (index for index in group if references[index].is_unmarked):
                    with suppress(UserError):
                        images[index] = self.propose(references[index].read()[0])
                    progress.update()
                if not images:
                    continue
                known = self._known(label, negative)
                for reference in (references[index] for index in group if not references[index].is_unmarked):
                    with suppress(UserError):
                        known = torch.cat([known, self.describe(reference).vectors.to(known.device)])
                with torch.inference_mode():
                    chosen = choose_recurring([image.proposals for image in images.values()], known)
                for (index, image), choice in zip(images.items(), chosen, strict=True):
                    with suppress(UserError):
                        found[index] = replace(references[index], mask=encode_mask(image.mask(choice)))
                        choices[index] = choice
        for index in sorted(choices):  # after the progress bar, so that each notice has its own line
            _notice_doubt(str(references[index].image), choices[index])
        return FoundMasks(found, choices)

    def _known(self, label: str, negative: bool) -> Tensor:
        """The vectors of a class's positive or negative references in the memory, float [k, D], on the device."""
        labels = [] if self.memory is None else [category.name for category in self.memory.categories]
        if self.memory is None or label not in labels:
            return torch.zeros(0, self.segmenter.encoder.dim, device=self.device)
        of_class = self.memory.class_index == labels.index(label)
        return self.memory.vectors[of_class & (self.memory.negative == negative)].to(self.device)


def _notice_doubt(name: str, choice: Choice) -> None:
    """Say that the choice of an image's object is doubtful, where it is."""
    if choice.doubtful:
        warnings.warn(
            f"{name}: it is doubtful which object is meant, because another region is {100 * (1 - choice.lead):.0f} % "
            "as likely as the one that was chosen; look at it (segment --show-references), and give a box, a point or "
            "a mask if it is wrong",
            UserNotice,
            stacklevel=2,
        )
