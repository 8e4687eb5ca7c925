"""The own JSON of Supervisely, V7 (Darwin), Datumaro and CreateML: pixels, one file per image or one for all."""

import base64
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import decode_image
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_forms.shapes import Canvas
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.errors import UserError

#: The most bytes of a packed mask, before it is unpacked as an image.
MOST_BYTES = 2**26


class ToolForm(NamedTuple):
    """A form.

    Attributes:
        name: What messages call it.
        is_form_of: Whether a file's content is of this form.
        read: The references in a file, from its path, its content and the folder.
    """

    name: str
    is_form_of: Callable[[Any], bool]
    read: Callable[[Path, Any, Folder], list[Reference]]


def _has(content: Any, **kinds: type) -> bool:
    """Whether a JSON object has keys with values of these types."""
    return isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in kinds.items())


def _read_supervisely(path: Path, content: Any, folder: Folder) -> list[Reference]:
    """One file per image, ``ann/IMAGE.json``. The last column and row of a rectangle are inside it."""
    canvas = folder.canvas(path.stem, path, content["size"].get("height"), content["size"].get("width"))

    def read_object(entry: dict[str, Any]) -> Reference | str | None:
        label, kind = entry["classTitle"], entry.get("geometryType")
        if kind == "bitmap":
            bitmap = entry["bitmap"]
            unpacked = zlib.decompressobj().decompress(base64.b64decode(bitmap["data"]), MOST_BYTES)
            pixels = np.asarray(decode_image(unpacked, "of the bitmap").convert("RGBA"))
            opaque = pixels[..., 3] > 0
            return canvas.mask(label, opaque & (pixels[..., :3].any(axis=2) | (not opaque.all())), bitmap["origin"])
        if kind not in ("polygon", "rectangle", "point"):
            return str(kind)
        outside = entry["points"]["exterior"]
        if kind == "polygon":
            return canvas.polygon(label, outside, *(entry["points"].get("interior") or []))
        if kind == "point":
            return canvas.points(label, outside)
        return canvas.box(label, *np.min(outside, axis=0), *np.max(outside, axis=0) + 1)

    return folder.read_shapes(path, content["objects"], read_object, "object")


def _read_darwin(path: Path, content: Any, folder: Folder) -> list[Reference]:
    """One file per image, of version 1 (``image``) or 2 (``item`` with slots). Masks lie in one layer of numbers."""
    item = content.get("item") or content["image"]
    slot = (item.get("slots") or [item])[0]
    if slot.get("type") not in (None, "image"):
        raise UserError(f"{path} looks like a {slot['type']} of V7 (Darwin): annotate images, or export COCO instead")
    name = item.get("name") or item.get("original_filename") or item.get("filename")
    name = f"{place}/{name}" if (place := item.get("path") or "/") != "/" else name
    canvas = folder.canvas(name, path, slot.get("height"), slot.get("width"))
    layers = [entry["raster_layer"] for entry in content["annotations"] if "raster_layer" in entry]
    masks = {key: mask for layer in layers for key, mask in _layer_masks(layer, canvas).items()}

    def read_annotation(entry: dict[str, Any]) -> Reference | str | None:
        label = entry["name"]
        if polygon := entry.get("polygon") or entry.get("complex_polygon"):
            parts = [polygon["path"], *polygon.get("additional_paths", [])] if "path" in polygon else polygon["paths"]
            return canvas.polygon(label, *([[point["x"], point["y"]] for point in one] for one in _paths(parts)))
        if "mask" in entry:
            return canvas.mask(label, masks[entry["id"]])
        if ellipse := entry.get("ellipse"):
            center, radius = ellipse["center"], ellipse["radius"]
            angle = np.degrees(float(ellipse.get("angle") or 0))
            return canvas.ellipse(label, center["x"], center["y"], radius["x"], radius["y"], angle)
        if box := entry.get("bounding_box"):
            return canvas.box(label, box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"])
        if point := entry.get("keypoint"):
            return canvas.points(label, [point["x"], point["y"]])
        if "raster_layer" in entry:
            return None
        return next((kind for kind in ("line", "skeleton", "cuboid", "tag") if kind in entry), "shape of another kind")

    return folder.read_shapes(path, content["annotations"], read_annotation, "annotation")


def _paths(parts: list[Any]) -> list[list[dict[str, float]]]:
    """The paths of a polygon, each a list of points, which may be lists in lists."""
    return [parts] if parts and isinstance(parts[0], dict) else [path for part in parts for path in _paths(part)]


def _is_darwin(content: Any) -> bool:
    image = content.get("item") or content.get("image") if _has(content, annotations=list) else None
    return isinstance(image, dict) and "file_name" not in image  # as SA-1B has


def _layer_masks(layer: dict[str, Any], canvas: Canvas) -> dict[str, NDArray[np.bool_]]:
    """The masks, bool [H, W], in a layer of value, length, value, length, ... along the rows."""
    pairs = np.array(layer["dense_rle"], np.int64).reshape(-1, 2)
    if pairs.min(initial=0) < 0 or pairs[:, 1].sum(dtype=float) != canvas.height * canvas.width:
        raise UserError(f"the raster_layer of image {canvas.image} does not cover its {canvas.width}x{canvas.height}")
    numbers = np.repeat(pairs[:, 0], pairs[:, 1]).reshape(canvas.size)
    return {key: numbers == number for key, number in layer["mask_annotation_ids_mapping"].items()}


def _read_datumaro(path: Path, content: Any, folder: Folder) -> list[Reference]:
    """One file per subset, ``annotations/SUBSET.json``. A box in a group with a mask is that of the mask."""
    labels = dict(enumerate(entry["name"] for entry in content["categories"].get("label", {}).get("labels", [])))
    references = []
    for item in content["items"]:
        annotations = item.get("annotations") or []
        image = item.get("image") or item.get("media") or {}
        name = image.get("path") or item["id"]
        if folder.is_empty(annotations, name, path):
            continue
        canvas = folder.canvas(name, path, *(image.get("size") or ()))
        masked: Any = {one.get("group") for one in annotations if one.get("type") in ("polygon", "mask")} - {0, None}
        read_shape = partial(_read_datumaro_shape, labels, canvas, masked)
        noun = f"{item['id']}: annotation"
        references += folder.read_shapes(path, annotations, read_shape, noun, lambda entry: entry.get("group") or None)
    return references


def _read_datumaro_shape(
    labels: dict[int, str], canvas: Canvas, masked: set[Any], entry: dict[str, Any]
) -> Reference | str | None:
    kind = entry["type"]
    if kind in ("label", "caption") or (kind == "bbox" and (entry.get("group") or None) in masked):
        return None
    label, points = labels[entry["label_id"]], entry.get("points", [])
    if kind == "bbox":
        x, y, w, h = entry["bbox"]
        return canvas.box(label, x, y, x + w, y + h, angle=(entry.get("attributes") or {}).get("rotation"))
    if kind == "polygon":
        return canvas.polygon(label, points)
    if kind == "mask":
        if (mask := decode_mask(entry["rle"])).shape != canvas.size:
            sizes = f"{mask.shape[1]}x{mask.shape[0]} pixels, its image {canvas.width}x{canvas.height}"
            raise ValueError(f"its mask has {sizes}")
        return canvas.mask(label, mask)
    if kind == "ellipse":
        x1, y1, x2, y2 = points
        return canvas.ellipse(label, (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2)
    return canvas.points(label, points) if kind == "points" else kind


def _read_createml(path: Path, content: Any, folder: Folder) -> list[Reference]:
    """One file for all images. Coordinates are the center and the sides of boxes."""
    references = []
    for entry in content:
        name = entry.get("image") or entry.get("imagefilename")
        if folder.is_empty(entry["annotations"], name, path):
            continue
        read_box = partial(_read_createml_box, folder.canvas(name, path))
        references += folder.read_shapes(path, entry["annotations"], read_box, f"{name}: annotation")
    return references


def _read_createml_box(canvas: Canvas, annotation: dict[str, Any]) -> Reference:
    x, y, w, h = (float(annotation["coordinates"][key]) for key in ("x", "y", "width", "height"))
    return canvas.box(annotation["label"], x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def _is_createml(content: Any) -> bool:
    entries: list[Any] = content if isinstance(content, list) and content else [None]
    return all(_has(one, annotations=list) and ("image" in one or "imagefilename" in one) for one in entries)


FORMS = (
    ToolForm("Datumaro json", lambda content: _has(content, items=list, categories=dict), _read_datumaro),
    ToolForm("Supervisely json", lambda content: _has(content, objects=list, size=dict), _read_supervisely),
    ToolForm("V7 Darwin json", _is_darwin, _read_darwin),
    ToolForm("CreateML json", _is_createml, _read_createml),
)
