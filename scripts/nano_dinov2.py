"""The training of the nano DINOv2: the mean token of an object has a high cosine with others of its class only.

Objects are seen in whole scenes, in close-ups as references are, and as surfaces without an outline.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from nano_batches import EVALUATION, TARGET_SIZE, Batch, as_input, coverage, random_scene, stack
from nano_patterns import BASE_CLASSES
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from no_time_to_train.demo.scenes import (
    NOVEL_CLASSES,
    NUM_BACKGROUNDS,
    PatternClass,
    Scene,
    draw_surface,
    tile_pyramid,
)
from no_time_to_train.networks.encoders import DINOV2_NANO, PATCH_SIZE
from no_time_to_train.networks.registry import default_context_ratio

#: Scenes of a batch whose close-ups are used.
CLOSE_UPS = 2

#: R, the number of regions that a view has room for.
REGIONS = 26

#: The label of unused regions, and of tokens that lie in more than one region.
IGNORED = -1

#: The resolution of a pattern's spectrum: octaves of frequency, directions, and harmonics of the tile per axis.
OCTAVES, ANGLES, HARMONICS = 7, 6, 4


@dataclass(frozen=True)
class Views:
    """How scenes and patterns are presented to the ViT.

    Attributes:
        size: S, the side of the ViT's input in pixels.
        context: A close-up's side is the longer side of the object's box times one plus this.
        tiles: Smallest and largest width of a tile on a sheet, in pixels over the pattern's scale, as in scenes.
        surfaces: Smallest and largest number of surfaces along a sheet's side.
    """

    size: int
    context: float
    tiles: tuple[int, int]
    surfaces: tuple[int, int]


def dinov2_example(rng: np.random.Generator, scene: Scene, views: Views) -> Batch:
    """A training example of three views: the scene, a close-up of one of its objects, and a sheet of surfaces.

    Args:
        rng: Everything that is random comes from it.
        scene: A scene with objects of the base classes (for evaluation, of the novel classes).
        views: How to present them.

    Returns:
        With G patches per side: ``image`` float32 [3, 3, S, S], ``weights`` of the regions float32 [3, R, G, G] in
        [0, 1], ``labels`` of the regions int64 [3, R] and ``token_labels`` int64 [3, G, G]. In the first two views the
        last region is the background, whose labels follow those of the base classes.
    """
    masks = np.zeros((REGIONS, *scene.masks.shape[1:]), bool)
    masks[: len(scene.masks)] = scene.masks
    masks[-1] = ~scene.masks.any(axis=0)
    labels = np.full(REGIONS, IGNORED)
    labels[: len(scene.labels)] = scene.labels
    labels[-1] = len(BASE_CLASSES) + scene.background
    whole = cv2.resize(scene.image, (TARGET_SIZE, TARGET_SIZE), interpolation=cv2.INTER_AREA)
    rows, columns = reference_window(scene.masks[rng.integers(len(scene.masks))], views.context)
    return stack(
        [
            view(whole, masks, labels, views.size),
            view(scene.image[rows, columns], masks[:, rows, columns], labels, views.size),
            view(*draw_sheet(rng, views), views.size),
        ]
    )


def view(image: NDArray[Any], masks: NDArray[np.bool_], labels: NDArray[np.int64], size: int) -> Batch:
    """Resize an image and its regions to the ViT's input and patches.

    Args:
        image: uint8 [H, W, 3] RGB.
        masks: bool [R, H, W], the regions; unused ones are empty.
        labels: int64 [R].
        size: Side of the ViT's input in pixels.

    Returns:
        One view of :func:`dinov2_example`.
    """
    weights = coverage(masks, size // PATCH_SIZE)
    present = torch.from_numpy(labels).where(weights.sum((1, 2)) > 1, IGNORED)
    cover, region = weights.max(0)
    return {
        "image": as_input(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)),
        "weights": weights,
        "labels": present,
        "token_labels": present[region].where(cover > 0.8, IGNORED),
    }


def draw_sheet(
    rng: np.random.Generator, views: Views
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]:
    """Draw a grid of surfaces without outlines, from which the ViT learns patterns fastest.

    Args:
        rng: Everything that is random comes from it.
        views: How to present them.

    Returns:
        The image, uint8 [S, S, 3]; the regions, bool [R, S, S]; and their labels, int64 [R].
    """
    size, side = views.size, int(rng.integers(*views.surfaces, endpoint=True))
    edges = np.linspace(0, size, side + 1).round().astype(int)
    image = np.zeros((size, size, 3), np.float32)
    masks = np.zeros((REGIONS, size, size), bool)
    labels = np.full(REGIONS, IGNORED)
    for index in range(side**2):
        (top, bottom), (left, right) = edges[index // side :][:2], edges[index % side :][:2]
        labels[index] = rng.integers(len(BASE_CLASSES))
        pattern = BASE_CLASSES[labels[index]]
        width = min(pattern.scale * np.exp(rng.uniform(*np.log(views.tiles))), size / side / 1.2)
        image[top:bottom, left:right] = draw_surface(
            rng, pattern, np.ones((bottom - top, right - left), np.float32), width
        )
        masks[index, top:bottom, left:right] = True
    return (image.clip(0, 1) * 255).astype(np.uint8), masks, labels


def reference_window(mask: NDArray[np.bool_], context: float) -> tuple[slice, slice]:
    """The window that the method crops around a reference instance.

    Args:
        mask: bool [H, W], not empty.
        context: See :class:`Views`.

    Returns:
        The rows and columns of the window.
    """
    ys, xs = np.nonzero(mask)
    half = max(np.ptp(xs) + 1, np.ptp(ys) + 1) * (1 + context) / 2
    center_y, center_x = (ys.min() + ys.max() + 1) / 2, (xs.min() + xs.max() + 1) / 2
    rows = slice(max(0, int(center_y - half)), int(center_y + half))
    return rows, slice(max(0, int(center_x - half)), int(center_x + half))


def region_vectors(model: VisionTransformer, images: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Encode images and average the tokens inside their regions.

    Args:
        model: The ViT.
        images: float [B, 3, S, S], normalized.
        weights: float [B, R, G, G] in [0, 1], the weights of the tokens in each region.

    Returns:
        The tokens after the final norm, [B, G * G, D], and the regions' weighted means, [B, R, D].
    """
    tokens = model.forward_features(images)[:, model.num_prefix_tokens :]
    weights = weights.flatten(2)
    return tokens, weights @ tokens / weights.sum(2, keepdim=True).clamp(min=1e-6)


def spectrum(pattern: PatternClass) -> Tensor:
    """A description of how a pattern looks that does not depend on its phase and colors.

    It holds the energy of the tile by direction and by waves per object, the energy of each low harmonic of the tile
    itself, and the share of the lighter tone.

    Returns:
        float32 [OCTAVES * ANGLES + (2 * HARMONICS + 1) * (HARMONICS + 1) + 1].
    """
    tile = tile_pyramid(pattern)[0][:-1, :-1]
    energy = np.abs(np.fft.fft2(tile - tile.mean())) ** 2
    energy /= energy.sum()
    k = np.fft.fftfreq(len(tile), 1 / len(tile))
    ky, kx = np.meshgrid(k, k, indexing="ij")
    octave = np.log2(np.maximum(np.hypot(kx, ky), 1) / pattern.scale)[..., None] - np.arange(OCTAVES) - 0.5
    angle = (np.arctan2(ky, kx) % np.pi / np.pi * ANGLES)[..., None] - np.arange(ANGLES)
    angle = (angle + ANGLES / 2) % ANGLES - ANGLES / 2
    polar = np.einsum("yx,yxo,yxa->oa", energy, np.exp(-((octave / 0.6) ** 2)), np.exp(-((angle / 0.7) ** 2)))
    low = energy[np.ix_(range(-HARMONICS, HARMONICS + 1), range(HARMONICS + 1))].copy()
    low[HARMONICS, 0] = 0
    parts = [np.sqrt(part.ravel() / part.sum()) * weight for part, weight in ((polar, 1.0), (low, 0.7))]
    return torch.tensor(np.concatenate([*parts, [2 * tile.mean() - 1]]), dtype=torch.float32)


class Classifier(nn.Module):
    """A head for training only: cosines of whitened vectors with one direction per base class and background.

    The direction of a base class is a linear map of its spectrum, plus an offset of its own. So what is learned from
    one pattern helps all patterns that look like it. That is many times faster than learning each direction alone, and
    it carries over to patterns that training does not show.

    Args:
        width: D, the width of a token.
    """

    spectra: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.center = nn.BatchNorm1d(width, affine=False, momentum=0.02)  # statistics of region means, never of tokens
        spectra = torch.stack([spectrum(pattern) for pattern in BASE_CLASSES])
        self.register_buffer("spectra", F.normalize(spectra - spectra.mean(0), dim=1))
        self.embed = nn.Linear(spectra.shape[1], width, bias=False)
        nn.init.normal_(self.embed.weight)
        self.offsets = nn.Parameter(torch.zeros(len(BASE_CLASSES), width))
        self.backgrounds = nn.Parameter(torch.randn(NUM_BACKGROUNDS, width))
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, vectors: Tensor, are_means: bool) -> Tensor:
        """Classify vectors.

        Args:
            vectors: float [n, D], not normalized.
            are_means: Whether they are means of regions, which the statistics are taken from, or single tokens.

        Returns:
            Logits, float [n, base classes + backgrounds].
        """
        self.center.train(are_means)
        directions = torch.cat([self.embed(self.spectra) + self.offsets, self.backgrounds])
        return self.log_scale.exp() * F.normalize(self.center(vectors), dim=1) @ F.normalize(directions, dim=1).T

    def fold_into(self, norm: nn.LayerNorm) -> None:
        """Let the ViT's final norm center and whiten tokens, so that their means can be compared without this head."""
        assert self.center.running_mean is not None
        assert self.center.running_var is not None
        deviation = (self.center.running_var + self.center.eps).sqrt()
        norm.weight.data /= deviation
        norm.bias.data = (norm.bias.data - self.center.running_mean) / deviation


def start_as_waves(model: VisionTransformer) -> None:
    """Initialize the patch embedding with random oriented waves of zero mean, which the first block rectifies.

    So the ViT starts with tokens that describe patterns and not colors. With the usual random initialization, means of
    tokens hold almost nothing about a pattern, and training stays on a plateau.
    """
    block: Any = model.blocks[0]
    patch_embed, first = model.patch_embed.proj, block.mlp
    count, _, side, _ = patch_embed.weight.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1).uniform_(low, high)

    y, x = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    frequency = 2 * torch.pi / side * uniform(np.log(0.4), np.log(3.5)).exp()  # cycles per patch
    turn, phase, spread = uniform(0, torch.pi), uniform(0, 2 * torch.pi), uniform(2.5, 6)
    distance = (x - uniform(-3, 3)) ** 2 + (y - uniform(-3, 3)) ** 2
    waves = torch.cos(frequency * (turn.cos() * x + turn.sin() * y) + phase) * torch.exp(-distance / (2 * spread**2))
    waves = F.normalize((waves - waves.mean((1, 2), keepdim=True)).flatten(1)).view_as(waves)
    colors = F.normalize(torch.full((count, 3), 3**-0.5) + 0.3 * torch.randn(count, 3))
    patch_embed.weight.data = 0.15 * waves[:, None] * colors[..., None, None]
    first.fc1.weight.data[: 2 * count] = 2 * torch.cat([torch.eye(count), -torch.eye(count)])
    nn.init.normal_(first.fc2.weight, std=0.3 * first.fc2.in_features**-0.5)
    first.fc2.weight.data[:, : 2 * count] += 2 * torch.eye(count).repeat(1, 2)
    block.ls2.gamma.data.fill_(1)


def dinov2_loss(model: VisionTransformer, head: Classifier, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the mean tokens of objects and backgrounds, and of the single tokens inside them.

    Args:
        model: The ViT.
        head: The classifier.
        batch: Examples of :func:`dinov2_example`, stacked.

    Returns:
        The loss, and the accuracy on objects as ``{"accuracy": float}``.
    """
    views = {key: torch.cat([value[:, 0], value[:CLOSE_UPS, 1], value[:, 2]]) for key, value in batch.items()}
    tokens, vectors = region_vectors(model, views["image"], views["weights"])
    loss, accuracy = torch.zeros(()), 0.0
    for found, labels, share in ((vectors, views["labels"], 1.0), (tokens, views["token_labels"].flatten(1), 0.3)):
        logits, labels = head(found[labels != IGNORED], are_means=share == 1), labels[labels != IGNORED]
        losses = F.cross_entropy(logits, labels, reduction="none")
        is_object = labels < len(BASE_CLASSES)
        loss = loss + share * (losses[is_object].mean() + 0.3 * losses[~is_object].mean())
        if share == 1:
            accuracy = (logits.argmax(1) == labels)[is_object].float().mean().item()
    return loss, {"accuracy": accuracy}


@torch.inference_mode()
def evaluate_dinov2(model: VisionTransformer, seed: int, scenes: int = 100) -> dict[str, float]:
    """Classify objects of the novel classes from their true masks.

    Args:
        model: The ViT.
        seed: The seed of the scenes.
        scenes: The number of scenes.

    Returns:
        The accuracy with prototypes of 5 shots and of 1; and, with 5 shots, the mean cosine of objects with their own
        prototype, and of backgrounds with the nearest one.
    """
    shots: list[list[Tensor]] = [[] for _ in NOVEL_CLASSES]
    objects, labels, backgrounds = [], [], []
    views = Views(model.patch_embed.img_size[0], default_context_ratio(DINOV2_NANO), tiles=(40, 140), surfaces=(3, 4))
    index = 0
    while index < scenes or min(map(len, shots)) < 5:
        rng = np.random.default_rng([seed, EVALUATION, index])
        example = dinov2_example(rng, random_scene(rng, NOVEL_CLASSES), views)
        whole, close_up = region_vectors(model, example["image"][:2], example["weights"][:2])[1]
        reference = int(example["weights"][1, :8].sum((1, 2)).argmax())
        shots[int(example["labels"][1, reference])].append(close_up[reference])
        present = example["labels"][0, :8] != IGNORED
        objects.append(whole[:8][present])
        labels.append(example["labels"][0, :8][present])
        backgrounds.append(whole[-1])
        index += 1
    found, truth = F.normalize(torch.cat(objects), dim=1), torch.cat(labels)
    cosines = {
        n: found @ F.normalize(torch.stack([torch.stack(vectors[:n]).mean(0) for vectors in shots]), dim=1).T
        for n in (1, 5)
    }
    prototypes = F.normalize(torch.stack([torch.stack(vectors[:5]).mean(0) for vectors in shots]), dim=1)
    return {
        "accuracy_5_shot": (cosines[5].argmax(1) == truth).float().mean().item(),
        "accuracy_1_shot": (cosines[1].argmax(1) == truth).float().mean().item(),
        "cosine_of_own_prototype": cosines[5].gather(1, truth[:, None]).mean().item(),
        "cosine_of_background": (F.normalize(torch.stack(backgrounds), dim=1) @ prototypes.T).amax(1).mean().item(),
    }
