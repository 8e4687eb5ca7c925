"""Label Studio: tasks with predictions, or with annotations where the objects have no scores."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.label_files.labeled_objects import LabeledImage, LabeledObject, LabelFiles
from no_time_to_train.data.outlines import outlines
from no_time_to_train.files import write_json


class LabelStudioFiles(LabelFiles):
    """``tasks.json`` for *Import*, ``labeling_config.xml`` for the project's labeling interface, and the images.

    Label Studio serves the images if it is started with ``LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true`` and this
    folder as ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``.
    """

    form = "label-studio"

    def begin(self) -> None:
        self.tasks: list[dict[str, Any]] = []

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        results = []
        for number, one in enumerate(objects):
            tool = ("rectanglelabels", "box") if one.mask is None else ("brushlabels", "brush")
            results.append(region_of(one, image.height, image.width, *tool, "image", number))
        self.place_image(image, f"images/{image.name}")
        task: dict[str, Any] = {"data": {"image": f"/data/local-files/?d=images/{quote(image.name)}"}}
        scores = [one.score for one in objects if one.score is not None]
        if scores:
            mean = round(sum(scores) / len(scores), 4)
            task["predictions"] = [{"model_version": "no-time-to-train", "score": mean, "result": results}]
        else:
            task["annotations"] = [{"result": results}]
        self.tasks.append(task)

    def finish(self) -> None:
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Image", {"name": "image", "value": "$image", "zoom": "true"})
        for tag, name in (("BrushLabels", "brush"), ("RectangleLabels", "box")):
            node = ElementTree.SubElement(view, tag, {"name": name, "toName": "image"})
            for label in self.names:
                ElementTree.SubElement(node, "Label", {"value": label})
        self.write_xml("labeling_config.xml", view)
        write_json(self.folder / "tasks.json", self.tasks, indent=None)


def region_of(
    one: LabeledObject, height: int, width: int, kind: str, control: str, image: str, number: int
) -> dict[str, Any]:
    """An object in an image as a region of a result.

    Args:
        one: The object, with a mask unless ``kind`` is ``rectanglelabels``.
        height: Of the image in pixels.
        width: Of the image in pixels.
        kind: ``brushlabels``; ``rectanglelabels``; or ``polygonlabels``, which draws the largest part of the mask.
        control: The name of the tool in the labeling interface.
    """
    if kind == "brushlabels" and one.mask is not None:
        value: dict[str, Any] = {"format": "rle", "rle": encode_brush(one.mask)}
    elif kind == "polygonlabels" and one.mask is not None:
        part = max(outlines(one.mask, "edges"), key=lambda part: cv2.contourArea(part.astype(np.float32)))
        value = {"points": (100 * part / (width, height)).tolist(), "closed": True}
    else:
        x1, y1, x2, y2 = one.box
        sides = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
        value = {**{name: 100 * part for name, part in sides.items()}, "rotation": 0}
    names = {"from_name": control, "to_name": image, "type": kind}
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    score = {} if one.score is None else {"score": round(one.score, 4)}
    return {"id": str(number), **names, **size, "value": {**value, kind: [one.label]}, **score}


#: The numbers of bits in which the length of a run may be written.
RUN_BITS = (3, 4, 8, 16)


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """A mask, bool [H, W], in Label Studio's run-length encoding of its RGBA pixels, as bytes.

    A header has the number of values in 32 bits, the bits of a value less 1 in 5, and each of ``RUN_BITS`` less 1 in 4.
    A run is a 1, the number of its ``RUN_BITS`` in 2 bits, its length less 1, and its value in 8 bits.
    """
    pixels = mask.ravel()
    starts = np.flatnonzero(np.diff(pixels, prepend=not pixels[0]))
    bits = [f"{4 * pixels.size:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    for start, end in zip(starts, [*starts[1:], pixels.size], strict=True):
        left, value = 4 * int(end - start), "11111111" if pixels[start] else "00000000"
        while left:
            length = min(left, 2 ** RUN_BITS[-1])
            choice = next(index for index, size in enumerate(RUN_BITS) if length <= 2**size)
            bits.append(f"1{choice:02b}{length - 1:0{RUN_BITS[choice]}b}{value}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]
