"""Crops: each object alone, cut out of its image."""

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from no_time_to_train.data.images import as_rgb
from no_time_to_train.data.label_files.labeled_objects import LabeledImage, LabeledObject, LabelFiles
from no_time_to_train.data.names import clean_name, unique_names
from no_time_to_train.files import atomic_write


class CropFiles(LabelFiles):
    """``CLASS/STEM_NUMBER.png``: the box of an object, transparent outside its mask.

    The numbers are those of ``instances.csv``; STEM has the folders of the image.
    """

    form = "crops"

    def begin(self) -> None:
        folders = unique_names([_one_part(name) for name in self.names])
        self.folders = dict(zip(self.names, folders, strict=True))
        self.stems: set[str] = set()

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        stem = _one_part(image.stem)
        while stem.casefold() in self.stems:
            stem += "_"
        self.stems.add(stem.casefold())
        if not objects:
            return
        pixels = as_rgb(image.path, (image.height, image.width))
        for number, one in enumerate(objects, start=1):
            x1, y1 = np.rint(one.box[:2]).astype(int).clip(0, (image.width - 1, image.height - 1))
            x2, y2 = np.rint(one.box[2:]).astype(int).clip((x1 + 1, y1 + 1))  # at least one pixel
            inside = np.ones(pixels.shape[:2], bool) if one.mask is None else one.mask
            cut = np.dstack([pixels, inside * np.uint8(255)])[y1:y2, x1:x2]
            with atomic_write(self.folder / self.folders[one.label] / f"{stem}_{number}.png") as file:
                Image.fromarray(cut).save(file, format="PNG")


def _one_part(name: str) -> str:
    """A name as one part of a path: without slashes and what looks like a drive, and not too long."""
    return clean_name(re.sub(r"[/\\]|(?<=^[A-Za-z]):", "_", name))
