"""The two frozen networks of the method, SAM 2 and DINOv2: built by name and loaded strictly from checkpoints."""

from importlib.resources import files
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
    DINOV2_NAMES,
    DINOV2_NANO,
    DINOV2_NANO_SHAPE,
    IMG_SIZE,
    NANO_FOLDER,
    PATCH_SIZE,
    SAM2_NAMES,
    SAM2_NANO,
    TIMM_NAMES,
)


def build_sam2(sam2_cfg_file: str, checkpoint: str | Path | None = None) -> SAM2Base:
    """Build SAM 2 from the sam2 package's own classes and configurations, in eval mode on the CPU.

    The method uses two parts of the network. S is the side of its input (1024; 256 for ``sam2_nano``), and C the width
    of its embedding (256; 64 for ``sam2_nano``).

    - The image encoder takes images, float [B, 3, S, S], RGB in [0, 1] normalized with ImageNet's mean and standard
      deviation. It gives three maps: an embedding [B, C, S/16, S/16], and for the fine details of masks [B, C/4, S/8,
      S/8] and [B, C/8, S/4, S/4].
    - The mask decoder takes point prompts, float [n, 1, 2], (x, y) in pixels of the input. For each it gives four
      masks as logits [n, 4, S/4, S/4] and their predicted IoU [n, 4]. The method chooses among the last three.

    S and C are from the configuration: the sam2 package's for the official networks, ``nano/sam2_nano.yaml`` for
    ``sam2_nano``.

    Args:
        sam2_cfg_file: Network name, a value of ``SAM2_NAMES`` such as ``sam2_hiera_l``, with or without ``.yaml``.
        checkpoint: The official checkpoint, or a safetensors file with the official names of the weights. None leaves
            the weights as they are initialized.

    Returns:
        The network, whose parameters need no gradients.

    Raises:
        UserError: The name is unknown, or the checkpoint is missing, unreadable or of another network.
    """
    name = sam2_cfg_file.removesuffix(".yaml")
    if name not in SAM2_NAMES.values():
        raise UserError(
            f"sam2_cfg_file: no SAM 2 model is called {name!r}; choose one of {', '.join(SAM2_NAMES.values())}"
        )
    family = name.partition("_")[0]  # "sam2" or "sam2.1", a folder of the sam2 package's configurations
    folder = NANO_FOLDER if name == SAM2_NANO else files("sam2") / "configs" / family
    config = OmegaConf.create((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    OmegaConf.resolve(config)
    model: SAM2Base = instantiate(config.model, _recursive_=True)
    if checkpoint is not None:
        load_strictly(model, read_checkpoint(checkpoint), checkpoint)
    return model.eval().requires_grad_(False)


def build_dinov2(
    name: str, img_size: int = IMG_SIZE, patch_size: int = PATCH_SIZE, checkpoint: str | Path | None = None
) -> VisionTransformer:
    """Build a DINOv2 without a head from timm's vision transformer, in eval mode on the CPU.

    Its ``forward_features`` takes images, float [B, 3, img_size, img_size], RGB in [0, 1] normalized with ImageNet's
    mean and standard deviation. It gives tokens, float [B, T + P, D], after the final layer norm: first the T class and
    register tokens (T is 1, or 5 with ``_reg``), then the P = (img_size / 14)**2 patch tokens in row-major order.

    D is 384, 768, 1024 or 1536 for ``small``, ``base``, ``large`` or ``giant``, as timm defines them, and 192 for
    ``dinov2_nano`` (``DINOV2_NANO_SHAPE``).

    Args:
        name: Network name, a value of ``DINOV2_NAMES`` such as ``dinov2_large``.
        img_size: Side of the square input in pixels, a multiple of 14. The checkpoint's position embeddings belong to
            the size at which the network was trained (518; 336 for ``dinov2_nano``), and are resampled to this one.
        patch_size: Side of a patch in pixels: 14, as in every DINOv2.
        checkpoint: The official checkpoint, or a safetensors file with the official names of the weights. None leaves
            the weights as they are initialized.

    Returns:
        The network, whose parameters need no gradients.

    Raises:
        UserError: The name is unknown, a size is impossible, or the checkpoint is missing, unreadable or of another
            network.
    """
    if name not in DINOV2_NAMES.values():
        raise UserError(
            f"encoder_cfg.name: no encoder is called {name!r}; choose one of {', '.join(DINOV2_NAMES.values())}"
        )
    if patch_size != PATCH_SIZE:
        raise UserError(f"encoder_cfg.patch_size: DINOv2's patches are {PATCH_SIZE} pixels wide, not {patch_size}")
    if img_size <= 0 or img_size % patch_size:
        raise UserError(f"encoder_cfg.img_size: {img_size} is not a multiple of the patch size {patch_size}")
    model: nn.Module
    if name == DINOV2_NANO:
        model = VisionTransformer(img_size=img_size, num_classes=0, **DINOV2_NANO_SHAPE)
    else:
        model = timm.create_model(TIMM_NAMES[name], img_size=img_size, num_classes=0)
    assert isinstance(model, VisionTransformer)
    if checkpoint is not None:
        weights = read_checkpoint(checkpoint)
        try:
            converted = checkpoint_filter_fn(dict(weights), model)
        except (RuntimeError, TypeError, ValueError):
            # The checkpoint is of another network. Loading it strictly reports which key does not fit.
            converted = {name: value for name, value in weights.items() if name != "mask_token"}
        load_strictly(model, converted, checkpoint)
    return model.eval().requires_grad_(False)
