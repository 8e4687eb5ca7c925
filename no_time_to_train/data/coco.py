"""COCO annotation files: reading, checking, and choosing classes."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.files import read_json

#: The longest side of an image, in pixels. pycocotools needs memory by what a file states, not by what there is.
MAX_SIDE = 2**16


def read_coco(path: str | Path) -> COCO:
    """Read a COCO annotation file.

    ``annotations`` may be absent, as for a test set without ground truth. Fields that evaluation needs and that small
    data sets leave out are filled in: ``iscrowd`` 0, ``area`` of the box. Polygons of fewer than three points and
    annotations of images that are not listed are left out, and said in a :class:`UserNotice`.

    Raises:
        UserError: the file is missing, not JSON, or not in COCO's format.
    """
    data = read_json(path)
    required: dict[str, dict[str, type]] = {
        "images": {"id": int, "file_name": str},
        "categories": {"id": int, "name": str},
        "annotations": {"id": int, "image_id": int, "category_id": int},
    }
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise UserError(
            f"{path} is not a COCO annotation file: it needs a list 'images' (and 'annotations', 'categories')"
        )
    for section, kinds in required.items():
        entries = data.get(section, [])
        if not isinstance(entries, list):
            raise UserError(f"{path} is not a COCO annotation file: {section!r} is not a list")
        for index, entry in enumerate(entries):
            for key, kind in kinds.items():
                if not isinstance(entry, dict) or key not in entry:
                    raise UserError(f"{path} is not a COCO annotation file: {section}[{index}] lacks {key!r}")
                if type(entry[key]) is not kind:
                    raise UserError(f"{path}: {section}[{index}] has {key} {entry[key]!r}, not a {kind.__name__}")
    for image in data["images"]:
        for key in ("height", "width"):
            if key in image and (type(image[key]) is not int or not 0 < image[key] <= MAX_SIDE):
                raise UserError(f"{path}: image {image['id']} has {key} {image[key]!r}, not 1 to {MAX_SIDE} pixels")
    sizes = {image["id"]: [image.get("height"), image.get("width")] for image in data["images"]}
    for annotation in data.get("annotations", []):
        segmentation, size = annotation.get("segmentation"), sizes.get(annotation["image_id"], [None])
        if isinstance(segmentation, dict) and None not in size and segmentation.get("size") != size:
            raise UserError(
                f"{path}: annotation {annotation['id']} has a mask of size {segmentation.get('size')}, its image is "
                f"{size} (height, width)"
            )
    annotations = data.get("annotations", [])
    _notice(
        path, "are of images that are not listed, and were left out", annotations, lambda a: a["image_id"] not in sizes
    )
    data["annotations"] = [annotation for annotation in annotations if annotation["image_id"] in sizes]
    _notice(
        path,
        "lost polygons of fewer than three points; where nothing else was left, their box was taken",
        data["annotations"],
        lambda one: _mend(one, path),
    )
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco.createIndex()
    return coco


def _notice(
    path: str | Path, what: str, annotations: list[dict[str, Any]], chosen: Callable[[dict[str, Any]], bool]
) -> None:
    """Say what was done about some annotations, by their ids."""
    ids = [annotation["id"] for annotation in annotations if chosen(annotation)]
    if ids:
        some = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
        warnings.warn(f"{path}: {len(ids)} annotations {what}: {some}", UserNotice, stacklevel=3)


def _mend(annotation: dict[str, Any], path: str | Path) -> bool:
    """Fill in what an annotation lacks, and leave out its polygons that are none; whether there were any."""
    where = f"{path}: annotation {annotation['id']}"
    annotation.setdefault("iscrowd", 0)
    if annotation["iscrowd"] not in (0, 1):
        raise UserError(f"{where} has iscrowd {annotation['iscrowd']!r}, neither 0 nor 1")
    box, segmentation = annotation.get("bbox"), annotation.get("segmentation")
    if box:
        if not _is_box(box):
            raise UserError(f"{where}: its bbox is not [x, y, w, h] in pixels")
        annotation.setdefault("area", box[2] * box[3])
    if "area" in annotation and not _is_number(annotation["area"]):
        raise UserError(f"{where} has area {annotation['area']!r}, not a number")
    if not segmentation:
        return False
    if isinstance(segmentation, dict):
        if not _is_rle(segmentation):
            raise UserError(f"{where}: its segmentation is no RLE {{size: [height, width], counts: ...}}")
        return False
    if not isinstance(segmentation, list) or not all(map(_is_ring, segmentation)):
        raise UserError(f"{where}: its segmentation is neither polygons [[x, y, x, y, ...], ...] in pixels nor RLE")
    rings = [ring for ring in segmentation if len(ring) >= 6]
    if len(rings) == len(segmentation):
        return False
    if not rings:
        if not box:
            raise UserError(f"{where} has neither a polygon of three points nor a bbox")
        x, y, w, h = box
        rings = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    annotation["segmentation"] = rings
    return True


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e15 < value < 1e15  # not NaN


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and _are_pixels(box)


def _is_ring(ring: Any) -> bool:
    return isinstance(ring, list) and len(ring) % 2 == 0 and _are_pixels(ring)


def _are_pixels(values: list[Any]) -> bool:
    """Whether these are numbers near an image; pycocotools crashes on some that are far away."""
    return not values or (
        set(map(type, values)) <= {int, float} and min(values) > -MAX_SIDE and max(values) < 2 * MAX_SIDE
        and not math.isnan(sum(values))
    )  # fmt: skip


def _is_rle(segmentation: dict[str, Any]) -> bool:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(v) is int and 0 < v <= MAX_SIDE for v in size):
        return False
    if isinstance(counts, list):
        return all(type(count) is int and count >= 0 for count in counts) and sum(counts) == size[0] * size[1]
    return isinstance(counts, str) and counts.isascii()
