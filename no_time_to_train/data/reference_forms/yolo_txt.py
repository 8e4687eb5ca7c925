"""YOLO: one text file per image, with boxes, polygons or key points, and the names of the classes in another file.

The names stand in ``data.yaml`` or another YAML file (ultralytics, Roboflow, FiftyOne), in ``classes.txt`` (Label
Studio, labelImg), ``obj.names`` (Darknet, CVAT) or ``notes.json`` (Label Studio).
"""

import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from no_time_to_train.data.coco import whole_number
from no_time_to_train.data.images import shown_size
from no_time_to_train.data.names import clean_class_names
from no_time_to_train.data.reference_forms.folder import Folder, agreed
from no_time_to_train.data.reference_forms.image_files import fold
from no_time_to_train.data.reference_forms.reference import FoundReferences, Reference
from no_time_to_train.data.rle import are_coordinates, check_polygons, encode_mask
from no_time_to_train.errors import UserError, first_of
from no_time_to_train.files import read_json, read_text
from no_time_to_train.yaml_files import read_yaml

NAME = "YOLO txt"

#: Files that list the names of classes, one a line; and those that labelImg and Roboflow call so.
TOOL_LISTS = ("predefined_classes.txt", "_darknet.labels")
NAME_LISTS = ("classes.txt", "obj.names", "labels.txt", "classes.names", "names.txt", *TOOL_LISTS)

#: Files that belong to the form, but say nothing about references.
SIDE_FILES = ("obj.data", "notes.json", "train.txt", "val.txt", "valid.txt", "test.txt", *NAME_LISTS)

#: The endings of YAML files.
YAML = (".yaml", ".yml")


class Classes(NamedTuple):
    """The classes of a data set.

    Attributes:
        path: The file that names them.
        names: The names by index.
        keypoints: The number of key points and of values for each (``kpt_shape``); None where labels have none.
    """

    path: Path
    names: dict[int, str]
    keypoints: tuple[int, int] | None = None


def find(folder: Folder) -> FoundReferences | None:
    """The references of YOLO; None where the folder is of another form. Category ids are the indexes and 1."""
    yamls = folder.ending(*YAML)
    data = next((path for path in yamls if path.parent == folder.root and path.stem == "data"), None)
    if yamls == [folder.path]:
        data, folder = folder.path, Folder(folder.root)
    labels = label_files(folder, are_sure=data is not None)
    if data is None and not labels:
        return None
    classes = read_classes(data) if data else find_classes(folder)
    if classes is None:
        return None
    folder.use(classes.path, *filter(_is_side_file, folder.files))
    folder.skipped.update(without_image(folder))
    references = [one for image, path in labels.items() for one in _read_labels(image, path, classes, folder)]
    ids = {name: index + 1 for index, name in sorted(classes.names.items())}
    return FoundReferences(NAME, references, ids, folder.skipped, folder.unused())


def without_image(folder: Folder) -> dict[str, int]:
    """What to call the label files that hold objects, but whose names no image has, and how many they are."""
    known = {fold(path.stem) for path in folder.images}
    found: list[str] = []
    for path in folder.ending(".txt"):
        with suppress(UserError):  # of a text that is no label file, and may not be UTF-8
            if fold(path.stem) not in known and read_text(path).strip() and _are_numbers(path):
                found.append(path.name)
    return {f"without an image: {first_of(found)}": len(found)} if found else {}


def label_files(folder: Folder, are_sure: bool = False) -> dict[Path, Path]:
    """The label files by their images; where not ``are_sure`` they may be captions, so one looks into them.

    They lie in the folder ``labels`` in place of ``images``, next to the image, or anywhere if no other has the name.
    """
    texts = [path for path in folder.ending(".txt") if not _is_side_file(path)]
    stems = Counter(fold(path.stem) for path in texts)
    alone = {fold(path.stem): path for path in texts if stems[fold(path.stem)] == 1}
    images = folder.images if texts else []
    of_stem = Counter(fold(image.stem) for image in images)
    found = {}
    for image in images:
        labels = label_file(image)
        elsewhere = alone.get(fold(image.stem), labels) if of_stem[fold(image.stem)] == 1 else labels
        path = labels if labels.is_file() else elsewhere
        if path.is_file() and not _is_side_file(path) and (are_sure or _are_numbers(path)):
            found[image] = path
    return found


def _is_side_file(path: Path) -> bool:
    """Whether a file has the name of a side file and is none of labels, as one of a photo ``train.jpg`` is."""
    with suppress(UserError):  # of a list that is not UTF-8
        return path.name.lower() in SIDE_FILES and not _are_numbers(path)
    return True


def _are_numbers(path: Path) -> bool:
    """Whether the first line of a file is a class and at least four numbers, or there is none."""
    first = next(filter(str.strip, read_text(path).splitlines()), "0 0 0 0 0").split()
    return len(first) >= 5 and all(re.fullmatch(r"-?[\d.]+(e-?\d+)?", one, re.I) for one in first)


def find_classes(folder: Folder) -> Classes | None:
    """The names of the classes in another file than ``data.yaml``; files of one kind must agree."""
    yamls = [path for path in folder.ending(*YAML) if "names" in read_text(path)]
    named = [path for path in yamls if isinstance(content := read_yaml(path), dict) and "names" in content]
    files = list(filter(_is_side_file, folder.files))
    lists = next(filter(None, ([path for path in files if path.name.lower() == one] for one in NAME_LISTS)), [])
    found = [read_classes(path) for path in named] or [_read_list(path) for path in lists]
    if agreed({classes.path: classes.names for classes in found}, "numbers"):
        return found[0]
    for path in (path for path in folder.files if path.name == "notes.json"):
        try:
            return _numbered(path, [(whole_number(one["id"]), one["name"]) for one in read_json(path)["categories"]])
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise UserError(f"{path} holds no 'categories' of Label Studio: {error!r}") from error
    return None


def _read_list(path: Path) -> Classes:
    """The names of classes in the lines of a file."""
    return _numbered(path, [one for one in enumerate(map(str.strip, read_text(path).splitlines())) if one[1]])


def read_classes(path: Path) -> Classes:
    """The classes in a YAML file, where ``names`` is a list or a mapping."""
    try:
        content = read_yaml(path, as_text=True)  # a class may be called "no" or "007"
        names = content["names"]
        if not isinstance(names, dict | list):
            raise TypeError(f"names is {names!r}")
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        numbered = [(int(index), name) for index, name in pairs]
        keypoints = content.get("kpt_shape")
        shape = keypoints and (int(keypoints[0]), int(keypoints[1]))
    except (TypeError, KeyError, ValueError, OverflowError, IndexError) as error:
        raise UserError(f"{path} holds no list 'names' of classes: {error!r}") from error
    return _numbered(path, numbered, shape)


def _numbered(path: Path, names: list[tuple[int, str]], keypoints: tuple[int, int] | None = None) -> Classes:
    cleaned = clean_class_names([name for _, name in names], path)
    if len(set(cleaned.values())) < len(names) or len(dict(names)) < len(names):
        raise UserError(f"{path} names two classes alike, or gives a number twice: {', '.join(cleaned.values())}")
    return Classes(path, {index: cleaned[name] for index, name in names}, keypoints)


def _read_labels(image: Path, labels: Path, classes: Classes, folder: Folder) -> list[Reference]:
    """The references in one label file."""
    from supervision.dataset.formats.yolo import yolo_annotations_to_detections  # takes over a second

    folder.use(image, labels)
    height, width = shown_size(image)
    references = []
    for number, line in enumerate(read_text(labels).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values, is_polygon = _parse(line, classes)
            _check(values[1:], height, width, is_polygon)
            index = whole_number(values[0])  # numpy writes it with a fraction
            if is_polygon:  # ultralytics cuts the fractions off; rounding to six digits made some a little smaller
                corners = np.reshape(values[1:], (-1, 2)) * (width, height)
                values[1:] = (np.floor(corners + 0.01) / (width, height)).ravel().tolist()
            text = " ".join(map(str, [index, *values[1:]]))
            found = yolo_annotations_to_detections([text], (width, height), with_masks=is_polygon)
            label = classes.names[index]
        except Exception as error:  # the parser raises ValueError, IndexError, OverflowError, ...
            reason = f"{classes.path} names no class {error}" if isinstance(error, KeyError) else error
            raise UserError(f"{labels}, line {number}: {reason}") from error
        x1, y1, x2, y2 = found.xyxy[0].tolist()
        mask = None if found.mask is None else encode_mask(found.mask[0])
        references.append(Reference(label, image, mask, None if is_polygon else (x1, y1, x2, y2), size=(height, width)))
    return references


def _parse(line: str, classes: Classes) -> tuple[list[float], bool]:
    """The class and the coordinates of a line, and whether they are a polygon; four corners are one as well.

    Key points and the confidence of a prediction are left out: a line with key points is a box.
    """
    values = [float(value) for value in line.split()]
    count = len(values) - 1
    if classes.keypoints and count in (4 + classes.keypoints[0] * classes.keypoints[1] + extra for extra in (0, 1)):
        return values[:5], False
    if count <= 5:
        return values[:5], False
    # Key points of three values have a visibility, 0, 1 or 2; no other label holds a 2.
    visible = set(values[7::3]) if count % 3 == 1 else set()
    if 2.0 in visible and visible <= {0.0, 1.0, 2.0}:
        return values[:5], False
    if count == 6 and values[6] >= 1 and not values[6] % 1:
        raise ValueError("a triangle, or a box with the number of a track? Add a corner, or leave that number out")
    return values if count % 2 == 0 else values[:-1], True


def _check(numbers: list[float], height: int, width: int, is_polygon: bool) -> None:
    """Check the coordinates of a line, which are shares of the image's sides; a ValueError says what is wrong."""
    pixels: list[Any] = [value * (width, height)[index % 2] for index, value in enumerate(numbers)]
    if is_polygon:
        check_polygons([pixels], height, width)
    elif not are_coordinates(pixels):
        raise ValueError("a coordinate is not a number, or far outside the image")
    if not is_polygon and (len(numbers) < 4 or min(numbers[2:]) < 0):
        raise ValueError("a box has a negative width or height, or fewer than four numbers")
    if max(map(abs, numbers)) >= 2:
        far = max(numbers, key=abs)
        raise ValueError(f"{far:g} is no share of a side of the image: divide pixels by its width or height")


def label_file(image: Path) -> Path:
    """Where the labels of an image lie: in the folder ``labels`` in place of ``images``, or else next to the image."""
    parts = list(image.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            labels = Path(*parts).with_suffix(".txt")
            if labels.is_file():
                return labels
            break
    return image.with_suffix(".txt")
