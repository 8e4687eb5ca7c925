"""Reference sets: which annotated instances the memory is made from.

A reference set is ``{category_id: [{"img_id": ..., "ann_ids": [...]}, ...]}``, stored as JSON or, as in the paper's
commands, as a pickle. Each entry is one shot. Of several annotations in an entry, the first is used.
"""

import io
import pickle
import pickletools
import random
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from pycocotools.coco import COCO

from no_time_to_train.data.coco import ImageId, image_ids_of_other_type, whole_number
from no_time_to_train.errors import UserError, UserNotice, first_of, plural
from no_time_to_train.files import atomic_write, read_bytes, read_json, write_json
from no_time_to_train.method.memory_bank import Category


class Shot(TypedDict):
    """One reference instance.

    Attributes:
        img_id: The id of its image.
        ann_ids: The id of its annotation; others after it are not used.
    """

    img_id: ImageId
    ann_ids: list[int]


#: The shots of each class, by category id.
ReferenceSet = dict[int, list[Shot]]


#: What creates an object that a pickle may use several times, besides texts: containers that are no keys, and classes.
REPEATABLE = {"EMPTY_LIST", "EMPTY_DICT", "LIST", "DICT", "REDUCE", "GLOBAL", "STACK_GLOBAL", "STRING", "EMPTY_SET"}


class PlainUnpickler(pickle.Unpickler):
    """Reads pickles of plain containers, numbers and strings, and refuses everything that could run code."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it names {module}.{name}, but a reference set holds plain data only")


def read_references(path: str | Path) -> ReferenceSet:
    """Read a reference set.

    Args:
        path: A pickle where it ends in ``.pkl`` or ``.pickle``, otherwise JSON.
    """
    path = Path(path)
    content = _read_pickle(path) if path.suffix in (".pkl", ".pickle") else read_json(path)
    try:
        classes = {whole_number(one): [_shot(entry) for entry in entries] for one, entries in content.items()}
        if len(classes) < len(content):
            raise ValueError("it gives a class twice")
        return classes
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError(
            f'{path} is not a reference set {{category_id: [{{"img_id": ..., "ann_ids": [...]}}, ...]}}: {error!r}'
        ) from error


def _read_pickle(path: Path) -> Any:
    """The content of a pickle, without running code."""
    content = read_bytes(path)
    try:
        check_pickle(content)
        return PlainUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a broken pickle can raise nearly anything
        raise UserError(f"reference set {path} cannot be read: {error}") from error


def check_pickle(content: bytes) -> None:
    """Refuse a pickle that needs more memory or time than its size.

    These are large places of the memo, and tuples that are used several times: Python computes the hash of a key that
    is made of such tuples again for each use.

    Raises:
        ValueError: It is so, or is not valid.
    """
    repeatable, last = dict[int, bool](), ""  # by place of the memo
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(repeatable) if argument is None else argument
            if place > number:
                raise ValueError(f"its memo has no place {place}")
            repeatable[place] = last in REPEATABLE or "UNICODE" in last
        elif opcode.name == "DUP" or ("GET" in opcode.name and not repeatable.get(argument or 0)):
            raise ValueError("it uses a tuple several times, as arrays of numpy do: write plain lists of integers")
        last = opcode.name


def _shot(entry: dict[str, Any]) -> Shot:
    """An entry with its ids as integers, except an image id that is a string."""
    ann_ids = [whole_number(ann_id) for ann_id in entry["ann_ids"]]
    if not ann_ids or not isinstance(entry["ann_ids"], list | tuple | set):
        raise ValueError("an entry has no list of ann_ids")
    image_id = entry["img_id"]
    return {"img_id": image_id if isinstance(image_id, str) else whole_number(image_id), "ann_ids": ann_ids}


def write_references(references: ReferenceSet, path: str | Path) -> None:
    """Write a reference set atomically.

    Args:
        path: Written as a pickle where it ends in ``.pkl`` or ``.pickle``, otherwise as JSON.
    """
    if Path(path).suffix in (".pkl", ".pickle"):
        with atomic_write(path) as file:
            pickle.dump(references, file)
    else:
        write_json(path, references)


def validate_references(
    references: ReferenceSet, coco: COCO, json_file: str | Path, categories: list[Category], shots: int | None
) -> ReferenceSet:
    """Choose the shots of some classes, and check them against the annotation file.

    A class with fewer shots than asked for is used with those that it has, and a :class:`UserNotice` names it.

    Args:
        references: The reference set, which may have further classes.
        shots: The first this many shots of each class are chosen; None chooses all.

    Returns:
        The chosen shots. Their image ids are of the type that the annotation file has.
    """
    chosen: ReferenceSet = {}
    few, other_type = [], image_ids_of_other_type(coco)
    for category in categories:
        entries = references.get(category.id, [])
        if not entries:
            raise UserError(
                f"the reference set has no shots of class {category.name!r} (id {category.id}): sample some, or leave "
                "the class out"
            )
        chosen[category.id] = [
            {**shot, "img_id": other_type.get(shot["img_id"], shot["img_id"])} for shot in entries[:shots]
        ]
        if shots is not None and len(entries) < shots:
            few.append(f"{category.name} ({len(entries)})")
        for shot in chosen[category.id]:
            _check_shot(shot, coco, json_file, category)
    if few:
        what = f"classes with fewer shots than memory_length ({shots}) are used with those that they have"
        warnings.warn(f"{what}: {first_of(few, 10)}", UserNotice, stacklevel=2)
    return chosen


def _check_shot(shot: Shot, coco: COCO, json_file: str | Path, category: Category) -> None:
    """Check one shot against the annotation file."""
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
    for key in ("segmentation", "bbox"):
        if not annotation.get(key):
            raise UserError(f"{where}: annotation {ann_id} in {json_file} has no {key}")


def coco_to_references(coco: COCO, shots: int | None = None, as_published: bool = False) -> ReferenceSet:
    """Take the annotations of a file as references, in the file's order.

    Args:
        shots: The first this many annotations of each class are taken; None takes all.
        as_published: Make the set that the published results of CD-FSOD were computed with. It differs from a set of
            all annotations where an image has several of a class, or where a class has fewer than ``shots``: an entry
            lists all annotations of its class in its image and is repeated once per annotation, so the first of them,
            which is the one that is used, is used several times. A class with fewer than ``shots`` entries is filled
            up with entries drawn by ``random.choices``, seeded with 42 once for all classes. A class with more keeps
            all. Classes without annotations are left out.
    """
    annotations = coco.dataset.get("annotations", [])
    if as_published:
        return _published_references(annotations, shots)
    annotations = [one for one in annotations if not one.get("iscrowd")] or annotations
    references: ReferenceSet = {int(category["id"]): [] for category in coco.dataset.get("categories", [])}
    for annotation in annotations:
        entries = references.setdefault(int(annotation["category_id"]), [])
        if shots is None or len(entries) < shots:
            entries.append({"img_id": annotation["image_id"], "ann_ids": [annotation["id"]]})
    counts = {coco.cats.get(label, {}).get("name", str(label)): len(entries) for label, entries in references.items()}
    if few := [f"{name} ({count})" for name, count in counts.items() if 0 < count < (shots or 0)]:
        warnings.warn(f"classes with fewer than {shots} references: {first_of(few)}", UserNotice, stacklevel=2)
    return references


def _published_references(annotations: list[dict[str, Any]], shots: int | None) -> ReferenceSet:
    """The set that the published results of CD-FSOD were computed with."""
    by_image: dict[int, dict[ImageId, Shot]] = {}
    for annotation in annotations:
        entries = by_image.setdefault(int(annotation["category_id"]), {})
        entry = entries.setdefault(annotation["image_id"], {"img_id": annotation["image_id"], "ann_ids": []})
        entry["ann_ids"].append(annotation["id"])
    generator = random.Random(42)
    references: ReferenceSet = {}
    for category_id, entries in by_image.items():
        repeated = [entry for entry in entries.values() for _ in entry["ann_ids"]]
        missing = 0 if shots is None else max(0, shots - len(repeated))
        references[category_id] = repeated + generator.choices(repeated, k=missing)
    return references


def sample_references(
    coco: COCO,
    categories: list[Category],
    shots: int,
    seed: int,
    fill_up: bool = False,
    skip_impossible: bool = False,
    heuristics: bool = False,
    at_least: int | None = None,
) -> ReferenceSet:
    """Draw the reference set that the paper's sampler draws from the same file with the same seed.

    Args:
        shots: Instances per class, each from another image.
        seed: Seed of Python's ``random``, which is seeded once for all classes.
        fill_up: Where a class has too few good references (see :func:`is_good_reference`), repeat those that it has;
            where it has none, take the first others, whether or not they are in the same image. The paper does so for
            LVIS.
        skip_impossible: Leave out annotations whose ``isimpossible`` is 1.
        heuristics: Do not draw, but take the best good references by rule; see :func:`rank_by_heuristics`.
        at_least: The references that each class needs. Classes that have fewer than ``shots`` then give all that they
            have. Default: ``shots``. The first references of a class are those of a smaller draw with the same seed.

    Returns:
        ``shots`` references of each class.
    """
    at_least = shots if at_least is None else at_least
    generator = random.Random(seed)
    wanted = {category.id for category in categories}
    candidates: dict[int, list[dict[str, Any]]] = {}
    for annotation in coco.dataset.get("annotations", []):
        if annotation["category_id"] in wanted and not (skip_impossible and annotation.get("isimpossible") == 1):
            candidates.setdefault(annotation["category_id"], []).append(annotation)

    references: ReferenceSet = {}
    for category_id, annotations in candidates.items():
        if heuristics:
            annotations = rank_by_heuristics(annotations, coco)
        else:
            generator.shuffle(annotations)
        chosen = _good_of_each_image(annotations, shots, coco)
        if fill_up and len(chosen) < at_least:
            chosen = chosen or annotations[:at_least]
            chosen = [chosen[index % len(chosen)] for index in range(at_least)]
        references[category_id] = [{"img_id": a["image_id"], "ann_ids": [a["id"]]} for a in chosen]
    for category in categories:
        count = len(references.get(category.id, []))
        if count < at_least:
            raise UserError(
                f"class {category.name!r} has {plural(count, 'instance')} that can serve as references (not crowds, at "
                f"least 32 pixels wide and high, 10 from the border), but {at_least} are needed: omit it (--cat-names)"
            )
    return references


def _good_of_each_image(annotations: list[dict[str, Any]], count: int, coco: COCO) -> list[dict[str, Any]]:
    """The first good reference of each image, for the first ``count`` images that have one."""
    chosen: dict[ImageId, dict[str, Any]] = {}
    for annotation in annotations:
        if len(chosen) == count:
            break
        if annotation["image_id"] not in chosen and is_good_reference(annotation, coco):
            chosen[annotation["image_id"]] = annotation
    return list(chosen.values())


def is_good_reference(annotation: dict[str, Any], coco: COCO) -> bool:
    """Whether the paper's sampler accepts an annotation as a reference.

    It accepts single objects whose box is at least 32 pixels wide and high and at least 10 pixels from each border.
    """
    margin = _margin(annotation, coco)
    return margin >= 10 and min(annotation["bbox"][2:]) >= 32 and not annotation.get("iscrowd")


def rank_by_heuristics(annotations: list[dict[str, Any]], coco: COCO) -> list[dict[str, Any]]:
    """Order the annotations of a class by how well they suit as references, by the rule of the paper's authors.

    An annotation scores 1000 if its box touches no border of the image; 200 if its area is at least the 75th
    percentile of the class's areas, 100 if it is at least the 25th; and its share of the largest area. Annotations of
    equal scores keep their order.

    Returns:
        The annotations, the highest score first.
    """
    areas = [float(annotation.get("area", 0)) for annotation in annotations]
    quartiles = np.percentile(areas, [25, 75])
    largest = max(areas)

    def score(item: tuple[dict[str, Any], float]) -> float:
        annotation, area = item
        inside = _margin(annotation, coco) > 0
        return 1000 * inside + 100 * int((area >= quartiles).sum()) + (area / largest if largest > 0 else 0)

    ranked = sorted(zip(annotations, areas, strict=True), key=score, reverse=True)
    return [annotation for annotation, _ in ranked]


def _margin(annotation: dict[str, Any], coco: COCO) -> float:
    """The distance in pixels from an annotation's box to the nearest border of its image; -inf without a box."""
    if not annotation.get("bbox"):
        return float("-inf")
    image = coco.imgs[annotation["image_id"]]
    if not {"height", "width"} <= image.keys():
        raise UserError(f"image {image['id']} states no height and width, which the choice of references needs")
    x, y, w, h = annotation["bbox"]
    return float(min(x, y, image["width"] - (x + w), image["height"] - (y + h)))
