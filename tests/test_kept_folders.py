"""Annotations as people keep them: what was renamed, lost, joined or copied since is found, or said."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from no_time_to_train.cli import main
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.errors import UserNotice
from tests.conftest import Capture, Photo, Refusal, write_picture
from tests.reference_folders import write
from tests.test_convert import results_of

#: A line of YOLO, and the same box as x, y, width, height in an image of 60 x 40 pixels.
LINE, BOX = "0 0.416667 0.35 0.5 0.3", [10, 8, 30, 12]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(np.zeros((40, 60, 3), np.uint8), path)
    return path


def coco(path: Path, *boxes: list[int], **annotation: Any) -> None:
    """A COCO file of boats on a.png."""
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": box, **annotation}
        for number, box in enumerate(boxes, start=1)
    ]
    images, categories = [{"id": 1, "file_name": "a.png"}], [{"id": 1, "name": "boat"}]
    write(path, json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def test_labels_of_yolo_whose_photo_is_gone_are_said(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    for name in "ab":
        write(tmp_path / f"labels/{name}.txt", LINE)
    write(tmp_path / "labels/empty.txt", "")
    write(tmp_path / "data.yaml", "names: [boat]")
    (tmp_path / "notes.txt").write_bytes(b"caf\xe9")
    with pytest.warns(UserNotice, match=r"passed over: 1 without an image: b\.txt"):
        assert len(find_references(tmp_path).references) == 1


def test_a_photo_of_a_mac_has_the_labels_of_its_name(tmp_path: Path) -> None:
    picture(tmp_path / "images" / unicodedata.normalize("NFD", "café.png"))
    write(tmp_path / "labels" / unicodedata.normalize("NFC", "café.txt"), LINE)
    write(tmp_path / "data.yaml", "names: [boat]")
    assert [one.label for one in find_references(tmp_path).references] == ["boat"]


@pytest.mark.parametrize("annotation", [{}, {"segmentation": [[10, 8, 40, 8, 40, 20, 10, 20]]}])
def test_an_object_in_two_versions_of_an_export_is_said(annotation: dict[str, Any], tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    coco(tmp_path / "v1.json", BOX, **annotation)
    coco(tmp_path / "v2.json", [11, 8, 30, 12], [40, 20, 10, 10], **annotation | {"segmentation": []})
    if annotation:
        coco(tmp_path / "v2.json", BOX, segmentation=[[11, 8, 40, 8, 40, 20, 11, 20]])
    with pytest.warns(UserNotice, match=r"1 object nearly the same as another, and counted as well: a\.png \(boat\)"):
        assert len(find_references(tmp_path).references) == (2 if annotation else 3)


def test_a_photo_without_a_mask_among_others_is_said(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"images/{name}.png")
    write_picture(np.eye(40, 60, dtype=bool), picture(tmp_path / "masks/a.png"))
    write(tmp_path / "classes.txt", "boat")
    with pytest.warns(UserNotice, match="passed over: 1 image without a mask"):
        assert len(find_references(tmp_path).references) == 1


@pytest.mark.parametrize("name", ["a_cp_masks", "a_mask_boat"])
def test_a_mask_with_more_in_its_name_numbers_objects_and_is_no_photo(name: str, tmp_path: Path) -> None:
    picture(tmp_path / "cells/a.png")
    numbers = np.zeros((40, 60), np.uint16)
    numbers[5:9, 5:9], numbers[20:30, 20:30] = 1, 2
    write_picture(numbers, tmp_path / f"cells/{name}.png")
    found = find_references(tmp_path).references
    assert [int(one.read_mask().sum()) for one in found if one.mask] == [16, 100]  # type: ignore[union-attr]


def test_large_numbers_of_16_bits_are_objects(tmp_path: Path) -> None:
    """As Cityscapes numbers them: 26001 is the first car of an image."""
    picture(tmp_path / "car/images/a.png")
    numbers = np.zeros((40, 60), np.uint16)
    numbers[5:9, 5:9], numbers[20:30, 20:30] = 26001, 26002
    write_picture(numbers, picture(tmp_path / "car/masks/a.png"))
    assert len(find_references(tmp_path).references) == 2


def test_a_mask_of_another_size_is_not_converted(tmp_path: Path, refusal: Refusal) -> None:
    picture(tmp_path / "refs/images/a.png")
    write_picture(np.eye(20, 30, dtype=bool), picture(tmp_path / "refs/masks/a.png"))
    write(tmp_path / "refs/classes.txt", "boat")
    line = refusal("convert", tmp_path / "refs", "--to", "coco", "--out", tmp_path / "out")
    assert "the mask is 30x20 pixels, its image 60x40" in line


def test_results_are_not_annotations_but_become_label_files(tmp_path: Path, photo: Photo, refusal: Refusal) -> None:
    results = results_of(tmp_path / "out", photo)
    results.rename(results.with_name("all_results.json"))
    (tmp_path / "photos/a.png").rename(results.parent / "a.png")
    line = refusal("convert", results.parent, "--to", "coco", "--out", tmp_path / "labels")
    assert "results filter --format" in line


def test_photos_and_classes_that_only_results_or_ground_truth_have_are_said(
    photo: Photo, tmp_path: Path, capsys: Capture
) -> None:
    results = results_of(tmp_path / "out", photo)
    listed = json.loads((results.parent / "images.json").read_text())
    listed["images"][0]["file_name"] = "foto 1.png"
    listed["images"].append({**listed["images"][0], "id": 78, "file_name": "b.png", "path": "../photos/b.png"})
    listed["categories"][0]["name"] = "Boat"
    (results.parent / "images.json").write_text(json.dumps(listed))
    main(["convert", str(tmp_path / "coco"), "--to", "voc", "--out", str(tmp_path)])
    main(["evaluate", "--gt", str(tmp_path / "voc"), "--results", str(results)])
    said = capsys.readouterr().err
    assert "1 searched image not annotated in" in said
    assert "where all that was found counts as false: b.png" in said
    assert "1 annotated class not among those of the results" in said
