"""What a person who knows what was drawn sees on the app's page: which results are wrong, and where to click."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from no_time_to_train.data.rle import Rle, decode_mask, mask_area
from timing.app_user import inside

#: Masks with at least this IoU show the same object.
SAME = 0.5

#: A mask has a good outline from this IoU on.
GOOD = 0.75

#: A person clicks where this many pixels around show the same.
ROOM = 2

#: What is wrong.
Kind = Literal["missed", "other class", "wrong"]


class Drawn(NamedTuple):
    """An object that was drawn: its photo, its class and its mask."""

    photo: str
    label: str
    mask: Rle


class Shown(NamedTuple):
    """An object that the app shows: its class, its score, its mask, and whether a person confirmed it."""

    label: str
    score: float
    mask: Rle
    confirmed: bool


class Mistake(NamedTuple):
    """A mistake on the page.

    Attributes:
        kind: ``missed``: an object without a mask. ``other class``: a good mask of an object, named as another class.
            ``wrong``: another mask of something that is no object of the class.
        photo: The photo.
        place: (x, y) in pixels, where a person clicks.
        size: How much it catches the eye: the pixels of the missed object, or the score of the mask.
        drawn: The object that was missed or named wrongly.
        label: The class that the page says.
    """

    kind: Kind
    photo: str
    place: tuple[int, int]
    size: float
    drawn: Drawn | None = None
    label: str = ""


def drawn_objects(coco: COCO) -> list[Drawn]:
    """The objects of an annotation file, in its order."""
    return [
        Drawn(
            Path(coco.imgs[one["image_id"]]["file_name"]).name,
            coco.cats[one["category_id"]]["name"],
            one["segmentation"],
        )
        for one in coco.anns.values()
    ]


def shown_objects(answer: Iterable[Mapping[str, Any]]) -> list[Shown]:
    """The objects of a photo, as the endpoint ``objects`` gives them."""
    return [Shown(one["label"], one["score"], one["segmentation"], one["confirmed"]) for one in answer]


def place_of(mask: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Where a person clicks on a mask, bool [H, W]; None where there is too little room."""
    x, y = map(int, inside(mask))
    around = mask[max(y - ROOM, 0) : y + ROOM + 1, max(x - ROOM, 0) : x + ROOM + 1]
    return (x, y) if around.all() and mask.any() else None


def mistakes(photo: str, shown: Sequence[Shown], drawn: Sequence[Drawn]) -> list[Mistake]:
    """What is wrong in a photo, as far as a person can click on it.

    In descending score, each mask takes the object of its class that it shows (IoU of at least 0.5) and that no other
    mask took. A second mask of the same object, and a mask most of which lies on an object of its class, has a bad
    outline and the right class: no button corrects that, and it counts as no mistake here.

    Args:
        photo: The photo.
        shown: The objects that the page shows.
        drawn: The objects that were drawn.
    """
    iou = np.zeros((len(shown), len(drawn)))
    within = np.zeros((len(shown), len(drawn)))
    if shown and drawn:
        masks, truths = [one.mask for one in shown], [one.mask for one in drawn]
        iou = coco_mask.iou(masks, truths, [0] * len(drawn))
        within = coco_mask.iou(masks, truths, [1] * len(drawn))  # the share of the mask that lies on the object
    regions = [decode_mask(one.mask) for one in shown]
    by_area = sorted(range(len(shown)), key=lambda row: mask_area(shown[row].mask))
    covered = np.any(regions, axis=0) if regions else None
    found: set[int] = set()
    result = []
    for row in sorted(range(len(shown)), key=lambda row: -shown[row].score):
        item = shown[row]
        same_class = [column for column, one in enumerate(drawn) if one.label == item.label]
        hits = [column for column in same_class if iou[row, column] >= SAME]
        free = [column for column in hits if column not in found]
        if free:
            found.add(max(free, key=lambda column: float(iou[row, column])))
        if hits or item.confirmed or any(within[row, column] >= SAME for column in same_class):
            continue
        smaller = [regions[other] for other in by_area[: by_area.index(row)]]  # a click takes the smallest mask
        place = place_of(regions[row] & ~np.any(smaller, axis=0) if smaller else regions[row])
        if place is None:
            continue
        on = max(range(len(drawn)), key=lambda column: float(iou[row, column]), default=None)
        if on is not None and iou[row, on] >= GOOD:
            result.append(Mistake("other class", photo, place, item.score, drawn[on], item.label))
        else:
            result.append(Mistake("wrong", photo, place, item.score, None, item.label))
    for column, one in enumerate(drawn):
        region = decode_mask(one.mask)
        place = place_of(region if covered is None else region & ~covered)
        if column not in found and place is not None:
            result.append(Mistake("missed", photo, place, mask_area(one.mask), one, one.label))
    return result


def worst(found: Collection[Mistake], number: int) -> Mistake | None:
    """The mistake that a person corrects next.

    Twice it is the largest object that was missed, and then the mask of the highest score that is wrong or of another
    class, and so on; of drawn scenes, the app misses two to three times as many objects as it shows wrong masks. Where
    there is none of the one, it is the other.

    Args:
        found: The mistakes of all photos.
        number: How many were corrected before.
    """
    masks, objects = [one for one in found if one.kind != "missed"], [one for one in found if one.kind == "missed"]
    several = (masks or objects) if number % 3 == 2 else (objects or masks)
    return max(several, key=lambda one: one.size, default=None)
