"""``prepare`` end to end, on small data sets in each published format that a local server offers."""

import hashlib
import io
import json
import random
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.benchmarks.prepare import archives, cdfsod, coco2017, lvis, pascal_voc
from no_time_to_train.benchmarks.prepare.archives import unpack
from no_time_to_train.benchmarks.prepare.fetch import Archive
from no_time_to_train.cli import main
from no_time_to_train.data.class_splits import class_splits
from no_time_to_train.data.coco import read_coco
from no_time_to_train.errors import UserError


@dataclass
class Site:
    """A web site.

    Attributes:
        folder: The folder that is served.
        url: Its address.
        asked: The paths that were requested, in order.
    """

    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def archive(self, name: str, files: dict[str, bytes], missing_first: bool = False) -> Archive:
        """Serve an archive of these files; with ``missing_first``, its first address does not exist."""
        pack = zip_of if name.endswith(".zip") else tar_of
        (self.folder / name).write_bytes(pack(files))
        urls = [f"{self.url}/{name}"]
        md5 = hashlib.md5((self.folder / name).read_bytes()).hexdigest()
        return Archive(
            (f"{self.url}/gone/{name}", *urls) if missing_first else tuple(urls), 1, md5 if missing_first else None
        )


class Handler(SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    handler = type("SiteHandler", (Handler,), {"asked": site.asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(site.folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., None]:
    return lambda dataset, *options: main(["prepare", dataset, "--root", str(tmp_path / "data"), *options])


@pytest.fixture
def refused(prepare: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``prepare``, which must fail, and return its error message of one line."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            prepare(*arguments)
        assert exit_.value.code == 2
        complaint = capsys.readouterr().err.strip().splitlines()[-1]
        assert complaint.startswith("error: ")
        return complaint

    return run


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def picture(seed: int, width: int = 60, height: int = 40) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


def coco_file(names: list[str], **fields: Any) -> dict[str, Any]:
    """A COCO file with one box per image; images have 60x40 pixels."""
    return {
        "images": [{"id": i, "file_name": name, "width": 60, "height": 40} for i, name in enumerate(names, 1)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 6, 20, 10], **fields}
            for i in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "fish"}],
    }


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


# COCO


@pytest.fixture
def coco_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """COCO with 2 training and 3 validation images."""
    names = {
        "train2017": ["000000000001.jpg", "000000000002.jpg"],
        "val2017": [f"00000000001{i}.jpg" for i in range(3)],
    }
    annotations = {"annotations/captions_val2017.json": b"{}"}
    for split, images in names.items():
        annotations[f"annotations/instances_{split}.json"] = json.dumps(coco_file(images)).encode()
        content = {f"{split}/{name}": picture(i) for i, name in enumerate(images)}
        monkeypatch.setitem(coco2017.IMAGES, split, site.archive(f"{split}.zip", content))
        monkeypatch.setitem(coco2017.COUNTS, split, {"images": len(images), "annotations": len(images)})
    monkeypatch.setattr(coco2017, "ANNOTATIONS", site.archive("annotations.zip", annotations))
    return site


def test_coco_is_downloaded_completely_and_only_once(
    coco_site: Site, tmp_path: Path, prepare: Callable[..., None], refused: Callable[..., str]
) -> None:
    assert "4 of 4 pieces are missing" in refused("coco", "--check")
    assert coco_site.asked == []
    assert not (tmp_path / "data").exists()
    prepare("coco")
    assert files_in(tmp_path / "data") == {
        "coco/annotations/instances_train2017.json",
        "coco/annotations/instances_val2017.json",
        "coco/train2017/000000000001.jpg",
        "coco/train2017/000000000002.jpg",
        *(f"coco/val2017/00000000001{i}.jpg" for i in range(3)),
    }
    assert coco_site.asked == ["/annotations.zip", "/train2017.zip", "/val2017.zip"]
    prepare("coco")
    prepare("coco", "--check")
    assert len(coco_site.asked) == 3
    (tmp_path / "data/coco/val2017/000000000011.jpg").unlink()
    prepare("coco")
    assert coco_site.asked[3:] == ["/val2017.zip"]
    assert (tmp_path / "data/coco/val2017/000000000011.jpg").is_file()


def test_interrupted_unpacking_resumes_without_a_second_download(
    coco_site: Site, tmp_path: Path, prepare: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = archives._write

    def killed_at_the_fourth(member: archives.Member, path: Path) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(member.name)
        write(member, path)

    with monkeypatch.context() as patch:
        patch.setattr(archives, "_write", killed_at_the_fourth)
        with pytest.raises(SystemExit, match="130"):
            prepare("coco")
    assert files_in(tmp_path / "data/coco") == set(written)
    left = (tmp_path / "data/coco" / written[-1]).stat().st_mtime_ns
    prepare("coco")
    assert coco_site.asked == ["/annotations.zip", "/train2017.zip", "/val2017.zip"]
    assert (tmp_path / "data/coco" / written[-1]).stat().st_mtime_ns == left
    assert not list((tmp_path / "data/downloads").iterdir())


def test_other_numbers_than_the_published_ones_are_an_error(
    coco_site: Site,
    tmp_path: Path,
    prepare: Callable[..., None],
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(coco2017.COUNTS, "val2017", {"images": 5_000, "annotations": 36_781})
    complaint = refused("coco")
    assert "instances_val2017.json has 3 images instead of 5,000: delete it" in complaint
    assert "\n" not in complaint
    prepare("coco", "--subset")


def test_images_missing_in_the_archive_are_counted(
    coco_site: Site, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        coco2017.IMAGES, "val2017", coco_site.archive("val2017.zip", {"val2017/000000000010.jpg": picture(0)})
    )
    assert "COCO val2017 images: 2 of 3 images are missing in" in (complaint := refused("coco"))
    assert "the first is 000000000011.jpg, although this step has run; source: http" in complaint


def test_published_numbers_and_addresses() -> None:
    assert coco2017.COUNTS["val2017"] == {"images": 5_000, "annotations": 36_781}
    assert pascal_voc.OUTPUTS["voc07_test"][1] == {"images": 4_952}
    assert pascal_voc.OUTPUTS["voc0712_trainval"][1] == {"images": 5_011 + 11_540}
    assert coco2017.IMAGES["train2017"].urls == ("http://images.cocodataset.org/zips/train2017.zip",)
    assert all("/VOCtest_06-Nov-2007.tar" in url for url in list(pascal_voc.ARCHIVES.values())[2].urls)
    assert sorted(class_splits()["cdfsod_clipart1k"]) == pascal_voc.CLASSES
    assert cdfsod.SETS == ["ArTaxOr", "clipart1k", "DIOR", "FISH", "NEU-DET", "UODD"]


# PASCAL VOC


VocObject = tuple[str, int | None, tuple[float, ...]]


def voc_xml(objects: list[VocObject], width: int = 60, height: int = 40) -> bytes:
    """VOC's XML of an image: its objects' names, whether they are difficult, and xmin, ymin, xmax, ymax."""
    rows = "".join(
        f"<object><name>{name}</name>"
        + ("" if difficult is None else f"<difficult>{difficult}</difficult>")
        + "<bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, difficult, box in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation>{size}{rows}</annotation>".encode()


def voc_files(year: str, image_set: str, images: dict[str, list[VocObject]]) -> dict[str, bytes]:
    root = f"VOCdevkit/{year}"
    files = {f"{root}/ImageSets/Main/{image_set}.txt": "".join(f"{name}\n" for name in images).encode()}
    for index, (name, objects) in enumerate(images.items()):
        files[f"{root}/Annotations/{name}.xml"] = voc_xml(objects)
        files[f"{root}/JPEGImages/{name}.jpg"] = picture(index)
    return files | {f"{root}/SegmentationClass/000001.png": b"not wanted"}


@pytest.fixture
def voc_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
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
    voc_site: Site, tmp_path: Path, prepare: Callable[..., None], refused: Callable[..., str]
) -> None:
    prepare("pascal-voc", "--subset", "--masks", "none")
    file = tmp_path / "data/pascal-voc/annotations/voc0712_trainval.json"
    content = load(file)
    content["images"][0]["id"] = 27
    file.write_text(json.dumps(content))
    assert f"{file} was made by an earlier version" in refused("pascal-voc", "--subset", "--masks", "none")


def test_references_drawn_from_voc_are_those_of_the_published_conversion(tmp_path: Path) -> None:
    """Boxes one pixel too small without the + 1, and difficult objects before others, change what is drawn."""
    rng = np.random.default_rng(5)
    images: dict[str, list[VocObject]] = {}
    for number in range(60):
        objects: list[VocObject] = []
        for name in rng.choice(["bird", "bus", "cow", "motorbike", "sofa"], 4):
            x, y = rng.integers(10, 14, 2).tolist()
            difficult = int(rng.random() < 0.4)
            objects.append((str(name), difficult, (x, y, x + int(rng.integers(30, 35)), y + 60)))
        images[f"{number:06d}"] = objects
    devkit = tmp_path / "VOCdevkit"
    for path, content in voc_files("VOC2007", "trainval", images).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for name, objects in images.items():
        (devkit / f"VOC2007/Annotations/{name}.xml").write_bytes(voc_xml(objects, 100, 100))
    pascal_voc.convert(devkit, [pascal_voc.ImageSet("VOC2007", "trainval")], tmp_path / "voc.json")
    sampling = ["--split", "pascal_voc_split_1", "--json-file", str(tmp_path / "voc.json"), "--n-shot", "3"]
    main(["sample-references", *sampling, "--seed", "33", "--out", str(tmp_path / "refs.json")])
    drawn = {int(key): entries for key, entries in load(tmp_path / "refs.json").items()}

    entries: dict[int, list[tuple[int, int, bool]]] = {}  # class -> (image, annotation, whether it is valid)
    ann_id = 0
    for image_id, objects in enumerate(images.values()):
        for one in [one for one in objects if not one[1]] + [one for one in objects if one[1]]:
            x1, y1, x2, y2 = one[2]
            x, y, w, h = x1 - 1, y1 - 1, x2 - x1, y2 - y1
            room = min(x, y, 100 - (x + w), 100 - (y + h))
            valid = not one[1] and w >= 32 and h >= 32 and room >= 10
            entries.setdefault(pascal_voc.CLASSES.index(one[0]), []).append((image_id, ann_id, valid))
            ann_id += 1
    random.seed(33)
    expected: dict[int, list[dict[str, Any]]] = {}
    for category_id, candidates in entries.items():
        random.shuffle(candidates)
        used: set[int] = set()
        expected[category_id] = []
        for image_id, ann_id, valid in candidates:
            if valid and image_id not in used and len(used) < 3:
                used.add(image_id)
                expected[category_id].append({"img_id": image_id, "ann_ids": [ann_id]})
    assert drawn == expected
    assert list(drawn) == list(expected)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (voc_xml([("dog", 0, (5, 6, 4, 8))]), "the box of a dog is empty"),
        (voc_xml([("ghost", 0, (5, 6, 7, 8))]), "unknown class 'ghost'"),
        (b"<annotation><size>", "no element found|unclosed"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><annotation/>', "Entit"),
        (b"<annotation/>", "size/width is missing"),
    ],
)
def test_message_names_the_broken_voc_annotation(tmp_path: Path, content: bytes, complaint: str) -> None:
    for name, data in (("ImageSets/Main/test.txt", b"000001\n"), ("Annotations/000001.xml", content)):
        path = tmp_path / "VOC2007" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    with pytest.raises(UserError, match=rf"000001\.xml is not a VOC annotation: .*({complaint})"):
        pascal_voc.convert(tmp_path, [pascal_voc.ImageSet("VOC2007", "test")], tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_archive_with_a_wrong_checksum_is_not_unpacked(
    voc_site: Site, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = pascal_voc.ImageSet("VOC2007", "trainval")
    monkeypatch.setitem(pascal_voc.ARCHIVES, key, Archive(pascal_voc.ARCHIVES[key].urls, 1, "0" * 32))
    assert "do not open as the archive and were deleted" in refused("pascal-voc", "--subset")
    assert files_in(tmp_path / "data") == set()


# CD-FSOD


class WholeBox:
    """Replaces SAM 2: each mask fills its box."""

    name = "whole box"

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        masks = np.zeros((len(boxes), *image.shape[:2]), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = True
        return masks


def cdfsod_files(name: str, train: str = "train", test: str = "test") -> dict[str, bytes]:
    classes = class_splits()[f"cdfsod_{name}"]
    files = {}
    for stem, folder in (("1_shot", train), ("5_shot", train), ("10_shot", train), ("test", test)):
        content = coco_file([f"{stem}.jpg"])
        content["categories"] = [{"id": i, "name": one} for i, one in enumerate(classes, 1)]
        files[f"{name}/annotations/{stem}.json"] = json.dumps(content).encode()
        files[f"{name}/{folder}/{stem}.jpg"] = picture(1)
    return files


def test_cdfsod_prepares_the_saved_sets_and_reports_missing_ones(
    tmp_path: Path,
    prepare: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("no_time_to_train.networks.box_prompts.build_box_segmenter", lambda *_: WholeBox())
    root = tmp_path / "data/cdfsod"
    root.mkdir(parents=True)
    (root / "FISH.zip").write_bytes(zip_of(cdfsod_files("FISH")))
    for path, content in cdfsod_files("DIOR", "train/new_train", "test/new_test").items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    for path, content in cdfsod_files("UODD").items():
        if "/test/" not in path:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)

    with pytest.raises(SystemExit):
        prepare("cdfsod")
    complaint = capsys.readouterr().err
    assert "4 of 6 sets are not ready: ArTaxOr, clipart1k, NEU-DET, UODD" in complaint
    assert "https://github.com/lovelyqian/CDFSOD-benchmark" in complaint
    assert "1 of 1 images are missing" in complaint
    assert "the first is test/test.jpg" in complaint
    assert "5_shot.json has 1 of 5 annotations of 'fish'" in complaint
    for name, image in (("FISH", "train/5_shot.jpg"), ("DIOR", "train/new_train/5_shot.jpg")):
        shots = load(root / name / "prepared/5_shot_masks.json")
        assert shots["images"][0]["file_name"] == image
        (polygon,) = shots["annotations"][0]["segmentation"]
        corners = {(5, 6), (24, 6), (24, 15), (5, 15)}
        assert set(zip(polygon[::2], polygon[1::2], strict=True)) == corners
        assert shots["annotations"][0]["area"] == 200
        assert "segmentation" not in load(root / name / "prepared/test.json")["annotations"][0]
        assert not (root / name / "prepared/test_masks.json").exists()
    prepare("cdfsod", "--sets", "FISH,DIOR", "--masks", "all")
    assert (root / "FISH/prepared/test_masks.json").is_file()
    with pytest.raises(SystemExit):
        prepare("cdfsod", "--sets", "DORI")
    assert "has no set 'DORI'; choose from ArTaxOr" in capsys.readouterr().err


@pytest.mark.parametrize("has_sam_h", [True, False])
def test_masks_are_made_by_sam_h_where_its_checkpoint_is_there_and_otherwise_a_note_says_so(
    has_sam_h: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sam_h = Path("checkpoints/sam_vit_h_4b8939.pth")
    if has_sam_h:
        sam_h.parent.mkdir()
        sam_h.touch()
    chosen: list[tuple[Any, ...]] = []

    def build(*network: Any) -> WholeBox:
        chosen.append(network)
        return WholeBox()

    monkeypatch.setattr("no_time_to_train.networks.box_prompts.build_box_segmenter", build)
    Path("data/downloads").mkdir(parents=True)
    Path("data/downloads/FISH.zip").write_bytes(zip_of(cdfsod_files("FISH")))
    main(["prepare", "cdfsod", "--sets", "FISH"])
    assert {network[2] for network in chosen} == {sam_h if has_sam_h else None}
    note = f"note: masks are made by SAM 2, because {sam_h} does not exist"
    assert (note in capsys.readouterr().err) != has_sam_h
    Path("data/cdfsod/FISH/prepared/1_shot_masks.json").unlink()
    chosen.clear()
    main(["prepare", "cdfsod", "--sets", "FISH", "--sam2", "sam2_hiera_tiny"])
    assert [(network[0], network[2]) for network in chosen] == [("sam2_hiera_t", None)]
    assert "made by SAM 2" not in capsys.readouterr().err


# LVIS


def test_lvis_gets_file_names_and_minival_and_downloads_only_missing_images(
    coco_site: Site, tmp_path: Path, prepare: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"neg_category_ids": [1], "not_exhaustive_category_ids": []}
    polygon = {"segmentation": [[1, 1, 9, 1, 9, 9]]}
    for split, names in {
        "train": ["train2017/000000000001.jpg"],
        "val": ["train2017/000000000002.jpg", "val2017/000000000010.jpg"],
    }.items():
        data = coco_file(names, **polygon)
        for image in data["images"]:
            image |= {"coco_url": f"http://images.cocodataset.org/{image.pop('file_name')}", **extra}
        archive = coco_site.archive(f"lvis_v1_{split}.json.zip", {f"lvis_v1_{split}.json": json.dumps(data).encode()})
        monkeypatch.setitem(lvis.ARCHIVES, split, archive)
    prepare("lvis", "--subset")
    val = load(tmp_path / "data/lvis/annotations/lvis_v1_val.json")
    assert [image["file_name"] for image in val["images"]] == ["train2017/000000000002.jpg", "val2017/000000000010.jpg"]
    minival = load(tmp_path / "data/lvis/annotations/lvis_v1_minival.json")
    assert minival["images"] == [val["images"][1]]
    assert minival["images"][0].items() >= extra.items()
    assert minival["annotations"] == [val["annotations"][1]]
    assert minival["annotations"][0].items() >= polygon.items()
    assert minival["categories"] == val["categories"]
    assert all((tmp_path / "data/coco" / image["file_name"]).is_file() for image in val["images"])
    assert len(coco_site.asked) == 4
    prepare("lvis", "--subset")
    assert len(coco_site.asked) == 4


# Archives


def evil_zip(name: str, kind: int = 0o100000) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("good.txt", b"good")
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o644) << 16
        archive.writestr(info, b"/etc/passwd")
    return buffer.getvalue()


def evil_tar(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("good.txt"))
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (evil_zip("../evil"), "would be written outside"),
        (evil_zip("a/../../evil"), "would be written outside"),
        (evil_zip("/tmp/evil"), "would be written outside"),
        (evil_zip("..\\evil"), "would be written outside"),
        (evil_zip("C:/evil"), "would be written outside"),
        (evil_zip("way_out/evil"), "would be written outside"),
        (evil_zip("link", 0o120000), "is a link or a device"),
        (evil_zip("device", 0o020000), "is a link or a device"),
        (evil_tar("../evil"), "would be written outside"),
        (evil_tar("/tmp/evil"), "would be written outside"),
        (evil_tar("way_out/evil"), "would be written outside"),
        (evil_tar("link", tarfile.SYMTYPE, "/etc/passwd"), "is a link or a device"),
        (evil_tar("link", tarfile.LNKTYPE, "../site"), "is a link or a device"),
        (evil_tar("device", tarfile.CHRTYPE), "is a link or a device"),
        (evil_tar("pipe", tarfile.FIFOTYPE), "is a link or a device"),
        (zip_of({"good.txt": b"good" * 99})[:-30], "is broken"),
        (tar_of({"good.txt": b"good" * 999})[:900], "is broken"),
        (b"", "is broken"),
    ],
    ids=range(18),  # an archive holds the time of day, which would make different names in each process
)
def test_malicious_or_broken_archive_writes_no_file(tmp_path: Path, content: bytes, complaint: str) -> None:
    archive, folder, outside = tmp_path / "archive", tmp_path / "a/folder", tmp_path / "outside"
    archive.write_bytes(content)
    folder.mkdir(parents=True)
    outside.mkdir()
    (folder / "way_out").symlink_to(outside)
    before = files_in(tmp_path)
    with pytest.raises(UserError, match=complaint):
        unpack(archive, folder, lambda name: True)
    assert files_in(tmp_path) == before
    assert not Path("/tmp/evil").exists()


def test_corrupt_member_leaves_no_partial_file(tmp_path: Path) -> None:
    content = bytearray(zip_of({"a.txt": bytes(range(256)) * 9}))
    content[60] ^= 0xFF
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"archive .*x\.zip is broken"):
        unpack(tmp_path / "x.zip", tmp_path / "out", lambda name: True)
    assert files_in(tmp_path / "out") == set()


def test_full_disk_is_noticed_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"a.txt": b"1234"}))
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 3}))
    with pytest.raises(UserError, match="has no room for 0 MB"):
        unpack(tmp_path / "x.tar", tmp_path / "out", lambda name: True)
    assert files_in(tmp_path / "out") == set()


def test_message_for_an_unknown_data_set_lists_the_known_ones(refused: Callable[..., str]) -> None:
    assert re.search("invalid choice: 'voc' .*coco.*pascal-voc.*cdfsod.*lvis", refused("voc"))


# Configurations


@pytest.mark.parametrize(
    ("name", "references", "targets"),
    [
        ("coco_fewshot_10shot", "coco/annotations/instances_train2017.json", "coco/annotations/instances_val2017.json"),
        ("coco_semantic", "coco/annotations/instances_train2017.json", "coco/annotations/instances_val2017.json"),
        ("pascal_voc", "pascal-voc/annotations/voc0712_trainval_masks.json", "pascal-voc/annotations/voc07_test.json"),
        ("cdfsod", "cdfsod/ArTaxOr/prepared/10_shot_masks.json", "cdfsod/ArTaxOr/prepared/test.json"),
        ("lvis", "lvis/annotations/lvis_v1_train.json", "lvis/annotations/lvis_v1_minival.json"),
    ],
)
def test_configurations_read_the_prepared_files(
    name: str, references: str, targets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    config = Path(__file__).parents[1] / "configs" / f"{name}_sam2l.yaml"
    monkeypatch.chdir(tmp_path)
    key = "--model.init_args.model_cfg"  # the nano networks ship with the package
    nano = [f"{key}.sam2_cfg_file", "sam2_nano", f"{key}.encoder_cfg.name", "dinov2_nano"]
    with pytest.raises(SystemExit):
        main(["test", "--config", str(config), "--out_path", "memory.ckpt", "--trainer.accelerator", "cpu", *nano])
    assert capsys.readouterr().err.endswith(f"error: file not found: data/{references}\n")
    assert f"json_file: data/{targets}\n" in config.read_text()
