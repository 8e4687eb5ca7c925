"""Masks as run-length encodings (RLE), as COCO files hold them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from no_time_to_train.errors import UserError

#: A mask as COCO's compressed RLE: ``{"size": [height, width], "counts": str}``.
Rle = dict[str, Any]


def encode_mask(mask: NDArray[np.bool_]) -> Rle:
    """The compressed RLE of a mask, bool [H, W], ready for JSON."""
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


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
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return {"size": merged["size"], "counts": merged["counts"].decode()}


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
            segmentation = coco_mask.frPyObjects(segmentation, height, width)
        mask = decode_mask(segmentation)
    except Exception as error:  # pycocotools raises whatever its C code runs into
        raise UserError(f"{where} has no usable segmentation: {error!r}") from error
    if mask.shape != (height, width):
        raise UserError(f"{where}: its mask is {mask.shape[1]}x{mask.shape[0]}, its image {width}x{height}")
    return mask
