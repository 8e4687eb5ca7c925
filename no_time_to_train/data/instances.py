"""What is found in an image, with the names of the classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.coco_results import from_coco_records, to_coco_records
from no_time_to_train.data.images import ImageInput, as_rgb
from no_time_to_train.data.names import clean_class_name
from no_time_to_train.data.rle import check_size, mask_area
from no_time_to_train.errors import UserError
from no_time_to_train.files import is_file, read_json, relative_path, write_json
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.ranges import check_type, two_decimals

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

#: Instances that a repr names.
NAMED = 10

#: float64 [n, 2], x and y of n corners in pixels.
Polygon = NDArray[np.float64]


@dataclass(frozen=True)
class Instance:
    """One object found in an image. Two instances are equal if they have the same label, score and box.

    Attributes:
        score: In [0, 1].
        box: x1, y1, x2, y2 in pixels: the first and last column and row of the mask, so a box one pixel wide has
            x1 == x2.
        mask: bool [H, W] at the image's own size.
    """

    label: str
    score: float
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_] = field(repr=False, compare=False)

    def to_polygons(self) -> list[Polygon]:
        """The outlines of the mask's parts, through the centers of the outermost pixels; holes are filled.

        Parts that are too small to have three corners are left out; if all are, the box stands for the mask.

        Returns:
            At least one polygon, float64 [n, 2], x and y in pixel indices: the center of the first pixel is 0, 0.
        """
        import supervision as sv

        found = [polygon.astype(float) for polygon in sv.mask_to_polygons(self.mask)]
        if found:
            return found
        x1, y1, x2, y2 = self.box
        return [np.array([[x1, y1], [x2 + 1, y1], [x2 + 1, y2 + 1], [x1, y2 + 1]], float)]


class Instances(Sequence[Instance]):
    """The objects found in one image, in descending order of score.

    It is a sequence of :class:`Instance`. A slice, a list of indices and a bool array choose several of them and give
    an ``Instances`` again, and a notebook shows its :meth:`plot`.

    Example:
        ::

            found = segmenter.segment("photo.jpg")
            found                                # Instances(image=640x480, boat 0.93, gull 0.71)
            found[0].mask                        # bool [480, 640]
            found[found.labels == "boat"].boxes  # int64 [n, 4]
            found[:5].plot().save("best.jpg")
            found.to_coco(image_id=7)            # result records for pycocotools
            found.to_supervision()               # for the annotators and trackers of supervision
            found.save("photo.json")             # Instances.load("photo.json") reads it again

    Args:
        image: The image, uint8 [H, W, 3] RGB; None where it is not known.
        categories: The classes of the memory in ascending order of their ids.
        detections: On the CPU.
        path: The file that the image was read from, if it was.
        sources: What the sources of proposals are called, where there are several.

    Attributes:
        categories: The classes of the memory in ascending order of their ids.
        detections: The same instances as tensors.
        path: The file that the image was read from, if it was.
    """

    def __init__(
        self,
        image: NDArray[np.uint8] | None,
        categories: list[Category],
        detections: Detections,
        path: Path | None = None,
        sources: Sequence[str] = (),
    ) -> None:
        self._image, self.categories, self.detections, self.path = image, categories, detections, path
        self.sources = sources
        # What a relative path is relative to: the current folder may be another one when they are saved.
        self._folder = Path() if path is None or path.is_absolute() else Path.cwd()
        self._dense: NDArray[np.bool_] | None = None

    @property
    def image(self) -> NDArray[np.uint8]:
        """The image, uint8 [H, W, 3] RGB, turned upright as its EXIF orientation says."""
        if self._image is None:
            where = f" {self.path} was not found" if self.path else " is not known"
            raise UserError(f"the image of these instances{where}: give it as image= in Instances.load")
        return self._image

    @property
    def boxes(self) -> NDArray[np.int64]:
        """int64 [n, 4], x1, y1, x2, y2 in pixels; see :class:`Instance`."""
        return self.detections.boxes.numpy()

    @property
    def scores(self) -> NDArray[np.float32]:
        """float32 [n] in [0, 1]."""
        return self.detections.scores.numpy()

    @property
    def masks(self) -> NDArray[np.bool_]:
        """bool [n, H, W] at the image's own size. ``self[i].mask`` makes one where all are too large for the memory."""
        if self._dense is None:
            self._dense = self.detections.masks.dense()
        return self._dense

    @property
    def areas(self) -> NDArray[np.int64]:
        """int64 [n], the pixels of each mask."""
        return self.detections.masks.areas.astype(np.int64)

    @property
    def labels(self) -> NDArray[np.str_]:
        """str [n], the names of the classes."""
        return np.array([self.categories[index].name for index in self.class_ids], dtype=str)

    @property
    def class_ids(self) -> NDArray[np.int64]:
        """int64 [n], the index of each class in ``categories``, which is also its index in the segmenter's classes."""
        return self.detections.classes.numpy()

    def __len__(self) -> int:
        return len(self.detections)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Instance: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | NDArray[Any] | Tensor) -> "Instances": ...

    def __getitem__(
        self, index: int | np.integer[Any] | slice | Sequence[int] | Sequence[bool] | NDArray[Any] | Tensor
    ) -> "Instance | Instances":
        if isinstance(index, Tensor | tuple):
            index = np.asarray(index.detach().cpu() if isinstance(index, Tensor) else index)
        rows = np.arange(len(self))[index]
        found = self.detections
        if np.ndim(rows) == 1:
            chosen = found[torch.from_numpy(rows.copy())]
            some = Instances(self._image, self.categories, chosen, self.path, self.sources)
            some._folder = self._folder
            return some
        if np.ndim(rows) > 1:
            raise IndexError("instances are chosen by one index, a slice, a list of indices, or a bool for each")
        x1, y1, x2, y2 = found.boxes[rows].tolist()
        label = self.categories[int(found.classes[rows])].name
        return Instance(label, float(found.scores[rows]), (x1, y1, x2, y2), found.masks[int(rows)])

    def __repr__(self) -> str:
        height, width = self.detections.masks.shape[1:]
        more = [f"and {len(self) - NAMED} more"] if len(self) > NAMED else []
        return f"Instances({', '.join([f'image={width}x{height}', *self[:NAMED]._captions(), *more])})"

    def _repr_png_(self) -> bytes | None:
        return None if self._image is None else self.plot()._repr_png_()

    def _captions(self) -> list[str]:
        scores = map(two_decimals, self.scores.tolist())
        return [f"{label} {score}" for label, score in zip(self.labels, scores, strict=True)]

    def plot(self, palette: "sv.ColorPalette | None" = None) -> Image.Image:
        """Draw each mask with its outline, label and score over the image.

        Args:
            palette: The colors of the classes. Without it, the objects of a single class differ in color.
        """
        from no_time_to_train.visual.drawing import PALETTE, draw_instances

        check_type("palette", palette, type(PALETTE) | None)
        by_instance = len(self.categories) == 1 and palette is None
        masks, classes = self.detections.masks, self.class_ids
        drawn = draw_instances(self.image, masks, classes, self._captions(), by_instance, palette=palette or PALETTE)
        return Image.fromarray(drawn)

    def to_coco(self, image_id: ImageId = 1) -> list[dict[str, Any]]:
        """Convert to COCO result records; ``categories`` holds the names of their category ids.

        Args:
            image_id: The image's id in its annotation file.

        Returns:
            One record per instance, with ``segmentation`` as compressed RLE and ``bbox`` [x1, y1, x2 - x1, y2 - y1]
            (without the usual + 1, as in the published code).
        """
        check_type("image_id", image_id, int | str | np.integer | np.str_)
        image_id = image_id.item() if isinstance(image_id, np.generic) else image_id  # which JSON lacks
        return to_coco_records(self.detections, image_id, [category.id for category in self.categories], self.sources)

    def to_supervision(self) -> "sv.Detections":
        """Convert to the detections of the ``supervision`` package; ``data["class_name"]`` holds the labels."""
        import supervision as sv

        return sv.Detections(
            xyxy=self.boxes.astype(np.float32).reshape(-1, 4),
            mask=self.masks,
            confidence=self.scores,
            class_id=self.class_ids,
            data={"class_name": self.labels},
        )

    def to_polygons(self) -> list[list[Polygon]]:
        """The outlines of each instance; see :meth:`Instance.to_polygons`."""
        return [instance.to_polygons() for instance in self]

    def to_pandas(self) -> "pd.DataFrame":
        """Convert to a table with one row per instance: label, score, x1, y1, x2, y2, and area in pixels."""
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError("to_pandas needs the pandas package: pip install pandas") from error
        corners = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.T, strict=True))
        return pd.DataFrame({"label": self.labels.astype(object), "score": self.scores, **corners, "area": self.areas})

    def save(self, path: str | Path) -> None:
        """Write the instances to a JSON file: COCO annotations of one image, each with a score.

        ``file_name`` is the path of the image relative to the file, or empty where the image came from no file. Other
        programs can read the file as well, and so can ``segment --references``.
        """
        check_type("path", path, str | Path)
        file_name = "" if self.path is None else relative_path(self._folder / self.path, Path(path).parent)
        write_json(path, coco_content([(file_name, self)]), indent=None)

    @classmethod
    def load(cls, path: str | Path, image: ImageInput | None = None) -> "Instances":
        """Read the instances that :meth:`save` wrote.

        Args:
            image: Their image, for :meth:`plot`; None reads the file that the instances were found in. Where that is
                missing, everything but the image can be used.
        """
        content = read_json(path)
        try:
            (entry,) = content["images"]
            categories = [Category(one["id"], clean_class_name(one["name"])) for one in content["categories"]]
            ids, size = [category.id for category in categories], (entry["height"], entry["width"])
            check_size(size)
            detections = from_coco_records([] + content["annotations"], ids, *size)  # a TypeError if it is no list
            if not ((detections.scores >= 0) & (detections.scores <= 1)).all():
                raise ValueError("its scores are not all from 0 to 1")
            detections.boxes[:, 2:] -= 1
            source = Path(path).parent / entry["file_name"] if entry["file_name"] else None
        except Exception as error:  # torch raises RuntimeError and OverflowError as well
            raise UserError(f"{path} is not a file of instances that Instances.save wrote: {error!r}") from error
        if image is None and source is not None and is_file(source):
            image = source
        pixels = None if image is None else as_rgb(image)
        if pixels is not None and pixels.shape[:2] != size:
            stated = f"{size[1]}x{size[0]}"
            raise UserError(f"the image is {pixels.shape[1]}x{pixels.shape[0]} pixels, that of {path} was {stated}")
        return cls(pixels, categories, detections, source)


def coco_content(images: Iterable[tuple[str, Instances]]) -> dict[str, Any]:
    """COCO annotations, each with a score.

    Args:
        images: The name and the instances of each image, all with the same classes. Images are numbered from 1.
    """
    content: dict[str, Any] = {"images": [], "categories": [], "annotations": []}
    for image_id, (name, found) in enumerate(images, start=1):
        height, width = found.detections.masks.shape[1:]
        content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        content["categories"] = [{"id": category.id, "name": category.name} for category in found.categories]
        for record, (x1, y1, x2, y2) in zip(found.to_coco(image_id), found.boxes.tolist(), strict=True):
            number = len(content["annotations"]) + 1
            box = {"bbox": [x1, y1, x2 + 1 - x1, y2 + 1 - y1], "area": mask_area(record["segmentation"])}
            content["annotations"].append({**record, "id": number, **box, "iscrowd": 0})
    return content
