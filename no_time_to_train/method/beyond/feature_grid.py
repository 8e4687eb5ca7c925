"""Masks on the grid of patches: the features of those patches count whose center a mask covers, as in FSOD-VFM.

The paper upsamples the features to SAM 2's masks instead, and compares masks at the image's size.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.upsample import UPSAMPLED_AT_ONCE


def on_grid(masks: Masks, grid: Sequence[int]) -> Tensor:
    """The masks resized to the patches, bilinear and without antialiasing, above 1/2: bool [n, rows, columns]."""
    at_once = max(UPSAMPLED_AT_ONCE // (masks.height * masks.width), 1)
    parts = [torch.zeros(0, *grid, dtype=torch.bool)]
    for start in range(0, len(masks), at_once):
        dense = torch.from_numpy(masks[start : start + at_once].dense())
        parts.append(_covered(dense.float(), grid))
    return torch.cat(parts)


def pool_on_grid(features: Tensor, regions: Tensor, masks: Callable[[Tensor], Masks]) -> Tensor:
    """The mean of the features of the patches inside each mask, L2-normalized; 0 for a mask without a patch.

    Args:
        features: float [D, g, g], patch tokens, not normalized.
        regions: bool [n, h, w], the masks where they were proposed, of which only the number counts.
        masks: Makes the masks of some rows at the image's own size.

    Returns:
        float [n, D] mask vectors.
    """
    patches = on_grid(masks(torch.arange(len(regions))), features.shape[1:])
    inside = patches.to(features).flatten(1)
    return F.normalize(inside @ features.flatten(1).T / inside.sum(dim=1, keepdim=True).clamp(min=1), dim=1)


def grid_weights(mask: Tensor, size: Sequence[int], grid: Sequence[int]) -> Tensor:
    """The weight of each patch of a reference; see ``fill_memory.patch_weights``.

    An object without a patch has the one that it covers most, instead of being left out.
    """
    weights = _covered(mask, grid)[0].float().flatten()
    if not weights.any():
        weights[F.interpolate(mask[None].cpu(), tuple(grid), mode="area").flatten().argmax()] = 1  # see patch_weights
    return weights


def _covered(masks: Tensor, grid: Sequence[int]) -> Tensor:
    return F.interpolate(masks[:, None], tuple(grid), mode="bilinear", antialias=False)[:, 0] > 0.5
