"""References in every form: what belongs together, the command line, and mistakes, which are explained."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from no_time_to_train.commands.reference_option import parse
from no_time_to_train.data.reference_forms import Reference, find_references, image_files
from no_time_to_train.errors import UserError, UserNotice
from tests.conftest import DATA, Patch, Photo
from tests.reference_folders import LABEL, class_folder, coco, labelme, write, yolo


def test_a_file_may_be_given_instead_of_its_folder(photo: Photo, tmp_path: Path) -> None:
    coco(tmp_path, photo)
    yolo(tmp_path / "yolo", photo)
    assert find_references(tmp_path / "annotations" / "instances.json").form == "COCO json"
    assert find_references(tmp_path / "yolo" / "data.yaml").form == "YOLO txt"


def test_the_path_of_references_may_be_text_and_nothing_else(photo: Photo, tmp_path: Path, monkeypatch: Patch) -> None:
    coco(tmp_path, photo)
    monkeypatch.chdir(tmp_path)
    assert find_references(str(tmp_path)).form == "COCO json"
    with pytest.raises(UserError, match="references not found"):
        find_references("")
    with pytest.raises(UserError, match="path must be"):
        find_references(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("boat:a b.jpg:box=10,20,200.5,180", Reference("boat", Path("a b.jpg"), box=(10, 20, 200.5, 180))),
        ("boat:a.jpg:point=3,4", Reference("boat", Path("a.jpg"), points=((3, 4),))),
        ("boat:C:\\a.jpg:mask=C:\\m.png", Reference("boat", Path("C:\\a.jpg"), mask=Path("C:\\m.png"))),
        ("boat:C:\\a.jpg", Reference("boat", Path("C:\\a.jpg"))),
        ("boat:a.jpg:mask=whole", Reference("boat", Path("a.jpg"), mask="whole")),
        (
            "boat:a.jpg:point=3,4:point=5,6.5:negative_point=7,8",
            Reference("boat", Path("a.jpg"), points=((3, 4), (5, 6.5)), negative_points=((7, 8),)),
        ),
        (
            "boat:a.jpg:box=1,2,30,40:negative_point=7,8",
            Reference("boat", Path("a.jpg"), box=(1, 2, 30, 40), negative_points=((7, 8),)),
        ),
    ],
)
def test_a_reference_on_the_command_line(text: str, expected: Reference) -> None:
    assert parse(text).reference() == expected


def test_the_ids_and_the_order_of_classes_are_those_of_the_annotations(photo: Photo, tmp_path: Path) -> None:
    coco(tmp_path / "coco", photo)
    path = tmp_path / "coco/annotations/instances.json"
    content = json.loads(path.read_text())
    content["categories"] += [{"id": 2, "name": "other"}]
    path.write_text(json.dumps(content))
    assert list(find_references(tmp_path / "coco").category_ids.items()) == [(LABEL, 9), ("other", 2)]
    yolo(tmp_path / "yolo", photo)
    assert find_references(tmp_path / "yolo").category_ids == {"other": 1, LABEL: 2}
    class_folder(tmp_path / "folders", photo)
    assert find_references(tmp_path / "folders").category_ids == {}


def test_images_that_cannot_be_read_here_are_named(photo: Photo, tmp_path: Path) -> None:
    class_folder(tmp_path, photo)
    (tmp_path / LABEL / "raw.cr2").touch()
    with pytest.warns(UserNotice, match=r"1 image cannot be read here: raw\.cr2 \(convert them to JPEG"):
        assert len(find_references(tmp_path).references) == 1


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (
            lambda f: shutil.copy(f / LABEL / "foto 1.png", f / LABEL / "foto 2.png"),
            r"foto 2\.png has no mask, but foto 1\.png next to it is marked: put foto 2_mask\.png next to it",
        ),
        (lambda f: (f / LABEL / "foto 1.png").unlink(), r"is the mask of no image"),
        (lambda f: shutil.rmtree(f / LABEL), "holds no references: give a folder with one folder per class"),
    ],
)
def test_broken_folders_are_explained(
    edit: Callable[[Path], None], complaint: str, photo: Photo, tmp_path: Path
) -> None:
    class_folder(tmp_path, photo)
    edit(tmp_path)
    with pytest.raises(UserError, match=complaint) as caught:
        find_references(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("LabelMe masks", r"photos/a\.png, which is annotated in .*, was not found"),
        ("COCO RLE", "was not found: put it into that folder"),
        ("Pascal VOC", r"c\.png, which is annotated"),
    ],
)
def test_an_image_that_is_not_there_is_named(name: str, complaint: str, tmp_path: Path) -> None:
    shutil.copytree(DATA / "exports" / name, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match=complaint):
        find_references(tmp_path)


def test_the_images_of_annotations_in_many_folders_are_listed_once(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "photos").mkdir()
    for name in "abcdefgh":
        Image.new("RGB", (20, 20)).save(tmp_path / f"photos/{name}.png")
        write(
            tmp_path / f"annotations of {name}/1.xml",
            f"<annotation><filename>{name}.png</filename><object><name>thing</name><bndbox><xmin>2</xmin>"
            "<ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>",
        )
    walked = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda place, *more, **others: walked.append(place) or walk(place, *more, **others))
    assert [one.image.stem for one in find_references(tmp_path).references] == [*"abcdefgh"]
    assert walked.count(tmp_path) == 2, "once for annotations, once for images"


def test_frames_of_many_videos_with_equal_names_are_found_by_their_folders_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    shared = image_files._shared_parts
    monkeypatch.setattr(image_files, "_shared_parts", lambda *one: compared.append(one) or shared(*one))
    names = [f"{number}/1.png" for number in range(20)]
    for name in names:
        (tmp_path / "frames" / name).parent.mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "frames" / name)
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [{"id": number, "image_id": number, "category_id": 1, "bbox": [2, 2, 9, 9]} for number in range(20)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    write(tmp_path / "annotations/a.json", json.dumps(content))
    found = find_references(tmp_path).references
    assert [one.image.relative_to(tmp_path / "frames").as_posix() for one in found] == names
    assert len(compared) == 20


def test_an_annotation_belongs_to_the_image_of_its_whole_name(tmp_path: Path) -> None:
    for name in ("a.1.png", "a.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    write(tmp_path / "a.xml", f"<annotation><object><name>thing</name>{box}</object></annotation>")
    assert find_references(tmp_path).references[0].image.name == "a.png"


def test_a_mask_of_16_bits_numbers_more_than_255_objects(tmp_path: Path) -> None:
    numbers = np.zeros((60, 60), np.uint16)
    numbers[::3, ::3] = np.arange(1, 401).reshape(20, 20)
    for folder, picture in (("images", Image.new("RGB", (60, 60))), ("masks", Image.fromarray(numbers))):
        (tmp_path / "star" / folder).mkdir(parents=True)
        picture.save(tmp_path / "star" / folder / "1.png")
    masks = [one.read_mask() for one in find_references(tmp_path).references]
    places = [[y, x] for y in range(0, 60, 3) for x in range(0, 60, 3)]
    assert [np.argwhere(mask).tolist() for mask in masks] == [[place] for place in places]


def test_two_images_with_the_annotated_name_are_refused(photo: Photo, tmp_path: Path) -> None:
    coco(tmp_path, photo)
    shutil.copytree(tmp_path / "images" / "default", tmp_path / "images" / "copy")
    with pytest.raises(UserError, match="was found twice"):
        find_references(tmp_path)


@pytest.mark.parametrize("folders", [("train", "val"), ("images", "images/images")])
def test_a_name_below_two_folders_of_a_data_set_is_refused(folders: tuple[str, str], tmp_path: Path) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (20, 20), f"#{len(folder):06x}").save(tmp_path / folder / "a.png")
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    object_ = f"<object><name>thing</name>{box}</object>"
    write(tmp_path / "xml/a.xml", f"<annotation><filename>a.png</filename>{object_}</annotation>")
    with pytest.raises(UserError, match="was found twice"):
        find_references(tmp_path)


def test_a_hard_link_of_an_image_as_exports_have_it_is_no_second_image(photo: Photo, tmp_path: Path) -> None:
    coco(tmp_path, photo)
    shutil.copytree(tmp_path / "images" / "default", tmp_path / "yolo" / "images", copy_function=os.link)
    assert len(find_references(tmp_path).references) == 1


def test_the_size_that_an_annotation_states_is_kept(photo: Photo, tmp_path: Path) -> None:
    """The size shows whether the annotator's program applied the EXIF orientation."""
    labelme("rectangle")(tmp_path, photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo.path).save(tmp_path / "a.png", exif=exif)
    (reference,) = find_references(tmp_path).references
    assert reference.size == photo.mask.shape
