"""Make masks from the boxes of a COCO file, for data sets that have none."""

import hashlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from tqdm import tqdm

from no_time_to_train.data.box_lists import find_images, renumber
from no_time_to_train.data.coco import ImageId, index_coco, read_coco
from no_time_to_train.data.datasets import check_images_exist, read_listed_image
from no_time_to_train.data.images import hash_pixels
from no_time_to_train.data.names import clean_characters, clean_name, unique_stems
from no_time_to_train.data.reference_sets import ReferenceSet
from no_time_to_train.data.rle import Rle, annotation_mask, encode_mask
from no_time_to_train.errors import UserError, UserNotice, plural
from no_time_to_train.file_hashes import sha256
from no_time_to_train.files import MADE_HERE, remove_leftovers, remove_leftovers_in, write_json
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.networks.box_prompts import BoxSegmenter, mask_or_box, rectangle
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.visual.drawing import check_pictures, draw_instances, save_picture

#: Polygons in pixels: x1, y1, x2, y2, ...
Polygons = list[list[float]]

#: Changed when the masks of a journal of an earlier version would not be what this one makes.
JOURNAL_FORMAT = 2

#: What an annotation gets, by its id: its mask as ``segmentation``, and its ``area`` in pixels.
MadeMasks = dict[int, dict[str, Any]]


def boxes_to_masks(
    json_file: str | Path,
    image_dir: str | Path,
    out_path: str | Path,
    build: Callable[[], BoxSegmenter],
    references: ReferenceSet | None = None,
    pictures: str | Path | None = None,
    as_published: bool = False,
    categories: str | Path | None = None,
) -> int:
    """Write a copy of a COCO file with masks made from its boxes, and with their areas; return how many were made.

    Masks that the file has are replaced. After a failure, a second call with the same arguments resumes.

    Args:
        build: Builds the network. It is called once the inputs are checked.
        references: Reference set; only its annotations get masks. Default: all annotations.
        pictures: Folder for one picture per image of the masks that this call makes. Default: no pictures.
        as_published: Store polygons instead of RLE (:func:`published_polygons`).
        categories: COCO file whose category ids the copy gets, by name.
    """
    coco, out_path = read_coco(json_file), Path(out_path)
    if categories is not None:
        ids = {one["name"]: one["id"] for one in read_coco(categories).dataset["categories"]}
        renumber(coco.dataset, ids, categories)
        coco = index_coco(coco.dataset)
    annotations = choose_annotations(coco, json_file, references)
    if drawn := sum(bool(annotation.get("segmentation")) for annotation in annotations):
        text = f"{plural(drawn, 'annotation')} with a mask: {out_path} gets new masks for these, too"
        warnings.warn(f"{json_file} has {text}", UserNotice, stacklevel=2)
    by_image: dict[ImageId, list[dict[str, Any]]] = {}
    for annotation in annotations:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    find_images([coco.imgs[image_id] for image_id in by_image], image_dir)
    check_images_exist(image_dir, coco, list(by_image))
    names = picture_names(coco)
    photos = {Path(image_dir, one["file_name"]).resolve().parent for one in coco.imgs.values()}
    if pictures is not None and Path(pictures).resolve() in photos:
        raise UserError(f"{pictures} holds the images, which pictures could replace: choose another --pictures")
    if pictures is not None:
        check_pictures(Path(pictures, names[image_id]) for image_id in by_image)
    segmenter = build()
    journal = Journal(out_path)
    with journal.run(
        {
            "format of the journal": JOURNAL_FORMAT,
            "annotations": sha256(json_file),
            "network": segmenter.name,
            "choice of annotations": hashlib.sha256(repr([one["id"] for one in annotations]).encode()).hexdigest(),
            **({} if categories is None else {"categories": sorted(coco.cats)}),
            "form of masks": "polygons" if as_published else "RLE",
        }
    ):
        remove_leftovers(out_path)
        if pictures is not None:
            remove_leftovers_in(pictures)
        made: MadeMasks = {}
        for image_id, members in tqdm(by_image.items(), desc="masks", unit=" image"):
            image = read_listed_image(image_dir, coco.imgs[image_id])
            key = f"{image_id!r} {hash_pixels(image)}"
            record = journal.get(key)
            if record is None:
                masks = masks_of_boxes(image, members, segmenter, as_published)
                if pictures is not None:
                    save_picture(draw_masks(image, members, masks, coco), Path(pictures) / names[image_id])
                record = {"masks": list(masks.items())}
                journal.add(key, record)
            made.update(record["masks"])
        for annotation in annotations:
            annotation |= made[annotation["id"]]
        write_json(out_path, {**MADE_HERE, **coco.dataset}, indent=None)
    return len(annotations)


def picture_names(coco: COCO) -> dict[ImageId, str]:
    """The file names of pictures, by image id: ``b/photo.png`` has ``b_photo.jpg``, or ``b_photo_2.jpg``."""
    names = [clean_characters(clean_name(image["file_name"]).replace("/", "_")) for image in coco.imgs.values()]
    return dict(zip(coco.imgs, (f"{stem}.jpg" for stem in unique_stems(names)), strict=True))


def choose_annotations(coco: COCO, json_file: str | Path, references: ReferenceSet | None) -> list[dict[str, Any]]:
    """The annotations that get masks."""
    wanted = references and {ann_id for shots in references.values() for shot in shots for ann_id in shot["ann_ids"]}
    for ann_id in (wanted or set()) - coco.anns.keys():
        raise UserError(f"the reference set names annotation {ann_id}, which {json_file} does not have")
    chosen = [one for one in coco.dataset.get("annotations", []) if wanted is None or one["id"] in wanted]
    for annotation in chosen:
        if not annotation.get("bbox"):
            raise UserError(f"{json_file}: annotation {annotation['id']} has no bbox")
    return chosen


def masks_of_boxes(
    image: NDArray[np.uint8], annotations: list[dict[str, Any]], segmenter: BoxSegmenter, as_published: bool = False
) -> MadeMasks:
    """Make the masks of an image's boxes; the image is uint8 [H, W, 3] RGB.

    Where a mask is empty, the box itself is used, with a warning. So it is where a mask lies wholly outside its box,
    except as published.
    """
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    masks: MadeMasks = {}
    for annotation, box, mask in zip(annotations, boxes, segmenter(image, boxes), strict=True):
        used = mask if as_published and mask.any() else mask_or_box(mask, box)
        segmentation: Rle | Polygons = published_polygons(used) if as_published else encode_mask(used)
        if used is not mask or not segmentation:
            used = rectangle(box, *image.shape[:2])
            if as_published:
                x, y, w, h = annotation["bbox"]
                segmentation = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            problem = "its mask is empty or outside its box, its box is used"
            tqdm.write(f"warning: annotation {annotation['id']}: {problem}", file=sys.stderr)
        masks[annotation["id"]] = {"segmentation": segmentation, "area": int(used.sum())}
    return masks


def published_polygons(mask: NDArray[np.bool_]) -> Polygons:
    """The outer contours of a mask, as the published results of PASCAL VOC and CD-FSOD were computed with.

    Holes are filled. Contours of at most 4 coordinates are dropped: single pixels and straight lines of one pixel's
    width. The vertices are the centers of pixels, so a mask that is made from the polygons lacks pixels of its border.
    The list is empty where no region is left.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour.ravel().tolist() for contour in contours if contour.size > 4]


def draw_masks(
    image: NDArray[np.uint8], annotations: list[dict[str, Any]], masks: MadeMasks, coco: COCO
) -> NDArray[np.uint8]:
    """Draw the masks made for an image: uint8 [H, W, 3] RGB, like the image itself."""
    made = [{**annotation, **masks[annotation["id"]]} for annotation in annotations]
    pixels = np.array([annotation_mask(annotation, *image.shape[:2]) for annotation in made])
    classes = [annotation["category_id"] for annotation in annotations]
    labels = [coco.cats[one]["name"] if one in coco.cats else str(one) for one in classes]
    return draw_instances(image, Masks.pack(pixels), np.array(classes), labels)
