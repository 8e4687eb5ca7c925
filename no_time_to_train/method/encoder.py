"""The encoder: the patch tokens of a frozen vision transformer, DINOv2 in the paper, describe what a mask contains."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from no_time_to_train.errors import UserError

#: ImageNet's statistics for images in [0, 1]. SAM 2 and DINOv2 are fed images normalized with them.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def check_finite(values: Tensor, source: str, file: str = "checkpoint") -> Tensor:
    """Return the values, or raise an error where one is NaN or infinite: scores would be wrong without any sign of it.

    A sum of many numbers checks all of them, because it is not finite if one of them is not.

    Args:
        source: What the values are from, such as ``SAM 2``.
        file: The kind of its file.
    """
    if not values.isfinite().all():
        raise UserError(f"{source} gives values that are not finite: is its {file} damaged?")
    return values


def without_autocast(like: Tensor) -> torch.autocast:
    """A context in which the device of ``like`` computes in float32: autocast is for the networks only."""
    return torch.autocast(like.device.type, enabled=False)


class Normalize(nn.Module):
    """Normalization of [B, 3, H, W] images in [0, 1] by the mean and the standard deviation of each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGE_MEAN, std: Sequence[float] = IMAGE_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Encoder(nn.Module):
    """The frozen encoder, DINOv2 in the paper: square images to maps of patch tokens.

    Args:
        vit: A vision transformer as timm builds them, without a classification head. Its ``pretrained_cfg`` states the
            mean and the standard deviation of the images that it was trained with; without one they are ImageNet's.

    Attributes:
        size: Side of the input in pixels (518 in the paper).
        grid: Patches per side (37), so that an image has P = grid * grid patch tokens.
        dim: D, the width of a token.
        debias: How many directions that encode positions :meth:`remove_positions` has removed; 0 in the paper.
    """

    positions: Tensor

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = cast(Any, vit)  # its attributes are timm's
        config = getattr(vit, "pretrained_cfg", {})
        self.normalize = Normalize(config.get("mean", IMAGE_MEAN), config.get("std", IMAGE_STD))
        self.size: int = self.vit.patch_embed.img_size[0]
        self.grid: int = self.vit.patch_embed.grid_size[0]
        self.dim: int = self.vit.embed_dim
        self.debias = 0
        self.register_buffer("positions", torch.empty(0, self.dim), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Patch tokens after the final norm, of images float [B, 3, size, size] in [0, 1].

        Returns:
            float32 [B, P, D], also under autocast, in row-major order of the patches and not L2-normalized.
        """
        tokens = self.patch_tokens(self.normalize(images)).float()
        if not self.debias:
            return tokens
        with without_autocast(tokens):
            return tokens - (tokens @ self.positions.T) @ self.positions

    def patch_tokens(self, images: Tensor) -> Tensor:
        """Patch tokens after the final norm, float [B, P, D], of normalized images."""
        tokens: Tensor = self.vit.forward_features(images)
        return tokens[:, self.vit.num_prefix_tokens :]

    def grid_of(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of the patches of an image, [3, size, size]."""
        return self.grid, self.grid

    @torch.no_grad()
    def remove_positions(self, count: int) -> None:
        """From now on, remove the directions in which the tokens of a blank image differ: they only encode positions.

        This is the positional debiasing of INSID3 (Cuttano et al., CVPR 2026): of the tokens of a black image, each of
        length 1 and minus their mean, the most important left singular vectors are projected out of every token.
        Call it on the CPU, after the weights have been loaded.
        """
        most = min(self.grid**2, self.dim) - 1
        if count > most:
            raise UserError(f"debias is {count}, but the blank image of this encoder has only {most} directions")
        self.debias, self.positions = 0, torch.empty(0, self.dim)
        if count:
            tokens = F.normalize(self(torch.zeros(1, 3, self.size, self.size))[0].double(), dim=1)
            rows = torch.linalg.svd(tokens - tokens.mean(dim=0), full_matrices=False).Vh[:count]
            self.debias, self.positions = count, rows.float().contiguous()

    def feature_map(self, images: Tensor) -> Tensor:
        """The feature map, float32 [B, D, grid, grid], of images float [B, 3, S, S] in [0, 1] (docs/method.md, 3.2)."""
        tokens = self(F.interpolate(images, self.size, mode="bicubic", antialias=False))
        return tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
