"""YOLO: one text file per image, as ultralytics reads them."""

import re
from collections.abc import Sequence

import numpy as np
import yaml

from no_time_to_train.data.label_files.labeled_objects import LabeledImage, LabeledObject, LabelFiles
from no_time_to_train.data.outlines import Outline, read_outlines


class YoloFiles(LabelFiles):
    """``labels/STEM.txt`` per image with one line per object, the images, and ``data.yaml``.

    ``data.yaml`` states no ``path``: ultralytics then takes its own folder, but would resolve ``.`` against the working
    directory or its folder of data sets. To find the labels of an image, it puts ``labels`` in the place of the last
    ``images`` in its path, so that a folder ``images`` of the targets gets the name ``images_``.
    """

    form = "yolo"

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        size = np.array([image.width, image.height], float)
        only_boxes = all(one.mask is None for one in objects)  # a file holds boxes or outlines, never both
        lines = []
        for one in objects:
            corners = one.corners / size
            if only_boxes:
                numbers = np.concatenate([corners.mean(axis=0), corners[2] - corners[0]])
            elif one.mask is None:
                numbers = corners.ravel()
            else:  # in YOLO's coordinates the center of the first pixel is 0.5, 0.5
                (outline,) = read_outlines(one.mask, "centers", image.name, join_parts)
                numbers = ((outline + 0.5) / size).ravel()
            text = " ".join(f"{value:.6f}" for value in numbers.clip(0, 1))
            lines.append(f"{self.names.index(one.label)} {text}")
        stem = re.sub(r"(?<![^/])images(_*)(?=/)", r"images\1_", image.stem)  # no two folders become equal
        self.place_image(image, f"images/{stem}{image.path.suffix}")
        self.write_lines(f"labels/{stem}.txt", lines)

    def finish(self) -> None:
        content = {"train": "images", "val": "images", "names": dict(enumerate(self.names))}
        self.write_lines("data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False).splitlines())


def join_parts(parts: list[Outline]) -> list[Outline]:
    """One outline around several parts: from the first to each other part and back on one line, which has no area.

    At least three points, as the format demands.
    """
    start = parts[0][:1]
    joined = np.concatenate([parts[0], *(piece for part in parts[1:] for piece in (start, part, part[:1]))])
    return [np.concatenate([joined, joined[-1:].repeat(max(3 - len(joined), 0), axis=0)])]
