"""``boxes-to-masks``: the masks of SAM 2's own predictor, resuming, and messages."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from sam2.sam2_image_predictor import SAM2ImagePredictor

from no_time_to_train.cli import main
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.files import MADE_HERE, read_json
from no_time_to_train.networks.box_prompts import rectangle
from no_time_to_train.networks.build import build_sam2
from no_time_to_train.pipeline.boxes_to_masks import boxes_to_masks
from tests.attacks.test_cases import cases_in, says
from tests.attacks.test_cases import edit as change
from tests.conftest import DATA, Capture, Checkpoints, Patch, Refusal, write_picture

IMAGES = DATA / "images"


@pytest.fixture
def boxes_only(tmp_path: Path) -> Path:
    """The test data's references without their masks."""
    data = read_json(DATA / "references.json")
    for annotation in data["annotations"]:
        del annotation["segmentation"]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(data))
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Change a JSON file; its new content."""
    data: dict[str, Any] = read_json(path)
    change(data)
    path.write_text(json.dumps(data))
    return data


class StandIn:
    """Stands in for SAM 2. The mask of a box is its upper half.

    ``calls`` counts images; before image number ``stop``, Ctrl-C is simulated.
    """

    def __init__(self, name: str = "stand-in", stop: int = -1) -> None:
        self.name, self.stop, self.calls = name, stop, 0

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        masks = np.zeros((len(boxes), *image.shape[:2]), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.clip(0).astype(int), strict=True):
            mask[y1 : (y1 + y2) // 2, x1:x2] = True
        return masks


def annotations_of(path: Path) -> list[dict[str, Any]]:
    return list(read_json(path)["annotations"])


def test_sam2_masks_are_those_of_its_own_predictor_box_by_box(
    boxes_only: Path, tmp_path: Path, nano_checkpoints: Checkpoints, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("no_time_to_train.networks.box_prompts.BATCH", 2)  # three boxes: a full batch and one left over
    data = edit(boxes_only, lambda data: data.update(images=data["images"][:1], annotations=data["annotations"][:3]))
    out = tmp_path / "new/masks.json"
    paths = [str(boxes_only), "--image-dir", str(IMAGES), "--out-path", str(out), "--device", "cpu"]
    network = ["--sam2-cfg-file", "sam2_nano", "--sam2-ckpt-path", str(nano_checkpoints[0])]
    main(["boxes-to-masks", *paths, *network, "--pictures", str(tmp_path / "pictures")])

    written = read_json(out)
    assert {**written, "annotations": []} == {**MADE_HERE, **data, "annotations": []}
    predictor = SAM2ImagePredictor(build_sam2("sam2_nano", nano_checkpoints[0]))
    predictor._bb_feat_sizes = [(predictor.model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    with torch.inference_mode():
        predictor.set_image(read_rgb(IMAGES / data["images"][0]["file_name"]).copy())
        for annotation, before in zip(written["annotations"], data["annotations"], strict=True):
            x, y, w, h = before["bbox"]
            expected = predictor.predict(box=np.array([x, y, x + w, y + h]), multimask_output=False)[0][0]
            assert expected.any()
            mask = rle.decode(annotation["segmentation"])
            assert (mask != expected).mean() < 1e-4  # the batch's size may round a logit at 0 otherwise
            assert annotation["area"] == mask.sum()
            assert {**annotation, "segmentation": 0, "area": 0} == {**before, "segmentation": 0, "area": 0}
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["scene_0.jpg"]
    read_coco(out)
    assert not list(out.parent.glob(".masks.json*"))


def test_masks_that_are_replaced_are_counted(boxes_only: Path, tmp_path: Path) -> None:
    drawn = read_json(DATA / "references.json")["annotations"][0]["segmentation"]
    edit(boxes_only, lambda data: data["annotations"][0].update(segmentation=drawn))
    with pytest.warns(UserNotice, match=r"boxes\.json has 1 annotation with a mask: .*masks\.json gets new masks"):
        boxes_to_masks(boxes_only, IMAGES, tmp_path / "masks.json", StandIn)


def test_a_killed_run_resumes_but_not_with_other_choices(boxes_only: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks.json"
    for stop in (0, 1):
        assert not list(tmp_path.glob("*masks.json*")), "a run that finishes no image leaves nothing"
        with pytest.raises(KeyboardInterrupt):
            boxes_to_masks(boxes_only, IMAGES, out, lambda stop=stop: StandIn(stop=stop))
    assert not out.exists()
    other = StandIn("another")
    with pytest.raises(UserError, match="another network"):
        boxes_to_masks(boxes_only, IMAGES, out, lambda: other)
    assert other.calls == 0
    with pytest.raises(UserError, match="another choice of annotations"):
        boxes_to_masks(boxes_only, IMAGES, out, StandIn, {3: [{"img_id": 102, "ann_ids": [4]}]})
    with pytest.raises(UserError, match="another form of masks"):
        boxes_to_masks(boxes_only, IMAGES, out, StandIn, as_published=True)
    again = StandIn()
    assert boxes_to_masks(boxes_only, IMAGES, out, lambda: again) == 6
    assert again.calls == 1
    assert not list(tmp_path.glob(".masks.json*"))


def test_a_run_does_not_resume_with_masks_of_other_pixels(boxes_only: Path, tmp_path: Path) -> None:
    shutil.copytree(IMAGES, tmp_path / "images")
    with pytest.raises(KeyboardInterrupt):
        boxes_to_masks(boxes_only, tmp_path / "images", tmp_path / "masks.json", lambda: StandIn(stop=1))
    for image in (tmp_path / "images").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(image).convert("RGB"))).save(image)
    again = StandIn()
    boxes_to_masks(boxes_only, tmp_path / "images", tmp_path / "masks.json", lambda: again)
    assert again.calls == 2


def test_each_image_gets_a_picture_of_its_own_at_its_size_and_nothing_else_is_left(
    boxes_only: Path, tmp_path: Path
) -> None:
    def without_sizes(data: dict[str, Any]) -> None:
        for image, name in zip(data["images"], ("a/b.png", "a_b.jpg"), strict=True):
            Image.open(IMAGES / image["file_name"]).convert("RGB").save(tmp_path / "images" / name)
            del image["width"], image["height"]
            image["file_name"] = name

    for made in ("images/a", "pictures"):
        (tmp_path / made).mkdir(parents=True)
    edit(boxes_only, without_sizes)
    (tmp_path / "pictures/.a_photo.jpg.x7_k2q9z.tmp").touch()  # as a killed run leaves it
    (tmp_path / "pictures/deep").mkdir()
    (tmp_path / "pictures/deep/.notes.tmp").touch()  # a user's
    boxes_to_masks(boxes_only, tmp_path / "images", tmp_path / "m.json", StandIn, pictures=tmp_path / "pictures")
    pictures = sorted((tmp_path / "pictures").glob("*.*"))
    assert len(pictures) == 2
    assert [path.name for path in (tmp_path / "pictures/deep").iterdir()] == [".notes.tmp"]
    sizes = {Image.open(tmp_path / "images" / name).size for name in ("a/b.png", "a_b.jpg")}
    assert {Image.open(picture).size for picture in pictures} == sizes


def test_an_empty_mask_becomes_the_rectangle_with_a_warning(boxes_only: Path, tmp_path: Path, capsys: Capture) -> None:
    def move(data: dict[str, Any]) -> None:
        data["annotations"][1]["bbox"] = [10.5, 20, 30, 1]  # its upper half has no pixel
        data["annotations"][2]["bbox"] = [-50, -50, 20, 20]  # outside

    edit(boxes_only, move)
    boxes_to_masks(boxes_only, IMAGES, tmp_path / "masks.json", StandIn)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [
        f"warning: annotation {i}: its mask is empty or outside its box, its box is used" for i in (2, 3)
    ]
    annotations = annotations_of(tmp_path / "masks.json")
    assert [annotation["area"] for annotation in annotations[1:3]] == [31, 1]
    assert rle.decode(annotations[1]["segmentation"])[20, 10:41].all()


class Shapes:
    """Stands in for SAM. The first mask is a square ring, a dot and a line; the others are a dot."""

    name = "shapes"

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        masks = np.zeros((len(boxes), *image.shape[:2]), bool)
        masks[0, 20:60, 30:90] = True
        masks[0, 30:40, 40:50] = False
        masks[:, 5, 5] = masks[0, 80, 30:70] = True
        return masks


def test_masks_as_published_are_outer_contours(boxes_only: Path, tmp_path: Path, capsys: Capture) -> None:
    def of_boxes(*boxes: list[float]) -> Callable[[dict[str, Any]], object]:
        return lambda data: data.update(
            annotations=[{**one, "bbox": box} for one, box in zip(data["annotations"], boxes, strict=False)]
        )

    edit(boxes_only, of_boxes([30, 20, 60, 40], [10.5, 20, 30, 7]))
    out, pictures = tmp_path / "masks.json", tmp_path / "pictures"
    boxes_to_masks(boxes_only, IMAGES, out, Shapes, pictures=pictures, as_published=True)
    ring, dot = annotations_of(out)
    (polygon,) = ring["segmentation"]  # neither the hole nor the dot nor the line has one
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    assert sorted(corners) == [(30, 20), (30, 59), (89, 20), (89, 59)]
    assert ring["area"] == 40 * 60 - 10 * 10 + 1 + 40
    assert dot["segmentation"] == [[10.5, 20, 40.5, 20, 40.5, 27, 10.5, 27]]
    assert capsys.readouterr().err.count("annotation 2: its mask is empty or outside its box, its box is used") == 1

    coco = read_coco(out)
    mask = coco.annToMask(coco.anns[1])  # made from the polygon again, as stage 1 does
    assert mask[30:40, 40:50].all()
    rows, columns = mask.nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 58, 30, 88)
    assert mask.sum() == 39 * 59
    assert [path.name for path in pictures.iterdir()] == ["scene_0.jpg"]

    edit(boxes_only, of_boxes([95, 5, 4, 4]))  # a box without a pixel of the mask, which is kept as published only
    for as_published, area in ((False, 4 * 4), (True, ring["area"])):
        boxes_to_masks(boxes_only, IMAGES, out, Shapes, as_published=as_published)
        assert annotations_of(out)[0]["area"] == area


def test_the_options_of_the_authors_script_do_what_they_do_there(
    boxes_only: Path, tmp_path: Path, monkeypatch: Patch, refusal: Refusal
) -> None:
    built: list[Any] = []
    build = "no_time_to_train.networks.box_prompts.build_box_segmenter"
    monkeypatch.setattr(build, lambda *arguments: built.append(arguments) or StandIn())
    paths = ["--input_json", str(boxes_only), "--image_dir", str(IMAGES)]
    (checkpoint := tmp_path / "sam_vit_h.pth").touch()
    network = ["--sam_checkpoint", str(checkpoint), "--model_type", "vit_h", "--device", "cpu", "--batch_size", "8"]
    main(["boxes-to-masks", *paths, *network, "--visualize"])
    assert built[0][2:] == (checkpoint, "cpu")
    written = annotations_of(tmp_path / "boxes_with_segm.json")
    assert all(isinstance(annotation["segmentation"], list) for annotation in written)
    pictures = {path.stem for path in (tmp_path / "boxes_with_SAM_segm").iterdir()}
    assert pictures == {Path(image["file_name"]).stem for image in read_json(boxes_only)["images"]}
    main(["boxes-to-masks", *paths, *network, "--output_json", str(tmp_path / "other.json")])
    assert annotations_of(tmp_path / "other.json") == written
    assert refusal("boxes-to-masks", "--image_dir", IMAGES)


def test_rectangles_stay_in_the_image() -> None:
    assert rectangle(np.array([8, 3, 90, 90], np.float32), 5, 10).nonzero()[1].tolist() == [8, 9, 8, 9]
    assert rectangle(np.array([99, 99, 120, 120], np.float32), 5, 10).sum() == 1


def test_only_the_references_get_masks_if_asked(boxes_only: Path, tmp_path: Path) -> None:
    stand_in, chosen = StandIn(), {3: [{"img_id": 102, "ann_ids": [4]}]}
    assert boxes_to_masks(boxes_only, IMAGES, tmp_path / "masks.json", lambda: stand_in, chosen) == 1
    assert stand_in.calls == 1
    masks = annotations_of(tmp_path / "masks.json")
    assert [annotation["id"] for annotation in masks if annotation.get("segmentation")] == [4]
    with pytest.raises(UserError, match="names annotation 99, which"):
        boxes_to_masks(boxes_only, IMAGES, tmp_path / "x.json", StandIn, {3: [{"img_id": 102, "ann_ids": [99]}]})


@pytest.mark.parametrize("case", cases_in("boxes_to_masks"))
def test_bad_input_is_one_line(boxes_only: Path, tmp_path: Path, case: dict[str, Any]) -> None:
    edit(boxes_only, partial(change, case=case))
    with pytest.raises(UserError) as caught:
        boxes_to_masks(boxes_only, IMAGES, tmp_path / "masks.json", StandIn)
    assert says(case["refused"], str(caught.value))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "masks.json").exists()


@pytest.mark.skipif(importlib.util.find_spec("segment_anything") is not None, reason="segment-anything is installed")
def test_sam_without_its_package_says_what_to_install(boxes_only: Path, tmp_path: Path, refusal: Refusal) -> None:
    paths = [boxes_only, "--image-dir", IMAGES, "--out-path", tmp_path / "masks.json"]
    (checkpoint := tmp_path / "sam_vit_b_01ec64.pth").touch()
    line = refusal("boxes-to-masks", *paths, "--sam-checkpoint", checkpoint)
    assert "pip install segment-anything" in line


@pytest.mark.parametrize("network", [["--nano"], ["--sam2", "nano"]])
def test_boxes_by_class_get_masks_the_ids_of_the_targets_and_become_references(
    network: list[str], tmp_path: Path
) -> None:
    """FSOD-VFM publishes its references in this form."""
    scene = draw_scene(np.random.default_rng(4), NOVEL_CLASSES, (90, 120))
    write_picture(scene.image, tmp_path / "images" / "train" / "a.png")
    shots = {
        "star": [{"image": "CDFSOD/SET/train/a.png", "bbox": [5, 5, 40.5, 30]}],
        "disc": [{"image": "CDFSOD/SET/train/a.png", "bbox": [10, 20, 30, 30]}] * 2,
    }
    (tmp_path / "shots.json").write_text(json.dumps(shots))
    ids = {one["name"]: one["id"] for one in read_json(DATA / "targets.json")["categories"]}
    assert [ids[name] for name in shots] != [1, 2]
    files = [
        "--image-dir",
        tmp_path / "images",
        "--categories",
        DATA / "targets.json",
        "--out",
        tmp_path / "masks.json",
    ]
    main(["boxes-to-masks", *map(str, [tmp_path / "shots.json", *files, *network])])
    made = read_json(tmp_path / "masks.json")
    assert [one["file_name"] for one in made["images"]] == ["train/a.png"]
    assert all(one["segmentation"] for one in made["annotations"])
    main(["references", "from-coco", *map(str, [tmp_path / "masks.json", tmp_path / "references.json"])])
    references = read_references(tmp_path / "references.json")
    assert {category: len(chosen) for category, chosen in references.items()} == {ids["star"]: 1, ids["disc"]: 2}
