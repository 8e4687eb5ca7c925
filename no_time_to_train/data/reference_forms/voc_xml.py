"""Pascal VOC: one XML file per image, with boxes and, in some data sets, polygons, or PNG files with the masks."""

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from pycocotools import mask as coco_mask

from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.mask_images import CLASSES, OBJECTS, each_color
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_forms.shapes import Canvas
from no_time_to_train.data.rle import Rle, are_coordinates, check_polygons, encode_mask, mask_box

NAME = "Pascal VOC xml"

CORNERS = ("xmin", "ymin", "xmax", "ymax")

#: What some tools write that count pixels from 0 and exclude the end: element -> text. In order: Label Studio, CVAT and
#: Datumaro, makesense.
COUNTS_FROM_0 = {"owner/name": "Label Studio", "source/annotation": "Unknown", "object/difficult": "Unspecified"}

#: The least overlap (IoU) of an object's box with that of its mask in a PNG file.
SAME_BOX = 0.7


def is_form_of(element: Element) -> bool:
    """Whether this is the root of such a file."""
    return element.tag == "annotation"


def read(path: Path, element: Element, folder: Folder) -> list[Reference]:
    """The objects of a file.

    VOC counts pixels from 1 and includes both ends of a box; the boxes returned count from 0 and exclude the end.
    """
    image = folder.image_beside(path) or folder.find_image(element.findtext("filename"), path.parent)
    folder.use(image)
    canvas = Canvas.of(image, element.findtext("size/height"), element.findtext("size/width"))
    objects = element.findall("object")
    first = 0 if _counts_from_0(element, objects) else 1
    masks = _object_masks(path, folder, canvas)
    return [_read_object(entry, canvas, first, masks) for entry in objects]


def _counts_from_0(element: Element, objects: list[Element]) -> bool:
    known = any(element.findtext(tag) == text for tag, text in COUNTS_FROM_0.items())
    return known or any(entry.findtext(f"bndbox/{key}") in ("0", "0.0") for entry in objects for key in CORNERS[:2])


def _object_masks(path: Path, folder: Folder, canvas: Canvas) -> list[tuple[list[float], Rle]]:
    """The boxes and masks of an image in ``SegmentationObject``, next to the folder of the XML files.

    Where there is only ``SegmentationClass``, these are the masks of classes: those with one object find its box.
    """
    parts = path.with_suffix(".png").parts
    found = [index for index, part in enumerate(parts) if part == "Annotations"]
    inside = [index for index in found if index >= len(folder.root.parts) - 1]  # photos may lie in such a folder, too
    at = (inside[:1] or found[-1:] or [len(parts) - 2])[0]
    files = [Path(*parts[:at], name, *parts[at + 1 :]) for name in (OBJECTS, CLASSES)]
    folder.use(*files, are_masks=True)
    masks = next(map(each_color, filter(Path.is_file, files)), ())
    encoded = [encode_mask(mask) for _, mask in masks if mask.shape == canvas.size]
    return [(mask_box(one), one) for one in encoded]


def _read_object(entry: Element, canvas: Canvas, first: int, masks: list[tuple[list[float], Rle]]) -> Reference:
    """The reference of an <object>. Pixels count from ``first``; ``masks`` are those of a PNG file, with boxes."""
    from supervision.dataset.formats.pascal_voc import detections_from_xml_obj  # takes over a second

    height, width = canvas.size
    if (turned := entry.find("robndbox")) is not None:  # roLabelImg
        x, y, w, h, angle = (float(part.text or "nan") for part in turned)
        return canvas.box(entry.findtext("name"), x - w / 2, y - h / 2, x + w / 2, y + h / 2, angle=np.degrees(angle))
    corners = [float(entry.findtext(f"bndbox/{key}") or "nan") for key in CORNERS]
    if not are_coordinates(corners):
        raise ValueError(f"the box of {entry.findtext('name')!r} has a coordinate that is not a number, or far outside")
    check_polygons([[float(value.text or "nan") for value in part] for part in entry.findall("polygon")], height, width)
    root = Element("annotation")
    root.append(entry)
    found, (label,) = detections_from_xml_obj(root, [], (width, height))
    # Not found.xyxy, whose ends supervision moves to 0 as well before its version 0.31.2.
    (x1, x2), (y1, y2) = sorted(corners[::2]), sorted(corners[1::2])
    box = (x1 - first, y1 - first, x2, y2)
    attributes = {one.findtext("name"): one.findtext("value") for one in entry.iterfind("attributes/attribute")}
    if found.mask is None and not masks and float(attributes.get("rotation") or 0):  # CVAT's turned boxes
        return canvas.box(label, *box, angle=attributes["rotation"])
    mask = None if found.mask is None or not found.mask[0].any() else encode_mask(found.mask[0])
    if mask is None and masks:
        sides = [[box[0], box[1], box[2] - box[0], box[3] - box[1]]]
        overlaps = coco_mask.iou(np.array([one for one, _ in masks]), np.array(sides), [0]).ravel()
        if overlaps.max() >= SAME_BOX:
            masks.append(masks.pop(int(overlaps.argmax())))  # of objects with the same box, each gets a mask of its own
            mask = masks[-1][1]
    difficult = entry.findtext("difficult") == "1"
    return Reference(label, canvas.image, mask, box, size=canvas.size, difficult=difficult)
