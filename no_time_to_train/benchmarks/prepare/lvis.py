"""LVIS v1: COCO's images under LVIS's annotations; minival, its validation images that lie in COCO's val2017."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from no_time_to_train.benchmarks.prepare.archives import open_archive
from no_time_to_train.benchmarks.prepare.coco2017 import IMAGES, fetch_images
from no_time_to_train.benchmarks.prepare.fetch import Archive, obtain
from no_time_to_train.benchmarks.prepare.steps import Parts, Settings, Step
from no_time_to_train.benchmarks.prepare.verify import missing_file, missing_images, read_counted, say_missing
from no_time_to_train.errors import UserError
from no_time_to_train.files import write_json

ARCHIVES = {
    "train": Archive(("https://dl.fbaipublicfiles.com/LVIS/lvis_v1_train.json.zip",), 350),
    "val": Archive(("https://dl.fbaipublicfiles.com/LVIS/lvis_v1_val.json.zip",), 64),
}

#: Split -> the published numbers.
COUNTS = {"train": {"images": 100_170}, "val": {"images": 19_809}, "minival": {"images": 4_809}}


def parts(settings: Settings) -> Parts:
    """``lvis/annotations/lvis_v1_{train,val,minival}.json``, whose file names are relative to ``coco``."""
    paths = {split: settings.root / "lvis" / "annotations" / f"lvis_v1_{split}.json" for split in COUNTS}
    steps = [
        Step(
            f"LVIS {split} annotations",
            partial(missing_file, paths[split], COUNTS[split], settings.subset),
            partial(convert, split, paths[split], settings),
            ARCHIVES[split].source(settings.downloads),
        )
        for split in ARCHIVES
    ]
    minival = Step(
        "LVIS minival annotations",
        partial(missing_file, paths["minival"], COUNTS["minival"], settings.subset),
        partial(convert_minival, paths["val"], paths["minival"], settings),
    )
    return {"lvis": [*steps, minival, *(images_step(split, paths, settings) for split in IMAGES)]}


def convert(split: str, path: Path, settings: Settings) -> None:
    """Write LVIS's annotations with file names, straight from the downloaded archive."""
    archive = obtain(ARCHIVES[split], settings.downloads)
    name = ARCHIVES[split].file_name.removesuffix(".zip")
    with open_archive(archive) as members:
        content = [member for member in members if member.name == name]
        if not content:
            raise UserError(f"archive {archive} holds no {name}: delete it and run the same command again")
        try:
            with content[0].open() as file:
                data = json.load(file)
            add_file_names(data)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{name} in archive {archive} is not LVIS's: {error!r}") from error
    write_json(path, data, indent=None)
    if not settings.keep_archives:
        archive.unlink()


def add_file_names(data: dict[str, Any]) -> None:
    """Give LVIS's images the ``file_name`` that they lack, relative to COCO's folder, from their addresses."""
    for image in data["images"]:
        name = urlsplit(image["coco_url"]).path.lstrip("/")
        if not re.fullmatch(r"(train|val)2017/\d+\.jpg", name):
            raise UserError(f"LVIS image {image['id']} has an address that is not COCO's: {image['coco_url']}")
        image["file_name"] = name


def convert_minival(val: Path, minival: Path, settings: Settings) -> None:
    """Write the part of LVIS val in COCO's val2017, which no detector trained on COCO has seen, with its masks."""
    data = read_counted(val, COUNTS["val"], settings.subset)
    images = [image for image in data["images"] if image["file_name"].startswith("val2017/")]
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in data["annotations"] if annotation["image_id"] in ids]
    write_json(minival, {**data, "images": images, "annotations": annotations}, indent=None)


def images_step(split: str, paths: dict[str, Path], settings: Settings) -> Step:
    """The step that brings COCO's images of a split, as far as LVIS uses them."""
    folder = settings.root / "coco"

    def problem() -> str | None:
        names: set[str] = set()
        for lvis_split in ARCHIVES:
            if not paths[lvis_split].is_file():
                return f"{paths[lvis_split]}, which lists them, is not there"
            images = read_counted(paths[lvis_split], COUNTS[lvis_split], settings.subset)["images"]
            names |= {image["file_name"] for image in images if image["file_name"].startswith(f"{split}/")}
        return say_missing(missing_images(sorted(names), folder), len(names), folder)

    return Step(
        f"COCO {split} images of LVIS",
        problem,
        partial(fetch_images, split, settings),
        IMAGES[split].source(settings.downloads),
    )
