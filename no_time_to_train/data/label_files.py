"""Instances as files of labelling tools, to be corrected there: LabelMe, YOLO segmentation, COCO as CVAT imports it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import supervision as sv
import yaml
from numpy.typing import NDArray

from no_time_to_train.data.instances import Instance, Instances
from no_time_to_train.files import atomic_write, write_json
from no_time_to_train.method.memory_bank import Category

Polygon = NDArray[np.float64]


class LabelFiles(Protocol):
    """A format: told of each image as it is done, and of the end."""

    def add(self, name: str, image: Path, image_id: int, instances: Instances) -> None:
        """Write an image's instances.

        Args:
            name: the image's, a relative path.
            image: its file.
        """

    def finish(self) -> None:
        """Write what can be written only once all images are known; called after an interrupt, too."""


def polygons(instance: Instance) -> list[Polygon]:
    """The outlines of an instance's parts, [n, 2] (x, y) in pixels' own indices; holes are filled.

    A part too small for three corners is left out; if all are, the box stands for the mask.
    """
    found = [polygon.astype(float) for polygon in sv.mask_to_polygons(instance.mask)]
    if found:
        return found
    x1, y1, x2, y2 = instance.box
    return [np.array([[x1, y1], [x2 + 1, y1], [x2 + 1, y2 + 1], [x1, y2 + 1]], float)]


def joined(parts: list[Polygon]) -> Polygon:
    """One outline around all parts: from the first to each other and back on the same line, which has no area."""
    start = parts[0][:1]
    return np.concatenate([parts[0], *(piece for part in parts[1:] for piece in (start, part, part[:1]))])


class LabelMeFiles:
    """``labelme/NAME.json``; the parts of an instance are shapes of one group."""

    def __init__(self, out: Path, categories: list[Category]) -> None:
        self.folder = out / "labelme"

    def add(self, name: str, image: Path, image_id: int, instances: Instances) -> None:
        path = self.folder / Path(name).with_suffix(".json")
        shapes = []
        for group, instance in enumerate(instances):
            parts = polygons(instance)
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
            "imagePath": Path(os.path.relpath(image, path.parent)).as_posix(),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_json(path, content)

    def finish(self) -> None:
        """Every file stands alone."""


class YoloFiles:
    """``yolo/labels/NAME.txt``, the images (linked where the system can) and ``data.yaml``; a line an instance."""

    def __init__(self, out: Path, categories: list[Category]) -> None:
        self.folder = out / "yolo"
        self.categories = categories

    def add(self, name: str, image: Path, image_id: int, instances: Instances) -> None:
        index = {category.name: index for index, category in enumerate(self.categories)}
        height, width = instances.image.shape[:2]
        lines = []
        for instance in instances:
            # Half a pixel from an index to the pixel's centre.
            outline = (joined(polygons(instance)) + 0.5) / (width, height)
            numbers = " ".join(f"{value:.6f}" for value in outline.clip(0, 1).ravel())
            lines.append(f"{index[instance.label]} {numbers}\n")
        with atomic_write(self.folder / "labels" / Path(name).with_suffix(".txt")) as file:
            file.write("".join(lines).encode())
        place_image(image, self.folder / "images" / name)

    def finish(self) -> None:
        names = {index: category.name for index, category in enumerate(self.categories)}
        content = {"path": ".", "train": "images", "val": "images", "names": names}
        with atomic_write(self.folder / "data.yaml") as file:
            file.write(yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode())


class CvatCocoFiles:
    """``cvat-coco/annotations/instances_default.json``, which CVAT imports as "COCO 1.0", and the images."""

    def __init__(self, out: Path, categories: list[Category]) -> None:
        self.folder = out / "cvat-coco"
        self.data: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": one.id, "name": one.name, "supercategory": ""} for one in categories],
        }

    def add(self, name: str, image: Path, image_id: int, instances: Instances) -> None:
        height, width = instances.image.shape[:2]
        self.data["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        ids = {category["name"]: category["id"] for category in self.data["categories"]}
        for instance in instances:
            x1, y1, x2, y2 = instance.box
            self.data["annotations"].append(
                {
                    "id": len(self.data["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": ids[instance.label],
                    "segmentation": [(part + 0.5).ravel().tolist() for part in polygons(instance)],
                    "area": int(instance.mask.sum()),
                    "bbox": [x1, y1, x2 + 1 - x1, y2 + 1 - y1],
                    "iscrowd": 0,
                    "attributes": {"score": round(instance.score, 4)},
                }
            )
        place_image(image, self.folder / "images" / "default" / name)

    def finish(self) -> None:
        write_json(self.folder / "annotations" / "instances_default.json", self.data)


#: Name of a format -> what writes it, of the output folder and the classes.
FORMATS: dict[str, Callable[[Path, list[Category]], LabelFiles]] = {
    "labelme": LabelMeFiles,
    "yolo": YoloFiles,
    "cvat-coco": CvatCocoFiles,
}


def place_image(image: Path, place: Path) -> None:
    """Put an image where a format wants it: a link to it, or a copy where there can be no links."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        place.symlink_to(image.resolve())
    except OSError:
        shutil.copyfile(image, place)
