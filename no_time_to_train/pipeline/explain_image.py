"""Why objects of one image were missed, from Python."""

import copy
from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
from pycocotools.cocoeval import COCOeval

from no_time_to_train.analysis.explain import Finding, MissedObjects, explain_objects, wider_settings, with_settings
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import index_coco
from no_time_to_train.data.images import ImageInput, MaskInput, as_mask
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError, suggest
from no_time_to_train.evaluation.error_analysis import find_matches
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.ranges import Fraction, check_number


def explain_image(
    segmenter: ReferenceSegmenter,
    image: ImageInput,
    truth: Sequence[tuple[str, MaskInput]],
    score: float = 0.5,
    iou: float = 0.5,
) -> list[Finding | None]:
    """Say of each object of an image why it was not found.

    Args:
        segmenter: The networks and the memory.
        truth: The objects in the image: the label and the mask of each.
        score: The score that an instance needs, in [0, 1].
        iou: The IoU with an object that an instance needs to find it, in [0, 1].

    Returns:
        For each object, why it is missed, or None where it is found. Objects and instances are matched as by COCO.
    """
    check_number("iou", iou, Fraction)
    for label in (label for label, _ in truth):
        if label not in segmenter.classes:
            raise UserError(f"the memory has no class {label!r}{suggest(label, segmenter.classes)}")
    proposals = segmenter.propose(image)
    found = segmenter.classify(proposals, score)
    height, width = proposals.pixels.shape[:2]
    masks = np.array([as_mask(mask) for _, mask in truth if mask is not None], bool).reshape(-1, height, width)
    classes = [segmenter.classes.index(label) for label, _ in truth]
    annotations = [
        {
            "id": index,
            "image_id": 1,
            "category_id": found.categories[class_index].id,
            "bbox": list(cv2.boundingRect(mask.view(np.uint8))),
            "segmentation": encode_mask(mask),
            "area": float(mask.sum()),
            "iscrowd": 0,
        }
        for index, (class_index, mask) in enumerate(zip(classes, masks, strict=True), start=1)
    ]
    categories = [{"id": category.id, "name": category.name} for category in found.categories]
    coco = index_coco(
        {"images": [{"id": 1, "height": height, "width": width}], "categories": categories, "annotations": annotations}
    )
    matches = find_matches(coco, found.to_coco(1), found.categories, "segm", COCOeval, hit=iou)
    missed = sorted(index - 1 for index in matches.objects.keys() - matches.hit_objects)
    boxes = np.array([one["bbox"] for one in annotations], float).reshape(-1, 4)
    objects = MissedObjects(segmenter.classes, classes, boxes, masks, height, width).some(missed)

    def propose(wider: Segmenter) -> DescribedProposals:
        other = copy.copy(segmenter)
        other.segmenter = wider
        return other.propose(image).proposals

    searches = (
        (reason, partial(propose, with_settings(segmenter.segmenter, settings)))
        for reason, settings in wider_settings(segmenter.segmenter.settings).items()
    )
    explained, _ = explain_objects(objects, segmenter.segmenter, proposals.proposals, searches, iou, score)
    findings = dict(zip(missed, explained, strict=True))
    return [findings.get(index) for index in range(len(truth))]
