"""The two frozen networks, SAM 2 and DINOv2: built by name, filled strictly from their official checkpoints."""

from importlib.resources import as_file, files
from pathlib import Path

import timm
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import SAM2Base
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import nn

from no_time_to_train.errors import UserError
from no_time_to_train.networks.checkpoints import load_strictly, read_checkpoint
from no_time_to_train.networks.registry import (
    DINOV2_MODELS,
    DINOV2_NANO,
    DINOV2_NANO_SHAPE,
    PATCH_SIZE,
    SAM2_CONFIGS,
    SAM2_NANO,
)


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
