"""Pictures of the memory: the references of each class, and what the encoder sees in them."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.data.datasets import BadImage, ReferenceDataset
from no_time_to_train.errors import UserError
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.visual.drawing import PALETTE

TILE = 160  # side of a reference in a picture, in pixels
TITLE = 24  # height of a class's name over its row, in pixels

Picture = NDArray[np.uint8]


def kmeans(tokens: Tensor, k: int, iterations: int = 20) -> Tensor:
    """k-means by cosine, begun at the tokens farthest from one another, so that nothing is random.

    Args:
        tokens: float [n, D], n > 0.
        k: centres; fewer where there are fewer tokens.

    Returns:
        float [min(k, n), D] centres, L2-normalised.
    """
    tokens = F.normalize(tokens, dim=1)
    centres = F.normalize(tokens.mean(dim=0, keepdim=True), dim=1)
    for _ in range(min(k, len(tokens))):
        nearest = (tokens @ centres.T).amax(dim=1)
        centres = torch.cat([centres, tokens[nearest.argmin()][None]])
    centres = centres[1:]
    for _ in range(iterations):
        assignment = F.one_hot((tokens @ centres.T).argmax(dim=1), len(centres)).to(tokens.dtype)
        moved = F.normalize(assignment.T @ tokens, dim=1)
        centres = torch.where(assignment.any(dim=0)[:, None], moved, centres)
    return centres


def principal_components(tokens: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The mean [D] and the first principal components [min(n, ...), D] of tokens [m, D]."""
    mean = tokens.mean(dim=0)
    components = torch.linalg.svd(tokens - mean, full_matrices=False).Vh[:n]
    return mean, components


def decode_crop(png: Tensor) -> tuple[Tensor, Tensor]:
    """A reference's crop, float [3, S, S] in [0, 1], and its mask, float [1, S, S] in {0, 1}, as a memory keeps them.

    Args:
        png: uint8 [bytes], transparent outside the mask.
    """
    pixels = torch.from_numpy(cv2.imdecode(png.numpy(), cv2.IMREAD_UNCHANGED)).permute(2, 0, 1)
    return pixels[[2, 1, 0]].float() / 255, (pixels[3:] > 0).float()


def crop_tile(crop: Tensor, mask: Tensor) -> Picture:
    """A reference's crop [3, S, S] in [0, 1] as a tile, with the outline of its mask [1, h, w]."""
    pixels = (255 * crop.clamp(0, 1)).byte().permute(1, 2, 0).numpy()
    tile = cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_AREA)
    inside = cv2.resize(mask[0].byte().numpy(), (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    outline, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for colour, thickness in (((255, 255, 255), 4), ((214, 39, 40), 2)):
        cv2.drawContours(tile, outline, -1, colour, thickness)
    return np.asarray(tile, np.uint8)


def region_tile(tokens: Tensor, inside: Tensor, centres: Tensor) -> Picture:
    """Which k-means centre each token inside the mask is nearest to, a colour each: tokens [P, D], inside bool [P]."""
    nearest = (F.normalize(tokens, dim=1) @ centres.T).argmax(dim=1)
    colours = torch.tensor([PALETTE.by_idx(index).as_rgb() for index in range(len(centres))])
    return token_tile(colours[nearest], inside)


def component_tile(tokens: Tensor, inside: Tensor, mean: Tensor, components: Tensor) -> Picture:
    """The principal components of the tokens inside the mask as red, green and blue: tokens [P, D], inside bool [P]."""
    values = F.pad((tokens - mean) @ components.T, (0, 3))[:, :3]
    low, high = values[inside].amin(dim=0), values[inside].amax(dim=0)
    return token_tile(255 * (values - low) / (high - low).clamp(min=1e-6), inside)


def token_tile(colours: Tensor, inside: Tensor) -> Picture:
    """Colours [P, 3] in [0, 255] of a square map of tokens as a tile, grey outside the mask."""
    grid = int(len(colours) ** 0.5)
    shown = torch.where(inside[:, None], colours.float().clamp(0, 255), torch.tensor(225.0))
    picture = shown.view(grid, grid, 3).numpy().astype(np.uint8)
    return np.asarray(cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_NEAREST), np.uint8)


def sheet(rows: list[tuple[str, list[Picture]]]) -> Picture:
    """Rows of tiles, each under its title, on white: uint8 [H, W, 3]."""
    width = max(len(tiles) for _, tiles in rows) * (TILE + 4)
    bands = []
    for title, tiles in rows:
        band = np.full((TITLE + TILE + 4, width, 3), 255, np.uint8)
        cv2.putText(band, title, (2, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
        for index, tile in enumerate(tiles):
            band[TITLE : TITLE + TILE, index * (TILE + 4) : index * (TILE + 4) + TILE] = tile
        bands.append(band)
    return np.vstack(bands)


def class_sheet(
    name: str, crops: list[tuple[Tensor, Tensor]], tokens: list[Tensor], weights: list[Tensor], k: int, n: int
) -> Picture:
    """A class's references, over their k-means regions and their principal components, a column each.

    Args:
        name: the class's.
        crops: (crop [3, S, S], mask [1, h, w]) of each reference.
        tokens: [P, D] of each.
        weights: [P] mask weights of each; tokens of a positive weight are inside.
        k: k-means centres of the class.
        n: principal components; the first three are shown.
    """
    insides = [weight > 0 for weight in weights]
    foreground = torch.cat([token[inside] for token, inside in zip(tokens, insides, strict=True)])
    centres = kmeans(foreground, k)
    mean, components = principal_components(foreground, n)
    pairs = list(zip(tokens, insides, strict=True))
    return sheet(
        [
            (name, [crop_tile(*crop) for crop in crops]),
            (f"{len(centres)} k-means regions", [region_tile(*pair, centres) for pair in pairs]),
            (f"{len(components)} principal components", [component_tile(*pair, mean, components) for pair in pairs]),
        ]
    )


def reference_sheet(references: ReferenceDataset, categories: list[Category]) -> Picture:
    """A row a class with each of its references, as the encoder will see them.

    Raises:
        UserError: an image or a mask cannot be read.
    """
    rows: list[tuple[str, list[Picture]]] = [(category.name, []) for category in categories]
    for index in range(len(references)):
        reference = references[index]
        if isinstance(reference, BadImage):
            raise UserError(reference.reason)
        rows[reference.class_index][1].append(crop_tile(reference.crop, reference.mask))
    return sheet(rows)
