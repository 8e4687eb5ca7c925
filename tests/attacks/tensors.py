"""Tensors that no file of this package holds, made of one that it holds."""

from collections.abc import Callable

import torch
from torch import Tensor

HOSTILE: dict[str, Callable[[Tensor], Tensor]] = {
    "complex": lambda plain: plain.to(torch.complex64),
    "of another shape": lambda plain: torch.cat([plain, plain]),
    "of one dimension more": lambda plain: plain[None],
    "without dimensions": lambda plain: plain.flatten()[0],
    "sparse": lambda plain: plain.to_sparse(),
    "without values": lambda plain: plain.to("meta"),
    "larger than the file": lambda plain: plain.flatten()[:1].expand([2**20, 2**20, 2**20][: plain.dim()]),
}
