"""The gallery ``index.html``: all images with what was found in them, and the references.

The page works without a server, directly from the file system.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from supervision import ColorPalette

from no_time_to_train.data.instances import Instances
from no_time_to_train.data.reference_image import decode_picture
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.visual.drawing import INSTANCE_COLORS, PALETTE, Picture, instance_colors, outlines, save_picture
from no_time_to_train.visual.html import write_page
from no_time_to_train.visual.memory_pictures import crop_tile

#: Longer side of a thumbnail in pixels.
THUMBNAIL = 640

#: Longer side of a preview, which the page shows alone, in pixels.
PREVIEW = 1920

#: Longer side of an image in the units of the page's outlines.
UNITS = 2000


class Gallery:
    """Collects the pictures and the outlines of each image, then writes the page.

    The page itself draws the outlines, so that classes and thresholds can be chosen there. It loads a thumbnail only
    when it comes into view.

    Args:
        out: Folder of the page. Its pictures go to ``previews``, ``references`` and ``thumbnails`` in it.
        palette: Colors of the classes that a person chose.
    """

    def __init__(self, out: Path, memory: MemoryBank, palette: ColorPalette | None = None) -> None:
        self.out = out
        self.by_instance = len(memory.categories) == 1 and palette is None
        palette = palette or PALETTE
        self.images: list[dict[str, Any]] = []
        self.class_index = {category.name: index for index, category in enumerate(memory.categories)}
        self.classes = [
            {
                "name": category.name,
                "color": palette.by_idx(index).as_hex(),
                "references": [
                    self._save(crop_tile(*crop, index, palette=palette), f"references/{category.id}_{number}.jpg")
                    for number, crop in enumerate(map(decode_picture, memory.crops_of(index)), start=1)
                ],
            }
            for index, category in enumerate(memory.categories)
        ]

    def add(
        self, name: str, overlay: str, instances: Instances, truth: Instances | None = None, sources: Sequence[str] = ()
    ) -> None:
        """Add an image.

        Args:
            overlay: Path of the image's overlay picture, ``FOLDER/NAME``, relative to the page. The page's pictures of
                the image get the same ``NAME``.
            instances: What was found in the image, with the instances below the threshold that the page begins with.
            truth: The ground truth, which the page can show as dashed outlines.
            sources: Where the proposal of each instance is from; "" where there is one source only.
        """
        height, width = instances.image.shape[:2]
        picture = Image.fromarray(instances.image)
        file_name = PurePosixPath(overlay).relative_to(PurePosixPath(overlay).parts[0])
        address = {}
        for folder, side in (("previews", PREVIEW), ("thumbnails", THUMBNAIL)):
            if max(height, width) > side or folder == "thumbnails":
                picture = _shrink(picture, side)
                address[folder] = self._save(np.asarray(picture), f"{folder}/{file_name}")
        scale = UNITS / max(height, width)
        found = self._records(instances, scale)
        for record, source in zip(found, sources, strict=False):
            record |= {"source": source} if source else {}
        self.images.append(
            {
                "name": name,
                "thumbnail": address["thumbnails"],
                "preview": address.get("previews", address["thumbnails"]),
                "overlay": quote(overlay),
                "size": (width, height),
                "view": (round(scale * width), round(scale * height)),
                "instances": found,
                "truth": [] if truth is None else self._records(truth, scale),
            }
        )

    def finish(
        self,
        title: str,
        command: str | None = None,
        score: float | None = None,
        class_scores: Mapping[str, float] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Write ``index.html``.

        Args:
            command: A command line that filters the results, such as ``no-time-to-train results filter out/``. The page
                adds the options for the chosen thresholds, and offers the whole line for copying.
            score: The threshold that the page begins with. By default, it begins with all instances.
            class_scores: The thresholds of classes, by name, that have one of their own.
            facts: What the page states besides, such as measures: names and values.
        """
        data = {
            "classes": self.classes,
            "tints": [PALETTE.by_idx(index).as_hex() for index in range(INSTANCE_COLORS)],
            "images": self.images,
            "command": command,
            "score": score,
            "classScores": class_scores or {},
            "byInstance": self.by_instance,
        }
        write_page(self.out / "index.html", "gallery.html", title=title, facts=facts or {}, data=data)

    def _records(self, instances: Instances, scale: float) -> list[dict[str, Any]]:
        """Instances as JSON values; ``scale`` is the number of units per pixel."""
        tints = instance_colors(instances.detections.boxes.numpy())
        records = []
        values = zip(instances.labels, instances.scores.tolist(), instances.boxes.tolist(), tints.tolist(), strict=True)
        for index, (label, score, (x1, y1, x2, y2), tint) in enumerate(values):
            inside, top, left = instances.detections.masks.crop(index)
            box = [scale * x1, scale * y1, scale * (x2 + 1 - x1), scale * (y2 + 1 - y1)]
            records.append(
                {
                    "class": self.class_index[label],
                    "score": round(score, 7),  # the digits that float32 has
                    "tint": tint,
                    "box": [round(value) for value in box],
                    "outline": _svg_path(inside, left, top, scale),
                }
            )
        return records

    def _save(self, picture: Picture, name: str) -> str:
        """Write a picture of the page; return its address relative to the page."""
        save_picture(picture, self.out / name)
        return quote(name)


def _shrink(picture: Image.Image, side: int) -> Image.Image:
    """The picture with a longer side of ``side`` pixels at most."""
    smaller = picture.copy()
    smaller.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    return smaller


def _svg_path(mask: NDArray[np.bool_], x: int, y: int, scale: float) -> str:
    """The outline of a mask in its box, bool [h, w], as the ``d`` of an SVG path, ``scale`` units per pixel."""
    pieces = []
    for contour in outlines(mask):
        simple = cv2.approxPolyDP(contour, max(min(1, 0.03 * max(mask.shape)), 1 / scale), closed=True)[:, 0]
        points = np.rint(scale * (simple + np.array([x + 0.5, y + 0.5]))).astype(int)
        steps = " ".join(f"{dx} {dy}" for dx, dy in np.diff(points, axis=0).tolist() or [[0, 0]])
        pieces.append(f"M{points[0, 0]} {points[0, 1]}l{steps}z")
    return "".join(pieces)
