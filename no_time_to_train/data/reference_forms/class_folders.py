"""Class folders: one folder per class, with images and their ``NAME_mask.png``, with transparent cut-outs, or alone.

In a folder with a mask or a cut-out, each image needs one: a missing mask is more likely forgotten than meant. A folder
without any holds images whose objects are found (``ReferenceSegmenter.find_masks``). Masks may lie in a folder
``masks`` in that of the class, and may be several per image, ``NAME_object0.png``, or number the objects in one file.
"""

import re
import warnings
from pathlib import Path

import numpy as np

from no_time_to_train.data.images import open_image
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.image_files import COMMON_FOLDERS
from no_time_to_train.data.reference_forms.mask_images import MASK_ENDING, MASK_FOLDERS, objects, owner_of, pair
from no_time_to_train.data.reference_forms.reference import FoundReferences, Reference
from no_time_to_train.errors import UserError, UserNotice, first_of

NAME = "one folder per class"

#: What follows an image's name in the name of its mask.
MASK = "_mask"

#: The most colors of an image that can be a mask without being called one.
MASK_COLORS = 64


def find(folder: Folder) -> FoundReferences | None:
    """The references in the folders of a root; a folder's name is that of its class."""
    inside: dict[Path, list[Path]] = {}
    for path in folder.images:
        place, *between = path.relative_to(folder.root).parts[:-1] or ("",)
        if place and {name.lower() for name in between} <= COMMON_FOLDERS | MASK_FOLDERS:
            inside.setdefault(folder.root / place, []).append(path)
    references = [one for place, images in inside.items() for one in _read_class(place, images, folder)]
    return FoundReferences(NAME, references, {}, folder.skipped, folder.unused()) if references else None


def _read_class(place: Path, images: list[Path], folder: Folder) -> list[Reference]:
    stems = {path.stem for path in images}
    masks = [path for path in images if _is_mask(path, stems, place)]
    photos = sorted({*images}.difference(masks))
    pairs = pair(photos, masks, rf"|[ _.-].*|{MASK_ENDING}" if masks and masks[0].parent != place else MASK_ENDING)
    marked = {path for path in photos if pairs[path] or is_cut_out(path)}
    # The end of a name may be meant as a class, or be that of a copy: ``_mask_cup``, ``_mask (1)``.
    if named := [one.name for one in masks if re.search(r"(?i)masks?([ _.-]+(?!.*mask)\D{2,}|.*\))$", one.stem)]:
        warnings.warn(f"masks in {place} count as {place.name}: {first_of(named)}", UserNotice, stacklevel=2)
    references = []
    for path in photos:
        if marked and path not in marked:
            raise UserError(
                f"{path} has no mask, but {min(marked).name} next to it is marked: put {path.stem}{MASK}.png next to "
                "it (white on the object), cut the object out with transparency, or give a box: --reference "
                f"{place.name}:{path}:box=X1,Y1,X2,Y2; or give it alone: --reference {place.name}:{path}"
            )
        found = [one for mask in pairs[path] for one in objects(path, mask, place.name)]
        references += found or [Reference(place.name, path, mask=path if marked else None)]
        folder.use(path, *pairs[path])
    return references


def _is_mask(path: Path, stems: set[str], place: Path) -> bool:
    """Whether an image is the mask of another: by its folder, by ``_mask``, or by another ending and its few colors."""
    folders = {part.lower() for part in path.relative_to(place).parent.parts}
    if folders & MASK_FOLDERS or path.stem.lower().endswith(MASK):
        return True
    if owner_of(path.stem, stems) is None:
        return False
    image = open_image(path)
    return image.mode in ("1", "P") or image.convert("RGBA").getcolors(MASK_COLORS) is not None


def is_cut_out(path: Path) -> bool:
    """Whether an image has transparent pixels."""
    image = open_image(path)
    if not image.has_transparency_data:
        return False
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if alpha.max() < 128:
        raise UserError(f"{path} is a cut-out without an opaque pixel: cut the object out again, or remove it")
    return bool(alpha.min() < 128)
