"""Checkpoints are recognized by their tensors, missing ones are named at once, and names choose networks."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from no_time_to_train import ReferenceSegmenter, Settings, UserError
from no_time_to_train.config import EncoderCfg, ModelCfg
from no_time_to_train.networks.box_prompts import build_box_segmenter
from no_time_to_train.networks.build import build_sam2, build_vit
from no_time_to_train.networks.checkpoints import describe, identify, load_strictly, read_checkpoint, recognize
from no_time_to_train.networks.devices import default_device, store_weights, to_device
from no_time_to_train.networks.pretrained import build_pretrained
from no_time_to_train.networks.registry import (
    DINOV2_NAMES,
    SAM2_NAMES,
    Network,
    check_exist,
    default_checkpoint,
    find_network,
    find_networks,
)
from tests.attacks.test_cases import cases_in
from tests.conftest import DATA, Patch, Refusal

CONFIGS = sorted((DATA.parents[1] / "configs").glob("*.yaml"))
NANO = default_checkpoint("sam2_nano"), default_checkpoint("dinov2_nano")


def shapes_of(name: str, monkeypatch: Patch) -> dict[str, torch.Size]:
    """The shapes of a network's official checkpoint, without its weights."""
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))  # Hiera reads its values
    with torch.device("meta"):
        network = (build_sam2 if name in SAM2_NAMES.values() else build_vit)(name)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    if "reg_token" in shapes:  # as timm calls it
        shapes["register_tokens"] = shapes.pop("reg_token")
    return shapes


class TestRecognition:
    """Which network a checkpoint belongs to."""

    @pytest.mark.parametrize("name", [*SAM2_NAMES.values(), *DINOV2_NAMES.values()])
    def test_all_networks_are_told_apart_by_their_shapes(self, name: str, monkeypatch: Patch) -> None:
        assert identify(shapes_of(name, monkeypatch)) == name

    @pytest.mark.parametrize(
        ("name", "form"),
        [("my model", "zip"), ("v2.1", "old"), ("weights.pt", "safetensors"), ("weights.safetensors", "safetensors")],
    )
    def test_a_checkpoint_may_have_any_file_name(self, name: str, form: str, tmp_path: Path) -> None:
        paths = tmp_path / "sam2", tmp_path / "dinov2"
        for official, folder in zip(NANO, paths, strict=True):
            folder.mkdir()
            weights = load_file(official)
            if form == "safetensors":
                save_file(weights, folder / name)
            else:
                torch.save({"model": weights}, folder / name, _use_new_zipfile_serialization=form == "zip")
        segmenter = ReferenceSegmenter.from_pretrained(paths[0] / name, str(paths[1] / name), device="cpu")
        assert segmenter.made_with["encoder"] == "dinov2_nano"
        assert segmenter.prompts.name == "sam2_nano"

    def test_a_box_segmenter_is_recognized_as_well(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_bytes(NANO[0].read_bytes())
        segmenter = build_box_segmenter(*find_network(tmp_path / "mine", SAM2_NAMES), None, "cpu")
        assert segmenter.name.startswith("sam2_nano ")

    @pytest.mark.parametrize("case", cases_in("other_checkpoints"))
    def test_other_checkpoints_are_named(self, case: dict[str, Any], tmp_path: Path) -> None:
        path = tmp_path / "a.pt"
        torch.save({key: torch.zeros(shape) for key, shape in case["shapes"].items()}, path)
        for names, wanted in ((SAM2_NAMES, "SAM 2"), (DINOV2_NAMES, "DINOv2")):
            with pytest.raises(UserError) as error:
                recognize(Network(None, path), names)
            assert f"a.pt is not one of {wanted}: it holds {case['refused']}" in str(error.value)

    def test_the_two_networks_are_not_swapped(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"dinov2_nano\.safetensors is not one of SAM 2: it holds dinov2_nano"):
            ReferenceSegmenter.from_pretrained(*NANO[::-1])
        with pytest.raises(UserError, match=r"it belongs to another network; it holds sam2_nano, which ships"):
            build_vit("dinov2_nano", 336, checkpoint=NANO[0])

    def test_official_checkpoints_are_described(self, monkeypatch: Patch) -> None:
        assert describe(shapes_of("sam2.1_hiera_l", monkeypatch)) == "SAM 2.1 Hiera-L"
        assert describe(shapes_of("dinov2_small_reg", monkeypatch)) == "DINOv2 ViT-S/14, registers"


@pytest.mark.parametrize(("found", "taken"), [("cuda", "cuda"), ("xpu", "xpu"), ("mps", "cpu"), (None, "cpu")])
def test_an_accelerator_is_taken_except_an_untried_one(found: str | None, taken: str, monkeypatch: Patch) -> None:
    accelerator = found and torch.device(found)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: accelerator)
    assert default_device() == taken


class TestMissingCheckpoints:
    """All of them are named, with one command."""

    def test_both_are_named_with_one_command(self, tmp_path: Path, monkeypatch: Patch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError) as error:
            find_networks("sam2.1_hiera_tiny", "dinov2_vits14")
        assert str(error.value) == (
            "checkpoints not found: checkpoints/sam2.1_hiera_tiny.pt, checkpoints/dinov2_vits14_pretrain.pth; get them "
            "with: no-time-to-train download sam2.1_hiera_tiny dinov2_vits14; or try the small networks that ship with "
            'this package: --nano, in Python "nano"'
        )

    def test_a_file_of_ones_own_is_named_alone(self) -> None:
        with pytest.raises(UserError, match=r"^checkpoint not found: nowhere/my\.pt$"):
            check_exist("nowhere/my.pt", NANO[0], "nowhere/my.pt")


def test_a_device_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match="device cuda:99 cannot be used: "):
        to_device("cuda:99", torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match="device tpu cannot be used: "):
        to_device("tpu", torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match="device  cannot be used: "):  # nor are "" and 0 the default
        to_device("", torch.nn.Linear(1, 1))


@pytest.mark.parametrize(("precision", "half"), [("bfloat16", torch.bfloat16), ("16-mixed", torch.float16)])
def test_stored_weights_give_the_bits_of_those_that_are_cast_in_every_call(precision: str, half: torch.dtype) -> None:
    segmenter, *_ = build_pretrained("nano", device="cpu", settings=Settings(points_per_side=3))
    image = torch.rand(3, 256, 256)

    def outputs() -> list[torch.Tensor]:
        with torch.inference_mode(), torch.autocast("cpu", half):
            found = segmenter.proposer(image.clone())
            return [segmenter.encoder.feature_map(image[None]), found.logits, found.predicted_iou]

    cast = outputs()
    store_weights("float32", segmenter)
    assert {weight.dtype for weight in segmenter.parameters()} == {torch.float32}
    store_weights(precision, segmenter)
    assert segmenter.encoder.vit.blocks[0].attn.qkv.weight.dtype == half
    assert all(map(torch.equal, cast, outputs()))


def test_no_random_weights_are_drawn_where_a_checkpoint_replaces_them() -> None:
    called = set()

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.add(func.__name__)
            return func(*args, **kwargs or {})

    with Seen():
        build_pretrained("nano", device="cpu")
    assert called & {"uniform_", "normal_", "kaiming_uniform_", "erfinv_"} == set()


class TestConfiguration:
    """Names choose networks, and networks choose checkpoints and sizes, with every configuration that ships."""

    @pytest.mark.parametrize(
        ("config", "null", "stage"),
        [
            *((path, True, "test") for path in CONFIGS),
            *((CONFIGS[0], null, "fill_memory") for null in (False, True)),
            (CONFIGS[0], False, "test"),
        ],
    )
    def test_other_networks_ask_for_exactly_their_checkpoints(
        self, config: Path, null: bool, stage: str, tmp_path: Path, monkeypatch: Patch, refusal: Refusal
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "memory.ckpt").touch()
        model = "--model.model_cfg"
        options = [f"{model}.sam2_cfg_file", "sam2.1_hiera_t", f"{model}.encoder_cfg.name", "dinov2_small"]
        if null:
            options += [f"{model}.sam2_ckpt_path", "null", f"{model}.encoder_ckpt_path", "null"]
        if stage == "test":
            options += ["--ckpt_path", "memory.ckpt"]
        line = refusal("test", "--config", config, "--model.test_mode", stage, *options)
        dinov2 = "checkpoints/dinov2_vits14_pretrain.pth"
        missing = {
            "test": f"checkpoints not found: checkpoints/sam2.1_hiera_tiny.pt, {dinov2}; get ",
            "fill_memory": f"checkpoint not found: {dinov2}; get ",
        }
        assert missing[stage] in line

    def test_sizes_and_context_follow_the_network(self) -> None:
        assert (EncoderCfg("dinov2_nano").input_size, EncoderCfg("dinov2_small").input_size) == (336, 518)
        assert (EncoderCfg("dinov2_nano").context_ratio, EncoderCfg("dinov2_small").context_ratio) == (4, 0.2)

        model_cfg = ModelCfg("sam2_nano", encoder_cfg=EncoderCfg("dinov2_nano"))
        assert (model_cfg.sam2_checkpoint, model_cfg.encoder_checkpoint) == NANO
        assert ModelCfg(sam2_ckpt_path="my.pt").sam2_checkpoint == Path("my.pt")


def test_sam2_is_built_without_the_first_gpu(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # sam2 would move tensors to it, and fail here
    built = build_sam2("sam2_nano")
    assert {value.device.type for value in built.state_dict().values()} == {"cpu"}


def test_a_checkpoint_may_hold_what_batch_normalization_counted(tmp_path: Path) -> None:
    trained, loaded = (torch.nn.Sequential(torch.nn.BatchNorm2d(3)) for _ in range(2))
    trained(torch.rand(2, 3, 4, 4))
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    load_strictly(loaded, read_checkpoint(tmp_path / "trained.pt"), tmp_path / "trained.pt")
    torch.testing.assert_close(loaded.state_dict(), trained.state_dict())
