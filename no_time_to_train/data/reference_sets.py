"""Reference sets: which annotated instances the memory is made from.

A reference set is ``{category_id: [{"img_id": ..., "ann_ids": [...]}, ...]}``, as JSON or, as the paper's commands pass
it, as a pickle. An entry is one shot; of several annotations in an entry the first is used, as the published code does.
"""

import json
import pickle
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from pycocotools.coco import COCO

from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write, read_json
from no_time_to_train.method.memory_bank import Category


class Shot(TypedDict):
    """One reference instance: its image and its annotation (the first of ``ann_ids``)."""

    img_id: int
    ann_ids: list[int]


ReferenceSet = dict[int, list[Shot]]


class PlainUnpickler(pickle.Unpickler):
    """Reads pickles of plain containers, numbers and strings; refuses whatever could run code."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it names {module}.{name}, and a reference set holds plain data only")


def read_references(path: str | Path) -> ReferenceSet:
    """Read a reference set, JSON or (by its ending ``.pkl`` or ``.pickle``) pickle.

    Raises:
        UserError: the file is missing, broken, holds more than plain data, or is not a reference set.
    """
    path = Path(path)
    if path.suffix in (".pkl", ".pickle"):
        try:
            with path.open("rb") as file:
                data = PlainUnpickler(file).load()
        except FileNotFoundError as error:
            raise UserError(f"reference set not found: {path}") from error
        except Exception as error:  # a broken pickle can raise nearly anything
            raise UserError(f"reference set {path} cannot be read: {error}") from error
    else:
        data = read_json(path)
    try:
        return {int(category_id): [_shot(entry) for entry in entries] for category_id, entries in data.items()}
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError(
            f'{path} is not a reference set {{category_id: [{{"img_id": ..., "ann_ids": [...]}}, ...]}}: {error!r}'
        ) from error


def _shot(entry: dict[str, Any]) -> Shot:
    ann_ids = [int(ann_id) for ann_id in entry["ann_ids"]]
    if not ann_ids:
        raise ValueError("an entry has no ann_ids")
    return {"img_id": int(entry["img_id"]), "ann_ids": ann_ids}


def write_references(references: ReferenceSet, path: str | Path) -> None:
    """Write a reference set as JSON, or as a pickle if the path ends in ``.pkl``."""
    path = Path(path)
    with atomic_write(path) as file:
        if path.suffix == ".pkl":
            pickle.dump(references, file)
        else:
            file.write(json.dumps(references, indent=1).encode())


def check_references(
    references: ReferenceSet, coco: COCO, json_file: str | Path, categories: list[Category], shots: int | None
) -> ReferenceSet:
    """The shots of the chosen classes, the first ``shots`` of each (None: all), checked against the annotation file.

    Raises:
        UserError: a class has too few; an image or annotation does not exist; an annotation belongs to another image
            or class, or has no mask.
    """
    chosen: ReferenceSet = {}
    for category in categories:
        entries = references.get(category.id, [])
        needed = 1 if shots is None else shots
        if len(entries) < needed:
            raise UserError(
                f"the reference set has {len(entries)} shots of class {category.name!r} (id {category.id}), "
                f"{needed} are needed: sample more, or lower memory_length"
            )
        chosen[category.id] = entries[:shots]
        for shot in chosen[category.id]:
            _check_shot(shot, coco, json_file, category)
    return chosen


def _check_shot(shot: Shot, coco: COCO, json_file: str | Path, category: Category) -> None:
    where = f"a reference of class {category.name!r}"
    image_id, ann_id = shot["img_id"], shot["ann_ids"][0]
    if image_id not in coco.imgs:
        raise UserError(f"{where}: {json_file} has no image with id {image_id}")
    if ann_id not in coco.anns:
        raise UserError(f"{where}: {json_file} has no annotation with id {ann_id}")
    annotation = coco.anns[ann_id]
    if annotation["image_id"] != image_id:
        raise UserError(f"{where}: annotation {ann_id} lies in image {annotation['image_id']}, not in {image_id}")
    if annotation["category_id"] != category.id:
        raise UserError(f"{where}: annotation {ann_id} is of category {annotation['category_id']}, not {category.id}")
    if not annotation.get("segmentation"):
        raise UserError(f"{where}: annotation {ann_id} in {json_file} has no segmentation")
    if not annotation.get("bbox"):
        raise UserError(f"{where}: annotation {ann_id} in {json_file} has no bbox")


def coco_to_references(coco: COCO, shots: int | None = None) -> ReferenceSet:
    """Take each class's first ``shots`` annotations (None: all) as its references, in the file's order."""
    references: ReferenceSet = {int(category["id"]): [] for category in coco.dataset.get("categories", [])}
    for annotation in coco.dataset.get("annotations", []):
        entries = references.setdefault(int(annotation["category_id"]), [])
        if shots is None or len(entries) < shots:
            entries.append({"img_id": annotation["image_id"], "ann_ids": [annotation["id"]]})
    return references


def sample_references(
    coco: COCO, categories: list[Category], shots: int, seed: int, fill_up: bool = False, skip_impossible: bool = False
) -> ReferenceSet:
    """Draw the reference set that the paper's sampler draws from this file with this seed.

    Args:
        categories: the split's classes.
        shots: N, instances a class, each from another image.
        seed: of Python's ``random``, seeded once.
        fill_up: where a class has too few valid instances, repeat those found, or take invalid ones where there is no
            valid one (the paper does so for LVIS).
        skip_impossible: leave out annotations with ``isimpossible`` 1.

    Raises:
        UserError: a class has too few valid instances.
    """
    generator = random.Random(seed)
    wanted = {category.id: category for category in categories}
    candidates: dict[int, list[dict[str, Any]]] = {}
    for annotation in coco.dataset.get("annotations", []):
        if annotation["category_id"] in wanted and not (skip_impossible and annotation.get("isimpossible") == 1):
            candidates.setdefault(annotation["category_id"], []).append(annotation)

    references: ReferenceSet = {}
    for category_id, annotations in candidates.items():
        generator.shuffle(annotations)
        found = _take(annotations, shots, lambda annotation: is_good_reference(annotation, coco))
        if fill_up and len(found) < shots:
            found = found or _take(annotations, shots, lambda _: True)
            found = [found[index % len(found)] for index in range(shots)]
        references[category_id] = [{"img_id": a["image_id"], "ann_ids": [a["id"]]} for a in found]
    for category in categories:
        if len(references.get(category.id, [])) < shots:
            raise UserError(
                f"class {category.name!r} has {len(references.get(category.id, []))} instances that may serve as "
                f"references (not crowd, 32 pixels wide and high, 10 from the border), {shots} are needed"
            )
    return references


def _take(
    annotations: list[dict[str, Any]], shots: int, valid: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """The first ``shots`` valid annotations that lie in different images."""
    found: dict[int, dict[str, Any]] = {}
    for annotation in annotations:
        if len(found) == shots:
            break
        if annotation["image_id"] not in found and valid(annotation):
            found[annotation["image_id"]] = annotation
    return list(found.values())


def is_good_reference(annotation: dict[str, Any], coco: COCO) -> bool:
    """Whether the paper's sampler takes this annotation: one object, at least 32 pixels, 10 from each border."""
    image = coco.imgs[annotation["image_id"]]
    if not annotation.get("bbox"):
        return False
    if not {"height", "width"} <= image.keys():
        raise UserError(f"image {image['id']} states no height and width, by which references are chosen")
    x, y, w, h = annotation["bbox"]
    margin = min(x, y, image["width"] - (x + w), image["height"] - (y + h))
    return not annotation.get("iscrowd") and min(w, h) >= 32 and margin >= 10
