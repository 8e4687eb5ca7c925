"""Fill a module's parameters and buffers with values that depend only on their names, shapes and a seed."""

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

GAIN = 1.0


def seeded_state_dict(shapes: Mapping[str, torch.Size], seed: int = 0) -> dict[str, Tensor]:
    """A float32 tensor of each shape, by name."""
    out: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        h = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little") & (2**63 - 1)
        g = torch.Generator().manual_seed(h)
        leaf = name.rsplit(".", 1)[-1]
        t = torch.randn(shape, generator=g)
        if len(shape) <= 1:
            if leaf == "weight":
                t = 1.0 + 0.1 * t  # norms
            elif leaf == "gamma":
                t = 0.3 + 0.1 * t  # layer scale
            else:
                t = 0.1 * t  # biases and 1-d embeddings
        elif "gaussian" in name:
            pass  # random Fourier frequencies
        elif "output_hypernetworks" in name or "iou_prediction" in name or "cross_attn" in name or "self_attn" in name:
            t = t * (GAIN / math.sqrt(math.prod(shape[1:])))
        elif "embed" in name or "token" in name:
            t = 0.5 * t
        else:
            fan_in = math.prod(shape[1:]) or 1
            t = t * (1.0 / math.sqrt(fan_in))
        out[name] = t
    return out
