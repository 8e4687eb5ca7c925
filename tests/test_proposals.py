"""Proposals from files and programs: SAM 2 makes masks of boxes, masks are taken as they are, and the memory judges."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sam2.sam2_image_predictor import SAM2ImagePredictor

from no_time_to_train import ReferenceSegmenter, Settings, UserError
from no_time_to_train.cli import main
from no_time_to_train.data.proposal_files import ProposalFile
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.networks.build import build_sam2
from tests.conftest import DATA, Arguments, Capture, Checkpoints, Photo, assert_same_results, recorded, results

PROPOSALS = "--model.init_args.model_cfg.proposals"
QUALITY = "--model.init_args.model_cfg.sam2_infer_cfgs.quality"
TARGETS = json.loads((DATA / "targets.json").read_text())


def write_boxes(path: Path, scores: float = 0.9, **more: Any) -> Path:
    """The true boxes of the test data as proposals."""
    boxes = [
        {"image_id": one["image_id"], "category_id": 1, "bbox": one["bbox"], "score": scores, **more}
        for one in TARGETS["annotations"]
    ]
    path.write_text(json.dumps(boxes))
    return path


def write_grid(path: Path, checkpoints: Checkpoints, *options: object) -> Path:
    """What the grid proposes in the test data, as ``propose`` writes it."""
    networks = ["--sam2", checkpoints[0], "--dinov2", f"dinov2_nano={checkpoints[1]}", "--points-per-side", 8]
    images = ["--images", DATA / "targets.json", "--image-dir", DATA / "images"]
    main(["propose", *map(str, [*networks, *images, "--out", path, *options])])
    return path


@pytest.fixture(scope="module")
def grid_file(nano_checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grid(tmp_path_factory.mktemp("grid") / "masks.json", nano_checkpoints)


def test_an_image_without_proposals_is_listed(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "black.png")
    options = ["--nano", "--points-per-side", "2", "--device", "cpu"]
    main(["propose", "--images", str(tmp_path), "--out", str(tmp_path / "masks.json"), *options])
    written = json.loads((tmp_path / "masks.json").read_text())
    assert (len(written["images"]), written["annotations"]) == (1, [])


def test_proposals_of_the_grid_from_a_file_give_the_same(arguments: Arguments, grid_file: Path, tmp_path: Path) -> None:
    main(arguments(tmp_path / "grid"))
    main(arguments(tmp_path / "file", PROPOSALS, grid_file))
    found = [json.loads(results(tmp_path / name)) for name in ("grid", "file")]
    assert len(found[0]) > 10
    assert_same_results(*found, atol=1e-5)
    assert [one["segmentation"] for one in found[0]] == [one["segmentation"] for one in found[1]]
    assert recorded(tmp_path / "file")["instances_by_source"] == {"masks.json": len(found[1])}


def test_sam2_makes_the_masks_of_boxes_that_its_own_predictor_makes(nano_checkpoints: Checkpoints) -> None:
    sam2 = build_sam2("sam2_nano", nano_checkpoints[0])
    proposer = MaskProposer(sam2, Settings(multimask=False, no_mem_embed=True))
    predictor = SAM2ImagePredictor(sam2)
    predictor._bb_feat_sizes = [(sam2.image_size // stride,) * 2 for stride in (4, 8, 16)]
    image = draw_scene(np.random.default_rng(3), NOVEL_CLASSES, (256, 256)).image
    boxes = np.array([[20, 30, 120, 90], [0, 0, 256, 256], [200, 100, 230, 180]], np.float32)
    with torch.inference_mode():
        predictor.set_image(image)
        square = torch.from_numpy(image).permute(2, 0, 1) / 255
        embedding, finer = proposer.encode(square)
        torch.testing.assert_close(embedding, predictor._features["image_embed"], atol=1e-4, rtol=1e-4)
        for single in (True, False):
            proposer.multimask = not single
            ours = proposer.decode(embedding, finer, torch.from_numpy(boxes), pred_iou_thresh=-torch.inf)
            _, iou, theirs = predictor.predict(box=boxes, multimask_output=not single, return_logits=True)
            best = iou.argmax(axis=1)
            theirs = torch.from_numpy(theirs[np.arange(3), best])
            torch.testing.assert_close(ours.logits.clamp(-32, 32), theirs, atol=1e-3, rtol=1e-3)
            np.testing.assert_allclose(ours.predicted_iou, iou[np.arange(3), best], atol=1e-4)


def test_the_cache_knows_a_file_of_boxes_by_its_content(arguments: Arguments, tmp_path: Path) -> None:
    boxes = write_boxes(tmp_path / "boxes.json")
    # The predicted IoUs of networks that nobody trained say nothing, and boxes are ranked by their own scores instead.
    options = [PROPOSALS, f"[grid,{boxes}]", QUALITY, "given"]
    cache = ["--model.init_args.cache_dir", tmp_path / "cache"]
    main(arguments(tmp_path / "filled", *options, *cache))
    entries = len(list((tmp_path / "cache").iterdir()))
    main(arguments(tmp_path / "read", *options, *cache))
    assert results(tmp_path / "filled") == results(tmp_path / "read")
    assert len(list((tmp_path / "cache").iterdir())) == entries
    write_boxes(boxes, box_of_another_file=1)  # another file with the same boxes
    main(arguments(tmp_path / "same", *options, *cache))
    assert len(list((tmp_path / "cache").iterdir())) == entries
    write_boxes(boxes, scores=0.8)
    main(arguments(tmp_path / "other", *options, *cache))
    assert len(list((tmp_path / "cache").iterdir())) == 2 * entries
    sources = {one["source"] for one in json.loads(results(tmp_path / "filled"))}
    assert sources == {"grid", "boxes.json"} == set(recorded(tmp_path / "filled")["instances_by_source"])


def test_what_a_file_lacks_or_has_in_vain_is_counted(arguments: Arguments, tmp_path: Path, capsys: Capture) -> None:
    boxes = json.loads(write_boxes(tmp_path / "boxes.json").read_text())
    first = boxes[0]["image_id"]
    kept = [one for one in boxes if one["image_id"] != first]
    more = [
        {"image_id": kept[0]["image_id"], "bbox": [5000, 5000, 10, 10], "score": 0.5},
        {"image_id": kept[0]["image_id"], "bbox": [float("nan"), 0, 10, 10], "score": 0.5},
        {"image_id": 999999, "bbox": [0, 0, 10, 10], "score": 0.5},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps([*kept, *more]))
    main(arguments(tmp_path / "out", PROPOSALS, tmp_path / "boxes.json"))
    printed = capsys.readouterr().out
    assert "1 proposal with NaN or infinity" in printed
    assert "1 proposal outside the image" in printed
    assert "1 image without a proposal" in printed
    assert "1 image of the file that is no target" in printed
    assert first not in {one["image_id"] for one in json.loads(results(tmp_path / "out"))}


def test_images_are_known_by_id_by_path_by_name_and_by_stem(tmp_path: Path) -> None:
    box = {"bbox": [1, 2, 3, 4], "score": 0.5}
    (tmp_path / "boxes.json").write_text(
        json.dumps(
            [{"image_id": one, **box} for one in (7, "stem", "b\\w.jpg", "cafe\u0301.jpg")]
            + [{"file_name": "a/x.jpg", **box}]
        )
    )
    file = ProposalFile(tmp_path / "boxes.json")
    other = ProposalFile(tmp_path / "boxes.json")
    assert len(other.given(None, "photos/x.jpg", 50, 50)) == 1
    with pytest.raises(
        UserError, match=r"'a/x\.jpg' means both photos/x\.jpg and more/x\.jpg: write file_name with its"
    ):
        other.given(None, "more/x.jpg", 50, 50)
    known = [(7, "other.jpg"), (None, "a/x.jpg"), (None, "stem.png"), (None, "w.jpg"), (None, "café.jpg")]
    assert [len(file.given(*one, 50, 50)) for one in known] == [1] * 5
    assert file.given(7, "", 50, 50).boxes.tolist() == [[1, 2, 4, 6]]
    assert len(file.given(None, "y.jpg", 50, 50)) == 0


def test_a_mask_of_another_size_than_its_image_is_refused_with_the_file(tmp_path: Path) -> None:
    record = {"image_id": "b", "segmentation": encode_mask(np.ones((30, 40), bool)), "score": 0.5}
    (tmp_path / "masks.json").write_text(json.dumps([record]))
    with pytest.raises(UserError, match=r"masks\.json: a result of image b: its mask is 40x30, its image 80x60"):
        ProposalFile(tmp_path / "masks.json").given(None, "b.png", 60, 80)


def test_only_the_best_proposals_of_an_image_are_kept(tmp_path: Path) -> None:
    boxes = [{"image_id": 1, "xyxy": [0, 0, 9, 9], "score": score} for score in (0.1, 0.9, 0.5)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    given = ProposalFile(tmp_path / "boxes.json", most=2).given(1, "", 50, 50)
    assert given.scores.tolist() == pytest.approx([0.9, 0.5])


def proposing_corner(pixels: Any) -> Given:
    """A proposer of one's own: the upper left quarter."""
    mask = np.zeros(pixels.shape[:2], bool)
    height, width = (side // 2 for side in mask.shape)
    mask[:height, :width] = True
    return Given(torch.tensor([[0.0, 0, width, height]]), torch.ones(1), Masks.pack(mask[None]))


def test_python_takes_boxes_functions_and_several_sources(photo: Photo) -> None:
    segmenter = ReferenceSegmenter.from_pretrained(
        "nano", settings=Settings(points_per_side=4, pred_iou_thresh=0), proposer=["grid", proposing_corner]
    )
    segmenter.add_reference("thing", photo.path, photo.mask)
    found = segmenter.segment(photo.path, threshold=0)
    assert {one["source"] for one in found.to_coco()} == {"grid", "proposing_corner"}
    ys, xs = np.nonzero(photo.mask)
    box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
    boxed = segmenter.classify(segmenter.propose(photo.path, boxes=[box]), threshold=0)
    assert len(boxed) == 1
    assert (boxed[0].mask & photo.mask).sum() > 0.8 * photo.mask.sum()
    with pytest.raises(UserError, match="outside the image"):
        segmenter.propose(photo.path, boxes=[[5000, 0, 6000, 9]])
    with pytest.raises(UserError, match="give boxes"):
        segmenter.propose(photo.path, scores=[0.5])


def test_segment_reads_proposals_by_file_name_and_says_where_instances_are_from(photo: Photo, tmp_path: Path) -> None:
    boxes = [{"image_id": "photo.png", "bbox": [10, 10, 60, 60], "score": 0.7}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    shown = ["segment", "--reference", photo.reference(), "--images", photo.path, "--nano", "--points-per-side", 4]
    both = ["--proposals", "grid", "--proposals", tmp_path / "boxes.json", "--threshold", 0, "--out", tmp_path / "out"]
    main([*map(str, [*shown, *both])])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {one["source"] for one in found} == {"grid", "boxes.json"}
    assert '"source": "boxes.json"' in (tmp_path / "out" / "index.html").read_text()
    run = json.loads((tmp_path / "out" / "run.json").read_text())["segment"]
    assert sum(run["instances_by_source"].values()) == len(found)
