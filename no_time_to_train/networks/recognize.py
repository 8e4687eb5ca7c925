"""Which network a checkpoint belongs to, by the names and shapes of its tensors, whatever the file is called."""

import re
from collections.abc import Mapping, Sequence

from no_time_to_train.errors import one_line
from no_time_to_train.networks.encoders import DINOV3_PATCH_SIZE, ENCODERS, info_of
from no_time_to_train.networks.registry import CHECKPOINT_OF, CHECKPOINTS, PATCH_SIZE

#: Shapes of a checkpoint's tensors by name.
Shapes = Mapping[str, Sequence[int]]

#: Width of the first layer and number of blocks of SAM 2's image encoder -> the end of the network's name.
SAM2_SIZES = {(96, 12): "hiera_t", (96, 16): "hiera_s", (112, 24): "hiera_b+", (144, 48): "hiera_l", (32, 7): "nano"}

#: Width of DINOv2 -> its size in the network's name.
DINOV2_SIZES = {384: "small", 768: "base", 1024: "large", 1536: "giant", 192: "nano"}

#: Width of DINOv3 and whether its blocks are gated (SwiGLU) -> its size in the network's name. The two networks of
#: images from satellites have the tensors of "large" and "7b".
DINOV3_SIZES = {
    (384, False): "small",
    (384, True): "small_plus",
    (768, False): "base",
    (1024, False): "large",
    (1280, True): "huge",
    (4096, True): "7b",
}

#: Width of TIPSv2 -> its size in the network's name.
TIPSV2_SIZES = {info.width: name.removeprefix("tipsv2_") for name, info in ENCODERS.items() if "tipsv2" in name}

#: Width of SAM's image encoder -> its name in ``segment_anything.sam_model_registry``, which defines these widths.
SAM_SIZES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}

#: Names of tensors of SAM 2 and DINOv2 as Hugging Face transformers call them.
TRANSFORMERS = re.compile(r"embeddings\.cls_token|^vision_encoder\.|encoder\.layer\.\d")


def identify(shapes: Shapes) -> str | None:
    """The network that a checkpoint belongs to.

    The result rests on a few tensors. Whether the others are there, too, shows when the checkpoint is loaded.

    Returns:
        A network name such as ``sam2_hiera_l`` or ``dinov2_large``; ``sam_vit_b``, ``sam_vit_l`` or ``sam_vit_h``; or
        None where it is none of these. The tensors of CLIP, of PE-Spatial and of most models of timm do not show which
        network they belong to: those are None as well.
    """
    name = None
    shapes = {key.removeprefix("vision_encoder."): shape for key, shape in shapes.items()}  # so TIPSv2 names them
    if stem := shapes.get("image_encoder.trunk.patch_embed.proj.weight"):
        blocks = {key.split(".")[3] for key in shapes if key.startswith("image_encoder.trunk.blocks.")}
        family = "sam2.1" if "no_obj_embed_spatial" in shapes else "sam2"  # 2.0 has no such embedding
        name = f"{family}_{SAM2_SIZES.get((stem[0], len(blocks)))}"
    elif positions := shapes.get("image_encoder.pos_embed"):
        name = f"sam_{SAM_SIZES.get(positions[-1])}"
    elif (stem := shapes.get("patch_embed.proj.weight")) and "blocks.0.attn.qkv.weight" in shapes:
        name = _vision_transformer(shapes, stem)
    return name if name in CHECKPOINT_OF or name in CHECKPOINTS else None


def _vision_transformer(shapes: Shapes, stem: Sequence[int]) -> str | None:
    """The name of the vision transformer with these tensors, as their authors or timm call them."""
    names = [name for name in ("register_tokens", "reg_token", "storage_tokens") if name in shapes]
    registers = shapes[names[0]][1] if names else 0
    if stem[-1] == PATCH_SIZE and "blocks.0.ls1.gamma" in shapes:
        if registers == 1:
            return f"tipsv2_{TIPSV2_SIZES.get(stem[0])}"
        return f"dinov2_{DINOV2_SIZES.get(stem[0])}{'_reg' if registers else ''}"
    scaled = {"blocks.0.ls1.gamma", "blocks.0.gamma_1"} & shapes.keys()
    if stem[-1] == DINOV3_PATCH_SIZE and registers == 4 and scaled and "pos_embed" not in shapes:
        gated = bool({"blocks.0.mlp.w1.weight", "blocks.0.mlp.fc1_g.weight"} & shapes.keys())
        return f"dinov3_{DINOV3_SIZES.get((stem[0], gated))}"
    return None


def encoder_width(name: str) -> int | None:
    """The width D of the tokens of an encoder by its network name such as ``dinov2_large``; None for unknown names."""
    if info := info_of(name):
        return info.width
    return {f"dinov2_{size}": width for width, size in DINOV2_SIZES.items()}.get(name.removesuffix("_reg"))


def describe(shapes: Shapes) -> str:
    """What a checkpoint is, for people: the description of its network, or what else can be said of it."""
    name = identify(shapes)
    if name is None and any(map(TRANSFORMERS.search, shapes)):
        return "a model of Hugging Face transformers, which names tensors differently (take the authors' own file)"
    if name is None:
        return f"an unknown network with tensors such as {one_line(min(shapes, default='(none)'))[:200]}"
    official = CHECKPOINTS.get(CHECKPOINT_OF.get(name, name))
    if official is None:
        return name if name in ENCODERS else f"{name}, which ships with this package"
    return official.description
