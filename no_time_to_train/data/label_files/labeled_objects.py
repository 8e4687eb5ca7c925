"""What every format of label files needs: the objects of an image, and a place for the image."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.images import as_rgb, shown_size
from no_time_to_train.data.rle import coco_object, encode_mask
from no_time_to_train.files import atomic_write, link_or_copy
from no_time_to_train.method.memory_bank import Category


@dataclass(frozen=True)
class LabeledImage:
    """An image of which labels are written.

    Attributes:
        name: The image's name, a relative path.
        stem: What its label files are called, without a suffix: a relative path that no other image has.
        height: In pixels.
        width: In pixels.
    """

    name: str
    stem: str
    path: Path
    image_id: ImageId
    height: int
    width: int


@dataclass(frozen=True)
class LabeledObject:
    """An object in an image.

    Attributes:
        box: x1, y1, x2, y2 in pixels, ends excluded.
        mask: bool [H, W], not empty; None where only the box is known.
        score: In [0, 1]; None for an annotation.
        difficult: Whether VOC's evaluation leaves it out.
    """

    label: str
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    score: float | None = None
    difficult: bool = False

    @property
    def corners(self) -> NDArray[np.float64]:
        """The corners of the box, float64 [4, 2], along the edges of pixels."""
        x1, y1, x2, y2 = self.box
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)

    def to_coco(self) -> dict[str, Any]:
        """The values of its COCO annotation; ``segmentation`` is empty where only the box is known."""
        more = {"difficult": 1} if self.difficult else {}
        if self.mask is not None:
            return {**coco_object(encode_mask(self.mask)), **more}
        x1, y1, x2, y2 = self.box
        area = (x2 - x1) * (y2 - y1)
        return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "segmentation": [], "iscrowd": 0, **more}


class LabelFiles(ABC):
    """The files of one format.

    Args:
        folder: Where the files go.
        categories: The classes, in the order that the files give them.
        link: Make symbolic links to the images. Otherwise each image is a hard link or, on another disk, a copy, so
            that the folder can be copied and moved.
    """

    #: The name of the format, which is also that of its folder among results.
    form: ClassVar[str]

    def __init__(self, folder: Path, categories: Sequence[Category], link: bool = False) -> None:
        self.folder, self.categories, self.link = folder, list(categories), link
        self.names = [category.name for category in categories]
        self.begin()

    def begin(self) -> None:  # noqa: B027 (not every format has a first step)
        """Begin what all images share."""

    @abstractmethod
    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        """Write the objects of one image, the best last to be drawn over."""

    def finish(self) -> None:  # noqa: B027 (not every format has a last step)
        """Write what needs all images. This is called after an interrupt as well."""

    def place_image(self, image: LabeledImage, place: str) -> Path:
        """Put the image where the format expects it, and replace what is there."""
        target, size = self.folder / place, (image.height, image.width)
        target.unlink(missing_ok=True)
        if shown_size(image.path) == size:
            link_or_copy(image.path.resolve(), target, self.link)
        else:  # its objects lie in it as stored: without an orientation, every tool shows it so
            with atomic_write(target) as file:
                picture = Image.fromarray(as_rgb(image.path, size))
                picture.save(file, Image.registered_extensions()[target.suffix.lower()], quality=95)
        return target

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """Write a text file in the folder of the format."""
        with atomic_write(self.folder / name) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())

    def write_xml(self, name: str, root: ElementTree.Element, is_declared: bool = False) -> None:
        """Write an XML file likewise; ``is_declared`` says whether it begins with the declaration of XML."""
        ElementTree.indent(root)
        with atomic_write(self.folder / name) as file:
            ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=is_declared or None)
