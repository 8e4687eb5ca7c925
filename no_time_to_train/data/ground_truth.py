"""Annotations in any form of references as ground truth: the objects of each image, and a COCO file of them."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from no_time_to_train.data.coco import check_images, check_sections, index_coco, read_coco
from no_time_to_train.data.images import shown_size
from no_time_to_train.data.label_files import LabeledObject
from no_time_to_train.data.reference_forms import FoundReferences, Reference, coco_json, find_references
from no_time_to_train.data.reference_forms.reference import WHOLE
from no_time_to_train.errors import UserError, UserNotice, first_of, plural
from no_time_to_train.files import read_json
from no_time_to_train.method.memory_bank import free_id


def read_ground_truth(path: Path, results: Path) -> Any:
    """Ground truth in any form of references, as pycocotools' ``COCO``.

    Args:
        path: A COCO file; or a folder or file in another form, whose images and classes are matched by their names with
            those of ``images.json``, which ``segment`` writes next to its results.
    """
    listed = results.parent / "images.json"
    if path.is_file() and path.suffix.lower() == ".json" and coco_json.is_form_of(read_json(path)):
        coco = read_coco(path)
        if listed.is_file():
            check_same_ids(coco, path, listed)
        return coco
    if not listed.is_file():
        raise UserError(
            f"{path} is not a COCO file, and other forms have no ids of images: they serve results of segment, which "
            f"have an images.json next to them, and {results.parent} has none; give a COCO file (see convert --to coco)"
        )
    entries = read_json(listed)
    check_sections(entries, listed)
    check_images(entries["images"], listed)
    images = by_image(read := find_references(path))
    places = {os.path.realpath(results.parent / str(entry.get("path"))): entry for entry in entries["images"]}
    bases: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted(entries["images"], key=lambda one: -len(one["file_name"])):  # x/1.jpg before 1.jpg
        bases.setdefault(Path(entry["file_name"]).name, []).append(entry)
    ids = {category["name"]: category["id"] for category in entries.get("categories", [])}
    classes = set(ids)
    annotations: list[dict[str, Any]] = []
    missing, seen = [], set()
    for image, references in (images | {path: [] for path in read.empty}).items():
        same_name = bases.get(image.name, [])
        ends = (one for one in same_name if image.as_posix().endswith(f"/{one['file_name']}"))
        entry = places.get(os.path.realpath(image)) or next(ends, same_name[0] if len(same_name) == 1 else None)
        if entry is None:
            missing += [image.name] if references else []
            continue
        seen.add(entry["id"])
        for one in LabeledObjects(references, *size_of(image, references)):
            if one.label not in ids:
                ids[one.label] = free_id(ids.values())
            number = len(annotations) + 1
            found = one.to_coco()
            found["segmentation"] = found["segmentation"] or [one.corners.ravel().tolist()]
            annotations.append({"id": number, "image_id": entry["id"], "category_id": ids[one.label], **found})
    if not annotations:
        raise UserError(f"{path} annotates none of the images of {listed}: are they the same images?")
    others = [str(entry["file_name"]) for entry in entries["images"] if entry["id"] not in seen]
    for names, noun, text in (
        (missing, "annotated image", "not among the results"),
        (others, "searched image", f"not annotated in {path}, where all that was found counts as false"),
        (sorted(set(ids).difference(classes)), "annotated class", "not among those of the results"),
    ):
        if names:
            warnings.warn(f"{plural(len(names), noun)} {text}: {first_of(names)}", UserNotice, stacklevel=2)
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    keys = ("id", "file_name", "height", "width")
    sizes = [{name: entry.get(name) for name in keys} for entry in entries["images"]]
    return index_coco({"images": sizes, "annotations": annotations, "categories": categories})


def check_same_ids(coco: Any, path: Path, listed: Path) -> None:
    """Check that the ids in segment's ``images.json`` mean the same in a COCO file: others would give an AP of 0."""
    content = read_json(listed)
    for kind, key, known in (("categories", "name", coco.cats), ("images", "file_name", coco.imgs)):
        entries = content.get(kind) if isinstance(content, dict) else None  # segment wrote it, or another program
        for entry in entries if isinstance(entries, list) else []:
            if not isinstance(entry, dict) or type(entry.get("id")) not in (int, str):
                continue
            ours, theirs = entry.get(key), known.get(entry.get("id"), {}).get(key)
            if theirs is not None and Path(str(ours)).name != Path(str(theirs)).name:
                raise UserError(
                    f"id {entry['id']} of {kind} is {ours!r} in {listed} and {theirs!r} in {path}, so the results "
                    f"do not fit: run segment with --images {path}, which keeps its ids"
                )


def by_image(found: FoundReferences) -> dict[Path, list[Reference]]:
    """The references in each image. Those that mark no area are left out, with a notice."""
    images: dict[Path, list[Reference]] = {}
    marked = [one for one in found.references if one.mask is not None or one.box is not None]
    for one in marked:
        one.check_size()
        images.setdefault(one.image, []).append(one)
    if not images:
        raise UserError(f"the annotations ({found.form}) have neither masks nor boxes: there is nothing to convert")
    if without := len(found.references) - len(marked):
        text = f"{plural(without, 'object')} without a mask or a box left out: SAM 2 makes masks for them in segment"
        warnings.warn(text, UserNotice, stacklevel=2)
    return images


@dataclass(frozen=True)
class LabeledObjects(Sequence[LabeledObject]):
    """The objects of one image, whose masks are read when they are asked for: all would not fit into memory."""

    references: list[Reference]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.references)

    def __getitem__(self, index: Any) -> Any:
        reference = self.references[index]
        mask = np.ones((self.height, self.width), bool) if reference.mask == WHOLE else reference.read_mask()
        box = reference.box
        if mask is not None:
            if not mask.any():
                raise UserError(f"{reference.image}: a {reference.label} marks no pixel of it: correct or remove it")
            ys, xs = np.nonzero(mask)
            box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        assert box is not None
        return LabeledObject(reference.label, box, mask, difficult=reference.difficult)


def size_of(image: Path, references: list[Reference]) -> tuple[int, int]:
    """The height and width in pixels of an image, as its annotations see it."""
    sizes = (one.size or (shown_size(one.mask) if isinstance(one.mask, Path) else None) for one in references)
    return next(filter(None, sizes), None) or shown_size(image)
