"""Vision transformers of timm by their name there: created without weights, and measured without memory for them."""

import math
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn

from no_time_to_train.errors import UserError, one_line, suggest


def check_known(name: str) -> None:
    """Check that timm has a model of a name."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise UserError(
            f"timm {timm.__version__} has no model called {architecture!r}"
            f"{suggest(architecture, timm.list_models('*vit*'))}; a newer timm may have it: pip install --upgrade timm"
        )


def create(name: str, **options: Any) -> nn.Module:
    """Create a vision transformer of timm without a classification head; nothing is downloaded.

    Its name in timm may have the tag of its weights, which decides the normalization.
    """
    check_known(name)
    try:
        model: nn.Module = timm.create_model(name, num_classes=0, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"timm cannot create {name} with {options}: {one_line(error)}") from error
    stem = getattr(model, "patch_embed", None)
    if not (hasattr(model, "num_prefix_tokens") and getattr(stem, "grid_size", None) and getattr(stem, "img_size", 0)):
        raise UserError(f"{name} of timm is not a vision transformer that gives one token per patch: choose another")
    return model.eval()


@lru_cache
def measure(name: str) -> tuple[int, int, int]:
    """What a vision transformer of timm takes and gives; its weights take no memory, except with old versions of timm.

    Returns:
        The side of its input as it was trained, the side of a patch, both in pixels, and the width of a token.
    """
    try:
        with torch.device("meta"):
            return _measure(name)
    except UserError:
        return _measure(name)  # what old versions of timm cannot create without memory; other errors are raised again


@torch.no_grad()
def _measure(name: str) -> tuple[int, int, int]:
    """The sides of the input and of a patch, and the width of a token."""
    model: Any = create(name)
    size = model.patch_embed.img_size[0]
    tokens = model.forward_features(torch.empty(1, 3, size, size))
    grid = math.isqrt(tokens.shape[1] - model.num_prefix_tokens) if tokens.ndim == 3 else 0
    if not grid or tokens.shape[1] != model.num_prefix_tokens + grid**2:
        raise UserError(f"{name} of timm is not a vision transformer that gives one token per patch: choose another")
    return size, size // grid, tokens.shape[2]


def hub_page(name: str) -> str | None:
    """The page with the weights of a model of timm; None where there is none."""
    check_known(name)
    config = timm.get_pretrained_cfg(name)
    return f"https://huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else None
