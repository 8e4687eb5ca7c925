"""Networks from outside the package in the places of the encoder and of SAM 2 (docs/extending.md)."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from no_time_to_train.errors import UserError
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.proposals import Proposals
from no_time_to_train.plugins import Plugin


class OwnProposer(MaskProposer):
    """A proposer of one's own. It has none of the parts of SAM 2, which only SAM 2's own features use."""

    def __init__(self, plugin: Plugin, checkpoint: str | Path | None) -> None:
        nn.Module.__init__(self)
        self.own, self.name = build_own(plugin, checkpoint), str(plugin)
        self.size = plugin.number("size")
        register_source(self, plugin)

    def forward(self, image: Tensor) -> Proposals:
        """The proposals in an image, float [3, size, size] in [0, 1]."""
        found = self.own(image)
        if not isinstance(found, Proposals) or found.logits.ndim != 3 or found.logits.shape[1] != found.logits.shape[2]:
            raise UserError(f"{self.name} must return Proposals whose logits are [n, s, s]")
        return found

    def __getattr__(self, name: str) -> Any:
        if name in ("sam2", "decoder", "normalize", "network", "predictor"):
            needed = "boxes, points, guided prompts and explanations need"
            raise UserError(f"{self.name} takes the place of SAM 2, which {needed}: give masks, and prompts grid")
        return super().__getattr__(name)


class OwnVit(nn.Module):
    """An encoder of one's own with what ``Encoder`` uses of a vision transformer of timm."""

    num_prefix_tokens = 0

    def __init__(self, plugin: Plugin, img_size: int, checkpoint: str | Path | None) -> None:
        super().__init__()
        self.own = self.forward_features = build_own(plugin, checkpoint)
        grid = img_size // plugin.number("patch")
        self.patch_embed = SimpleNamespace(img_size=(img_size, img_size), grid_size=(grid, grid))
        self.embed_dim = plugin.number("width")
        register_source(self, plugin)


def build_own(plugin: Plugin, checkpoint: str | Path | None) -> nn.Module:
    """Build a network of one's own in eval mode; without a checkpoint of its own, it gets None."""
    network = plugin.part(None if checkpoint is None or str(checkpoint) == plugin.file else Path(checkpoint))
    if not isinstance(network, nn.Module):
        raise UserError(f"{plugin} must be a torch.nn.Module, or a function that returns one")
    return network.eval().requires_grad_(False)


def register_source(network: nn.Module, plugin: Plugin) -> None:
    """Make the source of a network one of its buffers, because caches have the hash of these in their keys."""
    network.register_buffer("source", torch.tensor(list(bytes.fromhex(plugin.sha256)), dtype=torch.uint8), False)
