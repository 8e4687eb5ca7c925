"""What one browser shows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.app.corrections import Item


@dataclass
class View:
    """The open photo of one browser, and what is begun in it.

    Attributes:
        points: Clicks on an object that is being shown, (x, y) in pixels of the photo.
        box: The box, x1, y1, x2, y2 in pixels.
        masks: The masks to choose from, bool [n, H, W]; None where no object is being shown.
        state: The workspace's state that the page follows; None where it has to look.
        clicked: Where the selected object was clicked on, (x, y) in pixels of the photo.
    """

    photo: str | None = None
    selected: Item | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    negative_points: list[tuple[float, float]] = field(default_factory=list)
    corner: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    masks: NDArray[np.bool_] | None = None
    chosen: int = 0
    items: list[Item] = field(default_factory=list)
    state: tuple[int, ...] | None = None
    clicked: tuple[float, float] | None = None

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the object that is being shown."""
        return None if self.masks is None else self.masks[self.chosen]

    @property
    def drafting(self) -> bool:
        """Whether an object is being shown."""
        return self.masks is not None or self.corner is not None

    def only_photo(self) -> "View":
        """The same photo, with nothing selected or begun."""
        return View(self.photo)


def same(item: Item, other: Item | None) -> bool:
    """Whether two items are the same object of the same class."""
    return other is not None and (item.label, item.mask) == (other.label, other.mask)


def describe(item: Item) -> str:
    """An item in words."""
    return f"{item.label}, confirmed" if item.confirmed else f"{item.label}, score {item.score:.2f}: is it right?"


def count(items: Sequence[Item]) -> str:
    """How many objects of each class there are, in words."""
    return count_text(Counter(item.label for item in items))


def count_text(counts: Counter[str]) -> str:
    """Counts in words, such as "3 boat, 1 gull"."""
    return ", ".join(f"{number} {label}" for label, number in counts.most_common())
