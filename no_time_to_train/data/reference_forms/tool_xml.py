"""The own XML of CVAT ("CVAT for images 1.1") and of LabelMe 3.0, the web tool, which CVAT writes, too."""

from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from no_time_to_train.data.mask_inputs import as_mask
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_forms.shapes import Canvas
from no_time_to_train.errors import UserError

CVAT, LABELME = "CVAT for images xml", "LabelMe 3.0 xml"


def is_cvat(element: Element) -> bool:
    """Whether this is the root of a file for images or for a video."""
    return element.tag == "annotations" and any(element.find(tag) is not None for tag in ("meta", "image", "track"))


def read_cvat(path: Path, element: Element, folder: Folder) -> list[Reference]:
    """The shapes of all images. Masks and polygons of a label and a group are one object, as in its other exports."""
    if element.find("track") is not None:
        raise UserError(f"{path} looks like 'CVAT for video': export 'CVAT for images 1.1' or 'COCO 1.0' instead")
    references = []
    for image in element.findall("image"):
        name = f"{image.get('subset') or ''}/{image.get('name') or ''}".lstrip("/")
        if folder.is_empty(image, name, path):
            continue
        read_shape = partial(_read_cvat_shape, folder.canvas(name, path, image.get("height"), image.get("width")))
        references += folder.read_shapes(path, image, read_shape, f"{name}: shape", lambda shape: shape.get("group_id"))
    return references


def _read_cvat_shape(canvas: Canvas, shape: Element) -> Reference | str | None:
    kind, label, of = shape.tag, shape.get("label"), shape.attrib
    if kind in ("polygon", "points"):
        points = [[float(value) for value in point.split(",")] for point in of["points"].split(";")]
        return canvas.polygon(label, points) if kind == "polygon" else canvas.points(label, points)
    if kind == "box":
        return canvas.box(label, of["xtl"], of["ytl"], of["xbr"], of["ybr"], angle=of.get("rotation"))
    if kind == "ellipse":
        return canvas.ellipse(label, of["cx"], of["cy"], of["rx"], of["ry"], of.get("rotation"))
    if kind == "mask":
        return canvas.runs(label, of["rle"].split(","), *(of[key] for key in ("left", "top", "width", "height")))
    return None if kind == "tag" else kind


def is_labelme(element: Element) -> bool:
    """Whether this is the root of a file of LabelMe's web tool; its root is called like that of Pascal VOC."""
    marks = ("imagesize", "object/polygon/pt", "object/segm", "object/deleted")
    return element.tag == "annotation" and any(element.find(mark) is not None for mark in marks)


def read_labelme(path: Path, element: Element, folder: Folder) -> list[Reference]:
    """The objects of a file: polygons, boxes, and masks in files. Parts of an object are in it."""
    size = (element.findtext("imagesize/nrows"), element.findtext("imagesize/ncols"))
    canvas = folder.canvas(element.findtext("filename"), path, *size)

    def read_object(entry: Element) -> Reference | str | None:
        if (entry.findtext("deleted") or "").strip() == "1":
            return None
        label = (entry.findtext("name") or "").strip()
        if mask := entry.findtext("segm/mask"):
            file = next((one for one in folder.files if one.name == Path(mask).name), path.parent / "Masks" / mask)
            folder.use(file, are_masks=True)
            pixels = as_mask(file)
            corners = [float(entry.findtext(f"segm/box/{key}") or 0) for key in ("xmin", "ymin")]
            left, top = (0.0, 0.0) if pixels.shape == canvas.size else corners
            return canvas.mask(label, pixels, (left, top))
        points = [[float(point.findtext(key) or "nan") for key in ("x", "y")] for point in entry.findall("polygon/pt")]
        if entry.findtext("type") == "bounding_box":
            return canvas.box(label, *np.min(points, axis=0), *np.max(points, axis=0))
        return canvas.polygon(label, points)

    return folder.read_shapes(path, element.findall("object"), read_object, "object", _labelme_group)


def _labelme_group(entry: Element) -> str | None:
    """The id of the object that this one is a part of, or of which others are parts."""
    whole = entry.findtext("id") if entry.findtext("parts/hasparts") else None
    return entry.findtext("parts/ispartof") or whole or None
