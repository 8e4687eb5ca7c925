"""COCO: one JSON file for all images, as pycocotools and CVAT read it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.label_files.labeled_objects import LabeledImage, LabeledObject, LabelFiles
from no_time_to_train.data.outlines import read_outlines
from no_time_to_train.data.rle import Rle
from no_time_to_train.files import write_json

#: One image in this many is of the validation set.
VAL_OF = 5


class CocoFiles(LabelFiles):
    """``annotations.json`` with masks as RLE, and the images in ``images/``."""

    form = "coco"
    annotations, images = "annotations.json", "images"

    def begin(self) -> None:
        listed = [{"id": one.id, "name": one.name, "supercategory": ""} for one in self.categories]
        self.data: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": listed}

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        entry = {"id": image.image_id, "file_name": image.name, "height": image.height, "width": image.width}
        self.data["images"].append(entry)
        ids = {category.name: category.id for category in self.categories}
        for one in objects:
            found = one.to_coco()
            if one.mask is not None:
                found["segmentation"] = self.segmentation(one.mask, found["segmentation"])
            if one.score is not None:
                found["attributes"] = {"score": round(one.score, 4)}
            ours = {"id": len(self.data["annotations"]) + 1, "image_id": image.image_id, "category_id": ids[one.label]}
            self.data["annotations"].append({**ours, "iscrowd": 0, **found})
        self.place_image(image, f"{self.images}/{image.name}")

    def segmentation(self, mask: NDArray[np.bool_], encoded: Rle) -> Any:
        """The mask of an object as this format gives it."""
        return encoded

    def finish(self) -> None:
        write_json(self.folder / self.annotations, self.data)


class CvatCocoFiles(CocoFiles):
    """``annotations/instances_default.json``, which CVAT imports as "COCO 1.0", with polygons to be edited there."""

    form = "cvat-coco"
    annotations, images = "annotations/instances_default.json", "images/default"

    def segmentation(self, mask: NDArray[np.bool_], encoded: Rle) -> list[list[float]]:
        name = self.data["images"][-1]["file_name"]
        return [part.ravel().tolist() for part in read_outlines(mask, "edges", name, list)]


class CocoTrainValFiles(CocoFiles):
    """``annotations/instances_train.json`` and ``instances_val.json``, and the images in ``train/`` and ``val/``.

    The second of every five images is of the validation set.
    """

    form = "coco-train-val"

    def begin(self) -> None:
        self.count, self.parts = 0, {}
        for part in ("train", "val"):
            super().begin()
            self.parts[part] = self.data

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        self.images = "val" if self.count % VAL_OF == 1 else "train"
        self.data, self.count = self.parts[self.images], self.count + 1
        super().add(image, objects)

    def finish(self) -> None:
        for part, data in self.parts.items():
            write_json(self.folder / f"annotations/instances_{part}.json", data)
