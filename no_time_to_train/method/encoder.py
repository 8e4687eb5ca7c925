"""DINOv2: the patch tokens of a frozen vision transformer describe what a mask contains."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

#: ImageNet's statistics for images in [0, 1]. Both networks are fed images normalized with them.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """ImageNet normalization of [B, 3, H, W] images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Encoder(nn.Module):
    """The frozen DINOv2: square images to maps of patch tokens.

    Args:
        vit: The network, without a classification head.

    Attributes:
        size: Side of the input in pixels (518 in the paper).
        grid: Patches per side (37), so that an image has P = grid * grid patch tokens.
        dim: D, the width of a token.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.normalize = Normalize()
        self.size: int = vit.patch_embed.img_size[0]
        self.grid: int = vit.patch_embed.grid_size[0]
        self.dim: int = vit.embed_dim

    def forward(self, images: Tensor) -> Tensor:
        """Patch tokens after the final norm.

        Args:
            images: float [B, 3, size, size] in [0, 1].

        Returns:
            float32 [B, P, D], also under autocast, in row-major order of the patches and not L2-normalized.
        """
        tokens: Tensor = self.vit.forward_features(self.normalize(images))
        return tokens[:, self.vit.num_prefix_tokens :].float()

    def feature_map(self, images: Tensor) -> Tensor:
        """The feature map of target images (docs/method.md, 3.2).

        Args:
            images: float [B, 3, S, S] in [0, 1], squares of any size S.

        Returns:
            float32 [B, D, grid, grid].
        """
        tokens = self(F.interpolate(images, self.size, mode="bicubic", antialias=False))
        return tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
