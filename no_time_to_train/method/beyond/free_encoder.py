"""An encoder with choices of FSOD-VFM: images keep their aspect ratio, and tokens are taken before the final norm."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from no_time_to_train.errors import UserError
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fill_memory import crop_reference, crop_window
from no_time_to_train.method.target_image import as_float, resize

#: What DINOv2 adds to the rows and columns of its position embeddings when it resamples them; those with registers add
#: nothing and antialias (its ``interpolate_offset`` and ``interpolate_antialias``).
OFFSET = 0.1


class FreeEncoder(Encoder):
    """The frozen encoder with other choices than the paper's.

    Args:
        vit: As in ``Encoder``, at the size that its position embeddings belong to.
        norm: Whether tokens are taken after the final norm, as in the paper.
        long_side: The longer side of an image in pixels, whose aspect ratio is kept; None squashes it to a square.
    """

    def __init__(self, vit: nn.Module, norm: bool = True, long_side: int | None = None) -> None:
        super().__init__(vit)
        self.norm, self.long_side = norm, long_side
        if long_side is not None:
            self.vit.patch_embed.strict_img_size = False

    def forward(self, images: Tensor, resampled: bool = False) -> Tensor:
        """As in ``Encoder``, of images float [B, 3, H, W] whose sides are multiples of the patch size."""
        if resampled or self.long_side is None:
            return super().forward(images)
        positions = dinov2_positions(self.vit, *self.grid_of(images[0]))
        tokens: Tensor = functional_call(self, {"vit.pos_embed": positions}, (images, True))
        return tokens

    def patch_tokens(self, images: Tensor) -> Tensor:
        if self.norm:
            return super().patch_tokens(images)
        options: dict[str, Any] = {"indices": 1, "norm": False, "output_fmt": "NLC", "intermediates_only": True}
        tokens: Tensor = self.vit.forward_intermediates(images, **options)[0]
        return tokens

    def grid_of(self, image: Tensor) -> tuple[int, int]:
        patch = self.size // self.grid
        return image.shape[1] // patch, image.shape[2] // patch

    def feature_map(self, images: Tensor) -> Tensor:
        """As in ``Encoder``; where the aspect ratio is kept, of images at the size of :func:`encoder_view`."""
        if self.long_side is None:
            return super().feature_map(images)
        return self(images).transpose(1, 2).unflatten(2, self.grid_of(images[0]))


def encoder_view(image: NDArray[np.uint8], long_side: int, patch: int) -> Tensor:
    """An image uint8 [H, W, 3] whose longer side is ``long_side``, both cut to whole patches: uint8 [3, h, w]."""
    height, width = image.shape[:2]
    ratio = width / height
    sides = (long_side, int(long_side / ratio)) if ratio >= 1 else (int(long_side * ratio), long_side)
    columns, rows = (max(side // patch, 1) for side in sides)
    return resize(image, columns * patch, rows * patch)


def crop_freely(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    bbox: list[float],
    size: int,
    context_ratio: float | None,
    patch: int | None,
) -> tuple[Tensor, Tensor]:
    """A reference as ``fill_memory.crop_reference`` crops it, or not cropped, or with its aspect ratio.

    Args:
        size: Side of the square in pixels, or the longer side of the crop.
        context_ratio: None takes the whole image.
        patch: Side of a patch in pixels, for a crop that keeps its aspect ratio; None squashes the image to a square.

    Returns:
        The crop, float32 [3, h, w], and its mask, float32 [1, H, W] in {0, 1}, before resizing.
    """
    height, width = mask.shape
    x1, y1, x2, y2 = (0, 0, width, height) if context_ratio is None else crop_window(bbox, height, width, context_ratio)
    if patch is None:
        return crop_reference(image, mask, [x1, y1, x2 - x1, y2 - y1], size, context_ratio=0)
    if not mask[y1:y2, x1:x2].any():
        raise UserError("the mask is empty in the box of the annotation")
    view = encoder_view(np.ascontiguousarray(image[y1:y2, x1:x2]), size, patch)
    return as_float(view), torch.from_numpy(mask[None, y1:y2, x1:x2].astype(np.float32))


def dinov2_positions(vit: Any, rows: int, columns: int) -> Tensor:
    """The position embeddings [1, T + rows * columns, D] of a DINOv2, resampled as its own code does."""
    grid: int = vit.patch_embed.grid_size[0]
    known: Tensor = vit.pos_embed
    if rows == columns == grid:
        return known
    prefix, patches = known.float().split([known.shape[1] - grid * grid, grid * grid], dim=1)
    patches = patches.transpose(1, 2).unflatten(2, (grid, grid))
    if vit.reg_token is None:
        scale = (rows + OFFSET) / grid, (columns + OFFSET) / grid
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", antialias=False)
    else:
        patches = F.interpolate(patches, (rows, columns), mode="bicubic", antialias=True)
    return torch.cat([prefix, patches.flatten(2).transpose(1, 2)], dim=1).to(known)
