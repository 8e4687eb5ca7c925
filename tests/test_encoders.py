"""Encoders besides DINOv2 (docs/encoders.md): their inputs, tokens, checkpoints and names, and debiasing."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from no_time_to_train import ReferenceSegmenter, UserError
from no_time_to_train.cli import main
from no_time_to_train.config import DatasetCfgs, EncoderCfg, ModelCfg, TargetDatasetCfg
from no_time_to_train.data.memory_files import join_memories, load_memory, save_memory, weights_of
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.networks import timm_models
from no_time_to_train.networks.build import build_encoder, build_vit
from no_time_to_train.networks.checkpoints import encoder_width, identify, read_shapes, recognize
from no_time_to_train.networks.encoders import DINOV2_NANO, ENCODERS, NAME_OF_FILE
from no_time_to_train.networks.registry import ENCODER_NAMES, Network, default_checkpoint, find_network, find_networks
from no_time_to_train.pipeline.find_instances_stage import FindInstancesStage
from no_time_to_train.pipeline.stage import RunCfg
from tests.conftest import DATA, Checkpoints, Patch, Photo
from tests.encoder_weights import (
    DEPTH,
    OFFICIAL,
    SMALLEST,
    TINY,
    official_dinov3,
    official_pe,
    seeded,
)

Named = tuple[str, Encoder]
BUILD, CONFIGURE = (build_encoder,), (EncoderCfg,)
BOTH = BUILD + CONFIGURE


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """Vision transformers of few blocks."""
    create = timm_models.create
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))  # old versions of timm read its values
        depth = lambda name: {"depth": DEPTH} if "vit_" in name else {}  # noqa: E731
        patch.setattr(timm_models, "create", lambda name, **options: create(name, **depth(name), **options))
        yield


@pytest.fixture(scope="module", params=list(SMALLEST))
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Named:
    """The smallest network of a family with an input of 4 x 4 patches, built from timm's file, and its name."""
    name = request.param
    path = tmp_path_factory.mktemp("encoder") / "model.safetensors"
    save_file({**seeded(name, SMALLEST[name]), "head.weight": torch.zeros(3, 3)}, path)
    return name, build_encoder(name, SMALLEST[name], checkpoint=path)


def image_of(side: int) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_there_is_one_token_per_patch_in_row_major_order(network: Named) -> None:
    name, encoder = network
    assert encoder.grid == 4
    patch = encoder.size // 4
    images = torch.full((5, 3, encoder.size, encoder.size), 0.5)
    places = [(0, 0), (0, 3), (2, 1), (3, 3)]
    generator = torch.Generator().manual_seed(0)
    for image, (row, column) in zip(images[1:], places, strict=True):
        area = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        area.copy_(torch.rand(area.shape, generator=generator))
    tokens = encoder(images)
    assert tokens.shape == (5, 16, encoder.dim)
    assert tokens.dtype == torch.float32
    assert encoder.dim == encoder_width(name)
    changed = (tokens[1:] - tokens[:1]).norm(dim=2).argmax(dim=1)
    assert changed.tolist() == [row * 4 + column for row, column in places]
    assert torch.equal(encoder.feature_map(images)[2, :, 0, 3], tokens[2, 3])


def test_images_are_normalized_as_timm_states(network: Named) -> None:
    name, encoder = network
    config = timm.get_pretrained_cfg(ENCODERS[name].timm if name in ENCODERS else name.removeprefix("timm:"))
    image = image_of(encoder.size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    expected = encoder.vit.forward_features((image - mean) / std)[:, encoder.vit.num_prefix_tokens :]
    torch.testing.assert_close(encoder(image), expected)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_the_table_agrees_with_timm(name: str) -> None:
    info = ENCODERS[name]
    size, patch, width = timm_models.measure(info.timm)
    assert (info.patch, info.width) == (patch, width)
    assert info.size == (592 if name.startswith("dinov3") else size)
    assert info.size % patch == 0
    assert info.timm_page == timm_models.hub_page(info.timm)


@pytest.mark.parametrize("name", ["dinov3_7b", "dinov3_small_plus"])
def test_a_dinov3_has_the_map_of_a_dinov2(name: str) -> None:
    with torch.device("meta"):
        encoder = Encoder(build_vit(name))
    assert (encoder.size, encoder.grid, encoder.vit.num_prefix_tokens) == (592, 37, 5)
    assert EncoderCfg(name).input_size == 592
    assert EncoderCfg(name).context_ratio == 0.2


def test_official_names_give_the_same_tokens(network: Named, tmp_path: Path) -> None:
    name, encoder = network
    if name not in OFFICIAL:
        pytest.skip("timm publishes the only file")
    torch.save({"state_dict": OFFICIAL[name](seeded(name, encoder.size))}, tmp_path / "official.pt")
    official = build_encoder(name, encoder.size, checkpoint=tmp_path / "official.pt")
    if name in ("dinov3_small", "tipsv2_base"):
        assert identify(read_shapes(tmp_path / "official.pt")) == name
    image = image_of(encoder.size)
    close = {"rtol": 1e-2, "atol": 1e-2} if name.startswith("clip") else {"rtol": 1e-4, "atol": 1e-5}  # half
    torch.testing.assert_close(official(image), encoder(image), **close)


def test_position_embeddings_are_resampled(tmp_path: Path) -> None:
    torch.save(official_pe(seeded("PE-Spatial-T16-512", 64)), tmp_path / "official.pt")
    assert build_encoder("PE-Spatial-T16-512", 96, checkpoint=tmp_path / "official.pt").grid == 6


def test_biases_of_dinov3_are_not_lost(tmp_path: Path) -> None:
    """timm has variants with and without them; their value decides."""
    for bias in (0.0, 0.5):
        torch.save(official_dinov3(seeded("dinov3_small", 64), bias), tmp_path / "official.pth")
        vit: Any = build_vit("dinov3_small", 64, checkpoint=tmp_path / "official.pth")
        used = vit.blocks[1].attn.q_bias
        assert used is None if bias == 0 else torch.equal(used, torch.full((384,), 0.5))


def test_loading_is_strict(network: Named, tmp_path: Path) -> None:
    name, encoder = network
    weights = dict(seeded(name, encoder.size))
    del weights["blocks.1.mlp.fc2.bias"]
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a\.safetensors lacks the key 'blocks\.1\.mlp\.fc2\.bias': it belongs"):
        build_encoder(name, encoder.size, checkpoint=tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", [name for name in ENCODERS if name.startswith(("dinov3", "tipsv2"))])
def test_tensors_show_the_network_and_the_name_of_the_file_where_they_do_not(name: str, monkeypatch: Patch) -> None:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_vit(name).state_dict().items()}
    assert identify(shapes) == name.replace("_sat", "")
    monkeypatch.setattr("no_time_to_train.networks.checkpoints.read_shapes", lambda path: shapes)
    assert recognize(Network(None, Path("here", ENCODERS[name].timm_file)), ENCODER_NAMES) == name
    assert recognize(Network(None, Path("here/my.pth")), ENCODER_NAMES) == name.replace("_sat", "")


def test_every_file_belongs_to_one_network() -> None:
    assert len(NAME_OF_FILE) == sum(1 + (info.official is not None) for info in ENCODERS.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dinov3_base", r"\.pth; get dinov3_vitb16_p\S+ from https://ai\.meta\.com/\S+ \(a form, for the DINOv3 L"),
        ("dinov3_base", r"or save model\.safetensors of https://huggingface\.co/timm/vit_base_patch16_dinov3\.lvd"),
        ("clip_b32", r"model\.safetensors of https://huggingface\.co/timm/vit_base_patch32_clip_224\.openai as "),
        (TINY, r"not found: checkpoints/vit_tiny_patch16_224\.safetensors; save model\.safetensors of https://"),
        (f"{TINY}0", r"timm \S+ has no model called 'vit_tiny_patch16_2240'; did you mean 'vit_tiny_patch16_224'"),
    ],
)
def test_a_missing_file_is_named_with_its_source(name: str, message: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        find_networks("nano", name)
    assert "\n" not in str(error.value)


def test_the_file_of_timm_serves_where_the_official_one_is_missing(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("checkpoints", ENCODERS["dinov3_base"].timm_file)
    file.parent.mkdir()
    file.touch()
    assert default_checkpoint("dinov3_base") == file
    assert find_network("dinov3_base=my/file.pth", ENCODER_NAMES) == ("dinov3_base", Path("my/file.pth"))
    assert find_network(f"{TINY}=a=b.bin", ENCODER_NAMES) == (TINY, Path("a=b.bin"))


@pytest.mark.parametrize(
    ("builders", "name", "options", "message"),
    [
        (BUILD, "timm:vit_tiny_patch16_225", {}, r"^timm \S+ has no model called 'vit_tiny_patch16_225'; did you mean"),
        (BUILD, "timm:hf-hub:someone/model", {}, r"^timm \S+ has no model called 'hf-hub:someone/model'"),
        (BUILD, "timm:resnet18", {}, r"^resnet18 of timm is not a vision transformer that gives one token per patch"),
        (BUILD, "timm:vit_tiny_patch16_224.mine", {}, r"^timm cannot create vit_tiny_patch16_224\.mine"),
        (BUILD, "dinov4", {}, r"^encoder_cfg\.name: no encoder is called 'dinov4'; choose one of dinov2_small, "),
        (BOTH, "dinov3_base", {"img_size": 518}, r"^img_size must be a whole number of patches of dinov3_base \(16 p"),
        (BOTH, TINY, {"img_size": 100}, r"patches of timm:vit_tiny_patch16_224 \(16 pixels\), not 100$"),
        (
            CONFIGURE,
            "clip_b32",
            {"patch_size": 14},
            "^patch_size is 14, but the patches of clip_b32 are 32 pixels wide",
        ),
        (BUILD, DINOV2_NANO, {"img_size": 168, "debias": 144}, "^debias is 144, but the blank image .* has only 143 "),
    ],
)
def test_an_encoder_that_is_unknown_or_does_not_fit_its_input_is_refused(
    builders: tuple[Any, ...], name: str, options: dict[str, int], message: str
) -> None:
    for build in builders:
        with pytest.raises(UserError, match=message):
            build(name, **options)


@pytest.fixture(scope="module")
def nano() -> tuple[Encoder, Encoder]:
    """The nano network without and with debiasing."""
    path = default_checkpoint(DINOV2_NANO)
    return build_encoder(DINOV2_NANO, 168, checkpoint=path), build_encoder(DINOV2_NANO, 168, path, debias=8)


def test_it_removes_what_a_blank_image_shows(nano: tuple[Encoder, Encoder]) -> None:
    blank = torch.zeros(1, 3, 168, 168)
    plain, debiased = (encoder(blank)[0] for encoder in nano)
    centered = torch.nn.functional.normalize(plain, dim=1)
    values = torch.linalg.svdvals(centered - centered.mean(dim=0))
    assert values[:8].square().sum() > 0.5 * values.square().sum()  # there is something to remove
    normalized = debiased / plain.norm(dim=1, keepdim=True)
    left = torch.linalg.svdvals(normalized - normalized.mean(dim=0))
    torch.testing.assert_close(left[0], values[8], rtol=1e-3, atol=1e-4)


def test_it_is_a_projection_that_is_the_same_each_time(nano: tuple[Encoder, Encoder]) -> None:
    plain, debiased = nano
    torch.testing.assert_close(debiased.positions @ debiased.positions.T, torch.eye(8), rtol=0, atol=1e-5)
    image = torch.rand(1, 3, 168, 168)
    before, after = plain(image)[0], debiased(image)[0]
    assert (after @ debiased.positions.T).abs().max() < 1e-4
    torch.testing.assert_close(after, before - before @ debiased.positions.T @ debiased.positions)
    again = build_encoder(DINOV2_NANO, 168, checkpoint=default_checkpoint(DINOV2_NANO), debias=8)
    assert torch.equal(again.positions, debiased.positions)
    plain.remove_positions(0)
    assert torch.equal(plain(image)[0], before)


def test_memories_of_another_debiasing_are_refused(photo: Photo, tmp_path: Path) -> None:
    plain, debiased = (ReferenceSegmenter.from_pretrained("nano", device="cpu", debias=n) for n in (0, 3))
    for segmenter, file in ((plain, "plain"), (debiased, "debiased")):
        segmenter.add_reference("object", photo.path, photo.mask_path)
        segmenter.save_memory(tmp_path / file)
    assert "debias" not in load_memory(tmp_path / "plain").made_with  # as in older memories
    assert load_memory(tmp_path / "debiased").made_with["debias"] == 3
    with pytest.raises(UserError, match=r"plain was made with debias 0, this run has 3$"):
        debiased.load_memory(tmp_path / "plain")
    with pytest.raises(UserError, match=r"debiased was made with debias 3, this run has 0$"):
        plain.load_memory(tmp_path / "debiased")
    with pytest.raises(UserError, match=r"debiased was made with debias 3, .*plain with 0: "):
        join_memories([(tmp_path / file, load_memory(tmp_path / file)) for file in ("plain", "debiased")])


def test_the_cache_and_the_journal_know_the_debiasing(
    memory: Path, nano_checkpoints: Checkpoints, tmp_path: Path
) -> None:
    keys, bank = [], load_memory(memory)
    for debias in (0, 3):
        bank.made_with |= {"debias": debias} if debias else {}
        save_memory(bank, tmp_path / f"memory{debias}")
        encoder = EncoderCfg(DINOV2_NANO, img_size=336, debias=debias)
        model_cfg = ModelCfg("sam2_nano", *map(str, nano_checkpoints), encoder_cfg=encoder)
        targets = TargetDatasetCfg(str(DATA / "images"), str(DATA / "targets.json"))
        run = RunCfg(str(tmp_path / f"memory{debias}"), save_dir=str(tmp_path))
        stage = FindInstancesStage(model_cfg, DatasetCfgs(test=targets), run)
        keys.append((stage.proposals_depend_on(), stage.depends_on()["networks"]))
    assert "debias" not in keys[0][0]  # so that older caches stay valid
    assert keys[1][0]["debias"] == keys[1][1]["debias"] == 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights of the tiny vision transformer at its own size, with a head, as timm publishes them."""
    path = tmp_path_factory.mktemp("tiny") / "model.safetensors"
    save_file({**seeded(TINY, 224), "head.weight": torch.zeros(1000, 192), "head.bias": torch.zeros(1000)}, path)
    return path


def test_segment_runs_with_a_model_of_timm(tiny: Path, photo: Photo, tmp_path: Path) -> None:
    main([
        "segment", "--reference", f"object:{photo.path}:mask={photo.mask_path}", "--images", str(photo.path),
        "--sam2", "sam2_nano", "--dinov2", f"{TINY}={tiny}", "--debias", "2", "--points-per-side", "4", "--score", "0",
        "--out", str(tmp_path / "out"), "--save-memory", str(tmp_path / "memory"), "--device", "cpu",
    ])  # fmt: skip
    made_with = {"encoder": TINY, "img_size": 224, "context_ratio": 0.2, "debias": 2}
    assert load_memory(tmp_path / "memory").made_with == made_with | weights_of(tiny)
    assert json.loads((tmp_path / "out" / "results.json").read_text())
