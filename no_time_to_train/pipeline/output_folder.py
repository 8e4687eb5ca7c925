"""The files that ``no-time-to-train segment`` writes."""

import csv
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from no_time_to_train.data.instances import Instances
from no_time_to_train.data.label_files import FORMATS
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.files import atomic_write, remove_leftovers, remove_leftovers_in, write_json
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.visual.drawing import PALETTE, save_picture
from no_time_to_train.visual.gallery import Gallery

#: Columns of ``instances.csv``.
COLUMNS = ["image", "instance", "class", "score", "x1", "y1", "x2", "y2", "area"]

#: Files of all images together.
FILES = ("results.json", "images.json", "instances.csv", "index.html")

#: Folders of files of single images, including those of the gallery and of the label files.
FOLDERS = ("frames", "masks", "overlays", "references", "thumbnails", *FORMATS)


class OutputFolder:
    """Writes what is found in images: :meth:`add` the files of one image, :meth:`close` those of all.

    =================== ================================================================================================
    ``results.json``    COCO results
    ``images.json``     The images and categories that the results refer to, as a COCO file
    ``instances.csv``   One line per instance
    ``masks/NAME.png``  In each pixel the number of its instance in the CSV file, the best on top; 0 for none
    ``overlays/``       The images with the instances drawn over them
    ``frames/``         The frames of videos
    ``index.html``      A gallery
    =================== ================================================================================================

    Args:
        out: The folder, to which no other process writes. Temporary files of killed runs are removed from it.
        memory: The memory, for the gallery and the names of the classes.
        formats: Label files to write as well, by their names in ``label_files.FORMATS``.

    Raises:
        UserError: A file cannot be written.
    """

    def __init__(self, out: Path, memory: MemoryBank, formats: Sequence[str]) -> None:
        for name in FILES:
            remove_leftovers(out / name)
        for name in FOLDERS:
            remove_leftovers_in(out / name)
        self.out, self.categories = out, memory.categories
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.rows: list[list[Any]] = []
        self.label_files = [FORMATS[name](out, memory.categories) for name in formats]
        self.gallery = Gallery(out, memory)

    def add(self, target: TargetImage, instances: Instances) -> None:
        """Write the files of one image.

        Args:
            target: The image.
            instances: What was found in it.

        Raises:
            UserError: A file cannot be written.
        """
        name, path = target.name, target.path
        if path is None:
            path = self.out / "frames" / name
            save_picture(instances.image, path)
        image_id = target.image_id if target.image_id is not None else len(self.images) + 1
        height, width = instances.image.shape[:2]
        overlay = f"overlays/{name}.jpg"
        save_picture(np.asarray(instances.plot()), self.out / overlay)
        save_mask(instances, self.out / "masks" / f"{name}.png")
        for files in self.label_files:
            files.add(name, path, image_id, instances)
        self.gallery.add(name, overlay, instances)
        for number, instance in enumerate(instances, start=1):
            area = int(instance.mask.sum())
            self.rows.append([name, number, instance.label, f"{instance.score:.4f}", *instance.box, area])
        self.images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        self.results += instances.to_coco(image_id)

    def close(self) -> None:
        """Write the files of all images that were added.

        Raises:
            UserError: A file cannot be written.
        """
        with atomic_write(self.out / "instances.csv") as file:
            table = TextIOWrapper(file, encoding="utf-8", newline="")
            csv.writer(table).writerows([COLUMNS, *self.rows])
            table.detach()
        categories = [{"id": category.id, "name": category.name} for category in self.categories]
        write_json(self.out / "results.json", self.results)
        write_json(self.out / "images.json", {"images": self.images, "annotations": [], "categories": categories})
        for files in self.label_files:
            files.finish()
        self.gallery.finish(f"{len(self.results)} instances in {len(self.images)} images")


def save_mask(instances: Instances, path: Path) -> None:
    """Write an image's masks as a PNG file with a palette.

    Args:
        instances: What was found in the image. A pixel holds the number of its instance, from 1, the best on top, or 0.
        path: The file.

    Raises:
        UserError: The file cannot be written.
    """
    numbers = np.zeros(instances.image.shape[:2], np.uint8)
    for index in reversed(range(len(instances))):
        numbers[instances[index].mask] = index + 1
    picture = Image.fromarray(numbers).convert("P")
    colors = [channel for index in range(255) for channel in PALETTE.by_idx(index).as_rgb()]
    picture.putpalette([0, 0, 0, *colors])
    with atomic_write(path) as file:
        picture.save(file, format="PNG")
