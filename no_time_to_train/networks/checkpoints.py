"""Checkpoints: read without running code from the file, and loaded strictly."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from no_time_to_train.errors import UserError
from no_time_to_train.networks.registry import download_command


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of tensors onto the CPU.

    No file can run code: safetensors hold none, and pickles are opened with ``weights_only=True``.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote.

    Returns:
        What the file holds: tensors by name, possibly nested in further dicts.

    Raises:
        UserError: The file is missing, broken, or not a dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        command = download_command(path)
        raise UserError(f"checkpoint not found: {path}" + (f"; get it with: {command}" if command else ""))
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not a checkpoint can make the unpickler raise any exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"checkpoint {path} cannot be read (truncated, or not a checkpoint of tensors): {reason}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path} holds a {type(content).__name__}, not a dict of tensors")
    return content


def load_strictly(model: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Copy weights into a network that has exactly their names and shapes.

    Args:
        model: The network, which is changed in place.
        weights: Tensors by their names in the network.
        path: The file that the weights come from, for messages.

    Raises:
        UserError: A name is missing, unexpected, or has another shape. The message states the file and the name.
    """
    expected = model.state_dict()
    reshaped = {key for key in expected.keys() & weights.keys() if expected[key].shape != weights[key].shape}
    for problem, keys in (
        ("lacks the key", expected.keys() - weights.keys()),
        ("has an unexpected key", weights.keys() - expected.keys()),
        ("has another shape for", reshaped),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise UserError(f"checkpoint {path} {problem} {min(keys)!r}{more}: it belongs to another network")
    model.load_state_dict(weights)
