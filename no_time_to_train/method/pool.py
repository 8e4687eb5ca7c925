"""Pooling: the features inside a mask become one vector (docs/method.md, 3.5)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pool(features: Tensor, regions: Tensor) -> Tensor:
    """The mean of the bilinearly upsampled feature map over each region, L2-normalized.

    Upsampling the features to the masks' size takes D * h * w products per mask. The sum over a region of an upsampled
    map is a weighted sum over the map itself, and the weights are the region, downsampled by the transpose of the
    upsampling matrix U: sum(region * (U f)) = sum((U^T region) * f). So the regions are downsampled instead, to one
    channel of g * g, which gives the same result.

    Args:
        features: float [D, g, g], patch tokens, not normalized.
        regions: bool [n, h, w], none empty.

    Returns:
        float [n, D] mask vectors.
    """
    grid = features.shape[1:]
    up_rows, up_columns = (_upsampling_matrix(*sizes, features) for sizes in zip(grid, regions.shape[1:], strict=True))
    weights = up_rows @ (regions.to(features.dtype) @ up_columns.T)  # [n, g, g]
    means = weights.flatten(1) @ features.flatten(1).T / weights.sum(dim=(1, 2))[:, None]
    return F.normalize(means, dim=1)


def _upsampling_matrix(short: int, long: int, like: Tensor) -> Tensor:
    """Bilinear upsampling along one axis as a matrix [short, long] with the dtype and device of ``like``."""
    return F.interpolate(torch.eye(short, dtype=like.dtype, device=like.device)[None], long, mode="linear")[0]
