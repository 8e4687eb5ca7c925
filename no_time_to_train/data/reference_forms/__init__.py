"""References in the forms that people have them in: :func:`find_references` detects the form and reads it.

``supervision`` parses the lines of YOLO and the objects of VOC. Its readers of whole data sets are not used, because
they expect all images in one folder and keep every mask in memory at the image's size.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.images import describe_unreadable
from no_time_to_train.data.names import clean_class_names
from no_time_to_train.data.reference_forms import class_folders, coco_json, labelme_json, voc_xml, yolo_txt
from no_time_to_train.data.reference_forms.reference import FoundReferences, Reference
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.files import read_json

__all__ = ["FoundReferences", "Reference", "find_references"]


def find_references(path: Path) -> FoundReferences:
    """Read the references in a folder or an annotation file.

    Where a folder holds several forms, the first of these counts: YOLO, COCO, LabelMe, Pascal VOC, class folders. Files
    that are images by their ending, but cannot be read here, are named in a :class:`UserNotice`.

    Args:
        path: A folder, an annotation file of COCO, LabelMe or Pascal VOC, or YOLO's ``data.yaml``.

    Returns:
        At least one reference, and the name of the form.
    """
    if not path.exists():
        raise UserError(f"references not found: {path}")
    if unreadable := describe_unreadable(sorted(path.rglob("*"))):
        warnings.warn(f"--references {path}: {unreadable}", UserNotice, stacklevel=2)
    found = _find_in_folder(path) if path.is_dir() else _find_in_files([path], path.parent)
    if found is None:
        raise UserError(
            f"{path} holds no references: give a folder with one folder per class (images with NAME_mask.png, "
            "transparent cut-outs, or images alone), with LabelMe json, COCO json or Pascal VOC xml, or with YOLO txt "
            "and data.yaml"
        )
    if not found.references:
        raise UserError(f"{path} ({found.form}) marks no object")
    names = clean_class_names([reference.label for reference in found.references], path)
    return replace(
        found, references=[replace(reference, label=names[reference.label]) for reference in found.references]
    )


def _find_in_folder(root: Path) -> FoundReferences | None:
    data = yolo_txt.find_data_file(root)
    if data is not None:
        return _read_yolo(data, root)
    files = sorted(path for path in root.rglob("*") if not path.name.startswith("."))
    found = _find_in_files(files, root)
    if found is None and class_folders.is_form_of(root):
        return FoundReferences(class_folders.NAME, class_folders.read(root))
    return found


def _find_in_files(files: list[Path], root: Path) -> FoundReferences | None:
    """The references of the first form that some of the files have; None where none has any."""
    if len(files) == 1 and files[0].suffix in (".yaml", ".yml"):
        return _read_yolo(files[0], root)
    contents = {path: read_json(path) for path in files if path.suffix.lower() == ".json"}
    if chosen := [path for path, content in contents.items() if coco_json.is_form_of(content)]:
        cocos = {path: read_coco(path) for path in chosen}
        references = [reference for path, coco in cocos.items() for reference in coco_json.read(path, coco)]
        return FoundReferences(coco_json.NAME, references, _category_ids([coco.dataset for coco in cocos.values()]))
    if chosen := [path for path, content in contents.items() if labelme_json.is_form_of(content)]:
        return FoundReferences(labelme_json.NAME, _read_each(labelme_json.read, chosen))
    chosen = [path for path in files if path.suffix.lower() == ".xml"]
    if chosen:
        return FoundReferences(voc_xml.NAME, _read_each(voc_xml.read, chosen))
    return None


def _read_each(read: Callable[[Path], list[Reference]], paths: list[Path]) -> list[Reference]:
    """The references in some files; whatever their parser raises names the file."""
    references = []
    for path in paths:
        try:
            references += read(path)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{path} is broken: {error!r}") from error
    return references


def _read_yolo(data: Path, root: Path) -> FoundReferences:
    """The references of YOLO. Its classes count from 0, category ids from 1."""
    names = yolo_txt.read_names(data)
    ids = {name: index + 1 for index, name in sorted(names.items())}
    return FoundReferences(yolo_txt.NAME, yolo_txt.read(data, names, root), ids)


def _category_ids(contents: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The category ids in COCO files, in the files' order; numbers from 1 where the files disagree."""
    ids: dict[str, int] = {}
    for category in (category for content in contents for category in content.get("categories", [])):
        ids.setdefault(category["name"], category["id"])
    return ids if len(set(ids.values())) == len(ids) else {name: number for number, name in enumerate(ids, start=1)}
