"""Small folders as annotation tools export them, and what is in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.reference_folders import write
from tests.tool_exports import (
    HOLED,
    PIXELS,
    RECTANGLE,
    TURNED,
    createml,
    cvat_coco,
    cvat_masks,
    cvat_xml,
    cvat_yolo,
    darwin,
    datumaro,
    ellipse,
    label_studio,
    label_studio_coco,
    label_studio_minimal,
    label_studio_voc,
    label_studio_yolo,
    labelme_shapes,
    labelme_web,
    makesense_vgg,
    photo,
    picture,
    pixels,
    supervisely,
    via,
    via_csv,
    voc_content,
    yolo,
)

#: A label and what marks its object: a mask, a box, or points.
Expected = tuple[str, Any]


class ToolFolder(NamedTuple):
    """The form that is found in a folder, its writer, the objects, and how many shapes are passed over."""

    form: str
    write: Callable[[Path], None]
    objects: list[Expected]
    skipped: int = 0


VIA_OBJECTS: list[Expected] = [
    ("polygon", PIXELS),
    ("rect", RECTANGLE),
    ("ellipse", ellipse(30, 20, 20, 10)),
    ("point", [(30, 20)]),
]


def yolo_line(x1: int, y1: int, x2: int, y2: int) -> str:
    """The outline of a rectangle, through the centers of its pixels, as ultralytics draws it."""
    left, right, top, bottom = x1 + 0.5, x2 - 0.5, y1 + 0.5, y2 - 0.5
    points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return " ".join(f"{value:.6f}" for x, y in points for value in (x / 60, y / 40))


def makesense_yolo(folder: Path) -> None:
    photo(folder / "photos" / "a.png")
    write(folder / "labels_my-project_2026" / "a.txt", "0 0.416667 0.350000 0.500000 0.300000")
    write(folder / "classes.txt", "boat")


def makesense_csv(folder: Path) -> None:
    photo(folder / "photos" / "a.png")
    write(folder / "labels.csv", "boat,10,8,30,12,a.png,60,40\n")


def roboflow_csv(folder: Path) -> None:
    photo(folder / "train" / "a.png")
    write(
        folder / "train" / "_annotations.csv",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,60,40,boat,10,8,40,20\n",
    )


def voc_masks(*names: str) -> Callable[[Path], None]:
    def write_voc(folder: Path) -> None:
        photo(folder / "JPEGImages" / "a.png")
        write(folder / "Annotations" / "a.xml", voc_content(first=1))
        for name in names:
            picture(folder / name / "a.png", 1 * HOLED + 2 * pixels(50, 30, 60, 40), "P")

    return write_voc


# Masks as images


def semantic(folder: Path) -> None:
    photo(folder / "train" / "a_jpg.rf.0a1b.jpg")
    write(folder / "train" / "_classes.csv", "Pixel Value, Class\n0, background\n1, boat\n2, bird\n")
    picture(folder / "train" / "a_jpg.rf.0a1b_mask.png", 1 * PIXELS + 2 * pixels(50, 30, 60, 40))


def one_mask_per_object(folder: Path) -> None:
    photo(folder / "boat" / "a.jpg")
    picture(folder / "boat" / "a_object0.png", 255 * PIXELS)
    picture(folder / "boat" / "a_object1.png", 255 * pixels(50, 30, 60, 40))


def data_science_bowl(folder: Path) -> None:
    for name in ("0a", "1b"):
        photo(folder / name / "images" / f"{name}.png")
        picture(folder / name / "masks" / "7f.png", 255 * PIXELS)


def index_mask(folder: Path) -> None:
    photo(folder / "boat" / "images" / "a.jpg")
    picture(folder / "boat" / "masks" / "a.png", 1 * PIXELS + 2 * pixels(50, 30, 60, 40) + 255 * pixels(0, 0, 60, 2))


def color_mask(folder: Path) -> None:
    photo(folder / "boat" / "a.jpg")
    first, second = PIXELS[..., None] * np.array([0, 200, 0]), pixels(50, 30, 60, 40)[..., None] * np.array([200, 0, 0])
    picture(folder / "boat" / "a_mask.png", first + second)


def opaque_mask(folder: Path) -> None:
    photo(folder / "boat" / "a.jpg")
    picture(folder / "boat" / "a_mask.png", 255 * PIXELS, "RGBA")


def image_and_mask_folders(names: str = "") -> Callable[[Path], None]:
    def write_folders(folder: Path) -> None:
        for part in ("train", "val"):
            photo(folder / "images" / part / "a.jpg")
            picture(folder / "masks" / part / "a.png", (1 if names else 255) * PIXELS)
        if names:
            write(folder / "classes.txt", names)

    return write_folders


BOAT_BOX: list[Expected] = [("boat", RECTANGLE)]
BOAT_MASK: list[Expected] = [("boat", PIXELS)]
TWO_BOATS: list[Expected] = [*BOAT_MASK, ("boat", pixels(50, 30, 60, 40))]
LABEL_STUDIO_OBJECTS: list[Expected] = [
    ("box", (20, 10, 30, 30)),
    ("turned", pixels(0, 10, 20, 20)),
    ("polygon", PIXELS),
    ("brush", PIXELS),
    ("ellipse", ellipse(30, 20, 20, 10)),
    ("point", [(30, 20)]),
]
CVAT_OBJECTS: list[Expected] = [
    ("box", RECTANGLE),
    ("turned", TURNED),
    ("polygon", PIXELS),
    ("mask", PIXELS),
    ("parts", PIXELS),
    ("ellipse", ellipse(30, 20, 20, 10)),
    ("points", [(12, 9), (30, 15)]),
]
LABELME_OBJECTS: list[Expected] = [
    ("polygon", PIXELS),
    ("rectangle", RECTANGLE),
    ("oriented_rectangle", TURNED),
    ("rotation", TURNED),
    ("circle", ellipse(30, 20, 10, 10)),
    ("point", [(30, 20)]),
    ("points", [(12, 9), (30, 15)]),
]
DARWIN_OBJECTS: list[Expected] = [
    ("polygon", HOLED),
    ("box", RECTANGLE),
    ("ellipse", ellipse(30, 20, 20, 10)),
    ("mask", PIXELS),
]
POSE = "0 0.416667 0.35 0.5 0.3 0.2 0.3 2 0.6 0.3 1\n"

FOLDERS: dict[str, ToolFolder] = {
    "Label Studio JSON": ToolFolder("Label Studio json", label_studio, LABEL_STUDIO_OBJECTS, 1),
    "Label Studio minimal": ToolFolder("Label Studio json", label_studio_minimal, [("box", (20, 10, 30, 30))]),
    "Label Studio COCO": ToolFolder("COCO json", label_studio_coco, BOAT_MASK),
    "Label Studio YOLO": ToolFolder("YOLO txt", label_studio_yolo, BOAT_BOX),
    "Label Studio VOC": ToolFolder("Pascal VOC xml", label_studio_voc, BOAT_BOX),
    "CVAT COCO": ToolFolder("COCO json", cvat_coco, [*BOAT_MASK, *BOAT_MASK]),
    "CVAT XML": ToolFolder("CVAT for images xml", cvat_xml, CVAT_OBJECTS, 1),
    "CVAT masks": ToolFolder(
        "mask images", cvat_masks, [*BOAT_MASK, ("boat", pixels(45, 0, 50, 9)), ("bird", pixels(0, 30, 9, 40))]
    ),
    "CVAT YOLO": ToolFolder("YOLO txt", cvat_yolo, BOAT_BOX),
    "LabelMe 3.0": ToolFolder(
        "LabelMe 3.0 xml", labelme_web, [("polygon", PIXELS), ("box", RECTANGLE), ("mask", PIXELS)]
    ),
    "Datumaro": ToolFolder("Datumaro json", datumaro, [("box", RECTANGLE), ("mask", PIXELS), ("polygon", PIXELS)], 1),
    "CreateML": ToolFolder("CreateML json", createml, BOAT_BOX),
    "VIA JSON": ToolFolder("VIA json", via(project=False), VIA_OBJECTS, 1),
    "VIA project": ToolFolder("VIA json", via(project=True), VIA_OBJECTS, 1),
    "VIA CSV": ToolFolder("VIA csv", via_csv, VIA_OBJECTS, 1),
    "makesense VGG": ToolFolder("VIA json", makesense_vgg, BOAT_MASK),
    "makesense YOLO": ToolFolder("YOLO txt", makesense_yolo, BOAT_BOX),
    "makesense CSV": ToolFolder("CSV of boxes", makesense_csv, BOAT_BOX),
    "Roboflow CSV": ToolFolder("CSV of boxes", roboflow_csv, BOAT_BOX),
    "Supervisely": ToolFolder(
        "Supervisely json", supervisely, [("polygon", HOLED), ("box", RECTANGLE), ("bitmap", PIXELS)], 1
    ),
    "Darwin 1": ToolFolder("V7 Darwin json", darwin(1), DARWIN_OBJECTS, 1),
    "Darwin 2": ToolFolder("V7 Darwin json", darwin(2), DARWIN_OBJECTS, 1),
    "LabelMe shapes": ToolFolder("LabelMe json", labelme_shapes, LABELME_OBJECTS, 2),
    "FiftyOne YOLO": ToolFolder(
        "YOLO txt",
        lambda folder: yolo(folder, "0 0.416667 0.35 0.5 0.3", "names: [boat]\ntrain: ./images/train/", "dataset.yaml"),
        BOAT_BOX,
    ),
    "YOLO pose": ToolFolder(
        "YOLO txt", lambda folder: yolo(folder, POSE, "names: [boat]\nkpt_shape: [2, 3]"), BOAT_BOX
    ),
    "YOLO pose without kpt_shape": ToolFolder("YOLO txt", lambda folder: yolo(folder, POSE, "names: [boat]"), BOAT_BOX),
    "YOLO OBB": ToolFolder(
        "YOLO txt",
        lambda folder: yolo(folder, f"0 {yolo_line(25, 10, 35, 30)}", "names: [boat]"),
        [("boat", TURNED)],
    ),
    "YOLO polygon with a confidence": ToolFolder(
        "YOLO txt", lambda folder: yolo(folder, f"0 {yolo_line(*RECTANGLE)} 0.91", "names: [boat]"), BOAT_MASK
    ),
    "VOC with masks": ToolFolder(
        "Pascal VOC xml", voc_masks("SegmentationClass", "SegmentationObject"), [("boat", HOLED)]
    ),
    "VOC with masks of classes": ToolFolder("Pascal VOC xml", voc_masks("SegmentationClass"), [("boat", HOLED)]),
    "Roboflow masks": ToolFolder("mask images", semantic, [*BOAT_MASK, ("bird", pixels(50, 30, 60, 40))]),
    "one mask per object": ToolFolder("one folder per class", one_mask_per_object, TWO_BOATS),
    "Data Science Bowl 2018": ToolFolder("mask images", data_science_bowl, [("object", PIXELS)] * 2),
    "numbers of objects": ToolFolder("one folder per class", index_mask, TWO_BOATS),
    "colors of objects": ToolFolder("one folder per class", color_mask, TWO_BOATS),
    "opaque mask": ToolFolder("one folder per class", opaque_mask, BOAT_MASK),
    "images and masks": ToolFolder("mask images", image_and_mask_folders(), [("object", PIXELS)] * 2),
    "images, masks and names": ToolFolder(
        "mask images", image_and_mask_folders("boat\nbird\n"), [*BOAT_MASK, *BOAT_MASK]
    ),
}
