"""Checkpoints: read without running code from the file, recognized by their tensors, and loaded strictly.

The names and shapes of the tensors show which network a checkpoint belongs to, whatever the file is called.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from no_time_to_train.errors import UserError, one_line, raise_if_refused
from no_time_to_train.networks.encoders import DINOV2, DINOV3_PATCH_SIZE, ENCODERS, NAME_OF_FILE, PATCH_SIZE, info_of
from no_time_to_train.networks.registry import CHECKPOINT_OF, CHECKPOINTS, SAM2_NAMES, Network, check_exist

#: Numbers that OpenAI stores with the weights of CLIP. The shapes of the weights say the same.
CLIP_NUMBERS = {"input_resolution", "context_length", "vocab_size"}

#: Shapes of a checkpoint's tensors by name.
Shapes = Mapping[str, Sequence[int]]

#: Width of the first layer and number of blocks of SAM 2's image encoder -> the end of the network's name.
SAM2_SIZES = {(96, 12): "hiera_t", (96, 16): "hiera_s", (112, 24): "hiera_b+", (144, 48): "hiera_l", (32, 7): "nano"}

#: The DINOv3 whose blocks are gated (SwiGLU).
GATED = ("dinov3_small_plus", "dinov3_huge", "dinov3_7b")

#: Width of SAM's image encoder -> its name in ``segment_anything.sam_model_registry``, which defines these widths.
SAM_SIZES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}

#: Names of tensors of SAM 2 and DINOv2 as Hugging Face transformers call them.
TRANSFORMERS = re.compile(r"embeddings\.cls_token|^vision_encoder\.|encoder\.layer\.\d")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of tensors onto the CPU.

    No file can run code: safetensors hold none, and pickles are opened with ``weights_only=True``.

    Args:
        path: A safetensors file, or one that ``torch.save`` wrote.

    Returns:
        Tensors by name. Where a file holds them under ``model``, as SAM 2's official ones do, or under ``state_dict``,
        these are returned.
    """
    check_exist(path)
    with _clear_errors(path):
        if is_safetensors(path):
            return load_file(path)
        tensors = _tensors(load_pickle(path), path)
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"checkpoint {path} holds a {type(value).__name__} under {name!r}, not a tensor")
        counts = name.endswith(".num_batches_tracked")  # what batch normalization counted while it was trained
        if not is_plain(value) or not (value.is_floating_point() or counts):
            raise UserError(f"checkpoint {path} holds weights that are not plain floating-point numbers: {name!r}")
    return tensors


def read_shapes(path: str | Path) -> Shapes:
    """The shapes of a checkpoint's tensors by name, without reading their values."""
    check_exist(path)
    with _clear_errors(path):
        if is_safetensors(path):
            with safe_open(path, "pt") as file:
                return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)
        tensors = _tensors(load_pickle(path), path)
        return {str(name): one.shape for name, one in tensors.items() if isinstance(one, Tensor)}


def load_pickle(path: str | Path, check: Callable[[bytes], None] | None = None) -> Any:
    """Read what ``torch.save`` wrote, without running code, and without memory for more than the file holds.

    Args:
        check: Raises a ValueError where the pickle in the archive may not be read.

    Returns:
        Its content on the CPU. The tensors are parts of the open file where it is a zip archive, and may claim more
        values than there are; see :func:`is_plain`.

    Raises:
        Exception: Whatever torch raises where the file is anything else.
    """
    zipped = is_zipfile(path)  # torch wrote other files until version 1.5
    if zipped:
        with ZipFile(path) as archive:
            if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")
            for name in archive.namelist():
                if check is not None and name.endswith("data.pkl"):
                    check(archive.read(name))
    is_text = str(path).encode(errors="replace") == os.fsencode(path)  # torch maps no file with another name
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped and is_text)


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor from a file is an ordinary one, and has no more values than are stored for it."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_nested
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def is_safetensors(path: str | Path) -> bool:
    """Whether a file is in the safetensors format: a JSON object after 8 bytes that state its length."""
    with Path(path).open("rb") as file:
        return file.read(9)[8:] == b"{"


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
            return _of_width("tipsv2_", stem[0])
        return f"{_of_width('dinov2_', stem[0])}{'_reg' if registers else ''}"
    scaled = {"blocks.0.ls1.gamma", "blocks.0.gamma_1"} & shapes.keys()
    if stem[-1] == DINOV3_PATCH_SIZE and registers == 4 and scaled and "pos_embed" not in shapes:
        gated = bool({"blocks.0.mlp.w1.weight", "blocks.0.mlp.fc1_g.weight"} & shapes.keys())
        return _of_width("dinov3_", stem[0], gated)
    return None


def _of_width(family: str, width: int, gated: bool = False) -> str | None:
    """The first encoder of a family with a width. Those of satellite images come after others with the same tensors."""
    names = (name for name, info in {**DINOV2, **ENCODERS}.items() if name.startswith(family) and info.width == width)
    return next((name for name in names if (name in GATED) == gated), None)


def encoder_width(name: str) -> int | None:
    """The width D of the tokens of an encoder by its network name such as ``dinov2_large``; None for unknown names."""
    info = info_of(name)
    return info.width if info else None


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


def recognize(network: Network, names: dict[str, str]) -> str:
    """The name of a network in ``SAM2_NAMES`` or ``ENCODER_NAMES``; its checkpoint shows it where it is None."""
    if network.name is not None:
        return network.name
    shapes = read_shapes(network.checkpoint)
    name, named = identify(shapes), NAME_OF_FILE.get(network.checkpoint.name)
    if named is not None and named in names.values() and (name is None or _same_tensors(name, named)):
        return named  # the tensors do not show which of two networks it is
    if name is None or name not in names.values():
        wanted = "SAM 2" if names is SAM2_NAMES else "DINOv2"
        hint = "" if names is SAM2_NAMES or name else "; for another encoder give NAME=PATH (docs/encoders.md)"
        raise UserError(f"checkpoint {network.checkpoint} is not one of {wanted}: it holds {describe(shapes)}{hint}")
    return name


def _same_tensors(first: str, second: str) -> bool:
    """Whether two encoders differ in their weights only, so that their checkpoints have the same tensors."""
    architectures = [ENCODERS[name].timm.partition(".")[0] for name in (first, second) if name in ENCODERS]
    return len(architectures) == 2 and architectures[0] == architectures[1]


def load_strictly(model: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Copy weights into a network, in place, that has exactly their names and shapes."""
    expected = model.state_dict()
    reshaped = {key for key in expected.keys() & weights.keys() if expected[key].shape != weights[key].shape}
    for problem, keys in (
        ("lacks the key", expected.keys() - weights.keys()),
        ("has an unexpected key", weights.keys() - expected.keys()),
        ("has another shape for", reshaped),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            holds = describe({key: value.shape for key, value in weights.items() if isinstance(value, Tensor)})
            raise UserError(
                f"checkpoint {path} {problem} {min(keys)!r}{more}: it belongs to another network; it holds {holds}"
            )
    model.load_state_dict(weights)


def _tensors(content: Any, path: str | Path) -> dict[str, Any]:
    """The dict of tensors in what ``torch.load`` returned."""
    tensors = content
    if isinstance(content, dict):
        tensors = next((content[key] for key in ("model", "state_dict") if key in content), content)
    if not isinstance(tensors, dict):
        raise UserError(f"checkpoint {path} holds a {type(tensors).__name__}, not a dict of tensors")
    return {name: tensor for name, tensor in tensors.items() if name not in CLIP_NUMBERS}


@contextmanager
def _clear_errors(path: str | Path) -> Iterator[None]:
    """Turn what a file that is not a checkpoint raises, which can be any exception, into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise_if_refused(error, path)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "weights_only" in str(error):  # torch explains how to run the code in it
            reason = "it holds other objects, or is a page or a pointer of Git LFS in the place of the file"
        raise UserError(
            f"checkpoint {path} cannot be read (truncated, or not a checkpoint of tensors): {reason}"
        ) from error
