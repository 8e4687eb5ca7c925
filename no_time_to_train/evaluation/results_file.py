"""Reading any detector's COCO results file, with a complaint about the very record that is wrong."""

import math
from pathlib import Path
from typing import Any

from pycocotools import mask as rle
from pycocotools.coco import COCO

from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json


def read_results(path: str | Path, coco: COCO) -> list[dict[str, Any]]:
    """The records of a COCO results file, checked against the ground truth's images and categories.

    A record has ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, w, h) or ``segmentation`` (RLE at the
    image's size) or both; a missing box is taken from the mask.

    Raises:
        UserError: the file is unreadable, or a record is malformed or of an unknown image or category.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(
            f"{path} is not a COCO results file: it holds a {type(content).__name__}, not a list of records"
        )
    for index, record in enumerate(content):
        try:
            _check_record(record, coco)
        except UserError as error:
            raise UserError(f"{path}: record {index} {error}") from error
    return content


def _check_record(record: Any, coco: COCO) -> None:
    if not isinstance(record, dict):
        raise UserError(f"is a {type(record).__name__}, not an object")
    for key in ("image_id", "category_id", "score"):
        if key not in record:
            raise UserError(f"lacks {key!r}")
    for key, known in (("image_id", coco.imgs), ("category_id", coco.cats)):
        if not isinstance(record[key], int) or record[key] not in known:
            raise UserError(f"has {key} {record[key]!r}, which the ground truth does not know")
    if not _is_number(record["score"]):
        raise UserError(f"has score {record['score']!r}, not a number")
    if "segmentation" in record:
        _check_mask(record, coco.imgs[record["image_id"]])
        if "bbox" not in record:
            record["bbox"] = rle.toBbox(record["segmentation"]).tolist()
    elif "bbox" not in record:
        raise UserError("has neither 'bbox' nor 'segmentation'")
    box = record["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) < 0:
        raise UserError(f"has bbox {box!r}, not four numbers x, y, w, h")


def _check_mask(record: dict[str, Any], image: dict[str, Any]) -> None:
    mask, size = record["segmentation"], [image.get("height"), image.get("width")]
    try:
        if isinstance(mask["counts"], list):
            mask = record["segmentation"] = rle.frPyObjects(mask, *mask["size"])
        if list(mask["size"]) != size:
            raise UserError(f"has a mask of size {list(mask['size'])}, its image is {size} (height, width)")
        area = rle.area(mask)
    except UserError:
        raise
    except Exception as error:  # pycocotools raises whatever its C code meets
        raise UserError(f"has a segmentation that is no RLE: {error!r}") from error
    if area > size[0] * size[1]:
        raise UserError("has a segmentation whose counts do not fit its size")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
