"""Vectors of class names, from the text tower that belongs to TIPSv2, whose patch tokens share its space."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from no_time_to_train.errors import UserError
from no_time_to_train_extras.proposers.pretrained_models import load_model

#: Network name of an encoder -> the hub's name of the model that holds its text tower.
TEXT_TOWERS = {
    "tipsv2_base": "google/tipsv2-b14",
    "tipsv2_large": "google/tipsv2-l14",
    "tipsv2_so400m": "google/tipsv2-so400m14",
    "tipsv2_giant": "google/tipsv2-g14",
}

#: How many tokens a text is padded to, as in training.
TOKENS = 64


class TextTower:
    """The text tower of a TIPSv2.

    Args:
        weights: A folder that ``save_pretrained`` wrote, or a name on the hub.
        device: Such as ``cuda:1`` or ``cpu``. Default: the GPU if there is one.
    """

    def __init__(self, weights: str | Path, device: str | torch.device | None = None) -> None:
        if find_spec("transformers") is None:
            raise UserError("names need the package transformers: pip install 'no-time-to-train[names]'")
        if not Path(weights).is_dir() and (isinstance(weights, Path) or str(weights).count("/") != 1):
            raise UserError(f"folder not found: {weights}; give the folder of a TIPSv2, or a name on the hub")
        self.network, self.tokenizer = load_model("Tipsv2TextModel", "Tipsv2Tokenizer", str(weights), device, "names")
        self.width: int = self.network.config.hidden_size

    @torch.inference_mode()
    def embed(self, names: Sequence[str]) -> Tensor:
        """The vectors of class names, float32 [C, D] on the CPU, not normalized."""
        texts = [f"a photo of a {name}" for name in names]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
        tokens = {key: tokens[key].to(self.network.device) for key in ("input_ids", "attention_mask")}
        embedded: Tensor = self.network(**tokens).pooler_output
        return embedded.clone().cpu()
