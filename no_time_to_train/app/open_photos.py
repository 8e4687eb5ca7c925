"""The photos that are open: their pixels, and what the networks need to answer a click, stay in memory."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import RLock

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.app.search import Photo
from no_time_to_train.errors import UserError
from no_time_to_train.networks.box_prompts import PromptedImage
from no_time_to_train.networks.devices import computing_in

#: Photos whose pixels, and features for clicks, stay in memory.
KEPT_PHOTOS = 4

#: Longest side in pixels at which a photo is clicked on. SAM 2 sees 1,024, and its masks have 256.
SIDE = 1536


class OpenPhotos:
    """Pixels of photos, and masks of what is clicked on."""

    def __init__(self, segmenter: ReferenceSegmenter, photos: Mapping[str, Photo]) -> None:
        self.segmenter, self.photos, self.lock = segmenter, photos, RLock()
        self.kept: OrderedDict[str, tuple[NDArray[np.uint8], PromptedImage | None]] = OrderedDict()

    def pixels(self, name: str) -> NDArray[np.uint8]:
        """The pixels of a photo, uint8 [H, W, 3] RGB."""
        return self._photo(name)[0]

    def masks(
        self,
        name: str,
        points: Sequence[tuple[float, float]] = (),
        negative_points: Sequence[tuple[float, float]] = (),
        box: Sequence[float] | None = None,
    ) -> NDArray[np.bool_]:
        """The masks of the object that a person clicks on; see ``PromptedImage.masks``.

        Returns:
            bool [n, H, W], n is 3 for a single point and 1 otherwise; none is empty.
        """
        pixels, prompted = self._photo(name)
        height, width = pixels.shape[:2]
        scale = min(SIDE / max(height, width), 1)
        if prompted is None:
            small = pixels
            if scale < 1:
                size = max(round(scale * width), 1), max(round(scale * height), 1)
                small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
            with computing_in(self.segmenter.precision, self.segmenter.device):  # also while the search computes
                prompted = PromptedImage(self.segmenter.prompts, small)
            with self.lock:
                self.kept[name] = pixels, prompted
        on, off = ([(scale * x, scale * y) for x, y in places] for places in (points, negative_points))
        corners = None if box is None else [scale * value for value in box]
        with computing_in(self.segmenter.precision, self.segmenter.device):
            masks, _ = prompted.masks(on, off, corners)
        masks = masks[masks.any(axis=(1, 2))]
        if not len(masks):
            raise UserError("nothing was found there: click on the middle of the object, or give a box")
        if scale == 1:
            return masks
        full = [cv2.resize(255 * mask.astype(np.uint8), (width, height)) > 127 for mask in masks]
        return np.stack(full)

    def _photo(self, name: str) -> tuple[NDArray[np.uint8], PromptedImage | None]:
        """The pixels of a photo, and its features where it was clicked on."""
        with self.lock:
            if name not in self.photos:
                raise UserError(f"there is no photo {name!r}")
            if name in self.kept:
                self.kept.move_to_end(name)
                return self.kept[name]
        pixels = self.photos[name].target.read()
        with self.lock:
            self.kept[name] = pixels, None
            if len(self.kept) > KEPT_PHOTOS:
                self.kept.popitem(last=False)
            return self.kept[name]
