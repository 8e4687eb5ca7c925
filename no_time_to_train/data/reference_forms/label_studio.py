"""Label Studio's own JSON, full or minimal: tasks with regions, whose numbers are percent of the image's sides."""

import base64
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import IMAGE_ENDINGS, NEEDS, decode_image
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_forms.shapes import Canvas
from no_time_to_train.errors import UserError

NAME = "Label Studio json"

#: The keys of a task under which its annotations stand: now, in old versions, and as predictions to be corrected.
ANNOTATIONS = ("annotations", "completions", "predictions")


def is_form_of(content: Any) -> bool:
    """Whether this is the content of an export: a list of tasks, or one annotation with its task."""
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, dict):
        return False
    is_task = isinstance(first.get("data"), dict) and any(key in first for key in ANNOTATIONS)
    return is_task or {"result", "task"} <= first.keys() or bool(_minimal_regions(first))


def read(path: Path, content: Any, folder: Folder) -> list[Reference]:
    """The regions of all tasks: brush masks, polygons, ellipses, rectangles and key points.

    Of several annotations of a task, that which is marked as ground truth counts, or else the first.
    """
    references = []
    for task in content if isinstance(content, list) else [content]:
        regions = _regions(task, folder)
        if regions is None or folder.is_empty(regions, _image_name(task, path), path):
            continue
        if len(shown := dict.fromkeys(region.get("to_name") for region in regions)) > 1:
            raise UserError(
                f"{path}: task {task.get('id')} has regions on several images ({', '.join(map(str, shown))}): "
                "export tasks of one image each, or leave out the regions of the others"
            )
        name = _image_name(task, path)
        sizes = [(region.get("original_height"), region.get("original_width")) for region in regions]
        canvas = folder.canvas(name, path, *next(filter(all, sizes), ()))
        labels = {region.get("id"): names[0] for region in regions if (names := _labels(region["value"]))}
        folder.skipped["second label of a region"] += sum(len(_labels(region["value"])[1:]) for region in regions)
        read_region = partial(_read_region, canvas, labels)
        references += folder.read_shapes(path, regions, read_region, f"{canvas.image.name}: region")
    return references


def _read_region(canvas: Canvas, labels: dict[Any, Any], region: dict[str, Any]) -> Reference | str | None:
    """The reference that a region marks, or what it lacks; None where it comes again, with its label."""
    value, label = region["value"], labels.get(region.get("id"))
    if label is None:
        return "without a class"
    if not _labels(value):
        return None
    scale = np.array([canvas.width, canvas.height]) / 100
    if value.get("rle"):
        pixels = decode_rle(value["rle"], canvas.height * canvas.width * 4).reshape(*canvas.size, 4)
        return canvas.mask(label, pixels[..., 3] > 127)
    if "imageDataURL" in value:  # a PNG at the image's size, opaque on the object
        picture = decode_image(base64.b64decode(value["imageDataURL"].partition(",")[2]), "of the bitmask")
        assert picture.size == (canvas.width, canvas.height), "its bitmask has another size than the image"
        return canvas.mask(label, np.asarray(picture.convert("RGBA"))[..., 3] > 127)
    if "vertices" in value:
        return "vector"
    if "points" in value:
        return canvas.polygon(label, np.array(value["points"], float) * scale)
    x, y = np.array([value["x"], value["y"]], float) * scale
    if "radiusX" in value:
        rx, ry = np.array([value["radiusX"], value["radiusY"]], float) * scale
        return canvas.ellipse(label, x, y, rx, ry, value.get("rotation"))
    if "height" in value:
        w, h = np.array([value["width"], value["height"]], float) * scale
        return canvas.box(label, x, y, x + w, y + h, angle=value.get("rotation"), about_center=False)
    return canvas.points(label, [x, y])


def _regions(task: dict[str, Any], folder: Folder) -> list[dict[str, Any]] | None:
    """The regions of a task, with ``value``; None where nobody has annotated it."""
    if minimal := _minimal_regions(task):
        return [{**region, "value": region, "id": index} for index, region in enumerate(minimal)]
    annotations = [task] if "result" in task else next(filter(None, map(task.get, ANNOTATIONS)), [])
    kept = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    kept.sort(key=lambda one: not one.get("ground_truth"))
    if len(kept) > 1:
        folder.skipped["second annotation of a task"] += len(kept) - 1
    regions = kept[0].get("result") or [] if kept else None
    keys = {"rle", "imageDataURL", "points", "x", "vertices"}
    return regions and [one for one in regions if isinstance(one.get("value"), dict) and keys & one["value"].keys()]


def _minimal_regions(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The regions of a task in the minimal JSON, which stand in it as a list under the name of their tool."""
    lists = [value for value in task.values() if isinstance(value, list)]
    return [one for one in chain(*lists) if isinstance(one, dict) and "original_width" in one and "value" not in one]


def _labels(value: dict[str, Any]) -> list[Any]:
    labels = next((names for key, names in value.items() if key.endswith("labels") and names), None)
    return labels if isinstance(labels, list) else []


def _image_name(task: dict[str, Any], path: Path) -> str:
    """The name of a task's image, from an address or a path on the server."""
    task = task["task"] if isinstance(task.get("task"), dict) else task
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    assert isinstance(data, dict)
    for value in [data.get("image"), *data.values(), task.get("file_upload")]:
        if isinstance(value, str):
            address = urlsplit(value)
            name = parse_qs(address.query).get("d", [unquote(address.path)])[0]
            if PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS | NEEDS.keys():
                return name
    raise UserError(f"{path}: task {task.get('id')} names no image, as Label Studio's tasks do in 'data'")


def decode_rle(data: list[int], length: int) -> NDArray[np.uint8]:
    """The values in Label Studio's RLE, uint8 [length]: the packing that its editor takes from thi.ng's rle-pack.

    A head of 53 bits: the number of values (32), the bits per value (5, less 1), and four sizes of lengths (4 each,
    less 1). Then runs: one bit says whether one value follows for the whole run or one for each place, two bits which
    size the run's length (less 1) has, then the length, then the value or the values.
    """
    bits = np.unpackbits(np.array(data, np.uint8))
    weights = 1 << np.arange(32, dtype=np.int64)[::-1]
    position = 0

    def take(count: int, times: int = 1) -> NDArray[np.int64]:
        nonlocal position
        part = bits[position : position + count * times]
        if len(part) < count * times:
            raise ValueError("its rle ends too early")
        position += count * times
        numbers: NDArray[np.int64] = part.reshape(times, count) @ weights[-count:]
        return numbers

    if (stated := int(take(32)[0])) != length:
        raise ValueError(f"its rle has {stated} values, the image has {length}")
    width, sizes = int(take(5)[0]) + 1, take(4, 4) + 1
    values = np.zeros(length, np.uint8)
    done = 0
    while done < length:
        is_run = take(1)[0]
        count = int(take(int(sizes[take(2)[0]]))[0]) + 1
        values[done : done + count] = take(width) if is_run else take(width, count)[: length - done]
        done += count
    return values
