"""Class folders: one folder per class, with images and their ``NAME_mask.png``, with transparent cut-outs, or plain.

In a folder with a mask or a cut-out, each image needs one: a missing mask is more likely forgotten than meant. A folder
without any holds plain pictures, whose objects are found (``ReferenceSegmenter.find_masks``).
"""

from pathlib import Path

import numpy as np

from no_time_to_train.data.images import is_image, open_image
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.errors import UserError

NAME = "one folder per class"

#: What follows an image's name in the name of its mask.
MASK = "_mask"


def is_form_of(root: Path) -> bool:
    """Whether a folder in ``root`` holds an image."""
    return any(is_image(path) for path in root.glob("*/*"))


def read(root: Path) -> list[Reference]:
    """The references in the folders of ``root``; a folder's name is that of its class."""
    references = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        images = sorted(path for path in folder.iterdir() if is_image(path))
        masks = {path.stem.removesuffix(MASK): path for path in images if path.stem.endswith(MASK)}
        objects = [path for path in images if not path.stem.endswith(MASK)]
        for stem in masks.keys() - {path.stem for path in objects}:
            raise UserError(f"{masks[stem]} is the mask of no image: there is no {stem}.jpg or {stem}.png next to it")
        marked = [path for path in objects if path.stem in masks or is_cut_out(path)]
        for path in objects:
            if marked and path not in marked:
                raise UserError(
                    f"{path} has no mask, but {marked[0].name} next to it is marked: put {path.stem}{MASK}.png next to "
                    "it (white on the object), cut the object out with transparency, or give a box: --reference "
                    f"{folder.name}:{path}:box=X1,Y1,X2,Y2; or give it alone: --reference {folder.name}:{path}"
                )
            references.append(Reference(folder.name, path, mask=masks.get(path.stem, path) if marked else None))
    return references


def is_cut_out(path: Path) -> bool:
    """Whether an image has transparent pixels."""
    image = open_image(path)
    return image.has_transparency_data and bool((np.asarray(image.convert("RGBA"))[..., 3] < 128).any())
