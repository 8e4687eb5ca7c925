"""PASCAL VOC as COCO files: the trainval sets of 2007 and 2012 for references, the test set of 2007 for targets."""

import math
import re
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from no_time_to_train.benchmarks.prepare import steps
from no_time_to_train.benchmarks.prepare.archives import archive_step, archives_of
from no_time_to_train.data.voc import VOC_CLASSES as CLASSES
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_text, write_json


@dataclass(frozen=True)
class ImageSet:
    """A published list of images: ``<year>/ImageSets/Main/<name>.txt``.

    Attributes:
        year: Folder of the challenge's year: ``VOC2007`` or ``VOC2012``.
        name: ``trainval`` or ``test``.
    """

    year: str
    name: str

    def listing(self, devkit: Path) -> Path:
        """The file that lists the images."""
        return devkit / self.year / "ImageSets" / "Main" / f"{self.name}.txt"

    def image_names(self, devkit: Path) -> list[str]:
        """The names of the images, without a suffix, in the published order."""
        names = read_text(self.listing(devkit)).split()
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
                raise UserError(f"{self.listing(devkit)} is not a list of images: it has {name[:100]!r}")
        return names


#: The archive of each image set.
ARCHIVES = {ImageSet(*name.split()): archive for name, archive in archives_of("pascal-voc").items()}

#: The COCO files to write: the image sets that each consists of, and its published number of images.
OUTPUTS = {
    "voc0712_trainval": ([ImageSet("VOC2007", "trainval"), ImageSet("VOC2012", "trainval")], {"images": 16_551}),
    "voc07_test": ([ImageSet("VOC2007", "test")], {"images": 4_952}),
}


def parts(options: steps.PrepareOptions) -> steps.Parts:
    """The steps that make ``pascal-voc/VOCdevkit`` as published and ``pascal-voc/annotations/*.json``.

    The file names in the annotation files are relative to ``VOCdevkit``.
    """
    folder = options.root / "pascal-voc"
    devkit = folder / "VOCdevkit"
    needed = []
    for image_set, archive in ARCHIVES.items():
        title, missing_part = f"{image_set.year} {image_set.name}", partial(image_set_problem, devkit, image_set)
        needed.append(archive_step(title, missing_part, archive, folder, is_wanted, options))
    for name, (image_sets, counts) in OUTPUTS.items():
        path = folder / "annotations" / f"{name}.json"
        problem = partial(converted_problem, counts=counts, subset=options.subset)
        needed.append(steps.Step(f"{name}.json", partial(problem, path), partial(convert, devkit, image_sets, path)))
        if options.makes_masks(references=name == "voc0712_trainval"):
            needed.append(steps.masks_step(f"{name}.json", path, devkit, options, problem))
    return {"pascal-voc": needed}


def is_wanted(member: str) -> bool:
    """Whether a member of VOC's archives belongs to the detection task."""
    return any(f"/{folder}/" in member for folder in ("Annotations", "ImageSets/Main", "JPEGImages"))


def image_set_problem(devkit: Path, image_set: ImageSet) -> str | None:
    """What is missing of an image set that is unpacked in the folder ``VOCdevkit``, or None."""
    if problem := steps.missing(image_set.listing(devkit)):
        return problem
    folder = devkit / image_set.year
    names = image_set.image_names(devkit)
    files = [(name, (f"JPEGImages/{name}.jpg", f"Annotations/{name}.xml")) for name in names]
    absent = [name for name, pair in files if not all((folder / file).is_file() for file in pair)]
    return steps.missing_message(absent, len(names), folder)


def converted_problem(path: Path, counts: dict[str, int], subset: bool) -> str | None:
    """What a step says about a converted file: that it is missing, or None."""
    if problem := steps.missing(path):
        return problem
    images = steps.read_annotations(path, counts, subset)["images"]
    if images and images[0]["id"] != 0:
        raise UserError(
            f"{path} was made by an earlier version, from which other references are drawn than those of the paper: "
            "delete it and run the same command again"
        )
    return None


def convert(devkit: Path, image_sets: list[ImageSet], output: Path) -> None:
    """Write the XML annotations of some image sets as one COCO file, in the form of the published results.

    Reference sets are drawn from this file, so the order of the annotations and the sizes of the boxes decide which
    instances are drawn: images in the published order, and in each image the objects that are not ``difficult`` before
    those that are. The ids of images, annotations and classes count from 0.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_set in image_sets:
        for name in image_set.image_names(devkit):
            path = devkit / image_set.year / "Annotations" / f"{name}.xml"
            try:
                root = parse(path).getroot()
                size = {side: int(_text(root, f"size/{side}")) for side in ("width", "height")}
                objects = [read_object(element) for element in root.iterfind("object")]
            except (OSError, LookupError, ParseError, DefusedXmlException, ValueError) as error:
                raise UserError(f"{path} is not a VOC annotation: {error}") from error
            image_id = len(images)
            images.append({"id": image_id, "file_name": f"{image_set.year}/JPEGImages/{name}.jpg", **size})
            for fields in sorted(objects, key=itemgetter("difficult")):
                annotations.append({"id": len(annotations), "image_id": image_id, **fields})
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES)]
    write_json(output, {"images": images, "annotations": annotations, "categories": categories}, indent=None)


def read_object(element: Element) -> dict[str, Any]:
    """The fields of a COCO annotation from an ``object`` of VOC's XML; a ValueError where it is none.

    VOC counts pixels from 1 and includes both ends of a box. The published results were computed with
    x = xmin - 1, y = ymin - 1, w = xmax - xmin and h = ymax - ymin, which is one pixel less than the box covers.
    ``difficult`` objects are also ``iscrowd``, so that they are neither drawn as references nor counted as missed.
    """
    name = _text(element, "name")
    if name not in CLASSES:
        raise ValueError(f"unknown class {name!r}")
    x1, y1, x2, y2 = (float(_text(element, f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
    if not (x1 <= x2 < math.inf and y1 <= y2 < math.inf):
        raise ValueError(f"the box of a {name} is empty or infinite")
    difficult = int(element.findtext("difficult") or 0)
    return {
        "category_id": CLASSES.index(name),
        "bbox": [x1 - 1, y1 - 1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": difficult,
        "difficult": difficult,
    }


def _text(element: Element, path: str) -> str:
    """The text of a descendant; a ValueError where it is missing."""
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"{path} is missing")
    return text.strip()
