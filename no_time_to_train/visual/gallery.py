"""The gallery ``index.html``: the references, and all images with what was found in them.

The page works without a server, directly from the file system.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.data.instances import Instances
from no_time_to_train.data.label_files import polygons
from no_time_to_train.files import atomic_write
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.visual.drawing import PALETTE, Picture, save_picture
from no_time_to_train.visual.html import render
from no_time_to_train.visual.memory_pictures import crop_tile, decode_crop

#: Longer side of a thumbnail in pixels.
THUMBNAIL = 480


class Gallery:
    """Collects a thumbnail and the outlines of each image, then writes the page.

    The page itself draws the outlines, so that classes and the lowest score can be chosen there. It loads a thumbnail
    only when it comes into view.

    Args:
        out: Folder of the page. Its pictures go to ``references`` and ``thumbnails`` in it.
        memory: The memory, with the pictures of its references.

    Raises:
        UserError: A picture cannot be written.
    """

    def __init__(self, out: Path, memory: MemoryBank) -> None:
        self.out = out
        self.images: list[dict[str, Any]] = []
        self.class_index = {category.name: index for index, category in enumerate(memory.categories)}
        self.classes = [
            {
                "name": category.name,
                "color": PALETTE.by_idx(index).as_hex(),
                "references": [
                    self._save(crop_tile(*decode_crop(crop)), f"references/{category.id}_{number}.jpg")
                    for number, crop in enumerate(memory.crops_of(index), start=1)
                ],
            }
            for index, category in enumerate(memory.categories)
        ]

    def add(self, name: str, overlay: str, instances: Instances) -> None:
        """Add an image.

        Args:
            name: Name of the image, a relative path.
            overlay: Path of the image's overlay picture, relative to the page.
            instances: What was found in the image.

        Raises:
            UserError: The thumbnail cannot be written.
        """
        height, width = instances.image.shape[:2]
        scale = min(THUMBNAIL / max(height, width), 1)
        size = (max(round(scale * width), 1), max(round(scale * height), 1))
        small = np.asarray(Image.fromarray(instances.image).resize(size, Image.Resampling.BOX))
        self.images.append(
            {
                "name": name,
                "thumbnail": self._save(small, f"thumbnails/{name}.jpg"),
                "overlay": quote(overlay),
                "size": size,
                "instances": [
                    {
                        "class": self.class_index[instance.label],
                        "score": round(instance.score, 4),
                        "outline": [_svg_points(part * scale) for part in polygons(instance)],
                    }
                    for instance in instances
                ],
            }
        )

    def finish(self, title: str) -> None:
        """Write ``index.html``.

        Args:
            title: The page's title and heading.

        Raises:
            UserError: The file cannot be written.
        """
        page = render("gallery.html", title=title, data={"classes": self.classes, "images": self.images})
        with atomic_write(self.out / "index.html") as file:
            file.write(page.encode())

    def _save(self, picture: Picture, name: str) -> str:
        """Write a picture of the page; return its address relative to the page."""
        save_picture(picture, self.out / name)
        return quote(name)


def _svg_points(polygon: NDArray[np.float64]) -> str:
    """The ``points`` of an SVG polygon, simplified to half a pixel, from a polygon [n, 2] in thumbnail pixels."""
    simple = cv2.approxPolyDP(polygon.astype(np.float32), 0.5, closed=True)[:, 0]
    return " ".join(f"{x:.0f},{y:.0f}" for x, y in simple)
