"""Proposals as a file: a COCO file whose annotations have scores, which ``data.proposal_files`` reads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.api.sources import Source, given_in
from no_time_to_train.data.rle import coco_object, encode_crop, encode_mask
from no_time_to_train.data.targets import Targets
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write
from no_time_to_train.method.beyond.given import Given


def write_proposals(
    path: Path, targets: Targets, segmenter: ReferenceSegmenter | None, source: Source
) -> tuple[int, list[str]]:
    """Write what is proposed in the targets: the masks of a segmenter's own proposals, or what a source gives.

    Returns:
        The number of proposals, and why images were left out.
    """
    images: list[dict[str, Any]] = []
    skipped: list[str] = []
    count = 0
    with atomic_write(path) as file:
        file.write(b'{"annotations": [')
        for target in tqdm(targets.images, desc="propose", total=targets.count, unit=" image"):
            try:
                pixels = target.read()
            except UserError as error:
                skipped.append(str(error))
                continue
            number = len(images) + 1 if target.image_id is None else target.image_id
            height, width = pixels.shape[:2]
            images.append({"id": number, "file_name": target.name, "height": height, "width": width})
            if segmenter is not None:
                given = of_grid(segmenter, pixels)
            else:
                given = given_in([source], pixels, target.name, target.image_id)[0] or Given.nothing()
            for record in records_of(given, height, width):
                count += 1
                line = json.dumps({"id": count, "image_id": number, "category_id": 1, **record})
                file.write(f"{',' * (count > 1)}\n{line}".encode())
        if not images:
            raise UserError(f"no image can be read: {skipped[0]}")
        categories = [{"id": 1, "name": "proposal"}]
        file.write(f'\n], "categories": {json.dumps(categories)}, "images": {json.dumps(images)}}}\n'.encode())
    return count, skipped


def of_grid(segmenter: ReferenceSegmenter, pixels: NDArray[np.uint8]) -> Given:
    """The masks that SAM 2 proposes at the points of its grid in an image uint8 [H, W, 3], in the points' order."""
    found = segmenter.propose(pixels).proposals
    assert found.logits is not None
    masks = found.upsampled_masks(torch.arange(len(found)))
    filled = torch.from_numpy(masks.areas > 0)
    crops = found.logits.crops  # none where nothing is proposed
    regions = torch.stack(crops).cpu()[filled] > 0 if len(crops) else None
    return Given.of_masks(masks[filled], found.predicted_iou.cpu()[filled], regions)


def records_of(given: Given, height: int, width: int) -> Iterator[dict[str, Any]]:
    """The proposals of an image as COCO annotations without ids."""
    for index, (score, (x1, y1, x2, y2)) in enumerate(zip(given.scores.tolist(), given.boxes.tolist(), strict=True)):
        if given.masks is None:
            box = [x1, y1, x2 - x1, y2 - y1]
            record: dict[str, Any] = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        else:
            record = coco_object(encode_crop(*given.masks.crop(index), height, width))
        record["score"] = score
        if given.regions is not None:
            record["region"] = encode_mask(given.regions[index].numpy())
        yield record
