"""References as users give them: an image, and what marks the object in it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import ImageInput, MaskInput, as_rgb
from no_time_to_train.data.mask_inputs import as_mask
from no_time_to_train.data.prompts import check_box, check_mask_size, check_point, check_together, join_numbers
from no_time_to_train.data.reference_forms.reference import WHOLE, Point, Reference
from no_time_to_train.errors import UserError
from no_time_to_train.method.encoder import IMAGE_MEAN
from no_time_to_train.networks.box_prompts import PromptedImage, Sam2Boxes, SamBoxes, mask_or_box

#: The most context of a cut-out. Its size in a photo is unknown, and targets show objects a third as wide as the image
#: on average: an encoder whose references have more context would see it smaller than these.
CUT_OUT_CONTEXT = 2.0

#: The longest side of a cut-out with its surroundings, in pixels.
LARGEST_CANVAS = 4096


@dataclass(frozen=True)
class PromptedReference:
    """A reference whose parts were read and fit together.

    Attributes:
        pixels: uint8 [H, W, 3] RGB, the image.
        mask: bool [H, W], the object; None where it has to be made.
        box: x1, y1, x2, y2 in pixels, ends excluded; None where none was given.
        points: x, y in pixels of each point on the object.
        negative_points: x, y in pixels of each point outside the object.
        cut_out: Whether the mask is the image's own transparency, so that nothing is known around the object.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    box: tuple[float, float, float, float] | None
    points: tuple[Point, ...] = ()
    negative_points: tuple[Point, ...] = ()
    cut_out: bool = False

    @property
    def is_unmarked(self) -> bool:
        """Whether nothing marks the object."""
        return self.mask is None and self.box is None and not self.points

    def to_crop(
        self, mask: NDArray[np.bool_], context_ratio: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[float]]:
        """The image and the mask to crop the reference from, and what to crop around: COCO's x, y, w, h in pixels.

        That is its box, or else that of its mask. A cut-out gets surroundings before.
        """
        pixels = self.pixels
        if self.cut_out and mask.any():
            pixels, mask = surround(pixels, mask, context_ratio)
        elif self.box is not None:
            x1, y1, x2, y2 = self.box
            return pixels, mask, [x1, y1, x2 - x1, y2 - y1]
        return pixels, mask, list(cv2.boundingRect(mask.astype(np.uint8)))

    def mask_of_prompt(self, prompts: Sam2Boxes | SamBoxes) -> NDArray[np.bool_]:
        """The mask that a network makes of the box and the points, bool [H, W], not empty."""
        if self.box is not None and not self.points and not self.negative_points:
            corners = np.array([self.box], np.float32)
            return mask_or_box(prompts(self.pixels, corners)[0], corners[0])
        masks, _ = PromptedImage(prompts, self.pixels).masks(self.points, self.negative_points, self.box)
        if not len(masks):
            if self.box is not None:
                raise UserError(f"nothing was found in box {join_numbers(self.box)}: leave the points out")
            places = " and ".join(map(join_numbers, self.points))
            raise UserError(f"nothing was found at point {places}: give a box around the object")
        return np.asarray(masks[0])


def read_prompted(
    image: ImageInput,
    mask: MaskInput | None = None,
    box: Sequence[float] | None = None,
    points: Sequence[Sequence[float]] = (),
    negative_points: Sequence[Sequence[float]] = (),
) -> PromptedReference:
    """Read what ``ReferenceSegmenter.add_reference`` was given, and check that its parts fit together."""
    check_together(mask, box, points, negative_points)
    whole = isinstance(mask, str) and mask == WHOLE
    inside = None if mask is None or whole else as_mask(mask)
    pixels = as_rgb(image, None if inside is None else inside.shape)
    height, width = pixels.shape[:2]
    corners = None if box is None else check_box(box, height, width)
    if whole:
        inside = np.ones((height, width), bool)
    elif inside is not None:
        check_mask_size(inside, pixels)
    on_it, off_it = (tuple(check_point(one, height, width) for one in some) for some in (points, negative_points))
    same = mask is image or (
        isinstance(mask, str | Path) and isinstance(image, str | Path) and Path(mask) == Path(image)
    )
    cut_out = inside is not None and not whole and same
    return PromptedReference(pixels, inside, corners, on_it, off_it, cut_out)


def surround(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], context_ratio: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Give a cut-out surroundings of ImageNet's mean color, as wide as its crop needs them.

    Without them the crop ends where the cut-out does, so that the object is shown much larger than in any target.

    Args:
        pixels: uint8 [H, W, 3] RGB; what is outside the mask does not count.
        mask: bool [H, W], the object, not empty.
        context_ratio: That of the crop.

    Returns:
        The image and the mask at a larger size; the object is smaller only above ``LARGEST_CANVAS``.
    """
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    pixels, mask = pixels[y : y + h, x : x + w], mask[y : y + h, x : x + w]
    side = max(w, h) * (1 + context_ratio)
    if side > LARGEST_CANVAS:
        size = [max(round(one * LARGEST_CANVAS / side), 1) for one in (w, h)]
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    margin = math.ceil(max(mask.shape) * context_ratio / 2) + max(mask.shape) // 2
    wider = np.pad(mask, margin)
    canvas = np.full((*wider.shape, 3), np.round(255 * np.array(IMAGE_MEAN)), np.uint8)
    canvas[wider] = pixels[mask]
    return canvas, wider


def read_reference(reference: Reference) -> PromptedReference:
    """Read a reference of any form."""
    image, mask = reference.read()
    prompted = read_prompted(image, mask, reference.box, reference.points, reference.negative_points)
    return replace(prompted, cut_out=reference.is_cut_out)


@contextmanager
def naming(reference: Reference) -> Iterator[None]:
    """Let mistakes in a reference name its image and its class."""
    try:
        yield
    except UserError as error:
        raise UserError(f"reference {reference.image} ({reference.label}): {error}") from error
