"""One annotated object of a photo in several forms, written without the package's own code."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle

from tests.conftest import Photo, write_picture

LABEL = "rote Blüte"


def outline(photo: Photo) -> list[list[float]]:
    contours, _ = cv2.findContours(photo.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return max(contours, key=cv2.contourArea)[:, 0].astype(float).tolist()


def box(photo: Photo) -> tuple[int, int, int, int]:
    """The box of the object: x1, y1, x2, y2 in pixels, ends excluded."""
    rows, columns = np.nonzero(photo.mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def image(photo: Photo, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(photo.path).save(path)
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def class_folder(folder: Path, photo: Photo) -> None:
    image(photo, folder / LABEL / "foto 1.png")
    write_picture(photo.mask, folder / LABEL / "foto 1_mask.png")


def labelme(shape: str) -> Callable[[Path, Photo], None]:
    def write_labelme(folder: Path, photo: Photo) -> None:
        picture = Image.open(image(photo, folder / "a.png"))
        x1, y1, x2, y2 = box(photo)
        points = {
            "polygon": outline(photo),
            "rectangle": [[x2, y2], [x1, y1]],
            "point": [list(map(float, np.argwhere(photo.mask)[0][::-1]))],
        }
        one = {"label": LABEL, "shape_type": shape, "group_id": None, "flags": {}, "points": points[shape]}
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [one],
            "imagePath": "..\\photos\\a.png",
            "imageData": None,
        }
        write(folder / "a.json", json.dumps({**content, "imageHeight": picture.height, "imageWidth": picture.width}))

    return write_labelme


def coco(folder: Path, photo: Photo) -> None:
    picture = Image.open(image(photo, folder / "images" / "default" / "b ü.png"))
    x1, y1, x2, y2 = box(photo)
    encoded = rle.encode(np.asfortranarray(photo.mask.astype(np.uint8)))
    mask = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    content = {
        "images": [{"id": 5, "file_name": "b ü.png", "height": picture.height, "width": picture.width}],
        "annotations": [
            {"id": 6, "image_id": 5, "category_id": 9, "iscrowd": 1, "bbox": [0, 0, 9, 9], "segmentation": []},
            {"id": 7, "image_id": 5, "category_id": 9, "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": mask},
        ],
        "categories": [{"id": 9, "name": LABEL}],
    }
    write(folder / "annotations" / "instances.json", json.dumps(content))


def yolo(folder: Path, photo: Photo) -> None:
    width, height = Image.open(image(photo, folder / "train" / "images" / "d.png")).size
    x1, y1, x2, y2 = box(photo)
    numbers = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    write(folder / "train" / "labels" / "d.txt", " ".join(map(str, [1, *numbers])) + "\n\n")
    write(folder / "data.yaml", f"train: ../train/images\nnames:\n  0: other\n  1: {LABEL}\n")
