"""VGG Image Annotator (VIA) 1 and 2, and makesense's "VGG JSON": regions as JSON, a project, or CSV."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_forms.shapes import Canvas
from no_time_to_train.errors import UserError

NAME = "VIA"

#: What people call the attribute with the class, the likeliest first.
ATTRIBUTES = ("label", "class", "class_name", "name", "category", "type", "object")

#: Column of the CSV that no other form has.
COLUMN = "region_shape_attributes"

#: A region: its shape and its attributes.
Region = tuple[dict[str, Any], dict[str, Any]]


def is_form_of(content: Any) -> bool:
    """Whether this is the content of an annotation file or a project."""
    if not isinstance(content, dict) or not content:
        return False
    entries = content.get("_via_img_metadata", content)
    return isinstance(entries, dict) and all(
        isinstance(entry, dict) and {"filename", "regions"} <= entry.keys() for entry in entries.values()
    )


def read(path: Path, content: Any, folder: Folder) -> list[Reference]:
    """The regions of a JSON file or a project."""
    files: list[tuple[str, list[Region]]] = []
    for entry in content.get("_via_img_metadata", content).values():
        regions = entry["regions"].values() if isinstance(entry["regions"], dict) else entry["regions"]
        files.append((entry["filename"], [(one["shape_attributes"], one["region_attributes"]) for one in regions]))
    return _read(path, files, folder)


def read_csv(path: Path, rows: list[list[str]], folder: Folder) -> list[Reference]:
    """The regions of a CSV file, which has one in each row."""
    files: dict[str, list[Region]] = {}
    for number, values in enumerate(rows[1:], start=2):
        row = dict(zip(rows[0], values, strict=False))
        try:
            region = (dict(json.loads(row[COLUMN] or "{}")), dict(json.loads(row["region_attributes"] or "{}")))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: {error!r}") from error
        files.setdefault(row.get("filename") or row.get("#filename") or "", []).extend([region] if region[0] else [])
    return _read(path, list(files.items()), folder)


def _read(path: Path, files: list[tuple[str, list[Region]]], folder: Folder) -> list[Reference]:
    key = _class_attribute([attributes for _, regions in files for _, attributes in regions], path)
    references = []
    for name, regions in files:
        if not folder.is_empty(regions, name, path):
            read_region = partial(_read_region, key, folder.canvas(name, path))
            references += folder.read_shapes(path, regions, read_region, f"{name}: region")
    return references


def _class_attribute(regions: list[dict[str, Any]], path: Path) -> str:
    """The attribute that names the class: the only one, or that with a usual name."""
    keys = list(dict.fromkeys(key for attributes in regions for key in attributes))
    usual = [key for known in ATTRIBUTES for key in keys if key.lower() == known]
    if len(keys) == 1 or usual:
        return (usual or keys)[0]
    found = f"its attributes are {', '.join(keys)}" if keys else "they have no attribute"
    raise UserError(f"{path} looks like VIA, but no attribute of its regions is their class: {found}; call one 'label'")


def _read_region(key: str, canvas: Canvas, region: Region) -> Reference | str | None:
    """The reference that a region marks, or the kind of a region that marks no area."""
    shape, attributes = region
    value = attributes.get(key)
    if isinstance(value, dict):  # the boxes of it that are ticked
        value = next((name for name, is_ticked in value.items() if is_ticked), None)
    label = "" if value is None else str(value).strip()
    if not label:
        return "without a class"
    kind = shape["name"]
    if kind == "polygon":
        return canvas.polygon(label, np.stack([shape["all_points_x"], shape["all_points_y"]], axis=1))
    if kind == "rect":
        x, y = float(shape["x"]), float(shape["y"])
        return canvas.box(label, x, y, x + float(shape["width"]), y + float(shape["height"]))
    if kind == "circle":
        return canvas.ellipse(label, shape["cx"], shape["cy"], shape["r"], shape["r"])
    if kind == "ellipse":
        angle = np.degrees(float(shape.get("theta") or 0))
        return canvas.ellipse(label, shape["cx"], shape["cy"], shape["rx"], shape["ry"], angle)
    if kind == "point":
        return canvas.points(label, [shape["cx"], shape["cy"]])
    return str(kind)
