"""Masks that SAM 2's memory carries along a stream of frames are those of the sam2 package's predictor for videos."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor

from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.build import build_sam2
from no_time_to_train.networks.registry import NANO_FOLDER, default_checkpoint
from no_time_to_train_extras.video import propagation
from no_time_to_train_extras.video.propagation import Propagator
from tests.conftest import Patch
from tests.seeded_weights import seeded_state_dict

#: What differs in SAM 2.1, and in a SAM 2 that looks at every second frame.
VARIANTS: dict[str, dict[str, Any]] = {
    "sam2": {},
    "sam2.1": {
        "no_obj_embed_spatial": True,
        "add_tpos_enc_to_obj_ptrs": True,
        "proj_tpos_enc_in_obj_ptrs": True,
        "use_signed_tpos_enc_to_obj_ptrs": True,
    },
    "every_second_frame": {"memory_temporal_stride_for_eval": 2},
}

FRAMES, HEIGHT, WIDTH = 9, 90, 130


class Video(NamedTuple):
    """A folder of frames, the frames, uint8 [FRAMES, HEIGHT, WIDTH, 3], and the masks of two objects in the first."""

    folder: Path
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    """Two rectangles of noise that move over noise."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    ground, one, two = (rng.integers(low, high, (HEIGHT, WIDTH, 3)) for low, high in ((0, 100), (90, 255), (0, 255)))
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    masks[0, 20:60, 10:50] = masks[1, 50:80, 70:110] = True
    frames = []
    for time in range(FRAMES):
        frame = ground.copy()
        for colours, mask, speed in ((one, masks[0], 4), (two, masks[1], -3)):
            frame[np.roll(mask, speed * time, axis=1)] = colours[mask]
        Image.fromarray(frame.astype(np.uint8)).save(folder / f"{time}.jpg")
        frames.append(np.array(Image.open(folder / f"{time}.jpg")))
    return Video(folder, np.stack(frames), masks)


def predictor(**changed: Any) -> SAM2VideoPredictor:
    """The nano SAM 2 as a predictor for videos, with seeded weights, memories of 3 frames and pointers of 5."""
    config = OmegaConf.load(NANO_FOLDER / "sam2_nano.yaml").model
    config._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    limits = {"num_maskmem": 3, "max_obj_ptrs_in_encoder": 5, "binarize_mask_from_pts_for_mem_enc": True}
    model = instantiate({**config, **limits, **changed}, _recursive_=True)
    model.load_state_dict(seeded_state_dict({name: value.shape for name, value in model.state_dict().items()}))
    return model.eval().requires_grad_(False)


def propagator(sam2: Any) -> Propagator:
    return Propagator(SimpleNamespace(proposer=MaskProposer(sam2)))


def squares(sam2: Any, video: Video) -> list[torch.Tensor]:
    return [target_tensor(frame, sam2.image_size) for frame in video.frames]


def started(video: Video, sam2: Any = None) -> tuple[Propagator, list[torch.Tensor]]:
    """What carries both objects of the first frame, and the frames as squares."""
    sam2 = sam2 or predictor()
    carrier, images = propagator(sam2), squares(sam2, video)
    carrier.start(images[0], Masks.pack(video.masks), np.array([1, 2]))
    return carrier, images


def carried(sam2: Any, video: Video, rows: slice = slice(None)) -> torch.Tensor:
    """The logits of some objects in the frames after the first, [FRAMES - 1, n, S / 4, S / 4]."""
    carrier, images = propagator(sam2), squares(sam2, video)
    carrier.start(images[0], Masks.pack(video.masks[rows]), np.array([7, 3])[rows])
    return torch.stack([carrier.logits(image)[0] for image in images[1:]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stream_gives_what_the_predictor_for_videos_gives_for_a_folder_of_frames(
    variant: str, video: Video, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(propagation, "AT_ONCE", 1)  # as the predictor: sums of several tracks differ in the last digit
    sam2 = predictor(**VARIANTS[variant])
    state = sam2.init_state(str(video.folder))
    for number, mask in enumerate(video.masks):
        sam2.add_new_mask(state, 0, number, mask)
    expected = torch.stack([logits[:, 0] for _, _, logits in sam2.propagate_in_video(state)][1:])
    tracks = state["output_dict_per_obj"].values()
    outputs = [[one["non_cond_frame_outputs"][time]["pred_masks"][0] for one in tracks] for time in range(1, FRAMES)]
    assert torch.allclose(carried(sam2, video), torch.stack([torch.cat(each) for each in outputs]), atol=1e-4)

    carrier, images = started(video, sam2)
    masks = np.stack([np.asarray(carrier.step(image)[0]) for image in images[1:]])
    assert np.array_equal(masks, expected > 0)
    shares = masks[:4].mean(axis=(2, 3))
    assert (shares > 0.01).all(), "nothing was compared"
    assert (shares[:, 0] != shares[:, 1]).any(), "the tracks were not told apart"


def test_tracks_that_go_through_the_network_together_do_not_change_each_other(video: Video) -> None:
    sam2 = predictor()
    together = carried(sam2, video)
    for row in range(2):
        assert torch.allclose(carried(sam2, video, slice(row, row + 1))[:, 0], together[:, row], atol=5e-3)


def test_what_is_remembered_stops_growing(video: Video) -> None:
    carrier, images = started(video)
    sizes = []
    for image in images[1:] * 2:
        carrier.step(image)
        memories = carrier.groups[0]["non_cond_frame_outputs"].values()
        kept = [memory[name] for memory in memories for name in memory.keys() - {"maskmem_pos_enc"}]
        sizes.append(sum(tensor.numel() for tensor in kept))
    assert sizes[0] < sizes[1] < sizes[3] == sizes[4] == sizes[-1]


def test_a_track_that_is_not_seen_has_an_empty_mask_and_no_predicted_iou(video: Video) -> None:
    sam2 = predictor()
    sam2.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-100)
    carrier, images = started(video, sam2)
    masks, predicted_iou = carrier.step(images[1])
    assert masks.areas.tolist() == predicted_iou.tolist() == [0, 0]


def test_a_frame_without_tracks_has_no_masks(video: Video) -> None:
    sam2 = predictor()
    carrier, images = propagator(sam2), squares(sam2, video)
    carrier.start(images[0], Masks.pack(video.masks[:0]), np.zeros(0, np.int64))
    masks, predicted_iou = carrier.step(images[1])
    assert masks.shape == (0, HEIGHT, WIDTH)
    assert len(predicted_iou) == 0


def test_a_frame_that_the_segmenter_has_seen_is_not_encoded_again(video: Video, monkeypatch: Patch) -> None:
    sam2 = predictor()
    carrier, image = propagator(sam2), squares(sam2, video)[0]
    carrier.proposer.encode(image)
    monkeypatch.setattr(sam2, "forward_image", lambda images: pytest.fail("it was encoded again"))
    carrier.start(image, Masks.pack(video.masks), np.array([1, 2]))


def test_the_nano_network_moves_each_mask_with_its_object() -> None:
    scene = draw_scene(np.random.default_rng(777), NOVEL_CLASSES, (256, 256), (3, 3))
    carrier = propagator(build_sam2("sam2_nano", default_checkpoint("sam2_nano")))
    frames = [np.roll(scene.image, 12 * time, axis=1) for time in range(4)]
    carrier.start(target_tensor(frames[0], 256), Masks.pack(scene.masks), np.arange(3))
    for frame in frames[1:]:
        masks, _ = carrier.step(target_tensor(frame, 256))
    truth = np.roll(scene.masks, 36, axis=2)
    carried, unmoved = (
        (given & truth).sum(axis=(1, 2)) / (given | truth).sum(axis=(1, 2))
        for given in (np.asarray(masks), scene.masks)
    )
    assert carried.mean() > 0.6 > 0.5 > unmoved.mean()
