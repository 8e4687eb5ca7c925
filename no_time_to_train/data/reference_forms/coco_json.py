"""COCO: one JSON file for all images, with polygons, RLE, or boxes only."""

import json
from pathlib import Path
from typing import Any

from no_time_to_train.data.coco import ImageId, read_coco
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.reference import Box, Reference
from no_time_to_train.data.reference_forms.shapes import Canvas
from no_time_to_train.data.rle import annotation_mask, encode_mask
from no_time_to_train.errors import UserError

NAME = "COCO json"


def is_form_of(content: Any) -> bool:
    """Whether this is the content of a COCO file with objects, or of one that lacks its list of images."""
    lists = {key for key, value in content.items() if isinstance(value, list)} if isinstance(content, dict) else set()
    first = content["annotations"][0] if "annotations" in lists and content["annotations"] else {}
    if "label_classes" in lists or (isinstance(first, dict) and {"caption", "segments_info"} & first.keys()):
        return False
    return "images" in lists or {"annotations", "categories"} <= lists


def read_all(paths: list[Path], folder: Folder) -> tuple[list[Reference], dict[str, int]]:
    """The annotations of some files, each once if they repeat it, and the ids of their categories.

    Returns:
        The references; and the ids in the files' order, or numbers from 1 where the files disagree.
    """
    ids: dict[str, int] = {}
    references: list[Reference] = []
    earlier: set[str] = set()
    for path in paths:
        found, keys, categories = _read(path, folder)
        references += [one for one, key in zip(found, keys, strict=True) if key not in earlier]
        folder.skipped["annotation that another file repeats"] += sum(key in earlier for key in keys)
        earlier.update(keys)
        for name, category_id in categories.items():
            ids.setdefault(name, category_id)
    agree = len(set(ids.values())) == len(ids)
    return references, ids if agree else {name: number for number, name in enumerate(ids, start=1)}


def _read(path: Path, folder: Folder) -> tuple[list[Reference], list[str], dict[str, int]]:
    """The references in a file, what tells each from others, and the ids of the categories.

    Crowds are passed over, but CVAT writes its masks as crowds: with the attribute ``occluded``, or all of them.
    """
    coco = read_coco(path)
    annotations = coco.dataset.get("annotations", [])
    folder.list_images(path.parent, [entry["file_name"] for entry in coco.dataset["images"]])
    all_crowds = all(annotation["iscrowd"] for annotation in annotations)
    images: dict[ImageId, Canvas] = {}
    taken: dict[Path, str] = {}
    references, keys = [], []
    for annotation in annotations:
        entry, category = coco.imgs[annotation["image_id"]], coco.cats.get(annotation["category_id"])
        if category is None:
            raise UserError(f"{path} has annotations, and no categories")
        attributes = annotation.get("attributes")
        is_cvat = isinstance(attributes, dict) and "occluded" in attributes
        is_crowd = annotation["iscrowd"] and not all_crowds and not is_cvat
        has_area = any(annotation.get("segmentation") or ()) or annotation.get("bbox")
        if is_crowd or not has_area:
            folder.skipped["crowd" if is_crowd else "annotation without a box or a mask"] += 1
            continue
        if entry["id"] not in images:
            image = folder.find_image(entry["file_name"], path.parent)
            if taken.setdefault(image, entry["file_name"]) != entry["file_name"]:
                raise UserError(f"{path}: {taken[image]} and {entry['file_name']} would both be {image}")
            images[entry["id"]] = Canvas.of(image, entry.get("height"), entry.get("width"))
        angle = is_cvat and attributes.get("rotation")
        references.append(_read_annotation(annotation, category["name"], images[entry["id"]], path, angle))
        shape = json.dumps([annotation.get("segmentation"), annotation.get("bbox")])
        keys.append(f"{references[-1].image} {category['name']} {shape}")
    for image_id, entry in coco.imgs.items():
        folder.is_empty(coco.imgToAnns[image_id], entry["file_name"], path)
    return references, keys, {category["name"]: category["id"] for category in coco.dataset.get("categories", [])}


def _read_annotation(annotation: dict[str, Any], label: str, canvas: Canvas, path: Path, angle: Any) -> Reference:
    box: Box | None = None
    if annotation.get("bbox"):
        x, y, w, h = annotation["bbox"]
        box = (x, y, x + w, y + h)
        if angle and not annotation.get("segmentation"):
            try:
                return canvas.box(label, *box, angle=angle)
            except (TypeError, ValueError) as error:
                raise UserError(f"{path}: annotation {annotation['id']} is turned by {angle!r}: {error}") from error
    mask = None
    if annotation.get("segmentation") and not annotation.get("is_box"):
        try:
            mask = encode_mask(annotation_mask(annotation, *canvas.size))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    return Reference(label, canvas.image, mask, box, size=canvas.size)
