"""What a user shows as a reference: an image, and what marks the object in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import ImageInput, MaskInput, as_mask, as_rgb
from no_time_to_train.data.prompts import check_box, check_image, check_point, join_numbers
from no_time_to_train.data.reference_forms.reference import WHOLE
from no_time_to_train.errors import UserError
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes, mask_of_point, mask_or_box


@dataclass(frozen=True)
class ShownObject:
    """A reference whose parts were read and fit together.

    Attributes:
        pixels: uint8 [H, W, 3] RGB, the image.
        mask: bool [H, W], the object; None where it has to be made.
        box: x1, y1, x2, y2 in pixels, ends excluded; None where none was given.
        point: x, y in pixels; None where none was given.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    box: tuple[float, float, float, float] | None
    point: Sequence[float] | None

    @property
    def is_plain(self) -> bool:
        """Whether nothing marks the object."""
        return self.mask is None and self.box is None and self.point is None

    def crop_box(self, mask: NDArray[np.bool_]) -> list[float]:
        """What the reference is cropped around: its box, or else that of its mask; COCO's x, y, w, h in pixels."""
        if self.box is None:
            return list(cv2.boundingRect(mask.astype(np.uint8)))
        x1, y1, x2, y2 = self.box
        return [x1, y1, x2 - x1, y2 - y1]

    def mask_of_prompt(self, prompts: Sam2Boxes | SamBoxes) -> NDArray[np.bool_]:
        """Make the mask of the object in the box or at the point.

        Args:
            prompts: The network that makes it.

        Returns:
            bool [H, W], not empty.

        Raises:
            UserError: The point lies outside the image, or nothing was found there.
        """
        if self.box is not None:
            corners = np.array([self.box], np.float32)
            return mask_or_box(prompts(self.pixels, corners)[0], corners[0])
        assert self.point is not None
        x, y = check_point(self.point, *self.pixels.shape[:2])
        mask = mask_of_point(prompts, self.pixels, (x, y))
        if not mask.any():
            raise UserError(f"nothing was found at point {join_numbers((x, y))}: give a box around the object")
        return mask


def read_shown_object(
    image: ImageInput,
    mask: MaskInput | None = None,
    box: Sequence[float] | None = None,
    point: Sequence[float] | None = None,
) -> ShownObject:
    """Read a reference and check that its parts fit together; see ``ReferenceSegmenter.add_reference``.

    Raises:
        UserError: The image or the mask cannot be read, they do not fit together, the box is not one or lies outside
            the image, or there are too many prompts.
    """
    if point is not None and not (mask is None and box is None):
        raise UserError("a point is used without a mask or a box: leave one of them out")
    whole = isinstance(mask, str) and mask == WHOLE
    inside = None if mask is None or whole else as_mask(check_image(mask))
    pixels = as_rgb(check_image(image), None if inside is None else inside.shape)
    height, width = pixels.shape[:2]
    corners = None if box is None else check_box(box, height, width)
    if whole:
        inside = np.ones((height, width), bool)
    elif inside is not None and inside.shape != (height, width):
        raise UserError(
            f"the mask is {inside.shape[1]}x{inside.shape[0]} pixels, its image {width}x{height}: "
            "is it the mask of another image?"
        )
    return ShownObject(pixels, inside, corners, point)
