"""Masks as run-length encodings (RLE), as COCO files hold them.

pycocotools decodes without checks: it reads past the end of counts, writes outside the mask, and allocates what an
outline's length asks for. Nothing reaches it from here before :func:`check_rle` or :func:`check_polygons`.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from no_time_to_train.errors import UserError

#: A mask as COCO's compressed RLE: ``{"size": [height, width], "counts": str}``.
Rle = dict[str, Any]

#: The longest side of an image in pixels: scans and panoramas may be wider than the 65,535 pixels of JPEG.
MAX_SIDE = 2**20

#: The most pixels of an image: pycocotools decodes runs up to this length correctly.
MAX_PIXELS = 2**29

#: The longest outline in pixels: pycocotools allocates 100 bytes for each.
MAX_OUTLINE = 1_000_000

#: Masks whose box covers less than this share of the image are encoded from the box alone, ten times as fast.
SMALL = 0.25


def encode_mask(mask: NDArray[np.bool_]) -> Rle:
    """The compressed RLE of a mask, bool [H, W], ready for JSON."""
    return encode_crop(mask, 0, 0, *mask.shape)


def encode_crop(crop: NDArray[np.bool_], top: int, left: int, height: int, width: int) -> Rle:
    """The compressed RLE of a mask of this height and width in pixels, of which only a part is given.

    Args:
        crop: bool [h, w], a part of the mask outside which it is empty.
        top: The first row of the part in the mask.
        left: The first column of the part in the mask.
    """
    rows = np.flatnonzero(crop.any(axis=1))
    columns = np.flatnonzero(crop.any(axis=0)) if len(rows) else rows
    y1, y2 = rows.min(initial=height), rows.max(initial=-1) + 1
    x1, x2 = columns.min(initial=width), columns.max(initial=-1) + 1
    if not 0 < y2 - y1 < height or (y2 - y1) * (x2 - x1) > SMALL * height * width:
        mask = np.zeros((height, width), np.uint8, order="F")
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        return _for_json(coco_mask.encode(mask))
    # Runs go down the columns. Below each column of the box a False ends its last run.
    box = np.zeros((x2 - x1, y2 - y1 + 1), bool)
    box[:, :-1] = crop[y1:y2, x1:x2].T
    column, row = np.divmod(np.flatnonzero(np.diff(box.ravel(), prepend=False)), box.shape[1])
    changes = (left + x1 + column) * height + top + y1 + row
    counts = np.diff(changes, prepend=0, append=height * width).tolist()
    return encode_runs({"counts": counts if counts[-1] else counts[:-1], "size": [height, width]})


def decode_mask(encoded: Rle) -> NDArray[np.bool_]:
    """The mask, bool [H, W], of RLE, compressed or not; a ValueError where it is none."""
    check_rle(encoded)
    encoded = encode_runs(encoded) if isinstance(encoded["counts"], list) else encoded
    mask: NDArray[np.bool_] = coco_mask.decode(encoded).astype(bool)
    return mask


def decode_crop(encoded: Rle) -> tuple[NDArray[np.bool_], int, int]:
    """The columns of a mask that are not empty, of a compressed RLE; a ValueError where it is none.

    Time and memory go with these columns, not with the whole mask.

    Returns:
        bool [height, w], and the first row and column in the mask: 0 and the column.
    """
    check_rle(encoded)
    height = encoded["size"][0]
    ends = _run_lengths(encoded["counts"]).cumsum()
    first, last = ends[:-1:2], ends[1::2]  # of the runs inside the mask
    filled = np.flatnonzero(first < last)
    if not len(filled):
        return np.zeros((0, 0), bool), 0, 0
    left, right = int(first[filled[0]]) // height, -(-int(last[filled[-1]]) // height)
    changes = np.diff(ends.clip(left * height, right * height), prepend=left * height)
    pixels = np.repeat(np.arange(len(changes)) % 2 == 1, changes)
    return pixels.reshape(right - left, height).T, 0, left


def encode_polygons(polygons: list[list[float]], height: int, width: int) -> Rle:
    """The compressed RLE of one object's polygons.

    Args:
        polygons: Each is x1, y1, x2, y2, ... in pixels.

    Raises:
        ValueError: A polygon has fewer than three points, for pycocotools a box; or see :func:`check_polygons`.
    """
    if any(len(polygon) < 6 for polygon in polygons):
        raise ValueError("a polygon needs three points")
    check_polygons(polygons, height, width)
    return _for_json(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def encode_runs(uncompressed: Rle) -> Rle:
    """The compressed RLE of an uncompressed one, whose ``counts`` are a list of run lengths that fit its ``size``."""
    return _for_json(coco_mask.frPyObjects(uncompressed, *uncompressed["size"]))


def check_rle(encoded: Any) -> None:
    """Check that a value is RLE, compressed or not, whose runs cover its size exactly.

    Raises:
        ValueError: It is not; the message says why.
    """
    if not isinstance(encoded, dict) or not {"size", "counts"} <= encoded.keys():
        raise ValueError("RLE is {size: [height, width], counts: ...}")
    size, counts = encoded["size"], encoded["counts"]
    check_size(size)
    if isinstance(counts, str | bytes):
        lengths = _run_lengths(counts)
    elif isinstance(counts, list) and set(map(type, counts)) <= {int} and all(0 <= run <= MAX_PIXELS for run in counts):
        lengths = np.array(counts, np.int64)
    else:
        raise ValueError("its counts are neither text nor a list of run lengths")
    if lengths.min(initial=0) < 0 or lengths.max(initial=0) > MAX_PIXELS:  # the sum of huge ones would wrap around
        raise ValueError("a run of its counts has a negative length, or one that no image has")
    if (total := int(lengths.sum())) != size[0] * size[1]:
        raise ValueError(f"its counts cover {total} pixels, but its size is {size[0]}x{size[1]} (height, width)")


def check_size(size: Any) -> None:
    """Check that a value is the height and width of an image in pixels.

    Raises:
        ValueError: It is not; the message says why.
    """
    if not isinstance(size, list | tuple) or len(size) != 2 or set(map(type, size)) != {int}:
        raise ValueError(f"size {size!r} is not [height, width] in pixels")
    if not (0 < size[0] <= MAX_SIDE and 0 < size[1] <= MAX_SIDE and size[0] * size[1] <= MAX_PIXELS):
        raise ValueError(f"size {size!r} is not 1 to {MAX_SIDE} pixels high and wide, and {MAX_PIXELS:,} in all")


def _run_lengths(counts: str | bytes) -> NDArray[np.int64]:
    """The run lengths in the counts of compressed RLE.

    Each character holds five bits of a number, the lowest first; a sixth says whether more follow. The last bit of a
    number is its sign. From the fourth number on, each is the difference to the last but one.
    """
    text = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, np.uint8)
    codes = text.astype(np.int64) - ord("0")
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("its counts hold a character that RLE does not have")
    ends = np.flatnonzero(codes < 32)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError("its counts end within a number")
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > 6:
        raise ValueError("its counts hold too large a number")
    starts = ends - lengths + 1
    digits = (codes & 31) << 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat(digits, starts) - ((codes[ends] & 16 > 0) << 5 * lengths)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def check_polygons(polygons: Any, height: int | None = None, width: int | None = None) -> None:
    """Check that a value is the polygons of one object, with an outline that an object in an image can have.

    Args:
        polygons: Each is x1, y1, x2, y2, ... in pixels. Points may lie outside the image.
        height: Height of the image in pixels; None where it is unknown.

    Raises:
        ValueError: It is not; the message says why.
    """
    if not isinstance(polygons, list) or not all(
        isinstance(polygon, list) and len(polygon) % 2 == 0 for polygon in polygons
    ):
        raise ValueError("polygons are [[x, y, x, y, ...], ...] in pixels")
    limit = MAX_OUTLINE
    if height is not None and width is not None:
        limit = min(limit, height * width + 8 * (height + width))
    length = 0.0
    for polygon in filter(None, polygons):
        if not are_coordinates(polygon):
            raise ValueError("a coordinate is not a number, or far outside any image")
        longest = len(polygon) / 2 * (max(polygon) - min(polygon) + 1)
        length += longest if longest < limit / len(polygons) else _outline_length(polygon)
    if length > limit:
        raise ValueError(f"its outline is longer than {limit:,} pixels")


def are_coordinates(values: list[Any]) -> bool:
    """Whether these are numbers in or near an image."""
    return not values or (
        set(map(type, values)) <= {int, float}
        and min(values) > -MAX_SIDE
        and max(values) < 2 * MAX_SIDE
        and not math.isnan(sum(values))
    )


def _outline_length(polygon: list[float]) -> float:
    """The steps along the outline of a polygon, at least one between two points."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    return sum(max(abs(x2 - x1), abs(y2 - y1), 1) for (x1, y1), (x2, y2) in pairwise([*points, points[0]]))


def mask_area(encoded: Rle) -> int:
    """The number of pixels inside the mask of a compressed RLE."""
    return int(coco_mask.area(encoded))


def mask_box(encoded: Rle) -> list[float]:
    """The box around the mask of a compressed RLE: x, y, w, h in pixels."""
    box: list[float] = coco_mask.toBbox(encoded).tolist()
    return box


def coco_object(encoded: Rle) -> dict[str, Any]:
    """The values of a COCO annotation of an object with this mask, a compressed RLE."""
    return {"bbox": mask_box(encoded), "area": mask_area(encoded), "segmentation": encoded, "iscrowd": 0}


def annotation_mask(annotation: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a COCO annotation or result.

    Args:
        annotation: Its ``segmentation`` holds polygons, compressed RLE or uncompressed RLE.

    Returns:
        bool [height, width].
    """
    where = f"annotation {annotation['id']}" if "id" in annotation else f"a result of image {annotation['image_id']}"
    try:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            segmentation = encode_polygons(segmentation, height, width)
        mask = decode_mask(segmentation)
    except Exception as error:  # pycocotools raises whatever its C code runs into
        raise UserError(f"{where} has no usable segmentation: {error!r}") from error
    if mask.shape != (height, width):
        raise UserError(f"{where}: its mask is {mask.shape[1]}x{mask.shape[0]}, its image {width}x{height}")
    return mask


def _for_json(encoded: Rle) -> Rle:
    """pycocotools' RLE with its ``counts`` as text instead of bytes."""
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}
