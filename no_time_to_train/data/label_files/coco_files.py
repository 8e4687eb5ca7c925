"""COCO: one JSON file for all images, as pycocotools and CVAT read it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from no_time_to_train.data.label_files.labeled_objects import LabeledImage, LabeledObject, LabelFiles
from no_time_to_train.data.outlines import outlines
from no_time_to_train.data.rle import encode_mask, mask_area, mask_box
from no_time_to_train.files import write_json
from no_time_to_train.method.memory_bank import Category


class CocoFiles(LabelFiles):
    """``annotations.json`` with masks as RLE, and the images in ``images/``."""

    form = "coco"
    annotations, images = "annotations.json", "images"

    def __init__(self, out: Path, categories: Sequence[Category], link: bool = False) -> None:
        super().__init__(out, categories, link)
        listed = [{"id": one.id, "name": one.name, "supercategory": ""} for one in categories]
        self.data: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": listed}

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        entry = {"id": image.image_id, "file_name": image.name, "height": image.height, "width": image.width}
        self.data["images"].append(entry)
        ids = {category.name: category.id for category in self.categories}
        for one in objects:
            x1, y1, x2, y2 = one.box
            number = len(self.data["annotations"]) + 1
            annotation: dict[str, Any] = {
                "id": number,
                "image_id": image.image_id,
                "category_id": ids[one.label],
                "iscrowd": 0,
            }
            annotation |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "segmentation": []}
            annotation["iscrowd"] = 0
            if one.mask is not None:
                encoded = encode_mask(one.mask)
                annotation |= {"bbox": mask_box(encoded), "area": mask_area(encoded)}
                annotation["segmentation"] = self.segmentation(one, encoded)
            if one.score is not None:
                annotation["attributes"] = {"score": round(one.score, 4)}
            self.data["annotations"].append(annotation)
        self.place_image(image, f"{self.images}/{image.name}")

    def segmentation(self, one: LabeledObject, encoded: dict[str, Any]) -> Any:
        """The mask of an object as this format gives it."""
        return encoded

    def finish(self) -> None:
        write_json(self.folder / self.annotations, self.data)


class CvatCocoFiles(CocoFiles):
    """``annotations/instances_default.json``, which CVAT imports as "COCO 1.0", with polygons to be edited there."""

    form = "cvat-coco"
    annotations, images = "annotations/instances_default.json", "images/default"

    def segmentation(self, one: LabeledObject, encoded: dict[str, Any]) -> list[list[float]]:
        assert one.mask is not None
        return [part.ravel().tolist() for part in outlines(one.mask, "edges")]
