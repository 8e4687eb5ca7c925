"""The images of references, one at a time, with their proposals and the shots that were taken from them."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from no_time_to_train.analysis.annotated_proposals import annotate
from no_time_to_train.analysis.reference_scores import ShotImage, left_out_shots
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals


def shot_images(
    bank: MemoryBank, propose: Callable[[NDArray[np.uint8], MemoryBank], DescribedProposals]
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
        part = bank.keep_shots([shot for shot in range(len(bank)) if shot not in left_out])
        assert part is not None  # each class keeps a reference
        pixels = bank.images[numbers[0]].read()
        instances = [decode_mask(bank.images[number].mask) for number in numbers]
        yield ShotImage(name, annotate(propose(pixels, part), pixels.shape[:2], instances), numbers)
