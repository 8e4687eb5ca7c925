"""Seeded weights of the encoders in the formats in which others publish them: their authors and timm."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from no_time_to_train.networks.build import build_vit
from tests.seeded_weights import seeded_state_dict

Weights = Mapping[str, Tensor]

#: A vision transformer of timm with the fewest weights (5.5 million).
TINY = "timm:vit_tiny_patch16_224"

#: The smallest network of each family, and an input of 4 x 4 patches.
SMALLEST = {"dinov3_small": 64, "PE-Spatial-T16-512": 64, "clip_b32": 128, "tipsv2_base": 56, TINY: 64}


#: Blocks of every network in these tests, which have the real widths.
DEPTH = 2


def seeded(name: str, size: int) -> Weights:
    """Seeded weights under timm's names, of an input of this size."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_vit(name, size).state_dict().items()}
    return seeded_state_dict(shapes)


def vision_tower(key: str) -> str:
    """CLIP's and PE's name of a tensor, from timm's."""
    for ours, theirs in (
        ("norm_pre", "ln_pre"), ("norm1", "ln_1"), ("norm2", "ln_2"), ("blocks.", "transformer.resblocks."),
        ("patch_embed.proj", "conv1"), ("pos_embed", "positional_embedding"), ("cls_token", "class_embedding"),
        ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"), ("gamma_1", "ls_1.gamma"), ("gamma_2", "ls_2.gamma"),
    ):  # fmt: skip
        key = key.replace(ours, theirs)
    return re.sub(r"^norm\.", "ln_post.", key)


def official_dinov3(weights: Weights, bias: float = 0.0) -> dict[str, Tensor]:
    """A DINOv3 as its authors store it."""
    renamed = {
        re.sub(r"gamma_(\d)", r"ls\1.gamma", key).replace("reg_token", "storage_tokens"): value
        for key, value in weights.items()
    }
    width = weights["cls_token"].shape[-1]
    for block in range(DEPTH):
        renamed[f"blocks.{block}.attn.qkv.bias"] = torch.full((3 * width,), bias)
        renamed[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(3 * width)
    return {**renamed, "mask_token": torch.zeros(1, width), "rope_embed.periods": torch.ones(16)}


def official_pe(weights: Weights) -> dict[str, Tensor]:
    """A PE as its authors store it."""
    squeezed = {"cls_token": lambda value: value[0, 0], "pos_embed": lambda value: value[0]}
    return {vision_tower(key): squeezed.get(key, lambda value: value)(value) for key, value in weights.items()}


def official_clip(weights: Weights) -> dict[str, Tensor]:
    """A CLIP as OpenAI stores it, with the rest of the model: half precision, a text tower and numbers."""
    tower = {f"visual.{key}": value.half() for key, value in official_pe(weights).items()}
    rest = {"visual.proj": torch.zeros(768, 512), "token_embedding.weight": torch.zeros(8, 4)}
    return {**tower, **rest, "input_resolution": torch.tensor(224), "vocab_size": torch.tensor(49408)}


def official_tipsv2(weights: Weights) -> dict[str, Tensor]:
    """A TIPSv2 as its authors store it: DINOv2's names, and a text tower."""
    renamed = dict(weights)
    renamed["register_tokens"] = renamed.pop("reg_token")
    renamed["cls_token"] = torch.zeros_like(renamed["cls_token"])
    renamed["pos_embed"] = torch.cat([weights["cls_token"], weights["pos_embed"]], dim=1)
    renamed["mask_token"] = torch.zeros(1, 768)
    return {**{f"vision_encoder.{key}": value for key, value in renamed.items()}, "text_encoder.x": torch.zeros(2)}


OFFICIAL: dict[str, Callable[[Weights], dict[str, Tensor]]] = {
    "dinov3_small": official_dinov3,
    "PE-Spatial-T16-512": official_pe,
    "clip_b32": official_clip,
    "tipsv2_base": official_tipsv2,
}
