"""The images of references, one at a time, with their proposals and the shots that were taken from them."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from no_time_to_train.analysis.annotated_proposals import annotate
from no_time_to_train.analysis.reference_scores import ShotImage, left_out_shots
from no_time_to_train.api.describe_references import ReferenceDescriber
from no_time_to_train.api.prompted_references import read_reference
from no_time_to_train.data.image_proposals import ImageProposals
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_image import OwnImage
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.errors import UserError
from no_time_to_train.method.memory_bank import MemoryBank


def memory_of(references: Sequence[Reference], describer: ReferenceDescriber) -> MemoryBank:
    """The memory of some references, with their images.

    Args:
        references: The references; at least one is positive.
        describer: Describes them.
    """
    shots: list[MemoryBank] = []
    for reference in references:
        try:
            shown = read_reference(reference)
            shot, mask = describer.shot(reference.label, shown, reference.negative, str(reference.image))
        except UserError as error:
            raise UserError(f"reference {reference.image} ({reference.label}): {error}") from error
        shot.images = [OwnImage.of(str(reference.image), shown.pixels, mask)]
        shots.append(shot)
    return MemoryBank.join(shots)


def shot_images(
    bank: MemoryBank, propose: Callable[[NDArray[np.uint8], MemoryBank | None], ImageProposals]
) -> Iterator[ShotImage]:
    """Propose masks in each image that the shots of a memory were taken from, with a progress bar.

    Args:
        bank: The memory, with the image of each shot.
        propose: Takes an image, and the memory that guided prompts may know: that without the image's own shots.
    """
    shots: dict[str, list[int]] = {}
    for number, image in enumerate(bank.images):
        shots.setdefault(image.name, []).append(number)
    for name, numbers in tqdm(shots.items(), desc="checking references", unit=" image"):
        left_out, _ = left_out_shots(bank, numbers)
        part = bank.keep_references([shot for shot in range(len(bank)) if shot not in left_out])
        proposals = propose(bank.images[numbers[0]].read(), part)
        instances = [decode_mask(bank.images[number].mask) for number in numbers]
        yield ShotImage(name, annotate(proposals, instances), numbers)
