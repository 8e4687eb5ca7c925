"""COCO: one JSON file for all images, with polygons, RLE, or boxes only."""

from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.reference_forms.reference import Box, Reference, annotated_size, find_image
from no_time_to_train.data.rle import annotation_mask, encode_mask
from no_time_to_train.errors import UserError

NAME = "COCO json"


def is_form_of(content: Any) -> bool:
    """Whether this is the content of a COCO file, or of one that lacks its list of images."""
    lists = {key for key, value in content.items() if isinstance(value, list)} if isinstance(content, dict) else set()
    return "images" in lists or {"annotations", "categories"} <= lists


def read(path: Path, coco: COCO) -> list[Reference]:
    """The annotations of a file, except for crowds.

    Args:
        path: The file.
        coco: Its content.
    """
    images: dict[ImageId, tuple[Path, tuple[int, int]]] = {}
    references = []
    for annotation in coco.dataset.get("annotations", []):
        where = f"{path}: annotation {annotation['id']}"
        entry, category = coco.imgs[annotation["image_id"]], coco.cats.get(annotation["category_id"])
        if category is None:
            raise UserError(f"{where} is of a category that is not listed")
        if annotation["iscrowd"]:
            continue
        if entry["id"] not in images:
            found = find_image(entry["file_name"], path.parent)
            images[entry["id"]] = found, annotated_size(found, entry.get("height"), entry.get("width"))
        image, size = images[entry["id"]]
        box: Box | None = None
        if annotation.get("bbox"):
            x, y, w, h = annotation["bbox"]
            box = (x, y, x + w, y + h)
        mask = None
        if annotation.get("segmentation"):
            try:
                mask = encode_mask(annotation_mask(annotation, *size))
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
        elif box is None:
            raise UserError(f"{where} has neither segmentation nor bbox")
        references.append(Reference(category["name"], image, mask, box, size=size))
    return references
