"""The images of a stage, loaded one by one: reference crops for stage 1, whole target images for stage 3."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import Dataset

from no_time_to_train.data.coco import Category, annotation_mask
from no_time_to_train.data.reference_sets import ReferenceSet
from no_time_to_train.errors import UserError
from no_time_to_train.method.crops import read_rgb, reference_tensors, target_tensor
from no_time_to_train.pipeline.proposal_cache import ProposalCache, StoredProposals


@dataclass
class Reference:
    """A reference instance: its place in the memory bank, its crop [3, S, S] and its mask [1, h, w]."""

    class_index: int
    slot: int
    crop: Tensor
    mask: Tensor


@dataclass
class Target:
    """A target image: its pixels, or what the cache has of it.

    Attributes:
        index: in the data set.
        image_id: its id in the annotation file.
        height, width: its own size in pixels.
        image: float [3, S, S] in [0, 1], squashed to SAM 2's square; None where ``stored`` is there.
        key: its name in the cache, where there is one.
        stored: its proposals, from the cache.
    """

    index: int
    image_id: int
    height: int
    width: int
    image: Tensor | None = None
    key: str = ""
    stored: StoredProposals | None = None


@dataclass
class BadImage:
    """An item that could not be loaded, and the one line that says why. Loaders return it rather than raise: what a
    worker process raises reaches the user as a traceback."""

    index: int
    reason: str


def read_listed_image(root: str | Path, entry: dict[str, Any]) -> NDArray[np.uint8]:
    """Read the image of an ``images`` entry of a COCO file: uint8 [H, W, 3].

    Raises:
        UserError: it cannot be read, or is not of the size that the entry states.
    """
    path = Path(root) / entry["file_name"]
    image = read_rgb(path)
    check_size(path, entry, *image.shape[:2])
    return image


def check_size(path: Path, entry: dict[str, Any], height: int, width: int) -> None:
    """Raise a UserError where an image is not of the size that its ``images`` entry states."""
    stated = (entry.get("height", height), entry.get("width", width))
    if (height, width) != stated:
        raise UserError(f"image {path} is {width}x{height}, the annotation file says {stated[1]}x{stated[0]}")


def check_images_exist(root: str | Path, coco: COCO, image_ids: list[int]) -> None:
    """Raise a UserError that names the first of these images that is missing, and how many are."""
    paths = [Path(root) / coco.imgs[image_id]["file_name"] for image_id in image_ids]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more of {len(paths)})" if len(missing) > 1 else ""
        raise UserError(f"image not found: {missing[0]}{more}; is the root folder right?")


class ReferenceDataset(Dataset[Reference | BadImage]):
    """The shots of a reference set, class by class.

    Args:
        coco: annotation file of the references.
        root: folder of the images.
        categories: the classes, by ascending id.
        references: the checked shots of each.
        size: side of the crops, in pixels: the encoder's input.
        context_ratio: see ``images.crop_window``.
    """

    def __init__(
        self,
        coco: COCO,
        root: str,
        categories: list[Category],
        references: ReferenceSet,
        size: int,
        context_ratio: float,
    ) -> None:
        self.coco, self.root, self.size, self.context_ratio = coco, root, size, context_ratio
        self.shots = [
            (class_index, slot, shot["ann_ids"][0])
            for class_index, category in enumerate(categories)
            for slot, shot in enumerate(references[category.id])
        ]

    def __len__(self) -> int:
        return len(self.shots)

    def __getitem__(self, index: int) -> Reference | BadImage:
        class_index, slot, ann_id = self.shots[index]
        annotation = self.coco.anns[ann_id]
        try:
            image = read_listed_image(self.root, self.coco.imgs[annotation["image_id"]])
            mask = annotation_mask(annotation, *image.shape[:2])
            crop, mask_crop = reference_tensors(image, mask, annotation["bbox"], self.size, self.context_ratio)
        except UserError as error:
            return BadImage(index, f"reference annotation {ann_id} of image {annotation['image_id']}: {error}")
        return Reference(class_index, slot, crop, mask_crop)


class TargetDataset(Dataset[Target | BadImage]):
    """Every image of an annotation file, in the file's order.

    Args:
        coco: annotation file of the targets.
        root: folder of the images.
        size: side of the square, in pixels: SAM 2's input.

    Attributes:
        cache: where to look for an image's proposals before its pixels are decoded; None: nowhere.
    """

    def __init__(self, coco: COCO, root: str, size: int) -> None:
        self.root, self.size = Path(root), size
        self.entries = list(coco.imgs.values())
        self.cache: ProposalCache | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Target | BadImage:
        entry = self.entries[index]
        path, key = self.root / entry["file_name"], ""
        try:
            if self.cache is not None:
                key = self.cache.key(path)
                stored = self.cache.read(key)
                if stored is not None:
                    check_size(path, entry, stored.height, stored.width)
                    return Target(index, entry["id"], stored.height, stored.width, key=key, stored=stored)
            image = read_listed_image(self.root, entry)
        except UserError as error:
            return BadImage(index, f"image id {entry['id']}: {error}")
        height, width = image.shape[:2]
        return Target(index, entry["id"], height, width, target_tensor(image, self.size), key)
