"""Give the boxes of a COCO file masks, for data sets that have none."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from tqdm import tqdm

from no_time_to_train.data.coco import annotation_mask, read_coco
from no_time_to_train.data.datasets import check_images_exist, read_listed_image
from no_time_to_train.data.reference_sets import ReferenceSet
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write
from no_time_to_train.networks.box_prompts import BoxSegmenter
from no_time_to_train.visual.drawing import draw_instances, save_picture

#: Annotation id -> its mask as compressed RLE, of one image.
Masks = dict[int, dict[str, Any]]


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
    made: Masks = {}
    with _journal(out_path, f"{hashlib.sha256(Path(json_file).read_bytes()).hexdigest()} {segmenter.name}") as (
        journal,
        finished,
    ):
        for image_id, members in tqdm(by_image.items(), desc="masks", unit="image"):
            if image_id in finished:
                made |= finished[image_id]
                continue
            image = read_listed_image(image_dir, coco.imgs[image_id])
            masks = masks_of_boxes(image, members, segmenter)
            made |= masks
            journal.write(json.dumps({"image_id": image_id, "masks": list(masks.items())}) + "\n")
            journal.flush()
            if pictures is not None:
                picture = Path(pictures) / coco.imgs[image_id]["file_name"].replace("/", "_")
                save_picture(draw_masks(image, members, masks, coco), picture.with_suffix(".jpg"))
        for annotation in annotations:
            mask = made[annotation["id"]]
            annotation |= {"segmentation": mask, "area": int(rle.area(mask))}
        with atomic_write(out_path) as file:
            file.write(json.dumps(coco.dataset).encode())
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
        run_lengths = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        encoded[annotation["id"]] = {"size": run_lengths["size"], "counts": run_lengths["counts"].decode()}
    return encoded


def rectangle(box: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels that a box, xyxy, touches, at least one: bool [height, width]."""
    x1, y1 = int(np.clip(np.floor(box[0]), 0, width - 1)), int(np.clip(np.floor(box[1]), 0, height - 1))
    x2, y2 = int(np.clip(np.ceil(box[2]), x1 + 1, width)), int(np.clip(np.ceil(box[3]), y1 + 1, height))
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    return mask


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


@contextmanager
def _journal(out_path: Path, key: str) -> Iterator[tuple[IO[str], dict[int, Masks]]]:
    """Open ``<out_path>.part`` for appending, with the images in it; it goes once the block ends well.

    Args:
        key: names input and network in the first line; what another key's call left is not used.
    """
    path = out_path.with_name(f"{out_path.name}.part")
    try:
        out_path.parent.mkdir(parents=True, exist_ok=True)
        finished: dict[int, Masks] = {}
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if not lines or lines[0] != key + "\n":
            lines = [key + "\n"]
        if not lines[-1].endswith("\n"):  # cut in the middle of it
            del lines[-1]
        for line in lines[1:]:
            entry = json.loads(line)
            finished[entry["image_id"]] = dict(entry["masks"])
        with atomic_write(path) as kept:
            kept.writelines(line.encode() for line in lines)
        with path.open("a") as file:
            yield file, finished
        path.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
