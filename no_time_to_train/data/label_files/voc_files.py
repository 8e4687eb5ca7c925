"""Pascal VOC: one XML file per image with boxes, and masks as pictures."""

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import numpy as np

from no_time_to_train.data.label_files.labeled_objects import LabeledImage, LabeledObject, LabelFiles
from no_time_to_train.data.voc import save_numbers, voc_colors
from no_time_to_train.errors import UserError

#: In VOC, the number of pixels that belong to no object, such as borders.
VOID = 255

#: The largest number that a picture of 16 bits holds.
MOST = 65535


class VocFiles(LabelFiles):
    """The folders of Pascal VOC, and ``labelmap.txt``, with which CVAT imports them as "Segmentation mask 1.1".

    Where masks overlap, a pixel belongs to the best object. Pictures of more than 254 objects have 16 bits.
    """

    form = "voc"

    def begin(self) -> None:
        self.stems: list[str] = []
        self.palette = [channel for color in voc_colors(VOID)[1:] for channel in color]

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        if len(objects) > MOST:
            raise UserError(f"{image.path} has {len(objects)} objects, and a picture of VOC numbers at most {MOST}")
        root = ElementTree.Element("annotation")
        place = self.place_image(image, f"JPEGImages/{image.stem}{image.path.suffix}")
        _add(root, {"folder": "JPEGImages", "filename": place.relative_to(self.folder / "JPEGImages").as_posix()})
        _add(ElementTree.SubElement(root, "size"), {"width": image.width, "height": image.height, "depth": 3})
        _add(root, {"segmented": int(any(one.mask is not None for one in objects))})
        classes, numbers = (np.zeros((image.height, image.width), np.uint16) for _ in range(2))
        for number, one in enumerate(objects, 1):
            node = ElementTree.SubElement(root, "object")
            _add(node, {"name": one.label, "pose": "Unspecified", "truncated": 0, "difficult": int(one.difficult)})
            x1, y1, x2, y2 = one.box  # VOC counts from 1, and includes the last pixel
            box = {"xmin": f"{x1 + 1:g}", "ymin": f"{y1 + 1:g}", "xmax": f"{x2:g}", "ymax": f"{y2:g}"}
            _add(ElementTree.SubElement(node, "bndbox"), box)
            if one.mask is not None:
                free = one.mask & (numbers == 0)
                classes[free], numbers[free] = self.names.index(one.label) + 1, number
        self.write_xml(f"Annotations/{image.stem}.xml", root)
        for folder, picture in (("SegmentationClass", classes), ("SegmentationObject", numbers)):
            save_numbers(picture, self.folder / folder / f"{image.stem}.png", self.palette)
        self.stems.append(image.stem)

    def finish(self) -> None:
        names = ["background", *self.names]
        rows = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(names, voc_colors(len(names)), strict=True)]
        self.write_lines("labelmap.txt", ["# label:color_rgb:parts:actions", *rows])
        self.write_lines("ImageSets/Segmentation/default.txt", self.stems)


def _add(node: ElementTree.Element, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        ElementTree.SubElement(node, name).text = str(value)
