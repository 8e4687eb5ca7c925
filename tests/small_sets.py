"""Data sets of a few drawn images, in the layout that ``prepare`` makes, for the tests of the benchmarks' scripts."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from no_time_to_train.data.class_splits import class_splits
from no_time_to_train.data.rle import encode_mask

SIDE = 220
CORNERS = [(12, 12), (120, 12), (12, 120), (120, 120)]  # upper left corners of the four objects in an image


def draw_coco(
    folder: Path, names: list[str], images: int, first_image: int = 1, masks: bool = True, **image_fields: Any
) -> dict[str, Any]:
    """Draw images of four discs each, which take the classes in turn.

    Args:
        folder: Folder to save the images in.
        names: The classes.
        images: The number of images.
        first_image: Id of the first image, and the seed of the drawing.
        masks: Annotate masks in addition to boxes.
        image_fields: More fields of every entry in ``images``.

    Returns:
        The COCO annotations.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(first_image)
    data: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
    }
    for index in range(images):
        image_id = first_image + index
        picture = rng.integers(0, 80, (SIDE, SIDE, 3), np.uint8)
        entry = {"id": image_id, "file_name": f"{image_id:06d}.png", "height": SIDE, "width": SIDE, **image_fields}
        data["images"].append(entry)
        for place, (x, y) in enumerate(CORNERS):
            category = (4 * index + place) % len(names)
            side = int(rng.integers(50, 80))
            mask = np.zeros((SIDE, SIDE), np.uint8)
            cv2.circle(mask, (x + side // 2, y + side // 2), side // 2 - 1, 1, -1)
            picture[mask > 0] = np.random.default_rng(category).integers(0, 255, 3)
            encoded = encode_mask(mask > 0)
            ids = {"id": len(data["annotations"]) + 1, "image_id": image_id, "category_id": category + 1, "iscrowd": 0}
            region = {"bbox": coco_mask.toBbox(encoded).tolist(), "area": float(coco_mask.area(encoded))}
            data["annotations"].append({**ids, **region, **({"segmentation": encoded} if masks else {})})
        cv2.imwrite(str(folder / entry["file_name"]), picture)
    return data


def write(data: dict[str, Any], path: Path) -> None:
    """Write a JSON file and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def unique(*splits: str) -> list[str]:
    """The classes of some class splits, each once."""
    return list(dict.fromkeys(name for split in splits for name in class_splits()[split]))


def with_folder(data: dict[str, Any], folder: str) -> dict[str, Any]:
    """The annotations with file names relative to the parent of ``folder``."""
    images = [{**image, "file_name": f"{folder}/{image['file_name']}"} for image in data["images"]]
    return {**data, "images": images}


def write_coco(data: Path) -> None:
    """Write COCO with the novel classes and those of the first fold, with four references per class."""
    names = unique("few_shot_classes", "coco_semantic_split_1")
    train = draw_coco(data / "coco" / "train2017", names, images=len(names))
    write(train, data / "coco" / "annotations" / "instances_train2017.json")
    write(draw_coco(data / "coco" / "val2017", names, 2, 900), data / "coco" / "annotations" / "instances_val2017.json")


def write_lvis(data: Path) -> None:
    """Write LVIS, with images in COCO's folders: a rare class with one reference, a common and a frequent one."""
    names, letters = ["axe", "boot", "crow"], "rcf"
    federated = {"neg_category_ids": [3], "not_exhaustive_category_ids": [2]}
    train = with_folder(draw_coco(data / "coco" / "train2017", names, 3, 500, **federated), "train2017")
    rare = [a for a in train["annotations"] if a["category_id"] == 1]
    train["annotations"] = rare[:1] + [a for a in train["annotations"] if a["category_id"] != 1]
    val = with_folder(draw_coco(data / "coco" / "val2017", names, 2, 950, **federated), "val2017")
    for split, content in (("train", train), ("val", val), ("minival", {**val, "images": val["images"][:1]})):
        ids = {image["id"] for image in content["images"]}
        content = {**content, "annotations": [a for a in content["annotations"] if a["image_id"] in ids]}
        content["categories"] = [{**c, "frequency": f} for c, f in zip(content["categories"], letters, strict=True)]
        write(content, data / "lvis" / "annotations" / f"lvis_v1_{split}.json")


def write_voc(data: Path) -> None:
    """Write VOC with the novel classes of the first split, with ids from 0. The last target is difficult."""
    folder, names = data / "pascal-voc", class_splits()["pascal_voc_split_1"]
    train = draw_coco(folder / "VOCdevkit" / "VOC2007" / "JPEGImages", names, images=4)
    write(from_zero(with_folder(train, "VOC2007/JPEGImages")), folder / "annotations" / "voc0712_trainval_masks.json")
    test = draw_coco(folder / "VOCdevkit" / "VOC2007" / "JPEGImages", names, 2, 900, masks=False)
    test["annotations"][-1].update(iscrowd=1, difficult=1)
    write(from_zero(with_folder(test, "VOC2007/JPEGImages")), folder / "annotations" / "voc07_test.json")


def from_zero(data: dict[str, Any]) -> dict[str, Any]:
    """The annotations with all ids counted from 0."""
    first = {"id": 1, "image_id": data["images"][0]["id"], "category_id": 1}
    return {
        "images": [{**image, "id": image["id"] - first["image_id"]} for image in data["images"]],
        "annotations": [{**one, **{key: one[key] - first[key] for key in first}} for one in data["annotations"]],
        "categories": [{**category, "id": category["id"] - 1} for category in data["categories"]],
    }


def write_cdfsod(data: Path, sets: Iterable[str]) -> None:
    """Write sets of CD-FSOD: 1-shot references with masks, and targets with boxes only."""
    for name in sets:
        folder, names = data / "cdfsod" / name, class_splits()[f"cdfsod_{name}"]
        shots = with_folder(draw_coco(folder / "train", names, images=-(-len(names) // 4)), "train")
        write(shots, folder / "prepared" / "1_shot_masks.json")
        test = with_folder(draw_coco(folder / "test", names, 1, 900, masks=False), "test")
        write(test, folder / "prepared" / "test.json")
