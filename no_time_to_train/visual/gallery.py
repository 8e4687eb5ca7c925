"""``index.html``: the references and all images with what was found in them; works from the file system."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from PIL import Image

from no_time_to_train.data.instances import Instances
from no_time_to_train.data.label_files import polygons
from no_time_to_train.files import atomic_write
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.visual.drawing import PALETTE, save_picture
from no_time_to_train.visual.memory_pictures import Picture, crop_tile, decode_crop

THUMBNAIL = 480  # longer side, in pixels


class Gallery:
    """Collects a thumbnail and the outlines of each image, then writes the page.

    The outlines are drawn by the page, so that the class and the score can be chosen there; a picture is loaded and its
    outlines are drawn only when they come into view.
    """

    def __init__(self, out: Path, memory: MemoryBank) -> None:
        self.out = out
        self.images: list[dict[str, Any]] = []
        self.index = {category.name: index for index, category in enumerate(memory.categories)}
        self.classes = [
            {
                "name": category.name,
                "colour": PALETTE.by_idx(index).as_hex(),
                "references": [
                    self._save(crop_tile(*decode_crop(crop)), f"references/{category.id}_{number}.jpg")
                    for number, crop in enumerate(memory.crops_of(index), start=1)
                ],
            }
            for index, category in enumerate(memory.categories)
        ]

    def _save(self, picture: Picture, name: str) -> str:
        """Save a picture for the page; its address, relative to the page."""
        save_picture(picture, self.out / name)
        return quote(name)

    def add(self, name: str, overlay: str, instances: Instances) -> None:
        """Add an image.

        Args:
            name: the image's.
            overlay: path of its overlay picture in the output folder.
            instances: what was found in it.
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
                        "class": self.index[instance.label],
                        "score": round(instance.score, 4),
                        "outline": [outline(part * scale) for part in polygons(instance)],
                    }
                    for instance in instances
                ],
            }
        )

    def finish(self, title: str) -> None:
        """Write ``index.html``."""
        page = (files("no_time_to_train.visual") / "gallery.html").read_text(encoding="utf-8")
        data = json.dumps({"title": title, "classes": self.classes, "images": self.images}, ensure_ascii=False)
        # No name can end the script element, or begin a comment in it.
        data = data.replace("<", "\\u003c")
        with atomic_write(self.out / "index.html") as file:
            file.write(page.replace("$DATA", data).encode())


def outline(polygon: Any) -> str:
    """A polygon [n, 2] in the thumbnail's pixels as the ``points`` of an SVG polygon, to half a pixel."""
    simple = cv2.approxPolyDP(np.asarray(polygon, np.float32), 0.5, closed=True)[:, 0]
    return " ".join(f"{x:.0f},{y:.0f}" for x, y in simple)
