"""Several images, or tiles of one, in the encoders at once: the results are those of one after the other."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from no_time_to_train import Instances, ReferenceSegmenter
from no_time_to_train.cli import main
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.errors import UserNotice
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fast.at_once import images_at_once
from no_time_to_train.pipeline.segment_images import depends_on
from tests.conftest import Checkpoints, Patch, Photo, nano_segmenter, stage_arguments
from tests.stand_in import StandIn, run

GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def photos(photo: Photo, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three pictures of different sizes."""
    folder, picture = tmp_path_factory.mktemp("photos"), Image.open(photo.path)
    paths = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        picture.resize((picture.width + 10 * number, picture.height)).save(path)
    return paths


def shown(photo: Photo, **settings: Any) -> tuple[ReferenceSegmenter, dict[str, list[int]]]:
    """The nano networks, and how many images each encoder takes in each of its calls from now on."""
    segmenter = nano_segmenter(6, **settings)
    segmenter.add_reference("thing", photo.path, photo.mask)
    seen: dict[str, list[int]] = {"encoder": [], "sam2": []}
    networks = segmenter.segmenter.encoder.vit.patch_embed, segmenter.segmenter.proposer.sam2.image_encoder
    for name, network in zip(seen, networks, strict=True):
        network.register_forward_pre_hook(lambda _, given, seen=seen[name]: seen.append(len(given[0])))
    return segmenter, seen


def same(found: list[Instances], expected: list[Instances]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other) > 0
        torch.testing.assert_close(one.detections.scores, other.detections.scores, atol=1e-5, rtol=0)
        assert (one.masks != other.masks).mean() < 1e-4


TILES = {"tiles": 2}, [2, 2, 1] * 3


@pytest.mark.parametrize(("settings", "calls"), [({}, [2, 1]), TILES, ({"prompts": "guided"}, [2, 1])])
def test_images_or_the_tiles_of_each_share_the_calls_of_both_encoders(
    photo: Photo, photos: list[Path], settings: dict[str, Any], calls: list[int]
) -> None:
    one_by_one, together = (shown(photo, images_per_batch=count, **settings) for count in (1, 2))
    expected = list(one_by_one[0].segment_many(photos, 0, progress=False))
    same(list(together[0].segment_many(photos, 0, progress=False)), expected)
    assert together[1] == {"encoder": calls, "sam2": calls}
    assert set(one_by_one[1]["sam2"]) == {1}


def test_compiled_encoders_always_see_the_same_so_that_they_are_translated_once_before_the_first_image(
    photo: Photo, photos: list[Path], monkeypatch: Patch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    segmenter, seen = shown(photo, images_per_batch=2)
    assert segmenter.segmenter.proposer is not None
    encoder, known = segmenter.segmenter.proposer.sam2.image_encoder, []
    encoder.register_forward_pre_hook(lambda *_: known.append(len(encoder.neck.position_encoding.cache)))
    before = depends_on(segmenter)
    segmenter.compile()
    assert depends_on(segmenter) == {**before, "compile": True}
    assert seen == {"encoder": [2], "sam2": [2]}
    found = list(segmenter.segment_many(photos, 0, progress=False))
    assert seen == {"encoder": [2, 2, 2], "sam2": [2, 2, 2]}, "the last of three images is seen twice"
    assert known == [4, 4, 4], "position encodings, which the encoder would else add in its first call"
    same(found, list(shown(photo)[0].segment_many(photos, 0, progress=False)))


def test_references_share_the_calls_of_the_encoder(
    photo: Photo, nano_checkpoints: Checkpoints, memory: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    sizes: list[int] = []
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda *given: (sizes.append(len(given[1])), forward(*given))[1])
    words = [*stage_arguments("fill_memory", nano_checkpoints, tmp_path), "--out_path", str(tmp_path / "memory.ckpt")]
    main([*words, "--model.init_args.model_cfg.sam2_infer_cfgs.images_per_batch", "4"])
    found, expected = load_memory(tmp_path / "memory.ckpt"), load_memory(memory)
    assert sizes == [min(4, len(expected) - first) for first in range(0, len(expected), 4)]
    torch.testing.assert_close(found.vectors, expected.vectors, atol=1e-5, rtol=0)
    assert found.class_index.tolist() == expected.class_index.tolist()


def test_the_frames_of_a_video_share_the_calls_of_both_encoders_and_each_has_its_objects(
    photo: Photo, photos: list[Path]
) -> None:
    one_by_one, together = (shown(photo, images_per_batch=count) for count in (1, 2))
    expected = list(one_by_one[0].track(photos[0].parent, threshold=0.1))
    found = list(together[0].track(photos[0].parent, threshold=0.1))
    assert together[1] == {"encoder": [2, 1], "sam2": [2, 1]}
    assert [frame.track_ids.tolist() for frame in found] == [frame.track_ids.tolist() for frame in expected]
    same([frame.instances for frame in found[2:]], [frame.instances for frame in expected[2:]])


def test_a_full_gpu_halves_the_images_at_once_with_a_notice_and_the_same_result(
    photo: Photo, photos: list[Path]
) -> None:
    segmenter, seen = shown(photo, images_per_batch=3)
    expected = [segmenter.segment(path, 0) for path in photos]
    seen["sam2"].clear()

    def small(_: object, given: tuple[torch.Tensor]) -> None:
        if len(given[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    segmenter.segmenter.proposer.sam2.image_encoder.register_forward_pre_hook(small)
    with pytest.warns(UserNotice, match="from now on 1 images at once, .*images_per_batch"):
        same(list(segmenter.segment_many(photos, 0, progress=False)), expected)
    assert seen["sam2"] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_memory_that_is_too_small_for_one_image_ends_a_command_in_one_line(
    photo: Photo, tmp_path: Path, error: Exception, refusal: Callable[..., str], monkeypatch: Patch
) -> None:
    monkeypatch.setattr(Encoder, "forward", Mock(side_effect=error))
    command = ["segment", "--reference", photo.reference(), "--images", photo.path, "--out", tmp_path / "out", "--nano"]
    assert f"the memory is too small: {error}; give a smaller --preset" in refusal(*command, "--device", "cpu")


@pytest.mark.parametrize(("gibibytes", "count"), [(80, 8), (16, 4), (2, 1)])
def test_the_memory_of_a_gpu_decides_and_a_cpu_takes_one(monkeypatch: Patch, gibibytes: int, count: int) -> None:
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda _: (gibibytes << 30, 80 << 30))
    assert images_at_once(None, GPU).count == count
    assert images_at_once(5, GPU).count == 5
    assert images_at_once(None, torch.device("cpu")).count == 1


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_segment_keeps_what_was_done_of_a_batch_and_names_what_it_cannot_read(
    photos: list[Path], tmp_path: Path, at_once: int
) -> None:
    shutil.copytree(photos[0].parent, tmp_path / "photos")
    (tmp_path / "photos" / "1a.png").write_bytes(photos[0].read_bytes()[:100])
    killed, resuming = StandIn(calls=2, error=KeyboardInterrupt()), StandIn()
    killed.segmenter.images.count = resuming.segmenter.images.count = at_once
    run(tmp_path / "out", tmp_path / "photos", killed)
    done = run(tmp_path / "out", tmp_path / "photos", resuming)
    assert (done.done_before, resuming.seen, done.images, len(done.skipped)) == (2, 1, 3, 1)
    assert "1a.png" in done.skipped[0]
