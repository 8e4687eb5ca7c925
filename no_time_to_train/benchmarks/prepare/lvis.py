"""LVIS v1: COCO's images with LVIS's annotations. Minival is the part of LVIS val that lies in COCO's val2017."""

import json
from functools import partial
from pathlib import Path

from no_time_to_train.benchmarks.prepare.archives import archives_of, download_archive, open_archive
from no_time_to_train.benchmarks.prepare.coco2017 import IMAGES, images_step
from no_time_to_train.benchmarks.prepare.steps import Parts, PrepareOptions, Step, annotations_problem, read_annotations
from no_time_to_train.data.coco import add_file_names, check_sections
from no_time_to_train.errors import UserError
from no_time_to_train.files import write_json

#: The annotations of each published split.
ARCHIVES = archives_of("lvis")

#: The published numbers of each split.
COUNTS = {"train": {"images": 100_170}, "val": {"images": 19_809}, "minival": {"images": 4_809}}


def parts(options: PrepareOptions) -> Parts:
    """The steps that make ``lvis/annotations/lvis_v1_*.json``, whose file names are relative to ``coco``."""
    paths = {split: options.root / "lvis" / "annotations" / f"lvis_v1_{split}.json" for split in COUNTS}
    steps = [
        Step(
            f"LVIS {split} annotations",
            partial(annotations_problem, paths[split], COUNTS[split], options.subset),
            partial(convert, split, paths[split], options),
            archive.source(options.downloads),
        )
        for split, archive in ARCHIVES.items()
    ]
    minival = Step(
        "LVIS minival annotations",
        partial(annotations_problem, paths["minival"], COUNTS["minival"], options.subset),
        partial(convert_minival, paths["val"], paths["minival"], options.subset),
    )
    files = {paths[split]: COUNTS[split] for split in ARCHIVES}
    images = [images_step(f"COCO {split} images of LVIS", split, files, options) for split in IMAGES]
    return {"lvis": [*steps, minival, *images]}


def convert(split: str, output: Path, options: PrepareOptions) -> None:
    """Download the annotations of the split ``train`` or ``val``, and write them with file names."""
    path = download_archive(ARCHIVES[split], options.downloads)
    name = ARCHIVES[split].file_name.removesuffix(".zip")
    with open_archive(path) as members:
        member = next((member for member in members if member.name == name), None)
        if member is None:
            raise UserError(f"archive {path} does not contain {name}: delete it and run the same command again")
        try:
            with member.open() as file:
                data = json.load(file)
            add_file_names(data)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise UserError(f"{name} in archive {path} is not an LVIS annotation file: {error!r}") from error
        check_sections(data, f"{name} in archive {path}")
    write_json(output, data, indent=None)
    if not options.keep_archives:
        path.unlink()


def convert_minival(val: Path, minival: Path, subset: bool) -> None:
    """Write the part of LVIS val in COCO's val2017, which no detector trained on COCO has seen, with its masks."""
    data = read_annotations(val, COUNTS["val"], subset)
    images = [image for image in data["images"] if image["file_name"].startswith("val2017/")]
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in data["annotations"] if annotation["image_id"] in ids]
    write_json(minival, {**data, "images": images, "annotations": annotations}, indent=None)
