"""Give the boxes of a COCO file masks, for data sets that have none."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tqdm import tqdm

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import check_images_exist, read_listed_image
from no_time_to_train.data.reference_sets import ReferenceSet
from no_time_to_train.data.rle import Rle, annotation_mask, encode_mask
from no_time_to_train.errors import UserError
from no_time_to_train.files import sha256, write_json
from no_time_to_train.networks.box_prompts import BoxSegmenter, rectangle
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.visual.drawing import draw_instances, save_picture

#: Annotation id -> its mask as compressed RLE, of one image.
Masks = dict[int, Rle]


def boxes_to_masks(
    json_file: str | Path,
    image_dir: str | Path,
    out_path: str | Path,
    build: Callable[[], BoxSegmenter],
    references: ReferenceSet | None = None,
    pictures: str | Path | None = None,
) -> int:
    """Write a COCO file anew with masks made from its boxes, and the masks' areas. Masks it had are replaced.

    Finished images are kept in ``<out_path>.part`` until the file is written whole: a second call with the same input
    and network goes on from there.

    Args:
        build: makes the network; called only when there is something to do.
        references: only the annotations of this reference set get masks; None: all.
        pictures: folder for a picture an image of the masks made now.

    Returns:
        The number of annotations that have got masks.

    Raises:
        UserError: the file, an image or a box is missing or broken, or the output cannot be written.
    """
    coco, out_path = read_coco(json_file), Path(out_path)
    annotations = _chosen(coco, json_file, references)
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in annotations:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    check_images_exist(image_dir, coco, list(by_image))
    segmenter = build()
    journal = Journal(out_path)
    journal.begin(journal.open({"annotations": sha256(json_file), "network": segmenter.name}), rank=0)
    try:
        for index, (image_id, members) in enumerate(tqdm(by_image.items(), desc="masks", unit="image")):
            if index in journal.done:
                continue
            image = read_listed_image(image_dir, coco.imgs[image_id])
            masks = masks_of_boxes(image, members, segmenter)
            journal.add(index, {"masks": list(masks.items())})
            if pictures is not None:
                picture = Path(pictures) / coco.imgs[image_id]["file_name"].replace("/", "_")
                save_picture(draw_masks(image, members, masks, coco), picture.with_suffix(".jpg"))
        made: Masks = {ann_id: mask for record in journal.records() for ann_id, mask in record["masks"]}
        for annotation in annotations:
            mask = made[annotation["id"]]
            annotation |= {"segmentation": mask, "area": int(coco_mask.area(mask))}
        write_json(out_path, coco.dataset, indent=None)
    except BaseException:  # including Ctrl-C: the same command resumes from the journal
        journal.close()
        raise
    journal.remove()
    return len(annotations)


def _chosen(coco: COCO, json_file: str | Path, references: ReferenceSet | None) -> list[dict[str, Any]]:
    """The annotations to make masks of, their boxes and images checked."""
    wanted = references and {ann_id for shots in references.values() for shot in shots for ann_id in shot["ann_ids"]}
    for ann_id in (wanted or set()) - coco.anns.keys():
        raise UserError(f"the reference set names annotation {ann_id}, which {json_file} does not have")
    chosen = [one for one in coco.dataset.get("annotations", []) if wanted is None or one["id"] in wanted]
    for annotation in chosen:
        if not annotation.get("bbox"):
            raise UserError(f"{json_file}: annotation {annotation['id']} has no bbox")
    return chosen


def masks_of_boxes(image: NDArray[np.uint8], annotations: list[dict[str, Any]], segmenter: BoxSegmenter) -> Masks:
    """The masks of the annotations of one image, uint8 [H, W, 3]; where one is empty, a warning and the rectangle."""
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    masks = segmenter(image, boxes)
    encoded: Masks = {}
    for annotation, box, mask in zip(annotations, boxes, masks, strict=True):
        if not mask.any():
            mask = rectangle(box, *image.shape[:2])
            warning = f"warning: annotation {annotation['id']}: the mask came out empty, its box is used instead"
            tqdm.write(warning, file=sys.stderr)
        encoded[annotation["id"]] = encode_mask(mask)
    return encoded


def draw_masks(
    image: NDArray[np.uint8], annotations: list[dict[str, Any]], masks: Masks, coco: COCO
) -> NDArray[np.uint8]:
    """A picture of the masks made for one image: uint8 [H, W, 3] RGB."""
    pixels = [
        annotation_mask({"id": one["id"], "segmentation": masks[one["id"]]}, *image.shape[:2]) for one in annotations
    ]
    classes = [annotation["category_id"] for annotation in annotations]
    labels = [
        coco.cats[category_id]["name"] if category_id in coco.cats else str(category_id) for category_id in classes
    ]
    return draw_instances(image, np.array(pixels), np.array(classes), labels)
