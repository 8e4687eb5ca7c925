"""Pictures that show an object and do not mark it: finding the object's mask in them."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from no_time_to_train.analysis.recurring import Choice, Picture, choose_recurring, salient
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.method.upsample import upsample
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.networks.registry import Precision

NOT_FOUND = "no object was found in the picture: give its mask, a box or a point, or mask=whole if all of it counts"


@dataclass
class PlainPicture:
    """A picture whose object is to be found.

    Attributes:
        proposals: What may be the object.
        height: The picture's height in pixels.
        width: The picture's width in pixels.
    """

    proposals: Picture
    height: int
    width: int

    def mask(self, choice: Choice) -> NDArray[np.bool_]:
        """The mask of a proposal at the picture's own size, bool [H, W]."""
        logits = self.proposals.logits[[choice.row]]
        mask: NDArray[np.bool_] = upsample(logits, self.height, self.width)[0]
        if not mask.any():
            raise UserError(NOT_FOUND)
        return mask


@torch.inference_mode()
def describe_picture(segmenter: Segmenter, pixels: NDArray[np.uint8], precision: Precision) -> PlainPicture:
    """Run the networks on a picture. All points of the grid are decoded, whatever the settings say for targets.

    Args:
        segmenter: The networks and the method.
        pixels: uint8 [H, W, 3] RGB.
        precision: What the networks compute in.
    """
    assert segmenter.proposer is not None
    plain = replace(segmenter.settings, prompts="grid", tiles=1)
    device = segmenter.encoder.normalize.mean.device
    square = target_tensor(pixels, segmenter.proposer.size).to(device)
    height, width = pixels.shape[:2]
    with computing_in(precision, device):
        described = Segmenter(segmenter.encoder, segmenter.proposer, settings=plain).describe(square, height, width)
    if not len(described):
        raise UserError(NOT_FOUND)
    assert described.logits is not None
    return PlainPicture(salient(described, torch.stack(described.logits.crops)), height, width)


@torch.inference_mode()
def find_objects(pictures: Sequence[PlainPicture], known: Tensor) -> list[Choice]:
    """Choose the object in each picture of one class; see ``recurring.choose_recurring``.

    Args:
        pictures: The pictures.
        known: float [k, D], the vectors of known shots of the class.
    """
    return choose_recurring([picture.proposals for picture in pictures], known)


def find_masks(
    references: Sequence[Reference],
    describe: Callable[[Reference], PlainPicture],
    vector: Callable[[Reference], Tensor],
    known_shots: Callable[[str, bool], Tensor],
) -> list[Reference]:
    """Give the plain pictures among some references the masks of their objects; a notice names the doubtful ones.

    The pictures of a class are compared with each other and with its known shots, those of a negative with its other
    negatives.

    Args:
        references: The references.
        describe: Reads a plain picture and runs the networks on it.
        vector: Reads another reference and returns its vector, float [1, D].
        known_shots: Returns the vectors of a class that the memory has, positive or negative, float [k, D].

    Returns:
        The references in the same order. Those that are not plain are the same, and so is a picture that cannot be read
        or in which nothing is proposed: the error is raised where it is used, with the reference's name.
    """
    found = list(references)
    groups: dict[tuple[str, bool], list[int]] = {}
    for index, reference in enumerate(references):
        groups.setdefault((reference.label, reference.negative), []).append(index)
    count = sum(reference.is_plain for reference in references)
    with tqdm(total=count, desc="pictures", unit=" picture", disable=not count) as progress:
        for (label, negative), group in groups.items():
            described: dict[int, PlainPicture] = {}
            for index in (index for index in group if references[index].is_plain):
                with suppress(UserError):
                    described[index] = describe(references[index])
                progress.update()
            if not described:
                continue
            shots = known_shots(label, negative)
            for reference in (references[index] for index in group if not references[index].is_plain):
                with suppress(UserError):
                    shots = torch.cat([shots, vector(reference).to(shots.device)])
            chosen = find_objects(list(described.values()), shots)
            for (index, picture), choice in zip(described.items(), chosen, strict=True):
                with suppress(UserError):
                    found[index] = replace(references[index], mask=encode_mask(picture.mask(choice)), found=choice)
    for reference in found:  # after the progress bar, so that each notice has its own line
        if reference.found is not None:
            notice_doubt(str(reference.image), reference.found)
    return found


def notice_doubt(name: str, choice: Choice) -> None:
    """Say that the choice of a picture's object is doubtful, where it is.

    Args:
        name: The picture.
        choice: The choice.
    """
    if choice.doubtful:
        warnings.warn(
            f"{name}: it is doubtful which object is meant, because another region is {100 * (1 - choice.lead):.0f} % "
            "as likely as the one that was chosen; look at it (segment --show-references), and give a box, a point or "
            "a mask if it is wrong",
            UserNotice,
            stacklevel=2,
        )
