"""Checkpoints: read without running code, and loaded strictly."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from no_time_to_train.errors import UserError
from no_time_to_train.networks.registry import download_command


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
