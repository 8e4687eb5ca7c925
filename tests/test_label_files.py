"""Label files, drawn as the tools that read them draw: LabelMe with PIL, YOLO with OpenCV, COCO with pycocotools."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from no_time_to_train.data.instances import Instances
from no_time_to_train.data.label_files import FORMATS, LabeledImage
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category
from tests.conftest import Photo

CATEGORIES = [Category(3, "boat"), Category(8, "鳥: 'gull'")]
NAME, STEM = "sub/фото 1.png", "sub/фото 1_2"


@pytest.fixture
def instances(photo: Photo) -> Instances:
    """An instance in one part, one in three parts, and one of a single pixel."""
    parts, pixel = np.zeros((2, *photo.mask.shape), bool)
    parts[5:25, 5:30] = parts[40:60, 20:41] = parts[70:85, 90:119] = True
    pixel[0, 0] = True
    masks = torch.from_numpy(np.stack([photo.mask, parts, pixel]))
    boxes = torch.tensor([[0, 0, 1, 1], [5, 5, 118, 84], [0, 0, 0, 0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    detections = Detections(Masks.pack(masks), boxes, scores, torch.tensor([0, 1, 1]))
    return Instances(np.asarray(Image.open(photo.path)), CATEGORIES, detections)


def write(form: str, photo: Photo, instances: Instances, out: Path) -> Path:
    files = FORMATS[form](out, CATEGORIES[::-1])
    files.add(LabeledImage(NAME, STEM, photo.path, 5), instances)
    files.finish()
    return out / form


def assert_same_mask(drawn: NDArray[np.generic], mask: NDArray[np.bool_]) -> None:
    """The masks agree; a single pixel may be drawn as four."""
    union, both = (drawn.astype(bool) | mask).sum(), (drawn.astype(bool) & mask).sum()
    assert both >= 0.93 * union or (mask.sum() == 1 and union <= 4)


def test_labelme_files_have_the_keys_of_labelme(photo: Photo, instances: Instances, tmp_path: Path) -> None:
    path = write("labelme", photo, instances, tmp_path) / f"{STEM}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    keys = {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
    assert content.keys() == keys
    assert (path.parent / content["imagePath"]).resolve() == photo.path
    assert (content["imageHeight"], content["imageWidth"]) == photo.mask.shape
    groups = [shape["group_id"] for shape in content["shapes"]]
    assert groups == [None, 1, 1, 1, None]
    pictures = {index: Image.new("1", photo.mask.shape[::-1]) for index in range(3)}
    for shape in content["shapes"]:
        index = shape["group_id"] if shape["group_id"] is not None else (0 if shape["label"] == "boat" else 2)
        assert shape.keys() == {"label", "points", "group_id", "description", "shape_type", "flags", "mask"}
        assert shape["label"] == instances[index].label
        ImageDraw.Draw(pictures[index]).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
    for index, picture in pictures.items():
        assert_same_mask(np.asarray(picture), instances[index].mask)


def test_yolo_files_follow_the_format(photo: Photo, instances: Instances, tmp_path: Path) -> None:
    folder = write("yolo", photo, instances, tmp_path)
    data = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    # ultralytics (check_det_dataset): without a "path", the splits are relative to the folder of data.yaml.
    assert "path" not in data
    assert folder / data["train"] == folder / data["val"] == folder / "images"
    names = data["names"]
    assert list(names.values()) == [category.name for category in CATEGORIES[::-1]]
    # ultralytics (img2label_paths): labels/ in place of the last images/, and .txt in place of the suffix.
    assert Image.open(folder / f"images/{STEM}.png").size == photo.mask.shape[::-1]
    lines = (folder / f"labels/{STEM}.txt").read_text().splitlines()
    for line, instance in zip(lines, instances, strict=True):
        index, *numbers = line.split(" ")
        assert names[int(index)] == instance.label
        points = np.array(numbers, float).reshape(-1, 2)
        assert len(points) >= 3
        assert ((points >= 0) & (points <= 1)).all()
        corners = (points * photo.mask.shape[::-1]).astype(np.int32)
        drawn = cv2.fillPoly(np.zeros(photo.mask.shape, np.uint8), [corners], 1).astype(bool)
        assert (instance.mask & ~drawn).sum() <= 0.03 * instance.mask.sum()
        # Outside the mask there are only the lines between its parts, which OpenCV draws one pixel wide.
        assert not cv2.erode((drawn & ~instance.mask).astype(np.uint8), np.ones((3, 3))).any()


def test_pycocotools_reads_what_cvat_imports(photo: Photo, instances: Instances, tmp_path: Path) -> None:
    folder = write("cvat-coco", photo, instances, tmp_path)
    coco = COCO(folder / "annotations/instances_default.json")
    assert coco.imgs[5]["file_name"] == NAME
    assert [category["name"] for category in coco.dataset["categories"]] == [one.name for one in CATEGORIES[::-1]]
    assert Image.open(folder / "images/default" / NAME).size == photo.mask.shape[::-1]
    for annotation, instance in zip(coco.imgToAnns[5], instances, strict=True):
        assert coco.cats[annotation["category_id"]]["name"] == instance.label
        assert annotation["area"] == instance.mask.sum()
        drawn, mask = coco.annToMask(annotation), instance.mask
        # Outlines run through the centers of pixels, so half a pixel is lost at the edge.
        assert (drawn & ~cv2.dilate(mask.astype(np.uint8), np.ones((3, 3)))).sum() == 0
        assert (cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) & ~drawn.astype(bool)).sum() == 0
