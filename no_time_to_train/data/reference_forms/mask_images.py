"""Masks as image files: what is in one, whose image it is, and which classes its values or colors stand for."""

import re
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import open_image
from no_time_to_train.data.mask_inputs import as_mask
from no_time_to_train.data.names import clean_class_names
from no_time_to_train.data.reference_forms.folder import Folder, agreed, read_rows
from no_time_to_train.data.reference_forms.image_files import COMMON_FOLDERS, is_named_like
from no_time_to_train.data.reference_forms.reference import FoundReferences, Reference
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.data.voc import VOC_CLASSES, voc_colors
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.files import read_text

NAME = "mask images"

#: The folders of Pascal VOC, and of CVAT's "Segmentation mask 1.1", with a color per class and per object.
CLASSES, OBJECTS = "SegmentationClass", "SegmentationObject"

#: Names of folders that hold masks, in small letters.
MASK_FOLDERS = {
    *("masks", "mask", "segmentationclass", "labels", "annotations", "ann_dir", "gt", "ground_truth", "segmentation")
}

#: What follows an image's name in the name of its mask, or in that of one of its masks.
MASK_ENDING = r"[ _.-]?(cp[ _.-]?)?(mask|obj(ect)?|inst(ance)?|seg(mentation)?|label|gt|matte)s?(\d*|[ _.-].*)"

#: A color per value, or a value, or None for the only object of a mask.
Key = tuple[int, int, int] | int | None

#: Files that name the classes of values or colors.
NAME_FILES = (
    *("labelmap.txt", "_classes.csv", "class_dict.csv", "classes.txt", "labels.txt", "class_names.txt", "codes.txt"),
)

#: Names of classes that are none.
NO_CLASS = {"background", "_background_", "__background__", "__ignore__", "void", "unlabeled", "unlabelled", "ignore"}

#: The color of borders that belong to no object in Pascal VOC.
VOC_BORDER = (224, 224, 192)

#: The most values or colors of a mask that are objects, and the highest value that a class or an object surely has.
MOST_KEYS, LOW = 256, 32

#: A pixel and its neighbors.
KERNEL = np.ones((3, 3), np.uint8)

#: How much the colors of a bright gray may differ in a lossy file, such as WebP.
LOSS = 16

#: The most numbers of 16 bits in a mask that are objects.
MOST_NUMBERS = 1024


def each_color(path: Path) -> Iterator[tuple[Key, NDArray[np.bool_]]]:
    """The masks, bool [H, W], of all colors of an image but black and VOC's border, in VOC's order, one at a time.

    Numbers of 16 bits count as the colors that VOC has for them.
    """
    image = open_image(path)
    if image.mode.startswith("I"):
        numbers = np.asarray(image)
        used = [int(number) for number in np.unique(numbers) if number > 0]
        if len(used) > MOST_NUMBERS or max(used, default=0) >= 2**16:
            raise UserError(f"mask {path} has {len(used)} numbers up to {max(used)}: number objects from 1 on")
        colors = voc_colors(max(used, default=0) + 1)
        yield from ((colors[number], numbers == number) for number in used)
        return
    codes = np.asarray(image.convert("RGB")).astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    found = [code for code in np.unique(codes) if code]
    if len(found) > MOST_KEYS:
        raise UserError(f"mask {path} has {len(found)} colors: save it as PNG without smooth edges, a color per object")
    code_of = {(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255): code for code in found}
    numbers_of = {color: number for number, color in enumerate(voc_colors())}
    ordered = sorted(code_of, key=lambda color: numbers_of.get(color, len(numbers_of)))
    yield from ((color, codes == code_of[color]) for color in ordered if color != VOC_BORDER)


def read_colors(path: Path) -> dict[Key, NDArray[np.bool_]]:
    """All that :func:`each_color` gives."""
    return dict(each_color(path))


def read_masks(path: Path) -> dict[Key, NDArray[np.bool_]] | None:
    """The masks, bool [H, W], of an image with low values or several colors; None where it is one mask in two tones.

    Of values, 0 is the background, and 255, or 65535 where others are above 255, is ignored unless it is the only one.
    """
    image = open_image(path)
    if image.has_transparency_data and len(np.unique(np.asarray(image.convert("RGBA"))[..., 3] > 127)) > 1:
        return None
    values = np.asarray(image.convert({"RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode)))
    if image.mode == "P":
        palette = np.asarray(image.getpalette() or [0] * 3).reshape(-1, 3)[: int(values.max()) + 1]
        if (palette == palette[:, :1]).all() and (len(palette) > LOW or len(palette) == 2):
            values = palette[values][..., 0]  # shades of gray with an index, not classes
    if values.ndim == 3:
        tint = np.ptp(values[..., :3].astype(int), axis=2).max()
        if tint and not (tint <= LOSS and values.max() > 127):
            colors = image.convert("RGB").getcolors(LOW)  # None where edges are smooth, or the file is a JPEG
            masks = read_colors(path) if colors else {}
            return masks if len(masks) > 1 else None
        values = values[..., 0]
    if values.dtype.kind not in "uib":  # real numbers are no classes, and may be NaN
        return None
    found = [int(value) for value in np.unique(values) if value]
    ignored, most = (255, MOST_KEYS) if not set(found).difference(range(256), [65535]) else (65535, MOST_NUMBERS)
    low = [value for value in found if value not in (ignored, 65535)]
    if low and max(low) > LOW:  # soft edges have all values as well, but each pixel of them has neighbors of others
        inside = values.astype(np.uint16)
        same = cv2.dilate(inside, KERNEL) == cv2.erode(np.where(inside, inside, 65535).astype(np.uint16), KERNEL)
        low = low if 2 * len(np.unique(inside[same & (inside > 0)])) > len(low) else []
    is_deep = ignored > 255 and len(low) > 1  # 26001 is the first car of Cityscapes
    is_number = bool(low) and (
        max(low) <= LOW or (ignored not in found and len(low) <= most and (max(low) < 2 * len(low) or is_deep))
    )
    return {value: values == value for value in low} if is_number else None


def pair(images: Iterable[Path], masks: Iterable[Path], ending: str = MASK_ENDING) -> dict[Path, list[Path]]:
    """The masks of each image: those whose names begin with the image's and end with ``ending``."""
    pairs: dict[Path, list[Path]] = {image: [] for image in images}
    stems: dict[str, list[Path]] = {}
    for image in pairs:
        stems.setdefault(image.stem, []).append(image)
    for mask in masks:
        owner = owner_of(mask.stem, stems, ending)
        folders = (mask.parent.name, mask.parent.parent.name)  # ``NAME/masks`` is that of Data Science Bowl 2018
        owner = owner or next((one for one in folders if one in stems), None)
        if owner is None:
            stem = re.sub(MASK_ENDING + "$", "", mask.stem)
            raise UserError(f"{mask} is the mask of no image: there is no {stem}.jpg or {stem}.png next to it")
        pairs[max(stems[owner], key=lambda image: len(set(image.parts) & set(mask.parts)))].append(mask)
    return pairs


def owner_of(stem: str, images: Container[str], ending: str = MASK_ENDING) -> str | None:
    """The longest name of an image that a mask's name begins with, if the rest is ``ending``."""
    begins = (stem[:end] for end in range(len(stem), 0, -1) if stem[:end] in images)
    return next((one for one in begins if re.fullmatch(ending, stem[len(one) :], re.IGNORECASE)), None)


def objects(image: Path, mask: Path, label: str | Mapping[Key, str]) -> list[Reference]:
    """The references in a mask: its only one, or one per value or color.

    Args:
        label: The class of all objects, or that of each value or color. A mask in two tones needs the only one.
    """
    masks = read_masks(mask)
    if masks and len(masks) == 1 and isinstance(label, str):
        (only,) = masks.values()
        masks = None if np.array_equal(as_mask(mask), only) else masks
    if masks is None:
        names = {label} if isinstance(label, str) else {name for name in label.values() if name.lower() not in NO_CLASS}
        return [Reference(names.pop() if len(names) == 1 else _name(255, label, mask), image, mask=mask)]
    named = [(_name(key, label, mask), one) for key, one in masks.items()]
    return [Reference(name, image, encode_mask(one), size=one.shape) for name, one in named if name]


def _name(key: Key, names: str | Mapping[Key, str], mask: Path) -> str:
    if isinstance(names, str):
        return names
    if key not in names:
        kind = "color" if isinstance(key, tuple) else "value"
        raise UserError(f"mask {mask} has the {kind} {key}, which has no name: add it to {' or '.join(NAME_FILES[:4])}")
    return "" if names[key].lower() in NO_CLASS else names[key]


def find(folder: Folder) -> FoundReferences | None:
    """The references in folders of images and of masks; None where there are none."""
    references = _read_voc(folder) or _read_pairs(folder)
    return FoundReferences(NAME, references, {}, folder.skipped, folder.unused()) if references else None


def _read_voc(folder: Folder) -> list[Reference]:
    """The objects in ``SegmentationObject``, each of the class that most of it has in ``SegmentationClass``."""
    references: list[Reference] = []
    masks = [one for one in folder.ending(".png") if one.parent.name == CLASSES]
    if not masks:
        return references
    names = read_names(folder) or dict(zip(voc_colors()[1:], VOC_CLASSES, strict=False))
    photos = [one for one in folder.images if one.parent.name not in (CLASSES, OBJECTS)]
    for image, path in ((image, path) for image, paths in pair(photos, masks, "").items() for path in paths):
        instances = path.parent.parent / OBJECTS / path.name
        folder.use(image, path, instances)
        classes = {_name(key, names, path): mask for key, mask in _values_or_colors(path, names).items()}
        classes.pop("", None)
        for mask in read_colors(instances).values() if instances.is_file() else classes.values():
            areas = {name: int((mask & one).sum()) for name, one in classes.items() if one.shape == mask.shape}
            label = max(areas, key=lambda name: areas[name], default="")
            if label and areas[label]:
                references.append(Reference(label, image, encode_mask(mask), size=mask.shape))
    return references


def _values_or_colors(path: Path, names: Mapping[Key, str]) -> dict[Key, NDArray[np.bool_]]:
    """The masks of a class file: by color, or by value where the names are of values."""
    masks = read_colors(path)
    return masks if all(key in names for key in masks) else (read_masks(path) or masks)


def _read_pairs(folder: Folder) -> list[Reference]:
    """The objects in masks beside images: ``NAME_mask.png`` with ``_classes.csv``, or in a folder of masks."""
    images = folder.images
    beside = {path.parent for path in folder.files if path.name == "_classes.csv"}
    masks = [
        one
        for one in images
        if is_named_like(one.parent.name, MASK_FOLDERS) or one.parent.parent.name.lower() == "masks"
    ]
    masks += [one for one in images if one.parent in beside and one.stem.lower().endswith("_mask")]
    if not masks or _are_class_folders(masks, folder):
        return []
    names = read_names(folder)
    if not names:
        advice = "put classes.txt next to them, or images and masks into CLASS/images and CLASS/masks"
        text = f"{folder.root}: its masks name no class: it is called 'object'; {advice}"
        warnings.warn(text, UserNotice, stacklevel=2)
    photos = sorted({*images}.difference(masks))
    references = []
    for image, files in pair(photos, masks, rf"|[ _.-].*|{MASK_ENDING}").items():
        folder.skipped["image without a mask"] += not files
        for mask in files:
            if not names and read_masks(mask):
                raise UserError(
                    f"the masks in {mask.parent} hold several values, which no file names: put classes.txt into "
                    f"{folder.root} (line 1 for value 1), or, if they number objects, images and masks into "
                    "CLASS/images and CLASS/masks"
                )
            references += objects(image, mask, names or "object")
            folder.use(image, mask)
    return references


def _are_class_folders(masks: list[Path], folder: Folder) -> bool:
    """Whether all masks lie in ``CLASS/masks``, where CLASS says more than ``train`` does."""
    tops = {one.relative_to(folder.root).parts[0] for one in masks}
    names = {one.stem for one in folder.images}
    return not tops <= names and not any(is_named_like(one, MASK_FOLDERS | COMMON_FOLDERS) for one in tops)


def read_names(folder: Folder) -> dict[Key, str]:
    """The names of the classes by their values or colors; empty where no file has them.

    Lines of a list count from 0 where the first is the background, otherwise from 1.
    """
    found: dict[Path, dict[Key, str]] = {}
    for path in (path for name in NAME_FILES for path in folder.files if path.name.lower() == name):
        lines = [line.strip() for line in read_text(path).splitlines() if not line.startswith("#")]
        rows = read_rows(path) if path.suffix == ".csv" else []
        names: dict[Key, str] = {}
        try:
            if path.name == "labelmap.txt":
                for line in filter(None, lines):  # name:color:parts:actions
                    ((name, red, green, blue),) = re.findall(r"(.+):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)", line)
                    names[int(red), int(green), int(blue)] = name
            elif path.name == "_classes.csv" and len(rows[0]) == 2:
                names = {int(value): name for value, name in rows[1:]}
            elif path.name == "class_dict.csv":
                names = {(int(red), int(green), int(blue)): name for name, red, green, blue in rows[1:]}
            elif path.suffix == ".txt":
                listed = [line for line in lines if line != "__ignore__"]
                first = 0 if listed and listed[0].lower() in NO_CLASS else 1
                names = {number: name for number, name in enumerate(listed, start=first) if name}
        except (ValueError, IndexError) as error:
            raise UserError(f"{path} does not name classes line by line: {error}") from error
        if (black := names.get((0, 0, 0), "background")).lower() not in NO_CLASS | {"unknown"}:
            raise UserError(f"{path} gives black to {black!r}, but black is the background of masks: choose another")
        if names and path.name.lower() == next(iter(found), path).name.lower():
            found[path] = names
    path, names = agreed(found, "colors or values") or (folder.root, {})
    folder.use(*found)
    cleaned = clean_class_names(names.values(), path)
    return {key: cleaned[name] for key, name in names.items()}
