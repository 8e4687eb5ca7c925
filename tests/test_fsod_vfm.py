"""configs/fsod_vfm.yaml gives what FSOD-VFM's rule gives, which is written out in tests/fsod_vfm.py."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from no_time_to_train.cli import main
from no_time_to_train.demo.scenes import NOVEL_CLASSES, Scene, draw_scene
from no_time_to_train.method.beyond.free_encoder import FreeEncoder, crop_freely, encoder_view
from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import NEW_SETTINGS, Settings
from no_time_to_train.method.target_image import resize_to_square, target_tensor
from no_time_to_train.networks.build import build_encoder, build_proposer, build_sam2, build_vit
from tests import fsod_vfm
from tests.conftest import DATA, Checkpoints, Refusal, model_options, results, stage_arguments

CONFIG = DATA.parent.parent / "configs" / "fsod_vfm.yaml"
LONG_SIDE = 420


def settings() -> Settings:
    """Those of the configuration."""
    content = yaml.safe_load(CONFIG.read_text())["model"]["init_args"]["model_cfg"]["sam2_infer_cfgs"]
    known = {field.name for field in fields(Settings)}
    assert known >= content.keys() >= set(NEW_SETTINGS)
    return Settings(**content)


def boxes_of(scene: Scene, rng: np.random.Generator, count: int) -> torch.Tensor:
    """The objects' boxes, shaken, and others."""
    height, width = scene.masks.shape[1:]
    corners = []
    for index in range(count):
        ys, xs = np.nonzero(scene.masks[index % len(scene.masks)])
        shake = rng.normal(0, 10, 4)
        corners.append(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) + shake)
    boxes = np.array(corners).clip(0, [width, height] * 2)
    return torch.tensor(boxes[(boxes[:, 2:] > boxes[:, :2] + 1).all(axis=1)], dtype=torch.float32)


@pytest.mark.parametrize("size", [(220, 300), (300, 190), (420, 420)])
@torch.inference_mode()
def test_fifty_boxes_get_the_classes_scores_masks_and_boxes_of_fsod_vfm(
    nano_checkpoints: Checkpoints, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(size[0])
    vit, sam2 = build_vit("dinov2_nano", None, nano_checkpoints[1]), build_sam2("sam2_nano", nano_checkpoints[0])
    encoder = build_encoder("dinov2_nano", LONG_SIDE, nano_checkpoints[1], norm=False, keep_aspect=True)
    proposer = build_proposer("sam2_nano", nano_checkpoints[0], settings())
    segmenter = Segmenter(encoder, proposer, settings=settings())
    shots = [draw_scene(rng, NOVEL_CLASSES, size) for _ in range(3)]
    ours, theirs = [], []
    for scene in shots:
        crop, mask = crop_freely(scene.image, scene.masks[0], [0, 0, 1, 1], LONG_SIDE, None, 14)
        ours.append(segmenter.describe_reference(crop, mask)[0])
        theirs.append(fsod_vfm.reference_vector(vit, scene.image, scene.masks[0], LONG_SIDE))
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), atol=1e-4, rtol=1e-4)

    scene = draw_scene(rng, NOVEL_CLASSES, size)
    boxes = boxes_of(scene, rng, 50)
    order = torch.linspace(0.9, 0.1, len(boxes))
    prototypes = torch.stack(theirs)
    features = fsod_vfm.features_of(vit, scene.image, LONG_SIDE)
    masks = fsod_vfm.masks_of(sam2, target_tensor(scene.image, sam2.image_size), boxes, *size)
    rows, scores, classes = fsod_vfm.detect(features, masks, prototypes)

    segmenter.remember(prototypes)
    square, view = resize_to_square(scene.image, sam2.image_size), encoder_view(scene.image, LONG_SIDE, 14)
    found = segmenter.match_and_merge(segmenter.describe(square, *size, [Given(boxes, order)], view))
    alive = torch.from_numpy(masks[rows].any(axis=(1, 2)))  # an empty mask is no instance here; there it scores 0
    inside = torch.tensor([bool(fsod_vfm.on_cells(masks[row], features).any()) for row in rows])
    kept = alive & inside
    assert kept.sum() > 20
    assert len(found) >= kept.sum()
    mine = dict(zip(map(tuple, found.boxes.tolist()), zip(found.scores, found.classes, strict=True), strict=True))
    for row, score, one in zip(rows[kept], scores[kept], classes[kept], strict=True):
        got = mine[tuple(boxes[row].tolist())]
        assert got[0] == pytest.approx(float(score), abs=1e-4)
        assert got[1] == one
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_an_encoder_at_its_own_size_is_the_papers_but_for_the_norm(nano_checkpoints: Checkpoints) -> None:
    image = draw_scene(np.random.default_rng(1), NOVEL_CLASSES, (336, 336)).image
    papers = build_encoder("dinov2_nano", None, nano_checkpoints[1])
    free = FreeEncoder(build_vit("dinov2_nano", None, nano_checkpoints[1]), norm=True, long_side=336)
    square = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        torch.testing.assert_close(free(square), papers(square))
        free.norm = False
        tokens = papers.vit.norm(free(square))
        torch.testing.assert_close(tokens, papers(square), atol=1e-4, rtol=1e-4)


def test_the_three_stages_run_with_the_configuration(
    nano_checkpoints: Checkpoints, tmp_path: Path, refusal: Refusal
) -> None:
    targets = json.loads((DATA / "targets.json").read_text())["annotations"]
    boxes = [{"image_id": one["image_id"], "bbox": one["bbox"], "score": 0.5} for one in targets]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))

    def stage(mode: str, *more: object) -> list[str]:
        keys = {"sam2_cfg_file": "sam2_nano", "encoder_cfg.img_size": 420, "proposals": tmp_path / "boxes.json"}
        options = model_options({f"model_cfg.{key}": value for key, value in keys.items()})
        words = [*stage_arguments(mode, nano_checkpoints, tmp_path / "out"), "--config", CONFIG, *options, *more]
        return [*map(str, words)]

    filled, memory = tmp_path / "filled.ckpt", tmp_path / "memory.ckpt"
    main(stage("fill_memory", "--out_path", filled))
    main(stage("postprocess_memory", "--ckpt_path", filled, "--out_path", memory))
    main(stage("test", "--ckpt_path", memory))
    found, given = (
        {(one["image_id"], tuple(round(value, 2) for value in one["bbox"])) for one in each}
        for each in (json.loads(results(tmp_path / "out")), boxes)
    )
    assert found <= given
    other = "--ckpt_path", memory, "--model.init_args.model_cfg.encoder_cfg.norm", "true"
    assert "was made with norm False, this run has True" in refusal(*stage("test", *other))
