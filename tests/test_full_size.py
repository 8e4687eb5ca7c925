"""The paper's networks at full size. The test takes minutes and 8 GB of memory."""

from pathlib import Path

import pytest

from no_time_to_train.data.images import read_rgb
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.build import build_sam2, build_vit
from tests.conftest import DATA, save_seeded_checkpoints


@pytest.mark.slow
def test_sam2_l_and_dinov2_l_load_official_checkpoints_and_segment_an_image(tmp_path: Path) -> None:
    sam2_path, dinov2_path = save_seeded_checkpoints(tmp_path, "sam2_hiera_l", "dinov2_large")
    encoder = Encoder(build_vit("dinov2_large", checkpoint=dinov2_path))
    proposer = MaskProposer(build_sam2("sam2_hiera_l", sam2_path), Settings(points_per_side=4, pred_iou_thresh=0))
    image = read_rgb(DATA / "images" / "scene_2.png")
    prototypes = encoder.feature_map(target_tensor(image, 518)[None])[0, :, ::12, ::12].flatten(1).T
    segmenter = Segmenter(encoder, proposer, prototypes, Settings())
    detections = segmenter.segment(target_tensor(image, 1024), *image.shape[:2])
    assert len(detections) > 0
    assert detections.masks.shape[1:] == image.shape[:2]
    assert ((detections.scores > 0) & (detections.scores <= 1)).all()
