"""References as annotation tools export them: each shape is read exactly, and what is not understood is no class."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from no_time_to_train.data.label_files import FORMATS, LabeledImage, LabeledObject
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.method.memory_bank import Category
from tests.reference_folders import write
from tests.tool_exports import (
    CORNERS,
    PIXELS,
    coco_content,
    cvat_coco,
    dump,
    label_studio_yolo,
    photo,
    picture,
    pixels,
    via,
    yolo,
)
from tests.tool_folders import FOLDERS, image_and_mask_folders, makesense_yolo


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_for_a_tool_is_read_back_exactly(form: str, tmp_path: Path) -> None:
    path = photo(tmp_path / "photos" / "sub" / "a.png")
    masks = [PIXELS & ~pixels(20, 10, 30, 16), pixels(2, 30, 40, 31), pixels(50, 2, 51, 3)]
    files = FORMATS[form](tmp_path / "out", [Category(1, "boat")], False)
    image = LabeledImage("sub/a.png", "sub/a_2", path, 1, 40, 60)
    files.add(image, [LabeledObject("boat", box_of(mask), mask, 0.5) for mask in masks])
    files.finish()
    found = find_references(tmp_path / "out" / form)
    assert found.unused == ()
    assert [one.label for one in found.references] == ["boat"] * 3
    for reference, mask in zip(found.references, masks, strict=True):
        np.testing.assert_array_equal(reference.read_mask(), mask)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_export_of_a_tool_is_read_exactly(name: str, tmp_path: Path) -> None:
    folder = FOLDERS[name]
    folder.write(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)
        found = find_references(tmp_path)
    assert found.form == folder.form
    assert [one.label for one in found.references] == [label for label, _ in folder.objects]
    assert sum(found.skipped.values()) == folder.skipped
    for reference, (label, expected) in zip(found.references, folder.objects, strict=True):
        assert reference.image.is_file()
        mask = reference.read_mask()
        if isinstance(expected, np.ndarray):
            assert mask is not None
            wrong = (mask != expected).sum() / expected.sum()
            assert wrong <= (0.05 if label in ("ellipse", "circle") else 0), f"{label}: {wrong:.3f}"
        else:
            assert mask is None
            np.testing.assert_allclose(reference.points or reference.box, expected, atol=1e-3)
        reference.read()


def test_shapes_without_an_area_and_unused_files_are_counted(tmp_path: Path) -> None:
    FOLDERS["LabelMe shapes"].write(tmp_path)
    photo(tmp_path / "unmarked.png")
    write(tmp_path / "README.txt", "how it was made")
    with pytest.warns(UserNotice, match="passed over: 1 line, 1 linestrip"):
        found = find_references(tmp_path)
    assert found.skipped == {"line": 1, "linestrip": 1}
    assert found.unused == (tmp_path / "unmarked.png",)
    assert found.describe(tmp_path).startswith(f"LabelMe json in {tmp_path}: 1 circle, 1 oriented_rectangle, ")
    assert found.describe(tmp_path).endswith("; 1 file not used: unmarked.png")


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def without(write_folder: Callable[[Path], None], *names: str) -> Callable[[Path], None]:
    def write_rest(folder: Path) -> None:
        write_folder(folder)
        for name in names:
            (folder / name).unlink()

    return write_rest


def plain(*names: str) -> Callable[[Path], None]:
    def write_images(folder: Path) -> None:
        for name in names:
            photo(folder / name)

    return write_images


def with_json(content: object) -> Callable[[Path], None]:
    def write_folder(folder: Path) -> None:
        photo(folder / "images" / "a.png")
        dump(folder / "a.json", content)

    return write_folder


def numbered_masks(folder: Path) -> None:
    photo(folder / "images" / "a.png")
    picture(folder / "masks" / "a.png", 1 * pixels(0, 0, 9, 9) + 2 * pixels(20, 20, 30, 30))


def with_file(name: str) -> Callable[[Path], None]:
    def write_folder(folder: Path) -> None:
        photo(folder / "boat" / "a.png")
        write(folder / name, "7\n")

    return write_folder


def color_without_name(folder: Path) -> None:
    FOLDERS["CVAT masks"].write(folder)
    write(folder / "labelmap.txt", "bird:9,9,200::")


def video(folder: Path) -> None:
    photo(folder / "images" / "a.png")
    write(folder / "a.xml", "<annotations><meta/><track id='0' label='boat'/></annotations>")


REFUSED = {
    "labels without names": (without(label_studio_yolo, "classes.txt", "notes.json"), "look like YOLO .*classes.txt"),
    "makesense without names": (without(makesense_yolo, "classes.txt"), r"1 label file that look like YOLO"),
    "folder of images": (plain("images/a.png"), "images is named like a part of a data set"),
    "folder of one split": (plain("train/a.png"), "train is named like a part of a data set"),
    "images of VOC": (plain("JPEGImages/a.png", "boat/a.png"), "JPEGImages is named like a part"),
    "classes in splits": (plain("train/boat/a.png", "val/boat/b.png"), "class folders in train, val: give one"),
    "numbered masks": (numbered_masks, "hold several values, which no file names: put classes.txt"),
    "JSON of nobody": (with_json({"a": 1}), r"a\.json is of no form .*export COCO"),
    "VIA 3": (with_json({"project": {}, "metadata": {}, "file": {}}), "looks like VIA 3: export COCO"),
    "Labelbox": (with_json([{"data_row": {}}]), "looks like Labelbox"),
    "VoTT": (with_json({"asset": {}, "regions": []}), "looks like VoTT: export Pascal VOC"),
    "captions": (with_json({"images": [], "annotations": [{"caption": "x"}]}), "looks like COCO captions"),
    "panoptic": (with_json({"images": [], "annotations": [{"segments_info": []}]}), "looks like COCO panoptic"),
    "video": (video, "looks like 'CVAT for video': export 'CVAT for images 1.1'"),
    "TFRecord": (with_file("boats.tfrecord"), r"boats\.tfrecord looks like TFRecord"),
    "brush labels as PNG": (
        plain("task-1-annotation-2-by-1-tag-boat-0.png"),
        "looks like brush labels of Label Studio",
    ),
    "unknown table": (with_file("_classes.csv"), r"_classes\.csv is a table whose columns are unknown"),
    "list of classes": (with_file("labelmap.txt"), r"labelmap\.txt belongs to annotations, of which none were found"),
    "VIA without a class": (
        with_json({"a.png1": {"filename": "a.png", "regions": [{"shape_attributes": {}, "region_attributes": {}}]}}),
        "no attribute of its regions is their class: they have no attribute",
    ),
    "a mask in an unknown color": (color_without_name, r"has the color \(250, 0, 9\), which has no name"),
    "YOLO in pixels": (
        lambda folder: yolo(folder, "0 25 14 30 12", "names: [boat]"),
        "30 is no share of a side of the image",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_name(name: str, tmp_path: Path) -> None:
    write_folder, complaint = REFUSED[name]
    write_folder(tmp_path)
    with pytest.raises(UserError, match=complaint) as caught:
        find_references(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_of_classes_may_have_names_of_data_sets_among_others(tmp_path: Path) -> None:
    plain("train/a.png", "bus/a.png")(tmp_path)
    write(tmp_path / "notes.txt", "trains and buses")
    found = find_references(tmp_path)
    assert [one.label for one in found.references] == ["bus", "train"]
    assert found.unused == (tmp_path / "notes.txt",)


def test_captions_are_no_labels(tmp_path: Path) -> None:
    plain("boat/a.png")(tmp_path)
    write(tmp_path / "boat" / "a.txt", "a boat on a lake")
    (reference,) = find_references(tmp_path).references
    assert reference.is_unmarked


def test_an_annotation_in_two_files_counts_once(tmp_path: Path) -> None:
    cvat_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_default.json"
    (tmp_path / "annotations" / "person_keypoints_default.json").write_bytes(path.read_bytes())
    with pytest.warns(UserNotice, match="2 annotation that another file repeats"):
        assert len(find_references(tmp_path).references) == 2


def test_crowds_alone_are_taken_as_objects(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    crowd = {"segmentation": [np.ravel(CORNERS).tolist()], "iscrowd": 1}
    dump(tmp_path / "a.json", coco_content([{"id": 1, "file_name": "a.png"}], [crowd, crowd]))
    with pytest.warns(UserNotice, match="2 annotations are crowds, as CVAT writes masks"):
        assert len(find_references(tmp_path).references) == 2


@pytest.mark.parametrize(("segmentation", "count"), [([], 1), ([[]], 1), (None, 1)])
def test_an_empty_segmentation_leaves_the_box(segmentation: object, count: int, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    nothing = {"segmentation": segmentation, "bbox": [], "area": []}
    content = coco_content([{"id": 1, "file_name": "a.png"}], [{"segmentation": segmentation}, nothing])
    dump(tmp_path / "a.json", content)
    with pytest.warns(UserNotice, match="1 annotation without a box or a mask"):
        (reference,) = find_references(tmp_path).references
    assert reference.mask is None
    assert reference.box == (10, 8, 40, 20)


def test_the_image_of_another_folder_stands_for_none(tmp_path: Path) -> None:
    photo(tmp_path / "cam1" / "1.png")
    images = [{"id": number, "file_name": f"cam{number}/1.png"} for number in (1, 2)]
    second = {"image_id": 2}
    dump(tmp_path / "a.json", coco_content(images, [{}, second]))
    with pytest.raises(UserError, match=r"cam2/1\.png, which is annotated in .*, was not found"):
        find_references(tmp_path)
    dump(tmp_path / "a.json", coco_content(images[1:], [second]))
    with pytest.raises(UserError, match=r"cam2/1\.png"):
        find_references(tmp_path)


@pytest.mark.parametrize(("encoding", "refused"), [("utf-16", False), ("utf-8-sig", False), ("gbk", True)])
def test_json_in_another_encoding_is_read_or_refused_with_advice(encoding: str, refused: bool, tmp_path: Path) -> None:
    via(project=False)(tmp_path)
    path = tmp_path / "via.json"
    content = json.loads(path.read_text())
    content["a.png99"]["regions"][0]["region_attributes"]["type"] = "船"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    if refused:
        with pytest.raises(UserError, match=r"via\.json cannot be read: .*GBK .*save it as UTF-8"):
            find_references(tmp_path)
    else:
        assert find_references(tmp_path).references[0].label == "船"


def test_classes_without_a_name_are_called_object(tmp_path: Path) -> None:
    image_and_mask_folders()(tmp_path)
    with pytest.warns(UserNotice, match="name no class: it is called 'object'"):
        find_references(tmp_path)
