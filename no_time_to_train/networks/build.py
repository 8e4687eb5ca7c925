"""The two frozen networks of the method, SAM 2 and the encoder: built by name and loaded strictly from checkpoints."""

import sys
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import SAM2Base
from timm.models import vision_transformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from no_time_to_train.file_hashes import settled_state
from no_time_to_train.method.beyond.free_encoder import FreeEncoder
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.settings import Settings
from no_time_to_train.networks import timm_models
from no_time_to_train.networks.checkpoints import load_strictly, read_checkpoint
from no_time_to_train.networks.encoders import DINOV2, DINOV2_NANO, check_name, info_of
from no_time_to_train.networks.own_networks import OwnProposer, OwnVit
from no_time_to_train.networks.registry import (
    ENCODER_NAMES,
    NANO_FOLDER,
    SAM2_NANO,
    check_encoder_sizes,
    check_prompts,
    check_sam2_name,
    encoder_input_size,
)
from no_time_to_train.plugins import find_plugin, is_plugin

#: The attribute of a network with the state of its file, as it was before it was read.
LOADED_FROM = "loaded_from"


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
    """
    check_sam2_name(sam2_cfg_file)
    name = sam2_cfg_file.removesuffix(".yaml")
    family = name.partition("_")[0]  # "sam2" or "sam2.1", a folder of the sam2 package's configurations
    folder = NANO_FOLDER if name == SAM2_NANO else files("sam2") / "configs" / family
    config = OmegaConf.create((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    OmegaConf.resolve(config)
    state = None if checkpoint is None else settled_state(checkpoint)
    no_gpu = patch.object(torch.cuda, "is_available", return_value=False)  # else sam2 puts tensors on the first one
    with no_gpu, nullcontext() if checkpoint is None else _Undrawn():
        model: SAM2Base = instantiate(config.model, _recursive_=True)
    if checkpoint is not None:
        load_strictly(model, read_checkpoint(checkpoint), checkpoint)
        setattr(model, LOADED_FROM, state)
    return model.eval().requires_grad_(False)


def build_proposer(name: str, checkpoint: str | Path | None, settings: Settings) -> MaskProposer:
    """Build SAM 2, or a proposer of one's own (docs/extending.md), on the CPU; ``name`` as of :func:`build_sam2`."""
    if is_plugin(name):
        check_prompts(name, settings.prompts)
        return OwnProposer(find_plugin(name), checkpoint)
    return MaskProposer(build_sam2(name, checkpoint), settings)


def build_encoder(
    name: str,
    img_size: int | None = None,
    checkpoint: str | Path | None = None,
    debias: int = 0,
    norm: bool = True,
    keep_aspect: bool = False,
) -> Encoder:
    """Build an encoder on the CPU with its normalization, and where it is asked for without what encodes positions.

    Where it keeps the aspect ratio, ``img_size`` is the longer side of its input.
    """
    if not norm or keep_aspect:
        vit = build_vit(name, None if keep_aspect else img_size, checkpoint)
        return FreeEncoder(vit, norm, (img_size or encoder_input_size(name)) if keep_aspect else None)
    encoder = Encoder(build_vit(name, img_size, checkpoint))
    encoder.remove_positions(debias)
    return encoder


def build_vit(name: str, img_size: int | None = None, checkpoint: str | Path | None = None) -> nn.Module:
    """Build the vision transformer of an encoder without a head, in eval mode on the CPU; all are models of timm.

    Its ``forward_features`` takes images, float [B, 3, img_size, img_size], RGB in [0, 1] normalized with the mean and
    the standard deviation of ``pretrained_cfg``, which are ImageNet's where there is none. It gives tokens, float
    [B, T + P, D], after the final norm where the network has one: first the T = ``num_prefix_tokens`` class and
    register tokens, then the P = (img_size / patch_size)**2 patch tokens in row-major order.

    Args:
        name: Network name: a value of ``ENCODER_NAMES`` such as ``dinov2_large`` or ``dinov3_base``, or ``timm:`` and
            the name of a vision transformer of timm.
        img_size: Side of the square input in pixels, a multiple of the patch size. A checkpoint's position embeddings
            belong to the size at which the network was trained, and are resampled to this one. None takes the default
            (``registry.encoder_input_size``).
        checkpoint: The official checkpoint; or one of timm, a safetensors file or what ``torch.save`` wrote, with the
            official names of the weights or with timm's. None leaves the weights as they are initialized.
    """
    check_name(name, list(ENCODER_NAMES.values()))
    check_encoder_sizes(name, img_size, None)
    img_size = img_size or encoder_input_size(name)
    if is_plugin(name):
        return OwnVit(find_plugin(name), img_size, checkpoint)
    state = None if checkpoint is None else settled_state(checkpoint)
    weights = None if checkpoint is None else read_checkpoint(checkpoint)
    info = info_of(name)
    assert info is not None  # its name was checked
    if weights is not None and "_dinov3." in info.timm:
        weights, biased = _without_zero_biases(weights)
        info = info._replace(timm=info.timm.replace("_dinov3.", "_dinov3_qkvb.")) if biased else info
    model: nn.Module
    with nullcontext() if weights is None else _Undrawn():
        if name == DINOV2_NANO:  # the architecture of the official ones, but narrower and shallower
            shape: dict[str, Any] = {"img_size": img_size, "patch_size": info.patch, "embed_dim": info.width}
            model = VisionTransformer(**shape, depth=4, num_heads=3, init_values=0.2, num_classes=0)
        else:
            model = timm_models.create(info.timm, img_size=img_size)
    if weights is not None and checkpoint is not None:
        load_strictly(model, _convert(weights, model, with_head=name not in DINOV2), checkpoint)
        setattr(model, LOADED_FROM, state)
    return model.eval().requires_grad_(False)


class _Undrawn(TorchFunctionMode):
    """Leaves the weights of a new network undefined: a checkpoint replaces them, and random ones take seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func in (Tensor.uniform_, Tensor.normal_, Tensor.erfinv_)
        if drawn or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs or {})


def _without_zero_biases(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """A DINOv3 without the biases of queries, keys and values that are 0, and whether it has others."""
    # The official networks have such biases in their code. Where training has left them at 0, timm has none, and where
    # it has not, timm has another variant of the model. The bias of the keys has no effect, and neither code uses it.
    ends = (".attn.qkv.bias", ".attn.q_bias", ".attn.v_bias")
    biases = {name: value for name, value in weights.items() if name.endswith(ends)}
    used = [part for value in biases.values() for part in (value.chunk(3)[::2] if value.numel() % 3 == 0 else [value])]
    if any(part.any() for part in used):
        return weights, True
    return {name: value for name, value in weights.items() if name not in biases}, False


def _convert(weights: dict[str, Tensor], model: nn.Module, with_head: bool) -> dict[str, Any]:
    """Rename weights to timm's names and resample position embeddings, with the model's own function in timm."""
    module = sys.modules[type(model).__module__]
    rename: Any = getattr(module, "checkpoint_filter_fn", vision_transformer.checkpoint_filter_fn)
    try:
        converted: dict[str, Any] = rename(dict(weights), model)
        if {"conv1.weight", "visual.conv1.weight"} & weights.keys():
            converted = rename(converted, model)  # at first it only renames those of PE
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        # The checkpoint is of another network. Loading it strictly reports which key does not fit.
        converted = {name: value for name, value in weights.items() if name != "mask_token"}
    if with_head:
        heads = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else heads
        converted = {name: value for name, value in converted.items() if name.rpartition(".")[0] not in heads}
    return converted
