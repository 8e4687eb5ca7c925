"""The results file of any detector: reads COCO result records, and names the first record that is wrong."""

from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from no_time_to_train.data.coco import as_id, image_ids_of_other_type, is_number
from no_time_to_train.data.prompts import check_pixels
from no_time_to_train.data.rle import check_rle, encode_runs, mask_box
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json


def read_results(path: str | Path, coco: COCO) -> list[dict[str, Any]]:
    """Read a COCO results file, and check it against the ground truth's images and categories.

    It is a JSON list of records with ``image_id``, ``category_id``, ``score``, and ``bbox`` (x, y, w, h in pixels) or
    ``segmentation`` (RLE at the image's size) or both. An ``image_id`` 7 may stand for an image with the id "7", as in
    results of the authors' code.

    Returns:
        The records, each with a ``bbox``, taken from the mask where the file has none. Masks are compressed RLE.
    """
    content = read_json(path)
    records = content.get("annotations") if isinstance(content, dict) else content  # with scores, as of propose
    if not isinstance(records, list):
        kind = type(content).__name__
        raise UserError(f"{path} is not a COCO results file: it holds a {kind}, not a list of records")
    other_type = image_ids_of_other_type(coco)
    for index, record in enumerate(records):
        try:
            if isinstance(record, dict):
                record |= {key: as_id(record[key]) for key in ("image_id", "category_id") if key in record}
                if type(record.get("image_id")) is int:
                    record["image_id"] = other_type.get(record["image_id"], record["image_id"])
            _check_record(record, coco)
        except UserError as error:
            raise UserError(f"{path}: record {index} {error}") from error
    check_pixels((record["bbox"] for record in records), path)
    return records


def _check_record(record: Any, coco: COCO) -> None:
    """Check a record, and give it a box where it has only a mask; a UserError continues "record N"."""
    if not isinstance(record, dict):
        raise UserError(f"is a {type(record).__name__}, not an object")
    for key in ("image_id", "category_id", "score"):
        if key not in record:
            raise UserError(f"lacks {key!r}")
    for key, known in (("image_id", coco.imgs), ("category_id", coco.cats)):
        if type(record[key]) not in (int, str) or record[key] not in known:
            raise UserError(f"has {key} {record[key]!r}, which the ground truth does not have")
    if not is_number(record["score"]):
        raise UserError(f"has score {record['score']!r}, not a number below 1e15")
    if "segmentation" in record:
        _check_mask(record, coco.imgs[record["image_id"]])
        if "bbox" not in record:
            record["bbox"] = mask_box(record["segmentation"])
    elif "bbox" not in record:
        raise UserError("has neither 'bbox' nor 'segmentation'")
    box = record["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        raise UserError(f"has bbox {box!r}, not four numbers x, y, w, h")


def _check_mask(record: dict[str, Any], image: dict[str, Any]) -> None:
    """Check a record's mask, and compress it where it is uncompressed."""
    mask, size = record["segmentation"], [image.get("height"), image.get("width")]
    if isinstance(mask, dict) and mask.get("size", size) != size:
        raise UserError(f"has a mask of size {mask['size']}, its image is {size} (height, width) in the ground truth")
    try:
        check_rle(mask)
    except ValueError as error:
        raise UserError(f"has a segmentation that is not RLE: {error}") from error
    if isinstance(mask["counts"], list):
        record["segmentation"] = encode_runs(mask)
