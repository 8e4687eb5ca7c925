"""Masks as run-length encodings (RLE), as COCO files hold them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from no_time_to_train.errors import UserError

#: A mask as COCO's compressed RLE: ``{"size": [height, width], "counts": str}``.
Rle = dict[str, Any]


#: Masks whose box covers less than this share of the image are encoded from the box alone, ten times as fast.
SMALL = 0.25


def encode_mask(mask: NDArray[np.bool_]) -> Rle:
    """The compressed RLE of a mask, bool [H, W], ready for JSON."""
    height, width = mask.shape
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0)) if len(rows) else rows
    top, bottom = rows.min(initial=height), rows.max(initial=-1) + 1
    left, right = columns.min(initial=width), columns.max(initial=-1) + 1
    if not 0 < bottom - top < height or (bottom - top) * (right - left) > SMALL * mask.size:
        return _for_json(coco_mask.encode(np.asfortranarray(mask, np.uint8)))
    # Runs go down the columns. Below each column of the box a False ends its last run.
    box = np.zeros((right - left, bottom - top + 1), bool)
    box[:, :-1] = mask[top:bottom, left:right].T
    column, row = np.divmod(np.flatnonzero(np.diff(box.ravel(), prepend=False)), box.shape[1])
    changes = (left + column) * height + top + row
    counts = np.diff(changes, prepend=0, append=mask.size).tolist()
    return encode_runs({"counts": counts if counts[-1] else counts[:-1], "size": [height, width]})


def decode_mask(encoded: Rle) -> NDArray[np.bool_]:
    """The mask, bool [H, W], of a compressed RLE."""
    mask: NDArray[np.bool_] = coco_mask.decode(encoded).astype(bool)
    return mask


def encode_polygons(polygons: list[list[float]], height: int, width: int) -> Rle:
    """The compressed RLE of one object's polygons.

    Args:
        polygons: Each is x1, y1, x2, y2, ... in pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        ValueError: A polygon has fewer than three points; pycocotools would take two points for a box.
    """
    if any(len(polygon) < 6 for polygon in polygons):
        raise ValueError("a polygon needs three points")
    return _for_json(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def encode_runs(uncompressed: Rle) -> Rle:
    """The compressed RLE of an uncompressed one, whose ``counts`` are a list of run lengths."""
    return _for_json(coco_mask.frPyObjects(uncompressed, *uncompressed["size"]))


def mask_area(encoded: Rle) -> int:
    """The number of pixels inside the mask of a compressed RLE."""
    return int(coco_mask.area(encoded))


def mask_box(encoded: Rle) -> list[float]:
    """The box around the mask of a compressed RLE: x, y, w, h in pixels."""
    box: list[float] = coco_mask.toBbox(encoded).tolist()
    return box


def annotation_mask(annotation: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a COCO annotation or result.

    Args:
        annotation: Its ``segmentation`` holds polygons, compressed RLE or uncompressed RLE.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        bool [height, width].

    Raises:
        UserError: The segmentation is unusable or of another size.
    """
    where = f"annotation {annotation['id']}" if "id" in annotation else f"a result of image {annotation['image_id']}"
    try:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            segmentation = encode_polygons(segmentation, height, width)
        elif isinstance(segmentation["counts"], list):
            segmentation = encode_runs(segmentation)
        mask = decode_mask(segmentation)
    except Exception as error:  # pycocotools raises whatever its C code runs into
        raise UserError(f"{where} has no usable segmentation: {error!r}") from error
    if mask.shape != (height, width):
        raise UserError(f"{where}: its mask is {mask.shape[1]}x{mask.shape[0]}, its image {width}x{height}")
    return mask


def _for_json(encoded: Rle) -> Rle:
    """pycocotools' RLE with its ``counts`` as text instead of bytes."""
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}
