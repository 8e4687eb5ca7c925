"""The images of a stage, loaded one by one: crops of references for stage 1, whole target images for stage 3."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import Dataset

from no_time_to_train.data.coco import ImageId, is_turned, stated_size
from no_time_to_train.data.images import as_rgb, read_rgb
from no_time_to_train.data.proposal_files import ProposalFile
from no_time_to_train.data.reference_sets import ReferenceSet
from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.errors import UserError
from no_time_to_train.files import is_file
from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.beyond.tiles import target_squares
from no_time_to_train.method.fill_memory import crop_reference
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.settings import CONTEXT_RATIO

T = TypeVar("T")


@dataclass
class ReferenceCrop:
    """A reference instance, cropped for the encoder.

    Attributes:
        class_index: Its class, in [0, C).
        crop: float32 [3, S, S], see ``fill_memory.crop_reference``.
        mask: float32 [1, h, w] in {0, 1}, at the size of the crop before resizing.
        rescaled: Whether its annotation was rescaled to the image's own size.
    """

    index: int
    class_index: int
    crop: Tensor
    mask: Tensor
    rescaled: bool = False


@dataclass
class Target:
    """A target image: its pixels, or its proposals where those are cached.

    Attributes:
        height: Height of the results in pixels: the image's own, or the one that the annotation file states.
        width: Width of the results in pixels, likewise.
        image: uint8 [3, S, S], or with tiles uint8 [k, 3, S, S], see ``target_image.target_squares``; None where there
            are ``proposals``.
        cache_key: The name of its cache entry; empty where there is no cache.
        proposals: Its proposals from the cache, on the CPU.
        rescaled: Whether the results have another size than the image.
        sources: What others propose in it; None stands for SAM 2's own prompts.
        view: uint8 [3, h, w], what the encoder sees, where that is not the square.
    """

    index: int
    image_id: ImageId
    height: int
    width: int
    image: Tensor | None = None
    cache_key: str = ""
    proposals: DescribedProposals | None = None
    rescaled: bool = False
    sources: Sequence[Given | None] = (None,)
    view: Tensor | None = None


@dataclass
class BadImage:
    """An item that could not be loaded.

    Loaders return it instead of raising, because the user says what happens to such an image (``--on_bad_image``).

    Attributes:
        index: Its index in the data set.
        reason: One line that says what is wrong.
    """

    index: int
    reason: str


def loaded(item: T | BadImage) -> T:
    """An item that was loaded; a UserError where it could not be."""
    if isinstance(item, BadImage):
        raise UserError(item.reason)
    return item


def read_as_stated(path: Path, entry: dict[str, Any], rescale: bool = False) -> NDArray[np.uint8]:
    """The pixels of an image as stored; upright, as EXIF says, where they have the size that an entry states only then.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    image = read_rgb(path)
    return as_rgb(path) if is_turned(entry, *image.shape[:2], rescale=rescale) else image


def read_listed_image(root: str | Path, entry: dict[str, Any], rescale: bool = False) -> NDArray[np.uint8]:
    """Read an image that a COCO file lists.

    Args:
        rescale: Resize an image of another size to the one that the entry states; see :func:`stated_size`.

    Returns:
        uint8 [H, W, 3] RGB; see :func:`read_as_stated`.
    """
    path = Path(root) / entry["file_name"]
    image = read_as_stated(path, entry, rescale)
    height, width = stated_size(path, entry, *image.shape[:2], rescale=rescale)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def check_images_exist(root: str | Path, coco: COCO, image_ids: Iterable[ImageId]) -> None:
    """Raise a UserError that names the first missing image and says how many are missing."""
    paths = [Path(root) / coco.imgs[image_id]["file_name"] for image_id in image_ids]
    missing = [path for path in paths if not is_file(path)]
    if missing:
        more = f" (and {len(missing) - 1} more of {len(paths)})" if len(missing) > 1 else ""
        if missing[0].exists():
            raise UserError(f"image {missing[0]} is not a file{more}")
        raise UserError(f"image not found: {missing[0]}{more}; is the root folder right?")


class ReferenceDataset(Dataset[ReferenceCrop | BadImage]):
    """The shots of a reference set, class by class.

    Args:
        categories: The classes in ascending order of their ids.
        references: The checked shots of each class (see ``reference_sets.validate_references``).
        size: Side of the crops in pixels: the encoder's input.
        rescale: Rescale annotations where an image's size is not the stated one; see :func:`stated_size`.
        blur_ksize: Side in pixels of the Gaussian that blurs the images, made odd; 0 for none.
        crop: Another way to crop a reference than the paper's, with the first three arguments of ``crop_reference``.

    Attributes:
        shots: For each item, its class index and its entry of the reference set.
    """

    def __init__(
        self,
        coco: COCO,
        root: str | Path,
        categories: list[Category],
        references: ReferenceSet,
        size: int,
        context_ratio: float = CONTEXT_RATIO,
        rescale: bool = False,
        blur_ksize: int = 0,
        crop: Callable[..., tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.coco, self.root = coco, Path(root)
        self.rescale, self.blur_ksize = rescale, blur_ksize
        self.crop = crop or partial(crop_reference, size=size, context_ratio=context_ratio)
        self.shots = [
            (class_index, shot) for class_index, category in enumerate(categories) for shot in references[category.id]
        ]

    def __len__(self) -> int:
        return len(self.shots)

    def path(self, index: int) -> Path:
        """The image of an item."""
        annotation = self.coco.anns[self.shots[index][1]["ann_ids"][0]]
        return self.root / self.coco.imgs[annotation["image_id"]]["file_name"]

    def __getitem__(self, index: int) -> ReferenceCrop | BadImage:
        class_index, shot = self.shots[index]
        annotation = self.coco.anns[shot["ann_ids"][0]]
        entry, path = self.coco.imgs[annotation["image_id"]], self.path(index)
        try:
            image = read_as_stated(path, entry, self.rescale)
            own, bbox = image.shape[:2], annotation["bbox"]
            stated = stated_size(path, entry, *own, rescale=self.rescale)
            mask = annotation_mask(annotation, *stated)
            if rescaled := stated != own:
                mask, bbox = rescale_annotation(mask, bbox, *own)
            if side := self.blur_ksize:
                image = cv2.GaussianBlur(image, (side | 1, side | 1), 0).astype(np.uint8)
            crop, mask_crop = self.crop(image, mask, bbox)
        except UserError as error:
            where = f"reference annotation {annotation['id']} of image {annotation['image_id']}"
            return BadImage(index, f"{where}: {error}")
        return ReferenceCrop(index, class_index, crop, mask_crop, rescaled)


def rescale_annotation(
    mask: NDArray[np.bool_], bbox: list[float], height: int, width: int
) -> tuple[NDArray[np.bool_], list[float]]:
    """Rescale an annotation to another height and width of its image in pixels.

    Args:
        mask: bool [H, W].
        bbox: x, y, w, h in pixels of the mask.

    Returns:
        The mask, bool [height, width], by its nearest pixels, and the box in pixels of it.
    """
    resized = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    scale = (width / mask.shape[1], height / mask.shape[0])
    return resized.astype(bool), [value * factor for value, factor in zip(bbox, 2 * scale, strict=True)]


class TargetDataset(Dataset[Target | BadImage]):
    """Every image of an annotation file, in the file's order.

    Args:
        size: Side of the square in pixels: SAM 2's input.
        rescale: Of an image that has another size than the file states, return results at the stated size, as they
            are scored; see :func:`stated_size`.
        sources: What proposes masks: files, and None for SAM 2's own prompts.
        view: Makes what the encoder sees of an image uint8 [H, W, 3], where that is not the square.

    Attributes:
        entries: The images' entries in the annotation file.
    """

    def __init__(
        self,
        coco: COCO,
        root: str | Path,
        size: int,
        rescale: bool = False,
        tiles: int = 1,
        tile_overlap: float = 0.0,
        sources: Sequence[ProposalFile | None] = (None,),
        view: Callable[[NDArray[np.uint8]], Tensor] | None = None,
    ) -> None:
        self.root, self.size, self.rescale = Path(root), size, rescale
        self.sources, self.view = tuple(sources), view
        self.tiles, self.tile_overlap = tiles, tile_overlap
        self.entries = list(coco.imgs.values())

    def __len__(self) -> int:
        return len(self.entries)

    def path(self, index: int) -> Path:
        """The image of an item."""
        return self.root / self.entries[index]["file_name"]

    def __getitem__(self, index: int) -> Target | BadImage:
        entry = self.entries[index]
        try:
            return self.load(index, entry)
        except UserError as error:
            return BadImage(index, f"image id {entry['id']}: {error}")

    def load(self, index: int, entry: dict[str, Any]) -> Target:
        """Load one image; a UserError says what is wrong with it."""
        path = self.path(index)
        image = read_as_stated(path, entry, self.rescale)
        size = stated_size(path, entry, *image.shape[:2], rescale=self.rescale)
        squares = target_squares(image, self.size, self.tiles, self.tile_overlap, size)
        view = self.view(image) if self.view else None
        sources = self.given(entry, *size)
        return Target(index, entry["id"], *size, squares, rescaled=size != image.shape[:2], sources=sources, view=view)

    def given(self, entry: dict[str, Any], height: int, width: int) -> list[Given | None]:
        """What the sources propose in an image, at the size of its results."""
        name = Path(entry["file_name"]).as_posix()
        where = entry["id"], name, height, width
        return [None if source is None else source.given(*where) for source in self.sources]
