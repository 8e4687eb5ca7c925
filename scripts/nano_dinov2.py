"""The nano DINOv2: averages of tokens inside objects, seen whole in a scene or close up, are told apart by cosine."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from nano_batches import EVALUATION, TARGET_SIZE, Batch, as_input, coverage, random_scene, stack
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from no_time_to_train.demo.run_demo import CONTEXT_RATIO
from no_time_to_train.demo.scenes import (
    BASE_CLASSES,
    NOVEL_CLASSES,
    NUM_BACKGROUNDS,
    PatternClass,
    Scene,
    draw_surface,
    pattern_tile,
)
from no_time_to_train.networks.registry import PATCH_SIZE

CLOSE_UPS = 2  # of a batch's scenes
REGIONS = 26  # places for the regions of a view
IGNORED = -1  # label of what is not there, and of tokens that straddle regions
OCTAVES, ANGLES, HARMONICS = 7, 6, 4  # of a pattern's spectrum


@dataclass(frozen=True)
class Views:
    """How the ViT is shown scenes and patterns.

    Attributes:
        size: side of its input, in pixels.
        context: around the object of a close-up, over its box's longer side.
        tiles: least and greatest width of a tile on a sheet, over the pattern's scale, in pixels: as in scenes.
        surfaces: least and greatest number of surfaces along a sheet's side.
    """

    size: int
    context: float
    tiles: tuple[int, int]
    surfaces: tuple[int, int]


def dinov2_example(rng: np.random.Generator, scene: Scene, views: Views) -> Batch:
    """Three views, v = 0, 1, 2: the scene, a close-up of one of its objects, and a sheet of surfaces.

    Returns:
        Images [3, 3, S, S], regions' weights [3, R, G, G] and labels [3, R], tokens' labels [3, G, G]. In the first two
        views the last region is the background. What is not there has the label IGNORED.
    """
    masks = np.zeros((REGIONS, *scene.masks.shape[1:]), bool)
    masks[: len(scene.masks)] = scene.masks
    masks[-1] = ~scene.masks.any(axis=0)
    labels = np.full(REGIONS, IGNORED)
    labels[: len(scene.labels)] = scene.labels
    labels[-1] = len(BASE_CLASSES) + scene.background
    whole = cv2.resize(scene.image, (TARGET_SIZE, TARGET_SIZE), interpolation=cv2.INTER_AREA)
    window = reference_window(scene.masks[rng.integers(len(scene.masks))], views.context)
    return stack(
        [
            view(whole, masks, labels, views.size),
            view(scene.image[window], masks[(slice(None), *window)], labels, views.size),
            view(*draw_sheet(rng, views), views.size),
        ]
    )


def view(image: NDArray[np.uint8], masks: NDArray[np.bool_], labels: NDArray[np.int64], size: int) -> Batch:
    """An image [H, W, 3] and its regions [R, H, W] as the ViT takes them."""
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
    """Nothing but surfaces, side by side: they teach patterns the fastest."""
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
    """The window (rows, columns) that the method crops around a reference instance with this mask."""
    ys, xs = np.nonzero(mask)
    half = max(np.ptp(xs) + 1, np.ptp(ys) + 1) * (1 + context) / 2
    cy, cx = (ys.min() + ys.max() + 1) / 2, (xs.min() + xs.max() + 1) / 2
    return slice(max(0, int(cy - half)), int(cy + half)), slice(max(0, int(cx - half)), int(cx + half))


def region_vectors(model: VisionTransformer, images: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Final tokens [B, G G, D] of images, and their averages [B, R, D] under region weights [B, R, G, G]."""
    tokens = model.forward_features(images)[:, model.num_prefix_tokens :]
    weights = weights.flatten(2)
    return tokens, weights @ tokens / weights.sum(2, keepdim=True).clamp(min=1e-6)


def spectrum(pattern: PatternClass) -> Tensor:
    """What a pattern looks like, whatever its phase and colours: [OCTAVES x ANGLES + the lowest harmonics + 1].

    The energy of its tile by waves an object and direction, the energy of each low harmonic of the tile itself, and the
    share of its lighter tone.
    """
    tile = pattern_tile(pattern)
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
    """Logits of base classes and backgrounds: cosines of whitened vectors with a direction a class. In training only.

    A base class's direction is a linear map of its spectrum, and an offset of its own. What is learned of a pattern so
    serves all that look like it, which is many times faster than directions learned one by one, and holds for patterns
    never seen.
    """

    spectra: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.centre = nn.BatchNorm1d(width, affine=False, momentum=0.02)  # statistics of averages, never of tokens
        spectra = torch.stack([spectrum(pattern) for pattern in BASE_CLASSES])
        self.register_buffer("spectra", F.normalize(spectra - spectra.mean(0), dim=1))
        self.embed = nn.Linear(spectra.shape[1], width, bias=False)
        nn.init.normal_(self.embed.weight)
        self.offsets = nn.Parameter(torch.zeros(len(BASE_CLASSES), width))
        self.backgrounds = nn.Parameter(torch.randn(NUM_BACKGROUNDS, width))
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, vectors: Tensor, are_averages: bool) -> Tensor:
        self.centre.train(are_averages)
        directions = torch.cat([self.embed(self.spectra) + self.offsets, self.backgrounds])
        return self.log_scale.exp() * F.normalize(self.centre(vectors), dim=1) @ F.normalize(directions, dim=1).T

    def fold_into(self, norm: nn.LayerNorm) -> None:
        """Let the ViT's final ``norm`` centre its tokens itself, so that plain averages of them can be compared."""
        assert self.centre.running_mean is not None
        assert self.centre.running_var is not None
        deviation = (self.centre.running_var + self.centre.eps).sqrt()
        norm.weight.data /= deviation
        norm.bias.data = (norm.bias.data - self.centre.running_mean) / deviation


def start_as_waves(model: VisionTransformer) -> None:
    """Patches start as random oriented waves without a mean, rectified by the first block: patterns, not colours.

    From the usual random start, averages of tokens hold next to nothing of a pattern, and training stays on a plateau.
    """
    patch_embed, first = model.patch_embed.proj, model.blocks[0].mlp
    count, _, side, _ = patch_embed.weight.shape

    def uniform(least: float, greatest: float) -> Tensor:
        return torch.empty(count, 1, 1).uniform_(least, greatest)

    y, x = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    frequency = 2 * torch.pi / side * uniform(np.log(0.4), np.log(3.5)).exp()  # cycles a patch
    turn, phase, spread = uniform(0, torch.pi), uniform(0, 2 * torch.pi), uniform(2.5, 6)
    distance = (x - uniform(-3, 3)) ** 2 + (y - uniform(-3, 3)) ** 2
    waves = torch.cos(frequency * (turn.cos() * x + turn.sin() * y) + phase) * torch.exp(-distance / (2 * spread**2))
    waves = F.normalize((waves - waves.mean((1, 2), keepdim=True)).flatten(1)).view_as(waves)
    colours = F.normalize(torch.full((count, 3), 3**-0.5) + 0.3 * torch.randn(count, 3))
    patch_embed.weight.data = 0.15 * waves[:, None] * colours[..., None, None]
    first.fc1.weight.data[: 2 * count] = 2 * torch.cat([torch.eye(count), -torch.eye(count)])
    nn.init.normal_(first.fc2.weight, std=0.3 * first.fc2.in_features**-0.5)
    first.fc2.weight.data[:, : 2 * count] += 2 * torch.eye(count).repeat(1, 2)
    model.blocks[0].ls2.gamma.data.fill_(1)


def dinov2_loss(model: VisionTransformer, head: Classifier, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the averages of objects and backgrounds, and of the single tokens inside them."""
    views = {key: torch.cat([value[:, 0], value[:CLOSE_UPS, 1], value[:, 2]]) for key, value in batch.items()}
    tokens, vectors = region_vectors(model, views["image"], views["weights"])
    loss, accuracy = torch.zeros(()), 0.0
    for found, labels, share in ((vectors, views["labels"], 1.0), (tokens, views["token_labels"].flatten(1), 0.3)):
        logits, labels = head(found[labels != IGNORED], are_averages=share == 1), labels[labels != IGNORED]
        losses = F.cross_entropy(logits, labels, reduction="none")
        is_object = labels < len(BASE_CLASSES)
        loss = loss + share * (losses[is_object].mean() + 0.3 * losses[~is_object].mean())
        if share == 1:
            accuracy = (logits.argmax(1) == labels)[is_object].float().mean().item()
    return loss, {"accuracy": accuracy}


@torch.inference_mode()
def evaluate_dinov2(model: VisionTransformer, seed: int, scenes: int = 100) -> dict[str, float]:
    """Naming of the novel classes' objects inside their true masks.

    Returns:
        Accuracy with prototypes of 5 shots and of 1; with 5, mean cosine of objects and their own prototypes, and of
        backgrounds and the nearest.
    """
    shots: list[list[Tensor]] = [[] for _ in NOVEL_CLASSES]
    objects, labels, backgrounds = [], [], []
    views = Views(model.patch_embed.img_size[0], CONTEXT_RATIO, tiles=(40, 140), surfaces=(3, 4))
    index = 0
    while index < scenes or min(map(len, shots)) < 5:
        rng = np.random.default_rng([seed, EVALUATION, index])
        example = dinov2_example(rng, random_scene(rng, NOVEL_CLASSES), views)
        (whole, close_up) = region_vectors(model, example["image"][:2], example["weights"][:2])[1]
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
