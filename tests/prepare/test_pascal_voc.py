"""``prepare pascal-voc`` end to end, and the published conversion."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from no_time_to_train.benchmarks.prepare import pascal_voc
from no_time_to_train.benchmarks.prepare.archives import Archive
from no_time_to_train.data.coco import read_coco
from tests.conftest import Patch, Refusal
from tests.prepare.sites import Site, files_in, load, picture

VocObject = tuple[str, int | None, tuple[float, ...]]


def voc_xml(objects: list[VocObject]) -> bytes:
    """VOC's XML of an image: its objects' names, whether they are difficult, and xmin, ymin, xmax, ymax."""
    rows = "".join(
        f"<object><name>{name}</name>"
        + ("" if difficult is None else f"<difficult>{difficult}</difficult>")
        + "<bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, difficult, box in objects
    )
    return f"<annotation><size><width>60</width><height>40</height></size>{rows}</annotation>".encode()


def voc_files(year: str, image_set: str, images: dict[str, list[VocObject]]) -> dict[str, bytes]:
    root = f"VOCdevkit/{year}"
    files = {f"{root}/ImageSets/Main/{image_set}.txt": "".join(f"{name}\n" for name in images).encode()}
    for index, (name, objects) in enumerate(images.items()):
        files[f"{root}/Annotations/{name}.xml"] = voc_xml(objects)
        files[f"{root}/JPEGImages/{name}.jpg"] = picture(index)
    return files | {f"{root}/SegmentationClass/000001.png": b"not wanted"}


@pytest.fixture
def voc_site(site: Site, monkeypatch: Patch) -> Site:
    """The trainval sets of both years, whose names share digits, behind a mirror; and the test set of 2007."""
    sets: dict[tuple[str, str], dict[str, list[VocObject]]] = {
        ("VOC2007", "trainval"): {"000027": [("aeroplane", 1, (11, 21, 20, 30)), ("tvmonitor", 0, (1, 1, 60, 40))]},
        ("VOC2012", "trainval"): {"2007_000027": [("cow", None, (2.5, 3, 10.5, 12))], "2008_000008": []},
        ("VOC2007", "test"): {"000001": [("dog", 0, (5, 6, 7, 8))]},
    }
    for (year, name), images in sets.items():
        key = pascal_voc.ImageSet(year, name)
        archive = site.archive(f"{year}{name}.tar", voc_files(year, name, images), missing_first=name == "trainval")
        monkeypatch.setitem(pascal_voc.ARCHIVES, key, archive)
    return site


def test_voc_is_converted_to_two_coco_files(voc_site: Site, tmp_path: Path, prepare: Callable[..., None]) -> None:
    prepare("pascal-voc", "--subset", "--masks", "none")
    folder = tmp_path / "data/pascal-voc"
    trainval = load(folder / "annotations/voc0712_trainval.json")
    assert trainval["images"] == [
        {"id": 0, "file_name": "VOC2007/JPEGImages/000027.jpg", "width": 60, "height": 40},
        {"id": 1, "file_name": "VOC2012/JPEGImages/2007_000027.jpg", "width": 60, "height": 40},
        {"id": 2, "file_name": "VOC2012/JPEGImages/2008_000008.jpg", "width": 60, "height": 40},
    ]
    whole, hard, cow = trainval["annotations"]
    assert whole == {
        **{"id": 0, "image_id": 0, "category_id": 19, "bbox": [0, 0, 59, 39], "area": 59 * 39},
        **{"iscrowd": 0, "difficult": 0},
    }
    assert (hard["id"], hard["bbox"], hard["category_id"]) == (1, [10, 20, 9, 9], 0)
    assert hard["iscrowd"] == hard["difficult"] == 1
    assert (cow["id"], cow["image_id"], cow["bbox"], cow["iscrowd"]) == (2, 1, [1.5, 2, 8, 9], 0)
    assert [category["id"] for category in trainval["categories"]] == list(range(20))
    assert [category["name"] for category in trainval["categories"]] == pascal_voc.CLASSES
    test = read_coco(folder / "annotations/voc07_test.json")
    assert all((folder / "VOCdevkit" / image["file_name"]).is_file() for image in test.dataset["images"])
    assert len(test.anns) == 1
    assert not any("Segmentation" in name for name in files_in(folder))
    assert voc_site.asked[:2] == ["/gone/VOC2007trainval.tar", "/VOC2007trainval.tar"]
    asked = len(voc_site.asked)
    prepare("pascal-voc", "--subset", "--masks", "none")
    assert len(voc_site.asked) == asked


def test_voc_files_of_an_earlier_version_are_refused(
    voc_site: Site, tmp_path: Path, prepare: Callable[..., None], refused: Refusal
) -> None:
    prepare("pascal-voc", "--subset", "--masks", "none")
    file = tmp_path / "data/pascal-voc/annotations/voc0712_trainval.json"
    content = load(file)
    content["images"][0]["id"] = 27
    file.write_text(json.dumps(content))
    assert f"{file} was made by an earlier version" in refused("pascal-voc", "--subset", "--masks", "none")


def test_an_archive_with_a_wrong_hash_is_deleted(
    voc_site: Site, tmp_path: Path, refused: Refusal, monkeypatch: Patch
) -> None:
    key = pascal_voc.ImageSet("VOC2007", "trainval")
    monkeypatch.setitem(pascal_voc.ARCHIVES, key, Archive(pascal_voc.ARCHIVES[key].urls, 1, "0" * 32))
    assert "do not open as the archive and were deleted" in refused("pascal-voc", "--subset")
    assert files_in(tmp_path / "data") == set()
