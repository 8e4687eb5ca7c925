"""Presets, precision and the compiled decoder: which networks are built, and how they compute."""

import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from no_time_to_train import ReferenceSegmenter, Settings, UserError
from no_time_to_train.cli import main
from no_time_to_train.errors import UserNotice
from no_time_to_train.lightning_module import NoTimeToTrain
from no_time_to_train.method.mask_proposals import MaskProposer, point_grid
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks import download, registry
from no_time_to_train.networks.build import build_encoder, build_sam2
from no_time_to_train.networks.devices import check_precision, computing_in, notice_slow_bfloat16
from no_time_to_train.networks.registry import PRESETS, find_networks
from no_time_to_train.pipeline.stage import RunCfg
from tests.conftest import Checkpoints, Patch, Photo, nano_segmenter


@pytest.mark.parametrize("preset", [None, "accurate", "balanced", "fast"])
def test_a_preset_names_its_networks_and_others_override_it(preset: Any, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    download_both = f"download --preset {preset}" if preset else "download sam2_hiera_large dinov2_vitl14"
    with pytest.raises(UserError, match=f"get them with: no-time-to-train {download_both}; or"):
        find_networks(preset=preset)
    Path("checkpoints").mkdir()
    for checkpoint in registry.CHECKPOINTS.values():
        (tmp_path / "checkpoints" / checkpoint.file_name).touch()
    sam2, dinov2, _ = PRESETS[preset or "accurate"]
    wanted = ((sam2, registry.SAM2_NAMES), (dinov2, registry.DINOV2_NAMES))
    assert find_networks(preset=preset) == tuple(registry.find_network(*one) for one in wanted)
    both = find_networks("sam2_hiera_small", preset=preset)
    assert [network.name for network in both] == ["sam2_hiera_s", registry.DINOV2_NAMES[dinov2]]


class Built(Exception):
    """The arguments of ``from_pretrained``; it ends the command where the networks would be built."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (None, None, None, "grid", "float32")),
        (["--preset", "fast"], (None, None, "fast", "guided", "float32")),
        (["--preset", "balanced", "--prompts", "grid"], (None, None, "balanced", "grid", "float32")),
        (["--preset", "fast", "--dinov2", "dinov2_vitl14"], (None, "dinov2_vitl14", "fast", "guided", "float32")),
        (["--nano", "--prompts", "guided", "--precision", "bfloat16"], ("nano", None, None, "guided", "bfloat16")),
    ],
)
def test_segment_builds_the_networks_of_its_options(
    options: list[str], expected: tuple[str | None, ...], photo: Photo, tmp_path: Path, monkeypatch: Patch
) -> None:
    def capture(sam2: Any, dinov2: Any, *, preset: Any, settings: Settings, precision: str, **_: Any) -> None:
        raise Built(sam2, dinov2, preset, settings.prompts, precision)

    monkeypatch.setattr(ReferenceSegmenter, "from_pretrained", capture)
    monkeypatch.setattr(registry, "check_exist", lambda *_, **__: None)
    target = ["--images", str(photo.path), "--out", str(tmp_path / "out")]
    with pytest.raises(Built) as built:
        main(["segment", "--reference", photo.reference(), *target, *options])
    assert built.value.args == expected


def test_an_unknown_preset_or_precision_is_named() -> None:
    with pytest.raises(UserError, match="preset must be one of accurate, balanced, fast, not 'quick'"):
        ReferenceSegmenter.from_pretrained(preset="quick")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="precision must be one of float32, bfloat16, tf32, not 'half'"):
        ReferenceSegmenter.from_pretrained("nano", precision="half")  # type: ignore[arg-type]


def test_a_preset_downloads_its_two_checkpoints(tmp_path: Path, monkeypatch: Patch) -> None:
    names = []
    monkeypatch.setattr(download, "download", lambda name, _: names.append(name))
    main(["download", "--preset", "fast", "--folder", str(tmp_path)])
    assert names == ["sam2.1_hiera_tiny", "dinov2_vits14"]
    assert PRESETS["accurate"] == ("sam2_hiera_large", "dinov2_vitl14", "grid"), "the paper's"


def test_all_networks_compute_in_a_precision_and_results_are_close(nano_checkpoints: Checkpoints, photo: Photo) -> None:
    scores = {}
    for precision in ("float32", "bfloat16"):
        chosen: Any = {"device": "cpu", "settings": Settings(points_per_side=6), "precision": precision}
        segmenter = ReferenceSegmenter.from_pretrained(*nano_checkpoints, **chosen)
        types: dict[str, set[torch.dtype]] = defaultdict(set)
        sam2 = segmenter.segmenter.proposer.sam2
        for name, layer in {
            "DINOv2": segmenter.segmenter.encoder.vit.blocks[0].attn.qkv,
            "SAM 2": sam2.image_encoder.trunk.blocks[0].attn.qkv,
            "decoder": sam2.sam_mask_decoder.iou_prediction_head.layers[0],
        }.items():
            layer.register_forward_hook(lambda _, __, out, seen=types[name]: seen.add(out.dtype))
        segmenter.add_reference("thing", photo.path, box=(20, 20, 60, 60))
        assert all(types.values()), "the reference's box needs all three"
        found = segmenter.segment(photo.path, threshold=0.0)
        assert all(seen == {getattr(torch, precision)} for seen in types.values()), types
        assert segmenter.memory.vectors.dtype == torch.float32
        scores[precision] = found.scores[0]
    assert scores["float32"] != scores["bfloat16"]
    assert scores["float32"] == pytest.approx(scores["bfloat16"], abs=0.05)


def test_a_processor_without_bfloat16_gets_a_notice(monkeypatch: Patch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for instructions in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, instructions, lambda: False)
    with pytest.warns(UserNotice, match="slower than float32"):
        notice_slow_bfloat16(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notice_slow_bfloat16(torch.device("cpu"))


def test_tf32_is_set_while_networks_compute_and_refused_where_a_device_lacks_it(monkeypatch: Patch) -> None:
    gpu, before = torch.device("cuda:1"), torch.get_float32_matmul_precision()
    with computing_in("tf32", gpu):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before == "highest"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    check_precision("tf32", gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for device in (gpu, torch.device("cpu")):
        with pytest.raises(UserError, match=f"tf32 needs an NVIDIA GPU of .* which {device} is not: choose float32"):
            check_precision("tf32", device)


@torch.inference_mode()
def test_the_compiled_decoder_sees_padded_batches_of_one_size(
    nano_checkpoints: Checkpoints, monkeypatch: Patch
) -> None:
    proposer = MaskProposer(build_sam2("sam2_nano", nano_checkpoints[0]), Settings(points_per_side=5))
    encoded = proposer.encode(torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0)))
    proposer.decoder.cpu_prompts = 16
    points = point_grid(5, 256)
    proposer.pred_iou_thresh = float(proposer.decode(*encoded, points).predicted_iou.median())
    expected = proposer.decode(*encoded, points)
    assert 0 < len(expected) < len(points)
    sizes, options = [], []

    def compile_nothing(function: Any, **given: Any) -> Any:
        options.append(given)
        return lambda prompts, shared: (sizes.append(len(prompts)), function(prompts, shared))[1]

    monkeypatch.setattr(torch, "compile", compile_nothing)
    proposer.decoder.static = True
    found = proposer.decode(*encoded, points)
    assert sizes == [16, 16], "of 25 points, the last 9 are padded"
    assert options == [{"dynamic": False, "mode": None}]
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.predicted_iou, expected.predicted_iou)


@pytest.mark.slow
def test_compiled_networks_find_the_same_but_for_the_last_digits(photo: Photo) -> None:
    segmenter = nano_segmenter(4)
    segmenter.add_reference("thing", photo.path, photo.mask)
    found = segmenter.segment(photo.path, threshold=0)
    segmenter.compile()
    again = segmenter.segment(photo.path, threshold=0)
    np.testing.assert_allclose(again.scores, found.scores, atol=1e-3)
    assert (again.labels == found.labels).all()


@pytest.mark.parametrize("wanted", [False, True])
def test_compile_decoder_reaches_the_decoder(wanted: bool, nano_checkpoints: Checkpoints, monkeypatch: Patch) -> None:
    proposer = MaskProposer(build_sam2("sam2_nano", nano_checkpoints[0]))
    module = NoTimeToTrain("test", None, None, compile_decoder=wanted)  # type: ignore[arg-type]
    segmenter = Segmenter(build_encoder("dinov2_nano", None, nano_checkpoints[1]), proposer)

    module.stage = Mock(run=RunCfg(), build=lambda: segmenter)
    module.build()
    assert proposer.decoder.static == wanted
