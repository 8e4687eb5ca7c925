"""One annotated object in every form that references may have, written without the package's own code."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle

from tests.conftest import Photo

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
    Image.fromarray(photo.mask).save(folder / LABEL / "foto 1_mask.png")


def cut_out(folder: Path, photo: Photo) -> None:
    path = image(photo, folder / LABEL / "1.png")
    picture = Image.open(path)
    picture.putalpha(Image.fromarray(255 * photo.mask.astype(np.uint8)))
    picture.save(path)


def labelme(shape: str) -> Callable[[Path, Photo], None]:
    def write_labelme(folder: Path, photo: Photo) -> None:
        picture = Image.open(image(photo, folder / "a.png"))
        x1, y1, x2, y2 = box(photo)
        part = io.BytesIO()
        Image.fromarray(photo.mask[y1:y2, x1:x2]).save(part, "PNG")
        kinds = {
            "polygon": {"points": outline(photo)},
            "rectangle": {"points": [[x2, y2], [x1, y1]]},
            "point": {"points": [list(map(float, np.argwhere(photo.mask)[0][::-1]))]},
            "mask": {"points": [[x1, y1], [x2 - 1, y2 - 1]], "mask": base64.b64encode(part.getvalue()).decode()},
        }
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [{"label": LABEL, "shape_type": shape, "group_id": None, "flags": {}, **kinds[shape]}],
            "imagePath": "..\\photos\\a.png",
            "imageData": None,
            "imageHeight": picture.height,
            "imageWidth": picture.width,
        }
        write(folder / "a.json", json.dumps(content))

    return write_labelme


def coco(segmentation: str) -> Callable[[Path, Photo], None]:
    def write_coco(folder: Path, photo: Photo) -> None:
        picture = Image.open(image(photo, folder / "images" / "default" / "b ü.png"))
        x1, y1, x2, y2 = box(photo)
        encoded = rle.encode(np.asfortranarray(photo.mask.astype(np.uint8)))
        runs = np.flatnonzero(np.diff(photo.mask.T.ravel(), prepend=False, append=False))
        uncompressed = np.diff(runs, prepend=0, append=photo.mask.size).tolist()
        masks = {
            "polygons": {"segmentation": [np.array(outline(photo)).ravel().tolist()]},
            "rle": {"segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()}},
            "uncompressed rle": {"segmentation": {"size": encoded["size"], "counts": uncompressed}},
            "boxes": {"segmentation": []},
        }
        crowd = {"id": 6, "image_id": 5, "category_id": 9, "iscrowd": 1, "bbox": [0, 0, 9, 9], "segmentation": []}
        object_ = {"id": 7, "image_id": 5, "category_id": 9, "bbox": [x1, y1, x2 - x1, y2 - y1], **masks[segmentation]}
        content = {
            "images": [{"id": 5, "file_name": "b ü.png", "height": picture.height, "width": picture.width}],
            "annotations": [crowd, object_],
            "categories": [{"id": 9, "name": LABEL}],
        }
        write(folder / "annotations" / "instances.json", json.dumps(content))

    return write_coco


def voc(folder: Path, photo: Photo) -> None:
    image(photo, folder / "JPEGImages" / "c.png")
    x1, y1, x2, y2 = box(photo)
    write(
        folder / "Annotations" / "c.xml",
        f"""<annotation><filename>c.png</filename><object><name>{LABEL}</name><difficult>0</difficult>
        <bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>
        </annotation>""",
    )


def yolo(polygon: bool) -> Callable[[Path, Photo], None]:
    def write_yolo(folder: Path, photo: Photo) -> None:
        width, height = Image.open(image(photo, folder / "train" / "images" / "d.png")).size
        x1, y1, x2, y2 = box(photo)
        numbers = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        if polygon:
            numbers = (np.array(outline(photo)) / (width, height)).ravel().tolist()
        write(folder / "train" / "labels" / "d.txt", " ".join(map(str, [1, *numbers])) + "\n\n")
        write(folder / "data.yaml", f"train: ../train/images\nnames:\n  0: other\n  1: {LABEL}\n")

    return write_yolo


#: What is written -> the form that is to be detected, the writer, and what the reference then has.
FORMS: dict[str, tuple[str, Callable[[Path, Photo], None], str]] = {
    "class folder": ("one folder per class", class_folder, "mask"),
    "cut-outs": ("one folder per class", cut_out, "mask"),
    "LabelMe polygons": ("LabelMe json", labelme("polygon"), "mask"),
    "LabelMe rectangles": ("LabelMe json", labelme("rectangle"), "box"),
    "LabelMe points": ("LabelMe json", labelme("point"), "point"),
    "LabelMe masks": ("LabelMe json", labelme("mask"), "mask"),
    "COCO polygons": ("COCO json", coco("polygons"), "mask"),
    "COCO RLE": ("COCO json", coco("rle"), "mask"),
    "COCO uncompressed RLE": ("COCO json", coco("uncompressed rle"), "mask"),
    "COCO boxes": ("COCO json", coco("boxes"), "box"),
    "Pascal VOC": ("Pascal VOC xml", voc, "box"),
    "YOLO boxes": ("YOLO txt", yolo(polygon=False), "box"),
    "YOLO polygons": ("YOLO txt", yolo(polygon=True), "mask"),
}
