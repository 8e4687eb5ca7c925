"""COCO: one JSON file for all images; polygons, RLE, or boxes only."""

from pathlib import Path
from typing import Any

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.images import shown_size
from no_time_to_train.data.reference_forms.reference import Box, Reference, find_image
from no_time_to_train.errors import UserError

NAME = "COCO json"


def is_file(content: Any) -> bool:
    """Whether this is the content of a COCO file."""
    return isinstance(content, dict) and isinstance(content.get("images"), list)


def read(path: Path) -> list[Reference]:
    """The annotations of a file, but those of crowds.

    Raises:
        UserError: the file is broken, an image missing, or an annotation has neither mask nor box.
    """
    coco = read_coco(path)
    images: dict[int, Path] = {}
    references = []
    for annotation in coco.dataset.get("annotations", []):
        where = f"{path}: annotation {annotation['id']}"
        entry, category = coco.imgs[annotation["image_id"]], coco.cats.get(annotation["category_id"])
        if category is None:
            raise UserError(f"{where} is of a category that is not listed")
        if annotation["iscrowd"]:
            continue
        if entry["id"] not in images:
            images[entry["id"]] = find_image(entry["file_name"], path.parent)
        image = images[entry["id"]]
        if not ("height" in entry and "width" in entry):
            entry["height"], entry["width"] = shown_size(image)
        box: Box | None = None
        if annotation.get("bbox"):
            x, y, w, h = annotation["bbox"]
            box = (x, y, x + w, y + h)
        mask = None
        if annotation.get("segmentation"):
            try:
                mask = coco.annToRLE(annotation)
            except Exception as error:  # pycocotools raises whatever its C code meets
                raise UserError(f"{where} has no usable segmentation: {error!r}") from error
            height, width = mask["size"]
            if (height, width) != (entry["height"], entry["width"]):
                raise UserError(
                    f"{where}: its mask is {width}x{height}, its image {entry['width']}x{entry['height']} pixels"
                )
        elif box is None:
            raise UserError(f"{where} has neither segmentation nor bbox")
        references.append(Reference(category["name"], image, mask, box, size=(entry["height"], entry["width"])))
    return references
