"""Instances as the files of labelling tools, to be corrected there: LabelMe, YOLO segmentation, and COCO for CVAT."""

import os
import re
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml

from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.instances import Instances, Polygon
from no_time_to_train.files import atomic_write, write_json
from no_time_to_train.method.memory_bank import Category


@dataclass(frozen=True)
class LabeledImage:
    """An image of which labels are written.

    Attributes:
        name: The image's name, a relative path.
        stem: What its label files are called, without a suffix: a relative path that no other image has.
        path: The image file.
        image_id: The image's COCO id.
    """

    name: str
    stem: str
    path: Path
    image_id: ImageId


class LabelFiles(ABC):
    """The files of one format.

    Args:
        out: The output folder. The files go to a folder in it that has the name of the format.
        categories: The classes, in the order that the files give them.
    """

    #: The name of the format.
    form: ClassVar[str]

    def __init__(self, out: Path, categories: list[Category]) -> None:
        self.out, self.folder, self.categories = out, out / self.form, categories

    @abstractmethod
    def add(self, image: LabeledImage, instances: Instances) -> None:
        """Write the instances of one image.

        Args:
            image: The image.
            instances: What was found in it.
        """

    def finish(self) -> None:  # noqa: B027 (not every format has a last step)
        """Write what needs all images. This is called after an interrupt as well."""


def join_polygons(parts: list[Polygon]) -> Polygon:
    """One outline around several parts: from the first to each other part and back on one line, which has no area."""
    start = parts[0][:1]
    return np.concatenate([parts[0], *(piece for part in parts[1:] for piece in (start, part, part[:1]))])


class LabelMeFiles(LabelFiles):
    """``STEM.json`` per image. The parts of an instance are shapes with one group id."""

    form = "labelme"

    def add(self, image: LabeledImage, instances: Instances) -> None:
        path = self.folder / f"{image.stem}.json"
        shapes = []
        for group, instance in enumerate(instances):
            parts = instance.to_polygons()
            shapes += [
                {
                    "label": instance.label,
                    "points": part.tolist(),
                    "group_id": group if len(parts) > 1 else None,
                    "description": f"score {instance.score:.3f}",
                    "shape_type": "polygon",
                    "flags": {},
                    "mask": None,
                }
                for part in parts
            ]
        height, width = instances.image.shape[:2]
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(os.path.relpath(image.path, path.parent)).as_posix(),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_json(path, content)


class YoloFiles(LabelFiles):
    """``labels/STEM.txt`` per image with one line per instance, the images, and ``data.yaml``.

    ``data.yaml`` states no ``path``: ultralytics then takes its own folder, but would resolve ``.`` against the working
    directory or its folder of data sets. To find the labels of an image, it puts ``labels`` in the place of the last
    ``images`` in its path, so that a folder ``images`` of the targets gets the name ``images_``.
    """

    form = "yolo"

    def add(self, image: LabeledImage, instances: Instances) -> None:
        index = {category.name: index for index, category in enumerate(self.categories)}
        height, width = instances.image.shape[:2]
        lines = []
        for instance in instances:
            # In YOLO's coordinates the center of the first pixel is 0.5, 0.5.
            outline = (join_polygons(instance.to_polygons()) + 0.5) / (width, height)
            numbers = " ".join(f"{value:.6f}" for value in outline.clip(0, 1).ravel())
            lines.append(f"{index[instance.label]} {numbers}\n")
        stem = re.sub(r"(?<![^/])images(_*)(?=/)", r"images\1_", image.stem)  # no two folders become equal
        with atomic_write(self.folder / "labels" / f"{stem}.txt") as file:
            file.write("".join(lines).encode())
        place_image(image.path, self.folder / "images" / f"{stem}{image.path.suffix}", self.out)

    def finish(self) -> None:
        names = {index: category.name for index, category in enumerate(self.categories)}
        content = {"train": "images", "val": "images", "names": names}
        with atomic_write(self.folder / "data.yaml") as file:
            file.write(yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode())


class CvatCocoFiles(LabelFiles):
    """``annotations/instances_default.json``, which CVAT imports as "COCO 1.0", and the images."""

    form = "cvat-coco"

    def __init__(self, out: Path, categories: list[Category]) -> None:
        super().__init__(out, categories)
        self.data: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": one.id, "name": one.name, "supercategory": ""} for one in categories],
        }

    def add(self, image: LabeledImage, instances: Instances) -> None:
        height, width = instances.image.shape[:2]
        entry = {"id": image.image_id, "file_name": image.name, "height": height, "width": width}
        self.data["images"].append(entry)
        ids = {category.name: category.id for category in self.categories}
        for instance in instances:
            x1, y1, x2, y2 = instance.box
            self.data["annotations"].append(
                {
                    "id": len(self.data["annotations"]) + 1,
                    "image_id": image.image_id,
                    "category_id": ids[instance.label],
                    "segmentation": [(part + 0.5).ravel().tolist() for part in instance.to_polygons()],
                    "area": int(instance.mask.sum()),
                    "bbox": [x1, y1, x2 + 1 - x1, y2 + 1 - y1],
                    "iscrowd": 0,
                    "attributes": {"score": round(instance.score, 4)},
                }
            )
        place_image(image.path, self.folder / "images" / "default" / image.name, self.out)

    def finish(self) -> None:
        write_json(self.folder / "annotations" / "instances_default.json", self.data)


#: The formats by name.
FORMATS: dict[str, type[LabelFiles]] = {files.form: files for files in (LabelMeFiles, YoloFiles, CvatCocoFiles)}


def place_image(image: Path, place: Path, out: Path) -> None:
    """Put an image where a format expects it: as a link, or as a copy where the system has no links.

    Args:
        image: The image file.
        place: Where to put it. An existing file is replaced.
        out: The output folder. An image in it is linked relative to the link, so that the folder can be moved.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    inside = image.is_relative_to(out)
    try:
        place.symlink_to(os.path.relpath(image, place.parent) if inside else image.resolve())
    except OSError:
        shutil.copyfile(image, place)
