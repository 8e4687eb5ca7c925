"""``prepare coco`` and ``prepare lvis`` end to end, and what all data sets share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from no_time_to_train.benchmarks.prepare import archives, coco2017, lvis
from tests.conftest import Patch, Refusal
from tests.prepare.sites import Site, coco_file, files_in, load, picture


def test_coco_is_downloaded_completely_and_only_once(
    coco_site: Site, tmp_path: Path, prepare: Callable[..., None], refused: Refusal
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
    coco_site: Site, tmp_path: Path, prepare: Callable[..., None], monkeypatch: Patch
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
    coco_site: Site, prepare: Callable[..., None], refused: Refusal, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(coco2017.COUNTS, "val2017", {"images": 5_000, "annotations": 36_781})
    complaint = refused("coco")
    assert "instances_val2017.json has 3 images instead of 5,000: delete it" in complaint
    assert "\n" not in complaint
    prepare("coco", "--subset")


def test_images_missing_in_the_archive_are_counted(coco_site: Site, refused: Refusal, monkeypatch: Patch) -> None:
    one = coco_site.archive("val2017.zip", {"val2017/000000000010.jpg": picture(0)})
    monkeypatch.setitem(coco2017.IMAGES, "val2017", one)
    assert "COCO val2017 images: 2 of 3 images are missing in" in (complaint := refused("coco"))
    assert "the first is 000000000011.jpg, although this step has run; source: http" in complaint


def test_lvis_gets_file_names_and_minival_and_downloads_only_missing_images(
    coco_site: Site, tmp_path: Path, prepare: Callable[..., None], monkeypatch: Patch
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
    name: str, references: str, targets: str, tmp_path: Path, refusal: Refusal, monkeypatch: Any
) -> None:
    config = Path(__file__).parents[2] / "configs" / f"{name}_sam2l.yaml"
    monkeypatch.chdir(tmp_path)
    key = "--model.init_args.model_cfg"  # the nano networks ship with the package
    nano = [f"{key}.sam2_cfg_file", "sam2_nano", f"{key}.encoder_cfg.name", "dinov2_nano"]
    words = ["test", "--config", config, "--out_path", "memory.ckpt", "--trainer.accelerator", "cpu", *nano]
    assert refusal(*words) == f"error: file not found: data/{references}"
    assert f"json_file: data/{targets}\n" in config.read_text()
