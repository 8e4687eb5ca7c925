"""Label files, drawn as the tools that read them draw: no pixel of a mask is lost, and none is added."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import supervision as sv
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from no_time_to_train.data.label_files import FORMATS, LabeledImage, LabeledObject
from no_time_to_train.data.outlines import outlines
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.data.reference_forms.label_studio import decode_rle  # which is tested with a real export
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.method.memory_bank import Category
from tests.conftest import Patch

Mask = NDArray[np.bool_]
HEIGHT, WIDTH = 60, 90
CATEGORIES = [Category(8, "鳥: 'gull'"), Category(3, "boat")]
NAME, STEM = "sub/фото 1.png", "sub/фото 1_2"


def rectangle(top: int, left: int, height: int, width: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + height, left : left + width] = True
    return mask


MASKS = {
    "a square of 20 pixels": rectangle(20, 20, 20, 20),
    "a square of 10 pixels at the border": rectangle(50, 80, 10, 10),
    "one row": rectangle(5, 3, 1, 30),
    "one column": rectangle(5, 3, 30, 1),
    "one pixel": rectangle(0, 0, 1, 1),
    "a hole": rectangle(10, 10, 30, 30) & ~rectangle(15, 15, 8, 9) & ~rectangle(30, 20, 2, 2),
    "three parts": rectangle(5, 5, 20, 25) | rectangle(40, 20, 20, 21) | rectangle(1, 60, 15, 29),
    "a staircase": np.tri(HEIGHT, WIDTH, dtype=bool),
    "everything": rectangle(0, 0, HEIGHT, WIDTH),
}


def box_of(mask: Mask) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero(mask)
    return float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)


OBJECTS = [LabeledObject("boat", box_of(mask), mask, 0.75) for mask in MASKS.values()]


@pytest.fixture
def image(tmp_path: Path) -> LabeledImage:
    path = tmp_path / "photos" / NAME
    path.parent.mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT), "gray").save(path)
    return LabeledImage(NAME, STEM, path, 5, HEIGHT, WIDTH)


def write(form: str, image: LabeledImage, objects: list[LabeledObject], out: Path, link: bool = False) -> Path:
    files = FORMATS[form](out / form, CATEGORIES, link)
    files.add(image, objects)
    files.finish()
    return out / form


def drawn_by_coco(polygons: list[list[float]]) -> Mask:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH))).astype(bool)


def drawn_by_pil(points: list[list[float]]) -> Mask:
    """As labelme.utils.shape_to_mask does."""
    picture = Image.new("L", (WIDTH, HEIGHT))
    corners = [(x, y) for x, y in points]
    if len(corners) == 1:
        ImageDraw.Draw(picture).point(corners, fill=1)
    else:
        ImageDraw.Draw(picture).polygon(corners, outline=1, fill=1)
    return np.asarray(picture).astype(bool)


@pytest.mark.parametrize(("form", "share"), [("yolo", 0.3), ("cvat-coco", 0.5), ("cvat", 0.8)])
def test_of_noise_as_much_is_written_as_is_read_with_a_notice(
    form: str, share: float, image: LabeledImage, tmp_path: Path
) -> None:
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) < share
    if form == "cvat":  # one part with many holes
        mask = np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2 == 0
    mask[20:40, 20:40] = True
    with pytest.warns(UserNotice, match=r"only the 1?[03]+ largest parts and holes of a mask are written"):
        folder = write(form, image, [LabeledObject("boat", box_of(mask), mask)], tmp_path)
    read = find_references(folder).references[0].read_mask()
    assert read is not None
    assert read[20:40, 20:40].all()


@pytest.mark.parametrize("seed", range(20))
def test_outlines_give_back_any_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((HEIGHT, WIDTH)) < rng.random()
    mask |= cv2.GaussianBlur(rng.random((HEIGHT, WIDTH)), (0, 0), 3) > 0.5
    mask[0, 0] = True
    assert (drawn_by_coco([part.ravel().tolist() for part in outlines(mask, "edges")]) == mask).all()
    centers = outlines(mask, "centers")
    assert (np.logical_or.reduce([drawn_by_pil(part.tolist()) for part in centers]) == mask).all()


@pytest.mark.parametrize("form", ["coco", "cvat-coco"])
def test_pycocotools_reads_the_masks(form: str, image: LabeledImage, tmp_path: Path) -> None:
    folder = write(form, image, OBJECTS, tmp_path)
    path = folder / {"coco": "annotations.json", "cvat-coco": "annotations/instances_default.json"}[form]
    coco = COCO(path)
    assert coco.imgs[5]["file_name"] == NAME
    assert [category["name"] for category in coco.dataset["categories"]] == [one.name for one in CATEGORIES]
    for annotation, one in zip(coco.imgToAnns[5], OBJECTS, strict=True):
        assert coco.cats[annotation["category_id"]]["name"] == "boat"
        assert (coco.annToMask(annotation) == one.mask).all()
        assert annotation["area"] == one.mask.sum()
        x, y, w, h = annotation["bbox"]
        assert (x, y, x + w, y + h) == one.box


def test_labelme_draws_the_masks(image: LabeledImage, tmp_path: Path) -> None:
    path = write("labelme", image, OBJECTS, tmp_path) / f"{STEM}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    keys = {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
    assert content.keys() == keys
    assert (path.parent / content["imagePath"]).resolve() == image.path
    shapes = iter(content["shapes"])
    for mask in MASKS.values():
        parts = [next(shapes) for _ in outlines(mask, "centers")]
        assert len({shape["group_id"] for shape in parts}) == 1
        assert (np.logical_or.reduce([drawn_by_pil(shape["points"]) for shape in parts]) == mask).all()


def test_x_anylabeling_finds_shapes_with_scores_next_to_their_image(image: LabeledImage, tmp_path: Path) -> None:
    box = LabeledObject("boat", (2, 3, 30, 40))
    path = write("x-anylabeling", image, [*OBJECTS, box], tmp_path) / f"{STEM}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (path.parent / content["imagePath"]).read_bytes() == image.path.read_bytes()
    assert "/" not in content["imagePath"]
    *shapes, rectangle = content["shapes"]
    assert rectangle["points"] == [[2, 3], [30, 3], [30, 40], [2, 40]]  # it warns where there are only two corners
    assert {shape["score"] for shape in shapes} == {0.75}
    drawn = np.logical_or.reduce([drawn_by_pil(shape["points"]) for shape in shapes])
    assert (drawn == np.logical_or.reduce(list(MASKS.values()))).all()
    assert min(shape["group_id"] for shape in shapes if shape["group_id"] is not None) > 0


def test_ultralytics_draws_the_masks(image: LabeledImage, tmp_path: Path) -> None:
    folder = write("yolo", image, OBJECTS, tmp_path)
    data = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    # check_det_dataset: without a "path", the splits are relative to the folder of data.yaml.
    assert "path" not in data
    assert folder / data["train"] == folder / data["val"] == folder / "images"
    # img2label_paths: labels/ in place of the last images/, and .txt in place of the suffix.
    assert Image.open(folder / f"images/{STEM}.png").size == (WIDTH, HEIGHT)
    lines = (folder / f"labels/{STEM}.txt").read_text().splitlines()
    for line, (name, mask) in zip(lines, MASKS.items(), strict=True):
        index, *numbers = line.split(" ")
        assert data["names"][int(index)] == "boat"
        points = np.array(numbers, float).reshape(-1, 2)
        assert len(points) >= 3
        assert ((points >= 0) & (points <= 1)).all()
        corners = (points * (WIDTH, HEIGHT)).astype(np.int32)  # polygon2mask
        drawn = cv2.fillPoly(np.zeros(mask.shape, np.uint8), [corners], 1).astype(bool)
        if name == "three parts":  # joined by lines, which OpenCV draws one pixel wide
            assert not (mask & ~drawn).any()
            assert not cv2.erode((drawn & ~mask).astype(np.uint8), np.ones((3, 3))).any()
        else:
            assert (drawn == mask).all()


def test_ultralytics_own_loader_reads_masks_boxes_and_names(
    image: LabeledImage, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))  # it would write settings into the home folder
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    loaders = pytest.importorskip("ultralytics.data.dataset")
    utils = pytest.importorskip("ultralytics.data.utils")
    data = utils.check_det_dataset(str(write("yolo", image, OBJECTS, tmp_path) / "data.yaml"))
    assert data["names"] == dict(enumerate(one.name for one in CATEGORIES))
    (labels,) = loaders.YOLODataset(img_path=data["train"], data=data, task="segment", augment=False).labels
    assert labels["cls"].ravel().tolist() == [1] * len(OBJECTS)
    for segment, box, (name, mask) in zip(labels["segments"], labels["bboxes"], MASKS.items(), strict=True):
        drawn = utils.polygon2mask(mask.shape, [(segment * (WIDTH, HEIGHT)).ravel()])
        assert name == "three parts" or (drawn == mask).all()  # whose parts are joined by lines
        x1, y1, x2, y2 = box_of(mask)
        size = np.array([WIDTH, HEIGHT] * 2)
        assert np.abs(box * size - ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)).max() < 1 + 1e-3


def test_voc_has_boxes_from_one_and_masks_as_pictures(image: LabeledImage, tmp_path: Path) -> None:
    objects = [OBJECTS[0], LabeledObject(CATEGORIES[0].name, (10, 10, 30, 31), rectangle(10, 10, 21, 20), 0.5)]
    folder = write("voc", image, objects, tmp_path)
    root = ElementTree.parse(folder / f"Annotations/{STEM}.xml").getroot()
    assert (folder / "JPEGImages" / str(root.findtext("filename"))).is_file()
    sides = "xmin", "ymin", "xmax", "ymax"
    corners = [[box.findtext(side) for side in sides] for box in root.iter("bndbox")]
    assert corners == [["21", "21", "40", "40"], ["11", "11", "30", "31"]]
    numbers = np.asarray(Image.open(folder / f"SegmentationObject/{STEM}.png"))
    assert (numbers == np.where(rectangle(20, 20, 20, 20), 1, 2 * rectangle(10, 10, 21, 20))).all()
    classes = Image.open(folder / f"SegmentationClass/{STEM}.png")
    assert (np.asarray(classes) == np.where(numbers == 1, 2, numbers > 0)).all()
    names = dict(line.split(":")[:2] for line in (folder / "labelmap.txt").read_text().splitlines()[3:])
    assert names == {"boat": "0,128,0"}
    assert (folder / "ImageSets/Segmentation/default.txt").read_text() == f"{STEM}\n"


@pytest.mark.parametrize("count", [255, 300])
def test_voc_gives_back_more_objects_than_it_has_colors_also_two_of_one_box(
    count: int, image: LabeledImage, tmp_path: Path
) -> None:
    places = [(row, column) for row in range(0, HEIGHT, 3) for column in range(41, WIDTH - 2, 3)]
    masks = [rectangle(row, column, 1, 2) for row, column in places][: count - 2]
    masks += [rectangle(5, 5, 1, 1) | rectangle(30, 30, 1, 1), rectangle(5, 30, 1, 1) | rectangle(30, 5, 1, 1)]
    objects = [LabeledObject("boat", box_of(mask), mask, 0.5) for mask in masks]
    folder = write("voc", image, objects, tmp_path)
    numbers = np.asarray(Image.open(folder / f"SegmentationObject/{STEM}.png"))
    assert [set(numbers[mask].tolist()) for mask in masks] == [{number} for number in range(1, count + 1)]
    for mask, found in zip(masks, find_references(folder).references, strict=True):
        assert (found.read_mask() == mask).all()


def test_voc_refuses_more_objects_than_its_pictures_can_number(image: LabeledImage, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 65536 objects, and a picture of VOC numbers at most 65535"):
        write("voc", image, OBJECTS[:1] * 65536, tmp_path)


def test_the_colors_of_300_classes_have_names_also_with_colons(image: LabeledImage, tmp_path: Path) -> None:
    categories = [Category(number, f"scale 1:{number}") for number in range(1, 301)]
    files = FORMATS["voc"](tmp_path / "voc", categories)
    labels = [categories[index].name for index in (0, 254, 299)]
    objects = [
        LabeledObject(label, box_of(rectangle(9 * i, 9, 5, 5)), rectangle(9 * i, 9, 5, 5))
        for i, label in enumerate(labels)
    ]
    files.add(replace(image, stem="photo"), objects)
    files.finish()
    shutil.rmtree(tmp_path / "voc/Annotations")
    assert [one.label for one in find_references(tmp_path / "voc").references] == labels


def test_cvat_reads_polygons_and_masks(image: LabeledImage, tmp_path: Path) -> None:
    root = ElementTree.parse(write("cvat", image, OBJECTS, tmp_path) / "annotations.xml").getroot()
    (node,) = root.findall("image")
    assert node.attrib == {"id": "0", "name": NAME, "width": str(WIDTH), "height": str(HEIGHT)}
    for shape, mask in zip(node, MASKS.values(), strict=True):
        assert shape.get("label") == "boat"
        if shape.tag == "polygon":
            points = [float(value) for point in shape.attrib["points"].split(";") for value in point.split(",")]
            drawn = drawn_by_coco([points])
        else:
            left, top, width, height = (int(shape.attrib[name]) for name in ("left", "top", "width", "height"))
            runs = [int(run) for run in shape.attrib["rle"].split(",")]
            inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
            drawn = np.zeros_like(mask)
            drawn[top : top + height, left : left + width] = inside
        assert (drawn == mask).all()


def test_label_studio_reads_brushes_with_scores(image: LabeledImage, tmp_path: Path) -> None:
    folder = write("label-studio", image, OBJECTS, tmp_path)
    (task,) = json.loads((folder / "tasks.json").read_text())
    assert task["data"]["image"].startswith("/data/local-files/?d=images/sub/")
    for result, mask in zip(task["predictions"][0]["result"], MASKS.values(), strict=True):
        assert (result["original_width"], result["original_height"], result["score"]) == (WIDTH, HEIGHT, 0.75)
        assert result["value"]["brushlabels"] == ["boat"]
        pixels = decode_rle(result["value"]["rle"], HEIGHT * WIDTH * 4).reshape(HEIGHT, WIDTH, 4)
        assert (pixels == 255 * mask[:, :, None]).all()
    view = ElementTree.parse(folder / "labeling_config.xml").getroot()
    tools = {node.tag: node.get("name") for node in view}
    assert tools == {"Image": "image", "BrushLabels": "brush", "RectangleLabels": "box"}


def test_crops_are_the_objects_on_transparency(image: LabeledImage, tmp_path: Path) -> None:
    box = LabeledObject("鳥: 'gull'", (10, 20, 40, 30))
    folder = write("crops", image, [OBJECTS[5], box], tmp_path)
    hole, of_box = (np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png")))
    assert (hole[..., 3] == 255 * MASKS["a hole"][10:40, 10:40]).all()
    assert (of_box == (128, 128, 128, 255)).all()
    assert of_box.shape[:2] == (10, 30)
    assert {path.parent.name for path in folder.rglob("*.png")} == {"boat", "鳥: 'gull'"}


def test_a_crop_has_a_pixel_and_a_name_that_disks_take_in_a_folder_of_its_class(
    image: LabeledImage, tmp_path: Path
) -> None:
    files = FORMATS["crops"](tmp_path / "crops", [Category(1, "a/b"), Category(2, "a\\b"), Category(3, "a:b")])
    boxes = [(5.2, 5.2, 5.4, 5.4), (WIDTH - 0.4, 3, WIDTH + 9, 7), (-5, -5, -1, -1)]
    objects = [LabeledObject(label, box) for box, label in zip(boxes, ["a/b", "a\\b", "a:b"], strict=True)]
    files.add(replace(image, stem="/".join(["d" * 150] * 2)), objects)
    crops = sorted((tmp_path / "crops").rglob("*.png"))
    assert [path.parent.relative_to(tmp_path / "crops").as_posix() for path in crops] == ["a_b", "a_b_2", "a_b_3"]
    assert [Image.open(path).size for path in crops] == [(1, 1), (1, 4), (1, 1)]
    files.add(replace(image, stem="L:1"), objects[:1])
    assert (tmp_path / "crops/a_b/L_1_1.png").is_file()


def test_every_fifth_image_is_of_the_validation_set(image: LabeledImage, tmp_path: Path) -> None:
    files = FORMATS["coco-train-val"](tmp_path / "coco", CATEGORIES)
    for number in range(7):
        files.add(replace(image, name=f"{number}.png", image_id=number), OBJECTS[:2])
    files.finish()
    for part, numbers in (("train", [0, 2, 3, 4, 5]), ("val", [1, 6])):
        coco = COCO(files.folder / f"annotations/instances_{part}.json")
        assert sorted(coco.imgs) == numbers
        assert len(coco.anns) == 2 * len(numbers)
        assert sorted(path.name for path in (files.folder / part).iterdir()) == [f"{one}.png" for one in numbers]


@pytest.mark.parametrize("form", ["yolo", "coco", "coco-train-val", "cvat-coco", "voc", "cvat", "label-studio"])
def test_a_folder_that_is_copied_elsewhere_has_its_images(form: str, image: LabeledImage, tmp_path: Path) -> None:
    folder = write(form, image, OBJECTS[:1], tmp_path)
    shutil.move(folder, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "photos")
    (picture,) = [path for path in (tmp_path / "elsewhere").rglob("*фото*.png") if "Segmentation" not in str(path)]
    assert not picture.is_symlink()
    assert Image.open(picture).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("form", sorted(FORMATS.keys() - {"crops"}))
def test_two_photos_of_one_name_in_two_folders_stay_apart(form: str, tmp_path: Path) -> None:
    files = FORMATS[form](tmp_path / form, CATEGORIES)
    for number, (name, color) in enumerate({"x/a.png": "red", "a.png": "blue"}.items()):
        path = tmp_path / "two" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), color).save(path)
        labeled = LabeledImage(name, name.removesuffix(".png"), path, number + 1, HEIGHT, WIDTH)
        files.add(labeled, [replace(OBJECTS[0], label=CATEGORIES[number].name)])
    files.finish()
    found = {one.label: Image.open(one.image).getpixel((0, 0)) for one in find_references(files.folder).references}
    assert found == {CATEGORIES[0].name: (255, 0, 0), CATEGORIES[1].name: (0, 0, 255)}


def test_links_are_made_where_they_are_wanted(image: LabeledImage, tmp_path: Path) -> None:
    folder = write("coco", image, OBJECTS[:1], tmp_path, link=True)
    assert (folder / "images" / NAME).readlink() == image.path


def test_supervision_loads_what_it_can_load(image: LabeledImage, tmp_path: Path) -> None:
    coco, yolo, voc = (write(form, image, OBJECTS[:1], tmp_path) for form in ("coco", "yolo", "voc"))
    loaded = [
        sv.DetectionDataset.from_coco(str(coco / "images"), str(coco / "annotations.json"), force_masks=True),
        sv.DetectionDataset.from_yolo(str(yolo / "images/sub"), str(yolo / "labels/sub"), str(yolo / "data.yaml")),
        sv.DetectionDataset.from_pascal_voc(str(voc / "JPEGImages/sub"), str(voc / "Annotations/sub")),
    ]
    for data in loaded:
        ((_, _, found),) = list(data)
        assert data.classes[found.class_id[0]] == "boat"
        assert np.abs(found.xyxy[0] - (20, 20, 40, 40)).max() <= 1
