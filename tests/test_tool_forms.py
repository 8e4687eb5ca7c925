"""References as annotation tools export them: each shape is read exactly, and what is not understood is no class.

The folders of ``data/exports`` are as the tools write them; ``data/exports.jsonl`` says what each holds: the label and
the mask, box or points of each object, and how many shapes are passed over. Their images are 60 x 40 pixels, and the
object of most is RECTANGLE. Those of ``data/no_exports`` cannot be understood.
"""

import base64
import csv
import gzip
import io
import json
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.data.label_files import FORMATS, LabeledImage, LabeledObject
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.data.reference_forms.shapes import Canvas
from no_time_to_train.data.targets import find_targets
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.files import read_json
from no_time_to_train.method.memory_bank import Category
from tests.attacks.test_cases import says
from tests.conftest import DATA, write_picture
from tests.reference_folders import write

EXPORTS = DATA / "exports"


def folders_of(name: str) -> list[Any]:
    """What the folders of ``data/NAME`` hold, of ``data/NAME.jsonl``."""
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [pytest.param(json.loads(line), id=json.loads(line)["folder"]) for line in lines]


#: x1, y1, x2, y2, ends excluded.
RECTANGLE = (10, 8, 40, 20)


def pixels(x1: int, y1: int, x2: int, y2: int) -> NDArray[np.bool_]:
    """A mask that is a rectangle."""
    mask = np.zeros((40, 60), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def ellipse(x: float, y: float, rx: float, ry: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:40, :60] + 0.5
    return ((columns - x) / rx) ** 2 + ((rows - y) / ry) ** 2 <= 1


PIXELS = pixels(*RECTANGLE)
CORNER = pixels(50, 30, 60, 40)
HOLED = PIXELS & ~pixels(20, 10, 30, 16)
#: The masks that ``data/exports.jsonl`` names. The turned ones are of boxes that were turned about their centers.
MASKS = {
    "rectangle": PIXELS,
    "rectangle with a hole": HOLED,
    "turned": pixels(25, 10, 35, 30),
    "turned square": pixels(0, 10, 20, 20),
    "corner": pixels(50, 30, 60, 40),
    "strip": pixels(45, 0, 50, 9),
    "lower left": pixels(0, 30, 9, 40),
    "ellipse": ellipse(30, 20, 20, 10),
    "circle": ellipse(30, 20, 10, 10),
}


@pytest.mark.parametrize("case", folders_of("exports"))
def test_the_export_of_a_tool_is_read_exactly(case: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)
        found = find_references(EXPORTS / case["folder"])
    assert found.form == case["form"]
    assert [one.label for one in found.references] == [label for label, _ in case["objects"]]
    assert sum(found.skipped.values()) == case.get("skipped", 0)
    for reference, (label, expected) in zip(found.references, case["objects"], strict=True):
        assert reference.image.is_file()
        mask = reference.read_mask()
        if isinstance(expected, str):
            assert mask is not None
            wrong = (mask != MASKS[expected]).sum() / MASKS[expected].sum()
            assert wrong <= (0.05 if label in ("ellipse", "circle") else 0), f"{label}: {wrong:.3f}"
        else:
            assert mask is None
            np.testing.assert_allclose(reference.points or reference.box, expected, atol=1e-3)
        reference.read()


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(path)
    return path


@pytest.mark.parametrize(
    "objects",
    [
        {RECTANGLE: HOLED, (2, 30, 40, 31): pixels(2, 30, 40, 31), (50, 2, 51, 3): pixels(50, 2, 51, 3)},
        {RECTANGLE: None, (9, 6, 45, 36): None},
    ],
    ids=["masks", "boxes"],
)
@pytest.mark.parametrize("form", sorted(FORMATS.keys() - {"crops"}))
def test_what_is_written_for_a_tool_is_read_back_exactly(form: str, objects: dict[Any, Any], tmp_path: Path) -> None:
    path = photo(tmp_path / "photos" / "sub" / "a.png")
    files = FORMATS[form](tmp_path / "out" / form, [Category(1, "bird"), Category(2, "boat")], False)
    image = LabeledImage("sub/a.png", "sub/a_2", path, 1, 40, 60)
    files.add(image, [LabeledObject("boat", box, mask, 0.5) for box, mask in objects.items()])
    files.finish()
    found = find_references(tmp_path / "out" / form)
    assert found.unused == ()
    assert [one.label for one in found.references] == ["boat"] * len(objects)
    for reference, (box, mask) in zip(found.references, objects.items(), strict=True):
        if mask is None:
            assert reference.read_mask() is None
            np.testing.assert_allclose(reference.box, box, atol=1e-3)
        else:
            np.testing.assert_array_equal(reference.read_mask(), mask)


def test_shapes_without_an_area_and_unused_files_are_counted(tmp_path: Path) -> None:
    shutil.copytree(EXPORTS / "LabelMe shapes", tmp_path, dirs_exist_ok=True)
    photo(tmp_path / "unmarked.png")
    write(tmp_path / "README.txt", "how it was made")
    with pytest.warns(UserNotice, match="passed over: 1 line, 1 linestrip"):
        found = find_references(tmp_path)
    assert found.skipped == {"line": 1, "linestrip": 1}
    assert found.unused == (tmp_path / "unmarked.png",)
    assert found.describe(tmp_path).startswith(f"LabelMe json in {tmp_path}: 1 circle, 1 oriented_rectangle, ")
    assert found.describe(tmp_path).endswith("; 1 file not used: unmarked.png")


def test_images_that_a_coco_file_lists_without_objects_are_not_called_unused(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.png", "height": 40, "width": 60} for number in (1, 2)]
    boat = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
    content = {"images": images, "annotations": [boat], "categories": [{"id": 1, "name": "boat"}]}
    write(tmp_path / "instances.json", json.dumps(content))
    for name in ("1.png", "2.png", "unlisted.png"):
        photo(tmp_path / "images" / name)
    assert find_references(tmp_path).unused == (tmp_path / "images" / "unlisted.png",)


@pytest.mark.parametrize("case", folders_of("no_exports"))
def test_what_is_not_understood_is_refused_by_name(case: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        find_references(DATA / "no_exports" / case["folder"])
    assert says(case["refused"], str(caught.value))
    assert "\n" not in str(caught.value)


def test_folders_of_classes_may_have_names_of_data_sets_among_others(tmp_path: Path) -> None:
    photo(tmp_path / "train/a.png")
    photo(tmp_path / "bus/a.png")
    write(tmp_path / "notes.txt", "trains and buses")
    found = find_references(tmp_path)
    assert [one.label for one in found.references] == ["bus", "train"]
    assert found.unused == (tmp_path / "notes.txt",)


def test_a_mask_outside_of_its_image_is_refused_and_an_empty_one_marks_nothing(tmp_path: Path) -> None:
    canvas = Canvas(tmp_path / "a.png", 30, 40)
    assert canvas.mask("boat", np.zeros((5, 5), bool), (100, 0)) == "empty mask"
    with pytest.raises(ValueError, match="it is outside the image"):
        canvas.mask("boat", np.ones((5, 5), bool), (100, 0))


def test_a_bitmap_of_supervisely_whose_corner_has_one_coordinate_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "img/a.png")
    picture = io.BytesIO()
    Image.new("L", (4, 4), 255).save(picture, "PNG")
    bitmap = {"data": base64.b64encode(zlib.compress(picture.getvalue())).decode(), "origin": [8]}
    content = {"size": {}, "objects": [{"classTitle": "boat", "geometryType": "bitmap", "bitmap": bitmap}]}
    write(tmp_path / "ann/a.png.json", json.dumps(content))
    with pytest.raises(UserError, match=r"object 0 is broken: .*a point has not two coordinates"):
        find_references(tmp_path)


@pytest.mark.parametrize(
    ("label", "said"), [(None, "passed over: 1 without a class"), ({}, "its label is {}, not text")]
)
def test_a_label_of_label_studio_that_is_no_text_is_no_class(label: Any, said: str, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    sides = {"x": 10, "y": 10, "width": 20, "height": 20}
    result = [{"id": "1", "value": {**sides, "rectanglelabels": [label]}}]
    write(tmp_path / "a.json", json.dumps([{"data": {"image": "a.png"}, "annotations": [{"result": result}]}]))
    with pytest.raises(UserError, match=said):
        find_references(tmp_path)


def test_a_deleted_object_of_labelme_is_passed_over_where_its_mark_has_spaces(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    corners = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((5, 5), (15, 5), (15, 15)))
    objects = [
        f"<object><name>{name}</name><deleted>{mark}</deleted><polygon>{corners}</polygon></object>"
        for name, mark in (("boat", "0"), ("cup", "\n1 "))
    ]
    write(tmp_path / "a.xml", f"<annotation><filename>a.png</filename>{''.join(objects)}</annotation>")
    assert [one.label for one in find_references(tmp_path).references] == ["boat"]


def test_a_turned_box_of_cvat_in_coco_may_give_its_angle_as_text(tmp_path: Path) -> None:
    folder = EXPORTS / "CVAT COCO of a turned box"
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (file,) = tmp_path.rglob("*.json")
    content = json.loads(file.read_text())
    for one in content["annotations"]:
        one["attributes"]["rotation"] = str(one["attributes"]["rotation"])
    file.write_text(json.dumps(content))
    masks = [[one.mask for one in find_references(place).references] for place in (folder, tmp_path)]
    assert masks[0] == masks[1]


def test_captions_are_no_labels(tmp_path: Path) -> None:
    photo(tmp_path / "boat/a.png")
    write(tmp_path / "boat/a.txt", "a boat on a lake")
    (reference,) = find_references(tmp_path).references
    assert reference.is_unmarked


def test_an_annotation_in_two_files_counts_once(tmp_path: Path) -> None:
    shutil.copytree(EXPORTS / "CVAT COCO", tmp_path, dirs_exist_ok=True)
    annotations = tmp_path / "annotations"
    shutil.copy(annotations / "instances_default.json", annotations / "person_keypoints_default.json")
    with pytest.warns(UserNotice, match="2 annotation that another file repeats"):
        assert len(find_references(tmp_path).references) == 2


def write_coco(path: Path, names: list[str], annotations: list[dict[str, Any]]) -> None:
    """Write images with the ids 1, 2, ..., and annotations that are boxes in the first, except for the values given."""
    common = {"image_id": 1, "category_id": 1, "bbox": [10, 8, 30, 12], "iscrowd": 0}
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names, start=1)],
        "annotations": [{"id": number, **common, **one} for number, one in enumerate(annotations, start=1)],
        "categories": [{"id": 1, "name": "boat"}],
    }
    write(path, json.dumps(content))


def test_crowds_alone_are_taken_as_objects(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    crowd = {"segmentation": [[10, 8, 40, 8, 40, 20, 10, 20]], "iscrowd": 1}
    write_coco(tmp_path / "a.json", ["a.png"], [crowd, crowd])
    with pytest.warns(UserNotice, match="2 annotations with iscrowd 1, as CVAT writes masks"):
        assert len(find_references(tmp_path).references) == 2


def test_a_crowd_among_objects_is_passed_over_with_a_word(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    write_coco(tmp_path / "a.json", ["a.png"], [{"iscrowd": 1}, {}])
    with pytest.warns(UserNotice, match="passed over: 1 crowd"):
        assert len(find_references(tmp_path).references) == 1


@pytest.mark.parametrize("segmentation", [[], [[]], None])
def test_an_empty_segmentation_leaves_the_box(segmentation: object, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    nothing = {"segmentation": segmentation, "bbox": [], "area": []}
    write_coco(tmp_path / "a.json", ["a.png"], [{"segmentation": segmentation}, nothing])
    with pytest.warns(UserNotice, match="1 annotation without a box or a mask"):
        (reference,) = find_references(tmp_path).references
    assert reference.mask is None
    assert reference.box == RECTANGLE


@pytest.mark.parametrize(
    ("names", "annotations"), [(["cam1/1.png", "cam2/1.png"], [{}, {"image_id": 2}]), (["cam2/1.png"], [{}])]
)
def test_images_elsewhere_stand_for_none(names: list[str], annotations: list[dict[str, Any]], tmp_path: Path) -> None:
    photo(tmp_path / "cam1" / "1.png")
    write_coco(tmp_path / "a.json", names, annotations)
    with pytest.raises(UserError, match=r"cam2/1\.png, which is annotated in .*, was not found"):
        find_references(tmp_path)


@pytest.mark.parametrize(("name", "found"), [("cam.01", "cam.01.png"), ("cam.02", None), ("cam.jpg", "cam.png")])
def test_a_part_of_a_name_that_is_no_ending_belongs_to_it(name: str, found: str | None, tmp_path: Path) -> None:
    photo(tmp_path / "cam.png")
    photo(tmp_path / "cam.01.png")
    write_coco(tmp_path / "a.json", [name], [{}])
    if found is None:
        with pytest.raises(UserError, match=rf"{name}, which is annotated in .*, was not found"):
            find_references(tmp_path)
    else:
        assert find_references(tmp_path).references[0].image.name == found


def test_an_image_that_is_listed_stands_for_no_other_of_its_name(tmp_path: Path) -> None:
    photo(tmp_path / "shot.jpg")
    write_coco(tmp_path / "a.json", ["shot.png", "shot.jpg"], [])
    targets = list(find_targets([str(tmp_path / "a.json")], 1).images)
    with pytest.raises(UserError, match=r"shot\.png, which is annotated in .*, was not found"):
        targets[0].read()
    assert targets[1].path == tmp_path / "shot.jpg"


@pytest.mark.parametrize(("encoding", "refused"), [("utf-16", False), ("utf-8-sig", False), ("gbk", True)])
def test_json_in_another_encoding_is_read_or_refused_with_advice(encoding: str, refused: bool, tmp_path: Path) -> None:
    shutil.copytree(EXPORTS / "VIA JSON", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "via.json"
    path.write_text(path.read_text().replace('"type": "polygon"', '"type": "船"'), encoding=encoding)
    if refused:
        with pytest.raises(UserError, match=r"via\.json cannot be read: .*GBK .*save it as UTF-8"):
            find_references(tmp_path)
    else:
        assert find_references(tmp_path).references[0].label == "船"


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_gray_masks_of_any_kind_hold_the_same_numbers_of_classes(mode: str, tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks").mkdir()
    Image.fromarray(1 * PIXELS.astype(np.uint8) + 2 * CORNER.astype(np.uint8)).convert(mode).save(
        tmp_path / "masks/a.png"
    )
    write(tmp_path / "classes.txt", "background\nboat\nbird")
    found = {one.label: one.read_mask() for one in find_references(tmp_path).references}
    np.testing.assert_array_equal(found["boat"], PIXELS)
    np.testing.assert_array_equal(found["bird"], CORNER)


def test_an_empty_line_in_a_list_of_classes_has_a_number(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks").mkdir()
    Image.fromarray(2 * PIXELS.astype(np.uint8)).save(tmp_path / "masks/a.png")
    write(tmp_path / "classes.txt", "background\n\nboat\n")
    assert [one.label for one in find_references(tmp_path).references] == ["boat"]


def test_a_mask_with_soft_edges_marks_one_object_whatever_its_brightest_value_is(tmp_path: Path) -> None:
    write_picture(np.zeros((300, 300, 3), np.uint8), tmp_path / "boat/a.png")
    rows, columns = np.mgrid[:300, :300]
    soft = np.clip(330 - 2 * np.hypot(rows - 150, columns - 150), 0, 250).astype(np.uint8)
    write_picture(soft, tmp_path / "boat/a_mask.png")
    (reference,) = find_references(tmp_path).references
    np.testing.assert_array_equal(reference.read_mask(), soft > 125)


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_a_mask_in_a_lossy_file_marks_one_object(quality: int, tmp_path: Path) -> None:
    image, mask = tmp_path / "boat/a.png", tmp_path / "boat/a_mask.webp"
    image.parent.mkdir()
    Image.new("RGB", (160, 120)).save(image)
    inside = np.zeros((120, 160, 3), np.uint8)
    cv2.circle(inside, (70, 60), 35, (255, 255, 255), -1)
    Image.fromarray(inside).save(mask, quality=quality)
    (reference,) = find_references(tmp_path).references
    assert (reference.read_mask() != (inside[..., 0] > 0)).mean() < 0.01


def test_an_image_without_a_region_in_a_csv_of_via_is_an_image_without_objects(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.png")
    rect = {"name": "rect", "x": 3, "y": 2, "width": 6, "height": 4}
    rows = [
        ["filename", "region_count", "region_id", "region_shape_attributes", "region_attributes"],
        ["a.png", 1, 0, json.dumps(rect), json.dumps({"name": "cup"})],
        ["b.png", 0, 0, "{}", "{}"],
    ]
    with (tmp_path / "via.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = find_references(tmp_path)
    assert ([one.label for one in found.references], found.empty) == (["cup"], (tmp_path / "b.png",))


def test_a_report_of_references_next_to_them_is_passed_over(tmp_path: Path) -> None:
    photo(tmp_path / "boat" / "a.jpg")
    for ending in ("json", "html"):
        write(tmp_path / f"reference_report.{ending}", "{}")
    found = find_references(tmp_path)
    assert ([one.label for one in found.references], found.unused) == (["boat"], ())


def test_a_packed_file_in_the_place_of_a_text_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "refs.json").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(UserError, match=r"refs\.json cannot be read: it is no text, but packed"):
        read_json(tmp_path / "refs.json")


def test_a_mask_is_one_whatever_the_case_of_its_name(tmp_path: Path) -> None:
    path = photo(tmp_path / "boat" / "a.JPG")
    noise = np.random.default_rng(0).integers(0, 40, (40, 60), np.uint8)  # as JPEG leaves it: too many tones for a mask
    Image.fromarray(np.where(PIXELS, 255 - noise, noise)).save(path.with_name("a_Mask.PNG"))
    (reference,) = find_references(tmp_path).references
    np.testing.assert_array_equal(reference.read_mask(), PIXELS)


@pytest.mark.parametrize(
    ("name", "is_named"), [("mask_cup", True), ("mask (1)", True), ("mask_2", False), ("object0", False)]
)
def test_a_mask_whose_name_may_mean_another_class_is_named(name: str, is_named: bool, tmp_path: Path) -> None:
    photo(tmp_path / "shop/a.png")
    write_picture(PIXELS, tmp_path / f"shop/a_{name}.png")
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        assert [one.label for one in find_references(tmp_path).references] == ["shop"]
    assert [f"count as shop: a_{name}.png" in str(note.message) for note in notes] == [True] * is_named


@pytest.mark.parametrize("white", [0, 1])
def test_the_white_part_of_a_mask_with_a_palette_is_the_object_wherever_white_stands(
    white: int, tmp_path: Path
) -> None:
    photo(tmp_path / "boat/a.jpg")
    mask = Image.fromarray(np.where(PIXELS, white, 1 - white).astype(np.uint8), "P")
    mask.putpalette([255, 255, 255, 0, 0, 0] if white == 0 else [0, 0, 0, 255, 255, 255])
    mask.save(tmp_path / "boat/a_mask.png")
    (reference,) = find_references(tmp_path).references
    np.testing.assert_array_equal(reference.read_mask(), PIXELS)


def test_a_mask_of_real_numbers_with_nan_marks_one_object(tmp_path: Path) -> None:
    photo(tmp_path / "boat/a.png")
    Image.fromarray(np.where(PIXELS, 1, np.nan).astype(np.float32)).save(tmp_path / "boat/a_mask.tif")
    (reference,) = find_references(tmp_path).references
    np.testing.assert_array_equal(reference.read_mask(), PIXELS)


def test_numbers_of_32_bits_in_a_mask_are_refused(tmp_path: Path) -> None:
    """The palette of so many colors would fill the memory."""
    shutil.copytree(EXPORTS / "VOC with masks", tmp_path, dirs_exist_ok=True)
    (mask,) = (tmp_path / "SegmentationObject").iterdir()
    Image.fromarray(np.where(PIXELS, 2**31 - 1, 0).astype(np.int32)).save(mask, "TIFF")
    with pytest.raises(UserError, match="1 numbers up to 2147483647: number objects from 1 on"):
        find_references(tmp_path)


def test_a_yaml_file_that_names_no_classes_does_not_count(tmp_path: Path) -> None:
    shutil.copytree(EXPORTS / "makesense YOLO", tmp_path, dirs_exist_ok=True)
    write(tmp_path / "compose.yaml", "a: &a 1\nb: *a\n")
    assert find_references(tmp_path).references[0].label == "boat"


def test_classes_without_a_name_are_called_object() -> None:
    with pytest.warns(UserNotice, match="name no class: it is called 'object'"):
        find_references(EXPORTS / "images and masks")
