"""Work on many things of which an accelerator takes several at once, and fewer where its memory is full."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from no_time_to_train.errors import UserNotice

S = TypeVar("S")
T = TypeVar("T")

#: Images that the encoders take at once at most, where nobody has chosen a number: more would hardly save launches.
MOST_IMAGES = 8

#: Free memory of an accelerator for each of them, in bytes. The largest encoders take an eighth of it for an image in
#: float32; the rest is for the mask decoder.
MEMORY_OF_IMAGE = 4 * 2**30


class AtOnce:
    """How many things are worked on at once. The number is halved whenever the device's memory is full.

    Args:
        count: The number.
        things: What they are, for the notice when a number that a user chose is halved.
        chosen_by: The setting by which it was chosen; None where nobody chose it.
        fixed: The work always gets that many, of which the last may be repeated, as compiled networks need.
    """

    def __init__(self, count: int, things: str = "", chosen_by: str | None = None, fixed: bool = False) -> None:
        self.count, self.things, self.chosen_by, self.fixed = count, things, chosen_by, fixed

    def run(
        self,
        work: Callable[[Any], T],
        things: Tensor | Sequence[Any],
        most: int | None = None,
        run: Callable[..., Iterable[T]] = map,
    ) -> list[T]:
        """What the work returned for each part of the things, in their order.

        Args:
            most: A smaller number, which counts this time.
            run: Does the work on all parts, as ``map`` does.
        """
        while True:
            count = min(self.count, most or self.count)
            parts = [things[first : first + count] for first in range(0, len(things), count)]
            try:
                if not self.fixed or len(things) % count == 0:
                    return list(run(work, parts))
                last, missing = parts[-1], count - len(parts[-1])
                done: list[Any] = list(run(work, [*parts[:-1], [*last, *[last[-1]] * missing]]))
                return [*done[:-1], done[-1][: len(last)]]
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
            torch.accelerator.empty_cache()  # outside the handler, because the exception keeps what was made alive
            self.count = count // 2
            if self.chosen_by:
                warnings.warn(
                    f"the GPU's memory is full: from now on {self.count} {self.things} at once, which changes at most "
                    f"the last digits of results ({self.chosen_by})",
                    UserNotice,
                    stacklevel=3,
                )


def images_at_once(chosen: int | None, device: torch.device) -> AtOnce:
    """How many images the encoders take at once: the chosen number; else by free memory, and one on a CPU."""
    if chosen is not None:
        return AtOnce(chosen, "images", "images_per_batch")
    if device.type == "cpu":
        return AtOnce(1)
    try:
        free, _ = torch.accelerator.get_memory_info(device)
    except RuntimeError:  # this accelerator does not say
        return AtOnce(1)
    return AtOnce(min(max(free // MEMORY_OF_IMAGE, 1), MOST_IMAGES))


def batches(items: Iterable[S], count: int) -> Iterator[list[S]]:
    """Lists of several items. What the iterable raises is raised after the items before it."""
    iterator = iter(items)
    while True:
        batch: list[S] = []
        try:
            batch.extend(islice(iterator, count))
        except Exception:
            if batch:
                yield batch
            raise
        if not batch:
            return
        yield batch
