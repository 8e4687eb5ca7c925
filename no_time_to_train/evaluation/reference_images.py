"""The images of references, one at a time, with their proposals and the shots that were taken from them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from no_time_to_train.data.annotated_proposals import annotate
from no_time_to_train.data.describe_references import ReferenceDescriber
from no_time_to_train.data.image_proposals import ImageProposals
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import Rle, decode_mask, encode_mask
from no_time_to_train.data.shown_objects import read_shown_object
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation.shot_scores import ShotImage, left_out_shots
from no_time_to_train.method.memory_bank import MemoryBank


def memory_of(references: Sequence[Reference], describer: ReferenceDescriber) -> tuple[MemoryBank, list[Rle]]:
    """The memory of some references, and the mask of each shot, in the memory's order.

    Args:
        references: The references; at least one is positive.
        describer: Describes them.

    Raises:
        UserError: A reference cannot be read or used; the message names it.
    """
    labels = list(dict.fromkeys(reference.label for reference in references))
    shots: list[MemoryBank] = []
    masks: list[Rle] = []
    for reference in sorted(references, key=lambda one: labels.index(one.label)):
        try:
            shown = read_shown_object(*reference.read(), reference.box, reference.point)
            shot, mask = describer.shot(reference.label, shown, reference.negative, str(reference.image))
        except UserError as error:
            raise UserError(f"reference {reference.image} ({reference.label}): {error}") from error
        shots.append(shot)
        masks.append(encode_mask(mask))
    return MemoryBank.join(shots), masks


def shot_images(
    references: Sequence[Reference],
    bank: MemoryBank,
    masks: Sequence[Rle],
    propose: Callable[[Path, MemoryBank | None], ImageProposals],
) -> Iterator[ShotImage]:
    """Propose masks in each image of some references, with a progress bar.

    Args:
        references: The references.
        bank: From :func:`memory_of`.
        masks: From :func:`memory_of`.
        propose: Takes an image, and the memory that guided prompts may know: that without the image's own shots.
    """
    labels = [category.name for category in bank.categories]
    ordered = sorted(references, key=lambda one: labels.index(one.label))
    shots: dict[Path, list[int]] = {}
    for number, reference in enumerate(ordered):
        shots.setdefault(reference.image, []).append(number)
    for image, numbers in tqdm(shots.items(), desc="checking references", unit=" image"):
        left_out, _ = left_out_shots(bank, numbers)
        part = bank.keep_shots([shot for shot in range(len(bank)) if shot not in left_out])
        proposals = propose(image, part)
        instances: list[NDArray[np.bool_]] = [decode_mask(masks[number]) for number in numbers]
        yield ShotImage(str(image), annotate(proposals, instances), numbers)
