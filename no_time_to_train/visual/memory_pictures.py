"""Pictures of the memory: the references of each class, and what the encoder sees in them.

A picture is a sheet: rows of square tiles, each row under a title.
"""

import cv2
import numpy as np
import torch
from supervision import ColorPalette
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.data.datasets import ReferenceDataset, loaded
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fill_memory import patch_weights
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.visual.drawing import PALETTE, Picture, draw_outlines, outlines, put_text

#: Side of a tile in pixels.
TILE = 160

#: White space to the right of a tile and below a row, in pixels.
GAP = 4

#: Height of a row's title in pixels.
TITLE = 24


def reference_sheet(references: ReferenceDataset, categories: list[Category]) -> Picture:
    """Draw one row per class with the crops of its references, as the encoder will see them.

    Args:
        references: The references, in crops of ``TILE`` pixels or more.
        categories: Their classes in ascending order of the ids.
    """
    rows: list[tuple[str, list[Picture]]] = [(category.name, []) for category in categories]
    for index in range(len(references)):
        reference = loaded(references[index])
        rows[reference.class_index][1].append(crop_tile(reference.crop, reference.mask, reference.class_index))
    return _sheet(rows)


@torch.inference_mode()
def class_sheet(name: str, crops: list[tuple[Tensor, Tensor]], encoder: Encoder, k: int, n: int) -> Picture:
    """Draw the references of one class, one per column: crops, k-means regions, and principal components.

    Centers and components are computed from the tokens inside the masks of all the references together, so that the
    same color means the same in every tile of a row of regions.

    Args:
        crops: The crop, float [3, S, S] in [0, 1], and the mask, float [1, h, w] in {0, 1}, of each reference, on the
            encoder's device. Tokens with a positive mask weight are inside the mask.
        n: Principal components of the class; the first three are shown as red, green and blue.
    """
    tokens = [encoder(crop[None])[0].cpu() for crop, _ in crops]
    insides = [patch_weights(mask, encoder.size, encoder.grid).cpu() > 0 for _, mask in crops]
    foreground = torch.cat([token[inside] for token, inside in zip(tokens, insides, strict=True)])
    centers = kmeans(foreground, k)
    mean, components = principal_components(foreground, n)
    pairs = list(zip(tokens, insides, strict=True))
    return _sheet(
        [
            (name, [crop_tile(crop.cpu(), mask.cpu()) for crop, mask in crops]),
            (f"{len(centers)} k-means regions", [_region_tile(*pair, centers) for pair in pairs]),
            (f"{len(components)} principal components", [_component_tile(*pair, mean, components) for pair in pairs]),
        ]
    )


def crop_tile(
    crop: Tensor, mask: Tensor, class_index: int = 0, side: int = TILE, palette: ColorPalette = PALETTE
) -> Picture:
    """Draw a reference's crop with the outline of its mask: uint8 [side, side, 3] RGB.

    Args:
        crop: float [3, S, S] RGB; values outside [0, 1] are clipped.
        mask: float [1, h, w] in {0, 1}, of any size.
    """
    pixels = (255 * crop.clamp(0, 1)).byte().permute(1, 2, 0).numpy()
    tile = np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    inside = cv2.resize(mask[0].byte().numpy(), (side, side), interpolation=cv2.INTER_NEAREST)
    draw_outlines(tile, outlines(np.asarray(inside, np.uint8)), palette.by_idx(class_index).as_rgb(), line=2)
    return tile


def _region_tile(tokens: Tensor, inside: Tensor, centers: Tensor) -> Picture:
    """A tile with one color per k-means center: tokens [P, D], inside bool [P], centers [k, D]."""
    nearest = (F.normalize(tokens, dim=1) @ centers.T).argmax(dim=1)
    colors = torch.tensor([PALETTE.by_idx(index).as_rgb() for index in range(len(centers))])
    return _token_tile(colors[nearest], inside)


def _component_tile(tokens: Tensor, inside: Tensor, mean: Tensor, components: Tensor) -> Picture:
    """A tile with three principal components as red, green and blue: tokens [P, D], inside bool [P]."""
    values = F.pad((tokens - mean) @ components.T, (0, 3))[:, :3]
    low, high = values[inside].amin(dim=0), values[inside].amax(dim=0)
    return _token_tile(255 * (values - low) / (high - low).clamp(min=1e-6), inside)


def _token_tile(colors: Tensor, inside: Tensor) -> Picture:
    """A tile of a square grid of tokens with colors [P, 3] in [0, 255]; gray where ``inside``, bool [P], is False."""
    grid = int(len(colors) ** 0.5)
    shown = torch.where(inside[:, None], colors.float().clamp(0, 255), torch.tensor(225.0))
    picture = shown.view(grid, grid, 3).numpy().astype(np.uint8)
    return np.asarray(cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_NEAREST), np.uint8)


def _sheet(rows: list[tuple[str, list[Picture]]]) -> Picture:
    """Rows of tiles on white, each row under its title."""
    width = max(len(tiles) for _, tiles in rows) * (TILE + GAP)
    bands = []
    for title, tiles in rows:
        band = np.full((TITLE + TILE + GAP, width, 3), 255, np.uint8)
        put_text(band, title, (2, 17), 0.5)
        for index, tile in enumerate(tiles):
            left = index * (TILE + GAP)
            band[TITLE : TITLE + TILE, left : left + TILE] = tile
        bands.append(band)
    return np.vstack(bands)


def kmeans(tokens: Tensor, k: int, iterations: int = 20) -> Tensor:
    """Cluster tokens by their directions: k-means of the L2-normalized ones, which always gives the same.

    Args:
        tokens: float [n, D], n > 0.

    Returns:
        float [min(k, n), D], the L2-normalized centers.
    """
    points = F.normalize(tokens.float(), dim=1).repeat(2, 1).numpy()  # OpenCV takes a single row for a column
    cv2.setRNGSeed(0)
    ends = (cv2.TERM_CRITERIA_MAX_ITER, iterations, 0)
    _, _, centers = cv2.kmeans(points, min(k, len(tokens)), np.empty(0, np.int32), ends, 1, cv2.KMEANS_PP_CENTERS)
    return F.normalize(torch.from_numpy(centers), dim=1)


def principal_components(tokens: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Compute the first principal components of tokens.

    Args:
        tokens: float [m, D].

    Returns:
        The mean, float [D], and the components, float [min(n, m, D), D], orthonormal, in descending order of variance.
    """
    mean = tokens.mean(dim=0)
    components = torch.linalg.svd(tokens - mean, full_matrices=False).Vh[:n]
    return mean, components
