"""Archives and annotation files that ``prepare`` reads: a broken one is an error of one line, and writes nothing."""

import bz2
import copy
import gzip
import io
import json
import lzma
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from no_time_to_train.benchmarks.prepare import lvis
from no_time_to_train.benchmarks.prepare.archives import unpack
from no_time_to_train.benchmarks.prepare.pascal_voc import ImageSet, convert
from no_time_to_train.benchmarks.prepare.steps import PrepareOptions
from no_time_to_train.cli import main
from no_time_to_train.errors import UserError
from tests.prepare.sites import cdfsod_files, files_in, load, tar_of, write_files, zip_of

FILES = {f"set/{number}.txt": random.Random(number).randbytes(99) * 3 for number in range(3)}


def zipped(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return file.getvalue()


#: The same files in every kind of archive that Python opens.
ARCHIVES: dict[str, bytes] = {
    "zip": zipped(zipfile.ZIP_STORED),
    "zip, deflate": zipped(zipfile.ZIP_DEFLATED),
    "zip, bzip2": zipped(zipfile.ZIP_BZIP2),
    "zip, lzma": zipped(zipfile.ZIP_LZMA),
    "tar": tar_of(FILES),
    "tar.gz": gzip.compress(tar_of(FILES), mtime=0),
    "tar.bz2": bz2.compress(tar_of(FILES)),
    "tar.xz": lzma.compress(tar_of(FILES)),
}


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_archives_that_are_changed_at_random_are_unpacked_or_refused(content: bytes, tmp_path: Path) -> None:
    rng, archive, unpacked, refused = random.Random(0), tmp_path / "archive", 0, 0
    for case in range(60):
        data = bytearray(content)
        for _ in range(case and rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        archive.write_bytes(data[: rng.randrange(len(data))] if case and rng.random() < 0.2 else data)
        try:
            unpack(archive, tmp_path / "out" / str(case), lambda name: True)
            unpacked += 1
        except UserError as error:
            assert str(archive) in str(error)  # noqa: PT017 (any case may be refused)
            refused += 1
    print(f"{unpacked} archives unpacked, {refused} refused")
    assert {path.parts[0] for path in map(Path, files_in(tmp_path))} <= {"archive", "out"}
    assert files_in(tmp_path / "out" / "0") == set(FILES)
    assert unpacked > 0
    assert refused > 5


Change = Callable[[dict[str, Any]], object]

#: Changes of CD-FSOD's ``1_shot.json``, and words of the error.
CDFSOD: dict[str, tuple[Change | bytes, str]] = {
    "no JSON": (b"\xff\xfe", "1_shot.json cannot be read"),
    "an integer of 5,000 digits": (b"9" * 5000, "1_shot.json is not valid JSON"),
    "nesting of 100,000 levels": (b"[" * 100_000, "1_shot.json is not valid JSON"),
    "a list": (b"[]", "1_shot.json is not a COCO annotation file"),
    "no annotations": (lambda data: data.pop("annotations"), "'annotations'"),
    "images that are texts": (lambda data: data.update(images=["1_shot.jpg"]), "images[0]"),
    "an image without a name": (lambda data: data["images"][0].pop("file_name"), "images[0] lacks 'file_name'"),
    "a name that is a number": (lambda data: data["images"][0].update(file_name=5), "images[0] has file_name 5"),
    "a name with a zero byte": (lambda data: data["images"][0].update(file_name="a\0b"), "file name"),
    "a name of 10,000 characters": (lambda data: data["images"][0].update(file_name="a" * 10_000), "file name"),
    "a name of half a character": (lambda data: data["images"][0].update(file_name="\ud800"), "file name"),
    "annotations that are lists": (lambda data: data.update(annotations=[[1]]), "annotations[0]"),
    "an annotation without a class": (lambda data: data["annotations"][0].pop("category_id"), "lacks 'category_id'"),
    "a class that is a list": (lambda data: data["annotations"][0].update(category_id=[1]), "category_id [1]"),
    "categories that are a dict": (lambda data: data.update(categories={}), "'categories' is not a list"),
    "a category without a name": (lambda data: data["categories"][0].pop("name"), "categories[0] lacks 'name'"),
    "a category id that is a list": (lambda data: data["categories"][0].update(id=[1]), "categories[0] has id [1]"),
    "no categories": (lambda data: data.pop("categories"), "has no class"),
}


@pytest.mark.parametrize(("change", "complaint"), CDFSOD.values(), ids=CDFSOD.keys())
def test_a_broken_annotation_file_of_cdfsod_is_an_error(
    change: Change | bytes, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cdfsod" / "FISH"
    write_files(folder.parent, cdfsod_files("FISH"))
    broken = folder / "annotations" / "1_shot.json"
    if isinstance(change, bytes):
        broken.write_bytes(change)
    else:
        data = load(broken)
        change(data)
        broken.write_text(json.dumps(data))
    with pytest.raises(SystemExit) as exit_:
        main(["prepare", "cdfsod", "--root", str(tmp_path), "--sets", "FISH", "--masks", "none"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert complaint in error.splitlines()[-1]
    assert not (folder / "prepared").exists()


IMAGE = {"id": 1, "coco_url": "http://images.cocodataset.org/val2017/000000000139.jpg"}
LVIS: dict[str, Any] = {
    "images": [IMAGE],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
    "categories": [{"id": 1, "name": "boat"}],
}

#: What replaces a section of LVIS's file.
BROKEN_LVIS: dict[str, dict[str, Any] | bytes] = {
    "nesting of 100,000 levels": b"[" * 100_000,
    "no JSON": b"\xff",
    "a list": b"[]",
    "an address that is a number": {"images": [{**IMAGE, "coco_url": 5}]},
    "an address that is not COCO's": {"images": [{**IMAGE, "coco_url": "http://x/val2017/../../etc/1.jpg"}]},
    "an address that is broken": {"images": [{**IMAGE, "coco_url": "http://[::1"}]},
    "images that are texts": {"images": ["139.jpg"]},
    "annotations that are texts": {"annotations": ["boat"]},
    "an annotation without an image": {"annotations": [{"id": 1, "category_id": 1}]},
    "categories that are a text": {"categories": "boat"},
}


@pytest.mark.parametrize("broken", BROKEN_LVIS.values(), ids=BROKEN_LVIS.keys())
def test_a_broken_annotation_file_of_lvis_is_an_error(broken: dict[str, Any] | bytes, tmp_path: Path) -> None:
    content = broken if isinstance(broken, bytes) else json.dumps({**copy.deepcopy(LVIS), **broken}).encode()
    options = PrepareOptions(tmp_path, lambda: None)  # type: ignore[arg-type, return-value]  # it makes no masks
    options.downloads.mkdir()
    (options.downloads / "lvis_v1_val.json.zip").write_bytes(zip_of({"lvis_v1_val.json": content}))
    with pytest.raises(UserError, match=r"lvis_v1_val\.json"):
        lvis.convert("val", tmp_path / "val.json", options)
    assert not (tmp_path / "val.json").exists()


XML = (
    "<annotation><size><width>60</width><height>40</height></size><object><name>dog</name><bndbox><xmin>1</xmin>"
    "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)

#: VOC's list of images and its XML, one of which is broken, and words of the error.
BROKEN_VOC: dict[str, tuple[bytes, bytes, str]] = {
    "a list that is no text": (b"\xff\xfe", XML.encode(), "trainval.txt cannot be read"),
    "a name that leads outside": (b"../../../x", XML.encode(), "trainval.txt is not a list of images"),
    "a name of 10,000 characters": (b"a" * 10_000, XML.encode(), "trainval.txt is not a list of images"),
    "an empty box": (b"1", XML.replace("<xmax>9", "<xmax>0").encode(), "the box of a dog is empty"),
    "an unknown class": (b"1", XML.replace("dog", "ghost").encode(), "unknown class 'ghost'"),
    "half of the XML": (b"1", XML[:60].encode(), r"1\.xml is not a VOC annotation: (no element found|unclosed)"),
    "no size": (b"1", b"<annotation/>", "size/width is missing"),
    "an infinite box": (b"1", XML.replace("<xmax>9", "<xmax>inf").encode(), "empty or infinite"),
    "a box of NaN": (b"1", XML.replace("<xmax>9", "<xmax>nan").encode(), "empty or infinite"),
    "an unknown encoding": (b"1", b'<?xml version="1.0" encoding="x-none"?>' + XML.encode(), "not a VOC annotation"),
    "half a character": (b"1", b'<?xml version="1.0" encoding="utf-8"?>\xff' + XML.encode(), "not a VOC annotation"),
    "an entity": (b"1", b'<!DOCTYPE a [<!ENTITY b "c">]>' + XML.encode(), "not a VOC annotation: .*Entit"),
    "a size of 5,000 digits": (b"1", XML.replace("60", "9" * 5000).encode(), "not a VOC annotation"),
}


@pytest.mark.parametrize(("listing", "xml", "complaint"), BROKEN_VOC.values(), ids=BROKEN_VOC.keys())
def test_a_broken_annotation_of_voc_is_an_error(listing: bytes, xml: bytes, complaint: str, tmp_path: Path) -> None:
    write_files(tmp_path / "VOC2007", {"ImageSets/Main/trainval.txt": listing, "Annotations/1.xml": xml})
    with pytest.raises(UserError, match=complaint):
        convert(tmp_path, [ImageSet("VOC2007", "trainval")], tmp_path / "voc.json")
    assert not (tmp_path / "voc.json").exists()
