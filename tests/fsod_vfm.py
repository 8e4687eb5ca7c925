"""FSOD-VFM (arXiv 2602.03137) on a page, without any savings, for the test that compares the package with it.

Written from what its published code does; docs/experiments.md has its equations. C classes, n boxes, tokens of width D.
"""

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

MEAN, STD = torch.tensor([[[0.485]], [[0.456]], [[0.406]]]), torch.tensor([[[0.229]], [[0.224]], [[0.225]]])


def features_of(vit: Any, image: NDArray[np.uint8], long_side: int) -> Tensor:
    """Tokens before the final norm, [D, rows, columns], of the whole image with its longer side at ``long_side``."""
    height, width = image.shape[:2]
    patch, grid = vit.patch_embed.patch_size[0], vit.patch_embed.grid_size[0]
    scale = long_side / max(height, width)
    columns, rows = (max(int(round(side * scale, 6)) // patch, 1) for side in (width, height))
    picture = Image.fromarray(image).resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    pixels = (torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255 - MEAN) / STD
    tokens = vit.patch_embed.proj(pixels[None]).flatten(2).transpose(1, 2)
    known = vit.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
    if (rows, columns) != (grid, grid):
        factor = ((rows + 0.1) / grid, (columns + 0.1) / grid)
        known = F.interpolate(known, scale_factor=factor, mode="bicubic")
    tokens = tokens + known.flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.cls_token + vit.pos_embed[:, :1], tokens], dim=1)
    for block in vit.blocks:
        tokens = block(tokens)
    return tokens[0, 1:].T.unflatten(1, (rows, columns))


def masks_of(sam2: Any, square: Tensor, boxes: Tensor, height: int, width: int) -> NDArray[np.bool_]:
    """One mask [H, W] of each box [n, 4] by SAM 2 with ``no_mem_embed``; the square is float [3, S, S] in [0, 1]."""
    backbone = sam2.forward_image(((square - MEAN) / STD)[None])
    _, maps, _, sizes = sam2._prepare_backbone_features(backbone)
    maps[-1] = maps[-1] + sam2.no_mem_embed
    *finer, embedding = [each.permute(1, 2, 0).unflatten(2, size) for each, size in zip(maps, sizes, strict=True)]
    masks = []
    for box in boxes:
        scaled = box / torch.tensor([width, height] * 2) * sam2.image_size
        labels = torch.tensor([[2, 3]], dtype=torch.int)
        sparse, dense = sam2.sam_prompt_encoder(points=(scaled.view(1, 2, 2), labels), boxes=None, masks=None)
        logits, _, _, _ = sam2.sam_mask_decoder(
            image_embeddings=embedding,
            image_pe=sam2.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=False,
            high_res_features=finer,
        )
        masks.append(F.interpolate(logits, (height, width), mode="bilinear")[0, 0].numpy() > 0)
    return np.stack(masks)


def on_cells(mask: NDArray[np.bool_], features: Tensor) -> Tensor:
    rows, columns = features.shape[1:]
    return torch.from_numpy(cv2.resize(mask.astype(np.float32), (columns, rows)) > 0.5)


def reference_vector(vit: Any, image: NDArray[np.uint8], mask: NDArray[np.bool_], long_side: int) -> Tensor:
    """The mean [D] of the tokens inside a reference."""
    features = features_of(vit, image, long_side)
    return features[:, on_cells(mask, features)].mean(dim=1)


def detect(
    features: Tensor, masks: NDArray[np.bool_], prototypes: Tensor, most: int = 100
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, scores and classes by descending score. The masks are in the order of the boxes' scores."""
    cells = torch.stack([on_cells(mask, features) for mask in masks])
    sums = (features[None] * cells[:, None]).sum(dim=(2, 3))
    vectors = F.normalize(sums / (cells.sum(dim=(1, 2)) + 1e-7)[:, None], eps=1e-2)
    scores, classes = (vectors @ F.normalize(prototypes, dim=1).T).max(dim=1)
    scores = scores * (1 - diffusion(cells, classes)).clamp(min=0) ** 0.5
    best = scores.argsort(descending=True, stable=True)[:most]
    return best, scores[best], classes[best]


def diffusion(cells: Tensor, classes: Tensor, a: float = 0.3, steps: int = 30) -> Tensor:
    """How much of each mask the better ones of its class cover, [n]."""
    covered = torch.zeros(len(cells))
    if len(cells) == 1:
        return covered
    for index in classes.unique():
        members = (classes == index).nonzero()[:, 0]
        flat = cells[members].flatten(1).float()
        weights = (flat @ flat.T / flat.sum(dim=1, keepdim=True).clamp(min=1e-6)).tril(diagonal=-1)
        start = weights.amax(dim=1)
        state = torch.ones(len(members)) / len(members)
        for _ in range(steps):
            before, state = state, a * weights @ state + (1 - a) * start
            if torch.linalg.norm(state - before) < 1e-6:
                break
        covered[members] = state
    return covered
