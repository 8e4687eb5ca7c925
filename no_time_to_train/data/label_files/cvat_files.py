"""CVAT: "CVAT for images 1.1", one XML file for all images."""

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.label_files.labeled_objects import LabeledImage, LabeledObject, LabelFiles
from no_time_to_train.data.outlines import outlines, read_outlines


class CvatFiles(LabelFiles):
    """``annotations.xml`` and the images. A mask of one part is a polygon, others are masks."""

    form = "cvat"

    def begin(self) -> None:
        self.root = ElementTree.Element("annotations")
        ElementTree.SubElement(self.root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(self.root, "meta"), "task")
        labels = ElementTree.SubElement(task, "labels")
        for name in self.names:
            ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
        self.images = 0

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        size = {"width": str(image.width), "height": str(image.height)}
        node = ElementTree.SubElement(self.root, "image", {"id": str(self.images), "name": image.name, **size})
        self.images += 1
        for one in objects:
            common = {"label": one.label, "source": "auto", "occluded": "0", "z_order": "0"}
            if one.mask is None:
                box = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{value:.2f}" for value in one.box), strict=True))
                ElementTree.SubElement(node, "box", {**common, **box})
                continue
            parts = outlines(one.mask, "edges")
            if len(parts) == 1:
                (part,) = read_outlines(one.mask, "edges", image.name, list)
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in part)
                ElementTree.SubElement(node, "polygon", {**common, "points": points})
            else:
                ElementTree.SubElement(node, "mask", {**common, **encode_cvat(one.mask)})
        self.place_image(image, f"images/{image.name}")

    def finish(self) -> None:
        self.write_xml("annotations.xml", self.root, is_declared=True)


def encode_cvat(mask: NDArray[np.bool_]) -> dict[str, str]:
    """A mask, bool [H, W], as CVAT's attributes: its box, and in it, by rows, the pixels outside and inside in turn."""
    (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0))
    pixels = mask[top : bottom + 1, left : right + 1].ravel()
    ends = np.flatnonzero(np.diff(pixels, prepend=False, append=not pixels[-1]))
    runs = np.diff(ends, prepend=0)
    values = {"left": left, "top": top, "width": right + 1 - left, "height": bottom + 1 - top}
    return {"rle": ", ".join(map(str, runs)), **{name: str(value) for name, value in values.items()}}
