"""Where networks run, and in which precision."""

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.own_networks import OwnProposer, OwnVit
from no_time_to_train.networks.registry import Precision

if at_fork := getattr(os, "register_at_fork", None):  # a child has none of the threads that OpenMP would wait for
    at_fork(after_in_child=lambda: torch.set_num_threads(1))


def default_device() -> str:
    """The machine's accelerator, such as "cuda" or "xpu", or "cpu"; Apple's, which nobody tried, only by name."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None or found.type == "mps" else found.type


def to_device(device: str | torch.device | None, *networks: nn.Module) -> None:
    """Move networks to a device, such as "cuda:1" or "cpu"; None takes that of :func:`default_device`."""
    device = default_device() if device is None else device
    try:
        for network in networks:
            network.to(device)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # what torch raises if it lacks the device
        raise UserError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from error


def check_defaults() -> None:
    """Refuse defaults of torch with which the packages of the networks do not compute."""
    if (dtype := torch.get_default_dtype()) != torch.float32:
        raise UserError(f"torch's default dtype is {dtype}: call torch.set_default_dtype(torch.float32) before")
    if (device := torch.get_default_device()).type != "cpu":
        text = "call torch.set_default_device('cpu') before; device= of from_pretrained says where networks compute"
        raise UserError(f"torch's default device is {device}: {text}")


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """A context in which networks on a device compute in a precision.

    It holds for the thread that enters it, but tf32 for the whole process.
    """
    check_defaults()
    before = torch.get_float32_matmul_precision() if precision == "tf32" else None
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        try:
            if before:
                torch.set_float32_matmul_precision("high")
            yield
        finally:
            if before:
                torch.set_float32_matmul_precision(before)


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse tf32 where the device lacks it, and say where bfloat16 is slow."""
    if precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        needed = f"an NVIDIA GPU of compute capability 8.0 or more, which {device} is not"
        raise UserError(f"precision tf32 needs {needed}: choose float32 or bfloat16")
    if precision == "bfloat16":
        notice_slow_bfloat16(device)


def store_weights(precision: str, segmenter: Segmenter) -> None:
    """Store the weights of both networks in the half precision that they compute in; float32 changes nothing.

    Autocast casts weights in every call, because they are frozen. Stored so, they are cast once, to the same bits. What
    autocast leaves in float32 stays so: norms, positions, prompts, and SAM 2's memory, which no image needs. So do the
    few weights that the mask decoder reads as tensors (``two_way_transformer.output_matrix``), and networks of one's
    own. SAM 2's predictor of boxes and points has the same modules, and always runs in the precision of the rest.

    Args:
        precision: As ``from_pretrained`` or Lightning calls it.
    """
    dtype = {"bf": torch.bfloat16, "16": torch.float16}.get(precision[:2])
    networks: list[nn.Module] = [] if isinstance(segmenter.encoder.vit, OwnVit) else [segmenter.encoder]
    if segmenter.proposer is not None and not isinstance(segmenter.proposer, OwnProposer):
        networks += [segmenter.proposer.sam2.image_encoder, segmenter.proposer.sam2.sam_mask_decoder]
    for name, layer in (named for network in networks for named in network.named_modules()):
        if dtype and type(layer) in (nn.Linear, nn.Conv2d) and not name.endswith("image_to_token.out_proj"):
            layer.to(dtype)


def notice_slow_bfloat16(device: torch.device) -> None:
    """Say that bfloat16 is slow where the networks run, because the processor has no instructions for it."""
    if device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        warnings.warn(
            "this processor has neither AVX512-BF16 nor AMX: bfloat16 is slower than float32 here",
            UserNotice,
            stacklevel=2,
        )
