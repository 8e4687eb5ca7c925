"""The page of a run's missed objects: tables, and pictures by reason."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from no_time_to_train.data.datasets import read_listed_image
from no_time_to_train.data.rle import annotation_mask, decode_mask
from no_time_to_train.evaluation.coco_ap import Record, Records
from no_time_to_train.visual.drawing import draw_outlines, outlines
from no_time_to_train.visual.html import jpeg_base64, write_page
from no_time_to_train_extras.missed_objects.explain import REASONS

#: Pictures of each reason at most, the largest objects first.
PICTURES = 24

#: Longer side of a picture in pixels, and what it shows around the object, as a share of the longer side of the box.
SIDE, CONTEXT = 360, 0.5

#: The colors of the object and of the mask that explains it, RGB: blue and orange, which everybody can tell apart.
OBJECT, MASK = (31, 119, 180), (230, 120, 20)


def write_explain_page(
    page: Path, costs: Record, misses: Records, annotations: dict[int, Record], coco: COCO, root: str, rescale: bool
) -> None:
    """Write the page, which contains the pictures.

    Args:
        costs: From ``miss_costs``, with "iou" and "score", what a hit needs.
        misses: The missed objects, as ``explain.json`` holds them.
        annotations: Their annotations, by the ids in ``misses``.
    """
    by_reason = defaultdict(list)
    for miss in sorted(misses, key=lambda miss: -annotations[miss["id"]]["area"]):
        by_reason[miss["reason"]].append(miss)
    sections = []
    for reason, cost in costs["reasons"].items():
        figures = []
        for miss in [] if reason == "skipped" else by_reason[reason][:PICTURES]:
            image = read_listed_image(root, coco.imgs[miss["image_id"]], rescale)
            figures.append({**miss, "picture": draw_miss(image, annotations[miss["id"]], miss["mask"])})
        sections.append({"reason": REASONS[reason], "key": reason, **cost, "figures": figures})
    title = f"Why {costs['misses']} of {costs['objects']} objects were missed"
    write_page(page, "explain.html", title=title, costs=costs, sections=sections)


def draw_miss(image: NDArray[np.uint8], annotation: dict[str, Any], mask: dict[str, Any] | None) -> str:
    """The surroundings of a missed object, with its outline and that of the mask that explains it: a JPEG in base64.

    The object's box is drawn where it has no mask. The image is RGB, uint8 [H, W, 3]; the mask is compressed RLE.
    """
    height, width = image.shape[:2]
    x, y, w, h = annotation["bbox"]
    if annotation.get("segmentation"):
        object_mask = annotation_mask(annotation, height, width)
    else:
        object_mask = np.zeros((height, width), bool)
        object_mask[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))] = True
    margin = CONTEXT * max(w, h)
    left, top = max(int(x - margin), 0), max(int(y - margin), 0)
    window = np.s_[top : int(np.ceil(y + h + margin)), left : int(np.ceil(x + w + margin))]
    part = image[window]
    scale = SIDE / max(part.shape[:2])
    size = max(round(scale * part.shape[1]), 1), max(round(scale * part.shape[0]), 1)
    how = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX
    picture = np.array(Image.fromarray(part).resize(size, how))
    for region, color, line in ((None if mask is None else decode_mask(mask), MASK, 4), (object_mask, OBJECT, 2)):
        if region is not None:
            inside = cv2.resize(region[window].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            draw_outlines(picture, outlines(inside.astype(bool)), color, line)
    return jpeg_base64(picture)
