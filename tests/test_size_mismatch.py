"""Images of another size than the annotation file states: they stop the run, are skipped, or are rescaled."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import ReferenceDataset, TargetDataset, read_listed_image, rescale_annotation
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.pipeline.proposal_cache import CachedTargetDataset, ProposalCache
from tests import small_sets
from tests.conftest import DATA, Capture, Checkpoints, model_options, stage_arguments

SIDE = small_sets.SIDE


def enlarge(path: Path) -> None:
    Image.open(path).resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST).save(path)


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """A data set of one image with twice the size that its annotation file states."""
    small_sets.write(small_sets.draw_coco(tmp_path, ["a", "b"], 1), tmp_path / "coco.json")
    enlarge(tmp_path / "000001.png")
    return tmp_path


@pytest.mark.parametrize("rescale", [False, True])
def test_the_mask_and_the_window_of_a_reference_are_rescaled(twice: Path, rescale: bool) -> None:
    coco = read_coco(twice / "coco.json")
    chosen = ([Category(1, "a")], {1: [{"img_id": 1, "ann_ids": [1]}]}, 56)
    crops = ReferenceDataset(coco, twice, *chosen, rescale=rescale)
    if not rescale:
        assert crops[0].reason.endswith("000001.png is 440x440, the annotation file says 220x220")
        return
    small_sets.draw_coco(twice, ["a", "b"], 1)  # the image at its stated size
    expected = ReferenceDataset(coco, twice, *chosen)[0]
    enlarge(twice / "000001.png")
    crop = crops[0]
    assert (crop.rescaled, expected.rescaled) == (True, False)
    assert crop.mask.shape == (1, 2 * expected.mask.shape[1], 2 * expected.mask.shape[2])
    assert torch.equal(crop.mask[:, ::2, ::2], expected.mask)
    assert (crop.crop - expected.crop).abs().mean() < 0.05


def test_an_annotation_is_rescaled_by_its_nearest_pixels() -> None:
    mask = np.zeros((4, 6), bool)
    mask[1, 2:5] = True
    resized, bbox = rescale_annotation(mask, [2, 1, 3, 1], 8, 9)
    assert bbox == [3, 2, 4.5, 2]
    assert np.array_equal(resized, mask[np.arange(8) // 2][:, [0, 1, 1, 2, 3, 3, 4, 5, 5]])


def test_a_turned_image_is_not_squeezed(tmp_path: Path) -> None:
    small_sets.write(small_sets.draw_coco(tmp_path, ["a"], 1), tmp_path / "coco.json")
    coco = read_coco(tmp_path / "coco.json")
    coco.imgs[1].update(height=SIDE, width=SIDE * 4 // 3)
    item = TargetDataset(coco, tmp_path, 64, rescale=True)[0]
    assert item.reason == (
        f"image id 1: image {tmp_path / '000001.png'} is 220x220, the annotation file says 293x220: with another "
        "aspect ratio, it is another image or was turned, and is not rescaled"
    )
    coco.imgs[1].update(height=100, width=101)  # rounded
    target = TargetDataset(coco, tmp_path, 64, rescale=True)[0]
    assert (target.height, target.width, target.rescaled) == (100, 101, True)
    assert target.image.shape == (3, 64, 64)
    assert read_listed_image(tmp_path, coco.imgs[1], rescale=True).shape == (100, 101, 3)


def test_a_photo_that_was_annotated_upright_is_turned_as_its_orientation_says(tmp_path: Path) -> None:
    upright, exif = np.zeros((64, 48, 3), np.uint8), Image.Exif()
    upright[:32], exif[0x0112] = 255, 6
    Image.fromarray(np.rot90(upright)).save(tmp_path / "phone.png", exif=exif)
    for size, expected in (((64, 48), upright), ((48, 64), np.rot90(upright))):
        entry = {"id": 1, "file_name": "phone.png", "height": size[0], "width": size[1]}
        np.testing.assert_array_equal(read_listed_image(tmp_path, entry), expected)


@pytest.mark.parametrize("loader", ["plain", "cached"])
def test_a_photo_that_is_turned_as_its_orientation_says_is_rescaled_upright(loader: str, tmp_path: Path) -> None:
    upright, exif = np.zeros((64, 48, 3), np.uint8), Image.Exif()
    upright[:32], exif[0x0112] = 255, 6
    Image.fromarray(np.rot90(upright)).save(tmp_path / "phone.png", exif=exif)
    small_sets.write(small_sets.draw_coco(tmp_path, ["a"], 1), tmp_path / "coco.json")
    coco = read_coco(tmp_path / "coco.json")
    cache = ProposalCache(tmp_path / "cache", {}) if loader == "cached" else None
    for size in ((32, 24), (64, 48)):
        coco.imgs[1].update(file_name="phone.png", height=size[0], width=size[1])
        arguments = coco, tmp_path, 64, True
        images = TargetDataset(*arguments) if cache is None else CachedTargetDataset(cache, *arguments)
        target = images[0]
        assert (target.height, target.width, target.rescaled) == (*size, size == (32, 24))
        assert target.image[:, :30].min() > 240
        assert target.image[:, 34:].max() < 15
        read = read_listed_image(tmp_path, coco.imgs[1], rescale=True)
        assert np.array_equal(read[:, 0, 0] > 127, np.arange(size[0]) < size[0] // 2)


def test_the_stages(tmp_path: Path, nano_checkpoints: Checkpoints, capsys: Capture) -> None:
    """Masks have the stated size, the pictures of exp_folder their images' names, and the cache both sizes."""
    larger = tmp_path / "larger"
    larger.mkdir()
    for number in (0, 1, 2, 3):
        image = Image.open(DATA / "images" / f"scene_{number}.png")
        factor = 1 if number == 3 else 1.5
        image.resize((round(factor * image.width), round(factor * image.height))).save(larger / f"scene_{number}.png")
    data = json.loads((DATA / "targets.json").read_text())
    data["images"] = data["images"][:2]
    ids = [image["id"] for image in data["images"]]
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in ids]
    (tmp_path / "targets.json").write_text(json.dumps(data))
    filled, processed = str(tmp_path / "memory.ckpt"), str(tmp_path / "processed.ckpt")

    def run(stage: str, folder: str, *options: str, root: Path = larger) -> str:
        keys = {f"dataset_cfgs.{part}.root": root for part in ("fill_memory", "test")}
        keys |= {"dataset_cfgs.test.json_file": tmp_path / "targets.json"}
        keys |= {"model_cfg.sam2_infer_cfgs.points_per_side": 4}
        main([*stage_arguments(stage, nano_checkpoints, tmp_path / folder, keys), *options])
        return capsys.readouterr().out

    rescale, images = ["--size-mismatch", "rescale"], "had another size than the annotation file states"
    assert f"2 images {images}" in run("fill_memory", "", "--out_path", filled, *rescale)
    run("fill_memory", "", "--out_path", str(tmp_path / "exact.ckpt"), root=DATA / "images")
    vectors = [load_memory(path).vectors for path in (filled, tmp_path / "exact.ckpt")]
    assert torch.nn.functional.cosine_similarity(*vectors).min() > 0.9
    run("postprocess_memory", "", "--ckpt_path", filled, "--out_path", processed)

    cache = ["--ckpt_path", processed, *model_options({"cache_dir": tmp_path / "cache"})]
    shown = {"test.online_vis": "true", "exp_folder": tmp_path / "exp", "dataset_name": "scenes"}
    pictured = model_options({f"model_cfg.{key}": value for key, value in shown.items()})
    out = run("test", "first", *cache, *rescale, *pictured)
    assert f"1 image {images}" in out
    assert "SEGM RESULTS" in out
    results = json.loads((tmp_path / "first" / "results.json").read_text())
    sizes = {image["id"]: [image["height"], image["width"]] for image in data["images"]}
    assert {one["image_id"] for one in results} == set(ids)
    assert all(one["segmentation"]["size"] == sizes[one["image_id"]] for one in results)
    pictures = tmp_path / "exp" / "results_analysis" / "scenes"
    assert sorted(path.name for path in pictures.iterdir()) == ["scene_2.png", "scene_3.png"]

    assert f"1 image {images}" in run("test", "cached", *cache, *rescale), "from the cache as well"
    assert json.loads((tmp_path / "cached" / "results.json").read_text()) == results
    run("test", "skipped", *cache, "--on-bad-image", "skip")
    (skipped,) = json.loads((tmp_path / "skipped" / "skipped.json").read_text())
    assert skipped["image_id"] == ids[0]
    of_the_other = [one for one in results if one["image_id"] == ids[1]]
    assert json.loads((tmp_path / "skipped" / "results.json").read_text()) == of_the_other
    with pytest.raises(SystemExit):
        run("test", "stopped", *cache)
    assert "681x471, the annotation file says 454x314" in capsys.readouterr().err
