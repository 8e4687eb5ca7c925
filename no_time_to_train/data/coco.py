"""COCO annotation files: read, checked, and repaired where that is safe."""

import contextlib
import io
import re
import warnings
from collections import Counter
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any
from urllib.parse import urlsplit

from pycocotools.coco import COCO

from no_time_to_train.data.box_lists import is_box_list, to_coco
from no_time_to_train.data.names import check_file_name, clean_class_names
from no_time_to_train.data.prompts import check_pixels
from no_time_to_train.data.rle import MAX_SIDE, are_coordinates, check_polygons, check_rle, check_size
from no_time_to_train.errors import UserError, UserNotice, first_of, plural
from no_time_to_train.files import read_json

#: The largest relative difference between the aspect ratios of an image and of the size that its file states, where
#: the image counts as rescaled. A larger one means another image, or one that was turned.
ASPECT_TOLERANCE = 0.02

#: The id of an image: an integer, or a string where the annotation file has strings.
ImageId = int | str

#: Per section of the file, the keys that every entry must have, and the types that each value may have.
REQUIRED: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": (str,)},
    "categories": {"id": (int,), "name": (str,)},
    "annotations": {"id": (int,), "image_id": (int, str), "category_id": (int,)},
}


def read_coco(path: str | Path) -> COCO:
    """Read a COCO annotation file.

    ``annotations`` may be absent, as in a test set without ground truth. Fields that evaluation needs and that small
    data sets omit are filled in: ``iscrowd`` is 0, and ``area`` is that of the box where there is no mask. Annotations
    of images or categories that are not listed and polygons of fewer than three points are removed, spaces around the
    names of classes are, and so are categories without annotations that have the name of another; a
    :class:`UserNotice` names them.

    Args:
        path: The file; one of FSOD-VFM's references is read as well.

    Returns:
        The indexed file. Its ``dataset`` holds the repaired content.
    """
    data = read_json(path)
    if is_box_list(data):
        data = to_coco(data)
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        add_file_names(data)
    check_sections(data, path)
    check_images(data["images"], path)
    data.setdefault("annotations", [])
    _clean_categories(data, path)
    _remove_unlisted(data, path)
    _repair(data, path)
    return index_coco(data)


def add_file_names(data: dict[str, Any]) -> None:
    """Add ``file_name``, relative to COCO's folder, to images of LVIS, which have addresses.

    Raises:
        ValueError: An address is not COCO's. AttributeError, KeyError and TypeError where the file is not LVIS's.
    """
    for image in data["images"]:
        if "file_name" not in image:
            name = urlsplit(image["coco_url"]).path.lstrip("/")
            if not re.fullmatch(r"(train|val)2017/\d+\.jpg", name):
                raise ValueError(f"image {image['id']} has an address that is not COCO's: {image['coco_url']}")
            image["file_name"] = name


def index_coco(data: dict[str, Any]) -> COCO:
    """Make a ``COCO`` of a file's content, without the progress that pycocotools prints."""
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def image_ids_of_other_type(coco: COCO) -> dict[ImageId, ImageId]:
    """The image ids of a file as other files may give them: an id "7" as 7, and an id 7 as "7".

    The authors' code writes image ids that are strings of digits as integers.

    Returns:
        The id in the file by the id of the other type. Ids that would be the same number are left out.
    """
    found: dict[ImageId, list[ImageId]] = {}
    for image_id in coco.imgs:
        if isinstance(image_id, int):
            found[str(image_id)] = [image_id]
        elif image_id.isascii() and image_id.isdigit() and len(image_id) < 20:
            found.setdefault(int(image_id), []).append(image_id)
    return {other: image_ids[0] for other, image_ids in found.items() if len(image_ids) == 1}


def check_sections(data: Any, path: str | Path) -> None:
    """Check that the sections are lists of entries with the required keys.

    Args:
        data: The content of an annotation file; ``annotations`` and ``categories`` may be absent.
    """
    problem = f"{path} is not a COCO annotation file"
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise UserError(f"{problem}: it needs a list 'images' (and 'annotations' and 'categories')")
    for section, required in REQUIRED.items():
        entries = data.get(section, [])
        if not isinstance(entries, list):
            raise UserError(f"{problem}: {section!r} is not a list")
        for index, entry in enumerate(entries):
            for key, kinds in required.items():
                if not isinstance(entry, dict) or key not in entry:
                    raise UserError(f"{problem}: {section}[{index}] lacks {key!r}")
                entry[key] = as_id(entry[key]) if int in kinds else entry[key]
                if type(entry[key]) not in kinds:
                    names = " or ".join(kind.__name__ for kind in kinds)
                    raise UserError(f"{path}: {section}[{index}] has {key} {short_repr(entry[key])}, not a {names}")
                if isinstance(entry[key], int) and not is_id(entry[key]):
                    large = short_repr(entry[key])
                    raise UserError(f"{path}: {section}[{index}] has {key} {large}, not a number of 64 bits")
    _check_image_ids(data, path)
    _check_unique(data, path)


def is_id(value: int) -> bool:
    """Whether an integer can be an id: numpy, torch and memory files hold 64 bits."""
    return -(2**63) <= value < 2**63


def as_id(value: Any) -> Any:
    """A float without a fraction, which pandas makes of ids next to empty cells, as an integer; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole_number(value: Any) -> int:
    """An id that a file gives as a number or a text, as an integer of 64 bits; a ValueError where it is none."""
    number = int(value)
    if isinstance(value, bool | bytes) or (isinstance(value, float) and number != value) or not is_id(number):
        raise ValueError(f"{short_repr(value)} is not a number of 64 bits without a fraction")
    return number


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that numpy can hold: not a boolean, not NaN, and smaller than 1e15."""
    return type(value) in (int, float) and -1e15 < value < 1e15


def _check_image_ids(data: dict[str, Any], path: str | Path) -> None:
    """Check that image ids are of one type, because they are sorted."""
    first: dict[type, str] = {}
    for section, key in (("images", "id"), ("annotations", "image_id")):
        for index, entry in enumerate(data.get(section, [])):
            first.setdefault(type(entry[key]), f"{section}[{index}] has {key} {entry[key]!r}")
    if len(first) > 1:
        raise UserError(f"{path} has image ids that are numbers and others that are texts: {', '.join(first.values())}")


def check_images(images: list[dict[str, Any]], path: str | Path) -> None:
    """Check the names of images, and the heights and widths that they state; both sizes may be absent."""
    for image in images:
        for key in ("height", "width"):
            if image.get(key, 0) is None:  # as Label Studio writes it for images without objects
                del image[key]
            if key in image and not (type(image[key]) is int and 0 < image[key] <= MAX_SIDE):
                raise UserError(f"{path}: image {image['id']} has {key} {image[key]!r}, not 1 to {MAX_SIDE} pixels")
        try:
            check_file_name(image["file_name"])
            check_size([image.get("height", 1), image.get("width", 1)])
        except ValueError as error:
            raise UserError(f"{path}: image {image['id']}: {error}") from error


def _check_unique(data: dict[str, Any], path: str | Path) -> None:
    """Check that ids are given once. pycocotools takes the last of several for each of them."""
    for section in REQUIRED:
        ids = [entry["id"] for entry in data.get(section, [])]
        if len(set(ids)) < len(ids):
            repeated, count = Counter(ids).most_common(1)[0]
            raise UserError(f"{path}: {count} {section} have the id {repeated!r}: give each an id of its own")


def _clean_categories(data: dict[str, Any], path: str | Path) -> None:
    """Clean the names of the categories, and remove categories without annotations that have the name of another.

    Roboflow writes the name of a project as a category without annotations, next to a class that may have that name.
    """
    categories = data.get("categories", [])
    cleaned = clean_class_names([category["name"] for category in categories], path)
    used = {annotation["category_id"] for annotation in data["annotations"]}
    kept: dict[str, dict[str, Any]] = {}
    removed = []
    for category in categories:
        category["name"] = cleaned[category["name"]]
        other = kept.get(category["name"])
        if other is not None and {other["id"], category["id"]} <= used:
            raise UserError(
                f"{path}: the categories {other['id']} and {category['id']} have the same name {category['name']!r}: "
                "rename one, or give their annotations one id"
            )
        if other is None or other["id"] not in used:
            kept[category["name"]] = category
            removed += [other] if other else []
        else:
            removed.append(category)
    if removed:
        ids = ", ".join(f"{category['id']} ({category['name']})" for category in removed)
        what = "categories without annotations have the name of another, and were removed"
        warnings.warn(f"{path}: {what}: {ids}", UserNotice, stacklevel=3)
        data["categories"] = list(kept.values())


def _remove_unlisted(data: dict[str, Any], path: str | Path) -> None:
    """Remove annotations of images and of categories that the file does not list."""
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        if section not in data:  # as of what has only objects of one kind
            continue
        listed = {entry["id"] for entry in data[section]}
        removed = [annotation for annotation in data["annotations"] if annotation[key] not in listed]
        data["annotations"] = [annotation for annotation in data["annotations"] if annotation[key] in listed]
        _notify(path, removed, f"of {section} that are not listed, removed")


def _repair(data: dict[str, Any], path: str | Path) -> None:
    """Check each annotation, fill in what it lacks, and remove polygons of fewer than three points."""
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in data["images"]}
    repaired, outside = [], []
    for annotation in data["annotations"]:
        where = f"{path}: annotation {annotation['id']}"
        _check_annotation(annotation, sizes[annotation["image_id"]], where)
        annotation.setdefault("iscrowd", 0)
        x, y, w, h = annotation.get("bbox") or (0, 0, 0, 0)
        if annotation.get("bbox") and not annotation.get("segmentation"):  # else evaluation takes that of the mask
            annotation.setdefault("area", w * h)
        ends = zip((y + h, x + w), sizes[annotation["image_id"]], strict=True)
        outside += [annotation] if any(side and end > 1.05 * side + 2 for end, side in ends) else []
        if _repair_polygons(annotation, where):
            repaired.append(annotation)
    check_pixels((one["bbox"] for one in data["annotations"] if one.get("bbox")), path)
    what = "with a bbox that ends outside the image: check that it is x, y, width, height, not x1, y1, x2, y2"
    _notify(path, outside, what)
    what = "with polygons of fewer than three points, which were removed"
    _notify(path, repaired, f"{what}; where no polygon was left, the box became one")
    crowds = [annotation for annotation in data["annotations"] if annotation["iscrowd"]]
    if len(crowds) == len(data["annotations"]):
        what = "with iscrowd 1, as CVAT writes masks: references take them as objects, evaluation ignores them"
        _notify(path, crowds, f"{what} (set iscrowd to 0)")


def _check_annotation(annotation: dict[str, Any], size: tuple[int | None, int | None], where: str) -> None:
    """Check the values of an annotation; all of them may be absent, and so may the size of its image."""
    if annotation.get("iscrowd", 0) not in (0, 1):
        raise UserError(f"{where} has iscrowd {annotation['iscrowd']!r}, which must be 0 or 1")
    box = annotation.get("bbox")
    if box and not (isinstance(box, list) and len(box) == 4 and are_coordinates(box) and min(box[2:]) >= 0):
        raise UserError(f"{where}: its bbox is not [x, y, w, h] in pixels")
    if annotation.get("area", 0) in (None, []):  # as VIA writes it for points
        del annotation["area"]
    if not is_number(area := annotation.get("area", 0)) or area < 0:
        raise UserError(f"{where} has area {area!r}, not a number of 0 or more")
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return
    try:
        if isinstance(segmentation, dict):
            if None not in size and segmentation.get("size") != list(size):
                stated = f"{segmentation.get('size')}, its image is {list(size)} (height, width)"
                raise UserError(f"{where} has a mask of size {stated}")
            check_rle(segmentation)
        else:
            check_polygons(segmentation, *size)
    except ValueError as error:
        raise UserError(f"{where}: its segmentation is neither polygons nor RLE that can be used: {error}") from error


def _repair_polygons(annotation: dict[str, Any], where: str) -> bool:
    """Remove polygons of fewer than three points; where none is left, take the box. Whether there were any."""
    segmentation = annotation.get("segmentation")
    if not segmentation or isinstance(segmentation, dict):
        return False
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if len(polygons) == len(segmentation):
        return False
    if not polygons:
        if not annotation.get("bbox") and not any(segmentation):
            annotation["segmentation"] = []
            return False
        if not annotation.get("bbox"):
            raise UserError(f"{where} has neither a polygon of three points nor a bbox")
        x, y, w, h = annotation["bbox"]
        polygons = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotation["is_box"] = True
    annotation["segmentation"] = polygons
    return True


def _notify(path: str | Path, annotations: list[dict[str, Any]], what: str) -> None:
    """Issue a notice of what was done about some annotations, with the ids of the first ten."""
    if annotations:
        ids = first_of([str(annotation["id"]) for annotation in annotations], 10)
        warnings.warn(f"{path}: {plural(len(annotations), 'annotation')} {what}: {ids}", UserNotice, stacklevel=4)


def is_turned(entry: dict[str, Any], height: int, width: int, *, rescale: bool) -> bool:
    """Whether an entry states the size, or with ``rescale`` the aspect ratio, of an image with its sides swapped."""
    stated = (entry.get("height", height), entry.get("width", width))
    if not rescale or stated in ((height, width), (width, height)):
        return stated == (width, height) != (height, width)
    return _has_aspect(stated, width, height) and not _has_aspect(stated, height, width)


def _has_aspect(stated: tuple[int, int], height: int, width: int) -> bool:
    return abs(height * stated[1] / (width * stated[0]) - 1) <= ASPECT_TOLERANCE


def stated_size(
    path: Path, entry: dict[str, Any], height: int, width: int, *, rescale: bool = False
) -> tuple[int, int]:
    """The size of an image of this height and width in pixels that its entry in ``images`` states.

    Args:
        rescale: Accept another size of the same aspect ratio, within 2 %.

    Returns:
        Height and width; the image's own where the entry states none.
    """
    stated = (entry.get("height", height), entry.get("width", width))
    if (height, width) == stated:
        return stated
    problem = f"image {path} is {width}x{height}, the annotation file says {stated[1]}x{stated[0]}"
    if not rescale:
        raise UserError(problem)
    if not _has_aspect(stated, height, width):
        raise UserError(f"{problem}: with another aspect ratio, it is another image or was turned, and is not rescaled")
    return stated
