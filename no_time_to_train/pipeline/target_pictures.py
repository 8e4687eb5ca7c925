"""Pictures of the targets: ground truth on the left, predictions on the right."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.datasets import read_listed_image
from no_time_to_train.data.names import clean_name, unique_names
from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.ranges import two_decimals
from no_time_to_train.visual.drawing import draw_instances, save_picture, side_by_side

#: Endings of pictures. Others are written as JPEG, with ``.jpg`` after the name of the image.
ENDINGS = (".jpg", ".jpeg", ".png")


class TargetPictures:
    """Draws targets into a folder, one picture per image.

    Args:
        by_file_name: Call the pictures like the images, instead of ``IMAGE_ID.jpg``.
        rescale: Draw an image of another size than the annotation file states at the stated size.
    """

    def __init__(
        self,
        folder: Path,
        coco: COCO,
        root: str,
        categories: list[Category],
        score: float,
        by_file_name: bool = False,
        rescale: bool = False,
    ) -> None:
        self.folder, self.coco, self.root, self.score, self.rescale = folder, coco, root, score, rescale
        self.files = picture_files(coco, by_file_name)
        self.names = {category.id: category.name for category in categories}

    def draw(self, image_id: ImageId, results: list[dict[str, Any]], replace: bool = True) -> None:
        """Draw an image; only where it has no picture yet unless ``replace``."""
        path = self.folder / self.files[image_id]
        if path.exists() and not replace:
            return
        image = read_listed_image(self.root, self.coco.imgs[image_id], self.rescale)
        truth = [
            annotation
            for annotation in self.coco.imgToAnns[image_id]
            if annotation["category_id"] in self.names and annotation.get("segmentation")
        ]
        found = [record for record in results if record["score"] >= self.score]
        left = self._drawn(image, truth, [self.names[one["category_id"]] for one in truth])
        captions = [f"{self.names[one['category_id']]} {two_decimals(one['score'])}" for one in found]
        right = self._drawn(image, found, captions)
        save_picture(side_by_side(left, right, ("ground truth", "predictions")), path)

    def _drawn(self, image: NDArray[np.uint8], records: list[dict[str, Any]], labels: list[str]) -> NDArray[np.uint8]:
        """The image with the masks of annotations or results over it."""
        size = image.shape[:2]
        masks = Masks.from_crops(((annotation_mask(one, *size), 0, 0) for one in records), *size)
        classes = [list(self.names).index(record["category_id"]) for record in records]
        return draw_instances(image, masks, np.array(classes, int), labels)


def picture_files(coco: COCO, by_file_name: bool = False) -> dict[ImageId, str]:
    """The names of images' pictures by image id: relative paths that stay inside their folder and differ.

    They are made of the names of the images with ``by_file_name``, else of the ids.
    """
    names = [
        clean_name(entry["file_name"] if by_file_name else f"{image_id}.jpg") for image_id, entry in coco.imgs.items()
    ]
    names = [name if name.lower().endswith(ENDINGS) else f"{name}.jpg" for name in names]
    return dict(zip(coco.imgs, unique_names(names), strict=True))
