"""References in the forms that people have them in: :func:`find_references` detects the form and reads it.

``supervision`` parses the lines of YOLO and the objects of VOC. Its readers of whole data sets are not used, because
they expect all images in one folder and keep every mask in memory at the image's size.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from defusedxml.ElementTree import fromstring
from pycocotools import mask as coco_mask

from no_time_to_train.data.images import describe_unreadable
from no_time_to_train.data.names import clean_class_names
from no_time_to_train.data.prompts import check_pixels
from no_time_to_train.data.reference_forms import (
    class_folders,
    coco_json,
    csv_boxes,
    label_studio,
    labelme_json,
    mask_images,
    refusals,
    tool_json,
    tool_xml,
    via_json,
    voc_xml,
    yolo_txt,
)
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.reference import FoundReferences, Reference
from no_time_to_train.errors import UserError, UserNotice, first_of, plural
from no_time_to_train.files import read_bytes, read_json
from no_time_to_train.ranges import check_type

__all__ = ["FoundReferences", "Reference", "find_references"]

#: The other forms of JSON: what a file's content must be, and the reader of one file.
JSON_FORMS: tuple[tool_json.ToolForm, ...] = (
    tool_json.ToolForm(labelme_json.NAME, labelme_json.is_form_of, labelme_json.read),
    tool_json.ToolForm(label_studio.NAME, label_studio.is_form_of, label_studio.read),
    tool_json.ToolForm(f"{via_json.NAME} json", via_json.is_form_of, via_json.read),
    *tool_json.FORMS,
)

#: The forms of XML likewise, by a file's root.
XML_FORMS: tuple[tool_json.ToolForm, ...] = (
    tool_json.ToolForm(tool_xml.CVAT, tool_xml.is_cvat, tool_xml.read_cvat),
    tool_json.ToolForm(tool_xml.LABELME, tool_xml.is_labelme, tool_xml.read_labelme),
    tool_json.ToolForm(voc_xml.NAME, voc_xml.is_form_of, voc_xml.read),
)

#: The least overlap (IoU) of two objects of a class that are surely one, and the most of an image that are compared.
SAME_OBJECT, MOST = 0.7, 2000


def find_references(path: str | Path) -> FoundReferences:
    """Read the references in a folder or an annotation file.

    Where a folder holds several forms, the first of these counts: YOLO, COCO, other JSON, XML, CSV, masks as images,
    class folders. The last is refused where a file or the name of a folder says otherwise. Files that are images by
    their ending, but cannot be read here, and shapes that mark no area are named in a :class:`UserNotice`.

    Args:
        path: A folder, or an annotation file in it.

    Returns:
        At least one reference, the name of the form, and what was not used.
    """
    check_type("path", path, str | Path)
    if path == "" or not Path(path).exists():
        raise UserError(f"references not found: {path}")
    folder = Folder(Path(path))
    if unreadable := describe_unreadable(folder.files):
        warnings.warn(f"--references {path}: {unreadable}", UserNotice, stacklevel=2)
    found = yolo_txt.find(folder) or _find_json(folder) or _find_xml(folder) or csv_boxes.find(folder)
    if found is None and folder.path.is_dir():
        found = mask_images.find(folder)
    if found is None and folder.links:
        left = f"{plural(len(folder.links), 'link')} to folders left out: {first_of(folder.links)}"
        warnings.warn(f"--references {path}: {left}; copy those folders", UserNotice, stacklevel=2)
    if found is None and (reason := refusals.explain(folder)):
        raise UserError(f"{path} holds no references that can be read: {reason}")
    if found is None and folder.path.is_dir():
        found = class_folders.find(folder)
    if found is None:
        raise UserError(
            f"{path} holds no references: give a folder with one folder per class (images with NAME_mask.png, "
            "transparent cut-outs, or images alone), with LabelMe json, COCO json or Pascal VOC xml, with YOLO txt and "
            "data.yaml, or an export of CVAT, Label Studio, Roboflow or another annotation tool"
        )
    skipped = _describe_skipped(folder.skipped)
    if not found.references:
        is_run = (folder.root / "all_results.json").is_file()
        skipped = skipped or ("these are results: see results filter --format" if is_run else "")
        raise UserError(f"{path} ({found.form}) marks no object{f': {skipped}' if skipped else ''}")
    if skipped:
        warnings.warn(f"{path} ({found.form}): {skipped}", UserNotice, stacklevel=2)
    check_pixels((one.box for one in found.references if one.box), path)
    names = clean_class_names([reference.label for reference in found.references], path)
    references = [replace(reference, label=names[reference.label]) for reference in found.references]
    _notice_twice(references, path)
    has_empty = found.form not in (mask_images.NAME, class_folders.NAME)
    empty = folder.empty({one.image for one in references}) if has_empty else ()
    return replace(found, references=references, empty=empty)


def _notice_twice(references: Iterable[Reference], path: str | Path) -> None:
    """Say where an object is marked twice, as two versions of an export in one folder do."""
    shapes: dict[tuple[Path, str, type], list[Any]] = {}
    for one in references:
        x1, y1, x2, y2 = one.box or (0, 0, 0, 0)
        shape = one.mask if isinstance(one.mask, dict) else [x1, y1, x2 - x1, y2 - y1]
        shapes.setdefault((one.image, one.label, type(shape)), []).append(shape)
    overlaps = ((key, coco_mask.iou(same, same, [0] * len(same))) for key, same in shapes.items() if len(same) < MOST)
    twice = [key for key, iou in overlaps for row in np.tril(iou, -1) if (row >= SAME_OBJECT).any()]
    if names := sorted({f"{image.name} ({label})" for image, label, _ in twice}):
        text = f"{plural(len(twice), 'object')} nearly the same as another, and counted as well: {first_of(names)}"
        warnings.warn(f"{path}: {text}; leave the copies out", UserNotice, stacklevel=3)


def _describe_skipped(skipped: Mapping[str, int]) -> str:
    """The shapes that were passed over, and what to draw instead; empty where there are none."""
    kinds = [f"{count} {kind}" for kind, count in skipped.items() if count]
    text = f"passed over: {', '.join(kinds)} (what marks an object is a polygon, mask, box, ellipse or point)"
    return text if kinds else ""


def _find_json(folder: Folder) -> FoundReferences | None:
    """The references of the first form that JSON files have; None where none has any."""
    forms: dict[str, list[Path]] = {}
    for path in folder.ending(".json"):
        content = read_json(path)
        known = (form.name for form in JSON_FORMS if form.is_form_of(content))
        forms.setdefault(coco_json.NAME if coco_json.is_form_of(content) else next(known, ""), []).append(path)
    if chosen := forms.get(coco_json.NAME):
        folder.use(*chosen)
        references, ids = coco_json.read_all(chosen, folder)
        return FoundReferences(coco_json.NAME, references, ids, folder.skipped, folder.unused())
    for form in JSON_FORMS:
        if chosen := forms.get(form.name):
            return _read_each(form, ((path, read_json(path)) for path in chosen), folder)
    return None


def _find_xml(folder: Folder) -> FoundReferences | None:
    """The references of the first form that XML files have; None where none has any."""
    roots = [(path, _root(path)) for path in folder.ending(".xml")]
    for form in XML_FORMS:
        if chosen := [(path, root) for path, root in roots if form.is_form_of(root)]:
            return _read_each(form, chosen, folder)
    roots = [(path, root) for path, root in roots if root.tag != "View"]  # Label Studio's interface
    if roots:
        raise UserError(f"{roots[0][0]} is no Pascal VOC annotation: its root is <{roots[0][1].tag}>, not <annotation>")
    return None


def _root(path: Path) -> Element:
    content = read_bytes(path)
    try:
        root: Element = fromstring(content)
    except Exception as error:  # ParseError, DefusedXmlException, ValueError, ...
        raise UserError(f"{path} is not a Pascal VOC annotation: {error}; save it as XML in UTF-8") from error
    return root


def _read_each(form: tool_json.ToolForm, files: Iterable[tuple[Path, Any]], folder: Folder) -> FoundReferences:
    """The references in some files; whatever their parser raises names the file."""
    references = []
    for path, content in files:
        folder.use(path)
        try:
            references += form.read(path, content, folder)
        except UserError:
            raise
        except Exception as error:
            tool = form.name.rpartition(" ")[0]
            raise UserError(f"{path} is broken: it is not a {tool} annotation: {error!r}") from error
    return FoundReferences(form.name, references, {}, folder.skipped, folder.unused())
