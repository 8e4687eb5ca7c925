"""The two frozen networks, SAM 2 and DINOv2: built by name, filled strictly from their official checkpoints."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file
from sam2.modeling.sam2_base import SAM2Base
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from no_time_to_train.errors import UserError
from no_time_to_train.networks.download import download_command

#: ``sam2_cfg_file`` -> config of the sam2 package that holds the network's shape.
SAM2_CONFIGS = {
    f"{family}_hiera_{size}": f"configs/{family}/{family}_hiera_{size}.yaml"
    for family in ("sam2", "sam2.1")
    for size in ("t", "s", "b+", "l")
}

#: The networks that ship with this package, trained on drawn scenes by scripts/train_nano.py.
SAM2_NANO = "sam2_nano"
DINOV2_NANO = "dinov2_nano"

#: The nano ViT's shape: DINOv2's, only narrower, shallower, and made for a smaller input.
DINOV2_NANO_SHAPE: dict[str, Any] = {
    "patch_size": 14,
    "embed_dim": 192,
    "depth": 4,
    "num_heads": 3,
    "init_values": 0.2,
}

#: ``encoder_cfg.name`` -> timm's name of the same network. timm's DINOv2 equals the published encoder to 1e-6.
DINOV2_MODELS = {
    f"dinov2_{size}{'_reg' if registers else ''}": f"vit_{size}_patch14_{registers}dinov2"
    for size in ("small", "base", "large", "giant")
    for registers in ("", "reg4_")
}

PATCH_SIZE = 14  # of every DINOv2, in pixels


def build_sam2(sam2_cfg_file: str, checkpoint: str | Path | None = None) -> SAM2Base:
    """Build SAM 2 with the sam2 package's own classes, in eval mode on the CPU.

    Args:
        sam2_cfg_file: a name of ``SAM2_CONFIGS`` or ``sam2_nano``, with or without ``.yaml``.
        checkpoint: official checkpoint (a dict with the weights under ``model``) or safetensors; None leaves the
            network as initialised.

    Raises:
        UserError: the name is unknown, or the checkpoint is missing, unreadable or another network's.
    """
    name = sam2_cfg_file.removesuffix(".yaml")
    if name == SAM2_NANO:
        source = files("no_time_to_train.networks") / "nano" / "sam2_nano.yaml"
    elif name in SAM2_CONFIGS:
        source = files("sam2") / SAM2_CONFIGS[name]
    else:
        names = ", ".join([*SAM2_CONFIGS, SAM2_NANO])
        raise UserError(f"sam2_cfg_file: no SAM 2 model is called {name!r}; choose one of {names}")
    with as_file(source) as path:
        config = OmegaConf.load(path)
    OmegaConf.resolve(config)
    model: SAM2Base = instantiate(config.model, _recursive_=True)
    if checkpoint is not None:
        weights = read_checkpoint(checkpoint)
        load_strictly(model, weights.get("model", weights), checkpoint)
    return model.eval().requires_grad_(False)


def build_dinov2(
    name: str, img_size: int = 518, patch_size: int = PATCH_SIZE, checkpoint: str | Path | None = None
) -> VisionTransformer:
    """Build a DINOv2 ViT without a head, in eval mode on the CPU.

    Args:
        name: a name of ``DINOV2_MODELS`` or ``dinov2_nano``.
        img_size: side of the square input, in pixels, a multiple of 14. The checkpoint's positional embeddings
            (made for 518; for 336 in the nano network) are resampled to it.
        patch_size: 14, that of every DINOv2.
        checkpoint: official checkpoint or safetensors under the official names; None leaves the network as initialised.

    Raises:
        UserError: the name or a size is impossible, or the checkpoint is missing, unreadable or another network's.
    """
    if name not in DINOV2_MODELS and name != DINOV2_NANO:
        names = ", ".join([*DINOV2_MODELS, DINOV2_NANO])
        raise UserError(f"encoder_cfg.name: no encoder is called {name!r}; choose one of {names}")
    if patch_size != PATCH_SIZE:
        raise UserError(f"encoder_cfg.patch_size: DINOv2's patches are {PATCH_SIZE} pixels wide, not {patch_size}")
    if img_size <= 0 or img_size % patch_size:
        raise UserError(f"encoder_cfg.img_size: {img_size} is not a multiple of the patch size {patch_size}")
    model: nn.Module
    if name == DINOV2_NANO:
        model = VisionTransformer(img_size=img_size, num_classes=0, **DINOV2_NANO_SHAPE)
    else:
        model = timm.create_model(DINOV2_MODELS[name], img_size=img_size, num_classes=0)
    assert isinstance(model, VisionTransformer)
    if checkpoint is not None:
        weights = read_checkpoint(checkpoint)
        try:
            converted = checkpoint_filter_fn(dict(weights), model)
        except (RuntimeError, TypeError, ValueError):  # another network's; the strict loading names a key
            converted = {name: value for name, value in weights.items() if name != "mask_token"}
        load_strictly(model, converted, checkpoint)
    return model.eval().requires_grad_(False)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of tensors on to the CPU. No file can run code: pickles open with ``weights_only=True``."""
    path = Path(path)
    if not path.is_file():
        command = download_command(path)
        raise UserError(f"checkpoint not found: {path}" + (f"; get it with: {command}" if command else ""))
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling what is no checkpoint may raise anything at all
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"checkpoint {path} cannot be read (truncated, or not a checkpoint of tensors): {reason}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path} holds a {type(content).__name__}, not a dict of tensors")
    return content


def load_strictly(model: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Copy ``weights`` into ``model``; raise a UserError that names ``path`` and the key where the two do not fit."""
    expected = model.state_dict()
    for problem, keys in (
        ("lacks the key", expected.keys() - weights.keys()),
        ("has an unexpected key", weights.keys() - expected.keys()),
        (
            "has another shape for",
            {k for k in expected.keys() & weights.keys() if expected[k].shape != weights[k].shape},
        ),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise UserError(f"checkpoint {path} {problem} {min(keys)!r}{more}: it belongs to another network")
    model.load_state_dict(weights)
