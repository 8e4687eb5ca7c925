"""Train the nano SAM 2 and the nano DINOv2 from scratch on drawn scenes of the base classes.

    python scripts/train_nano.py --out runs/nano            # both, then their evaluation
    python scripts/train_nano.py --out runs/nano sam2_nano  # one of them

A run that is cut off goes on from its last checkpoint. Step i draws its scenes from (seed, i) alone, so an interrupted
run sees what an uninterrupted one sees. Novel classes are used in ``evaluate`` only.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from sam2.modeling.sam2_base import SAM2Base
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from no_time_to_train.models import DINOV2_NANO, PATCH_SIZE, SAM2_NANO, build_dinov2, build_sam2
from no_time_to_train.scenes import BASE_CLASSES, NOVEL_CLASSES, NUM_BACKGROUNDS, PatternClass, Scene, draw_scene

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
SIDES = (288, 384)  # least and greatest side of a training scene, in pixels
SAM_SIZE, MASK_SIZE = 256, 64  # SAM's input and its mask logits
VIT_SIZE = 224
GRID = VIT_SIZE // PATCH_SIZE
SCENES = 4  # a step
OBJECT_POINTS, BACKGROUND_POINTS = 9, 3  # prompts a scene
IGNORED = -1  # label of a token that straddles regions
CONTEXT_RATIO = 0.2  # of the crop around a reference instance
STEPS = {SAM2_NANO: 3600, DINOV2_NANO: 3200}
PEAK_RATE = {SAM2_NANO: 1.5e-3, DINOV2_NANO: 1e-3}
TRAIN_STREAM, EVAL_STREAM = 0, 1  # keep the scenes of training and of evaluation apart

Batch = dict[str, Tensor]
Loss = Callable[[Batch], tuple[Tensor, dict[str, float]]]


class DrawnBatches(Dataset[Batch]):
    """Batch i of a run, drawn from (seed, i) alone."""

    def __init__(self, seed: int, example: Callable[[np.random.Generator, Scene], Batch]) -> None:
        self.seed = seed
        self.example = example

    def __getitem__(self, index: int) -> Batch:
        cv2.setNumThreads(0)
        rng = np.random.default_rng([self.seed, TRAIN_STREAM, index])
        return stack([self.example(rng, random_scene(rng, BASE_CLASSES)) for _ in range(SCENES)])


def random_scene(rng: np.random.Generator, classes: tuple[PatternClass, ...]) -> Scene:
    height, width = (int(side) for side in rng.integers(SIDES[0], SIDES[1], 2, endpoint=True))
    return draw_scene(rng, classes, (height, width))


def stack(examples: list[Batch]) -> Batch:
    return {key: torch.stack([example[key] for example in examples]) for key in examples[0]}


def as_input(image: NDArray[np.uint8] | NDArray[np.float32]) -> Tensor:
    """[H, W, 3] in 0..255 to a normalised [3, H, W]."""
    return (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - MEAN) / STD


def coverage(masks: NDArray[np.bool_], side: int) -> Tensor:
    """Share of each cell of a side x side grid that masks [n, H, W] cover: [n, side, side]."""
    planes = [cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for mask in masks]
    return torch.from_numpy(np.stack(planes))


# SAM 2: a point asks for the visible part of the object under it; on the background there is nothing to be found.


def sam2_example(rng: np.random.Generator, scene: Scene) -> Batch:
    """A scene with random points: points [K, 2] as (x, y) in input pixels, target [K, 64, 64], whether on an object [K]."""
    height, width = scene.masks.shape[1:]
    targets = coverage(scene.masks, MASK_SIZE)
    points, chosen = [], []
    for k in range(OBJECT_POINTS + BACKGROUND_POINTS):
        index = int(rng.integers(len(scene.masks))) if k < OBJECT_POINTS else -1
        ys, xs = np.nonzero(scene.masks[index] if index >= 0 else ~scene.masks.any(axis=0))
        pick = int(rng.integers(len(ys)))
        points.append(((xs[pick] + 0.5) / width * SAM_SIZE - 0.5, (ys[pick] + 0.5) / height * SAM_SIZE - 0.5))
        chosen.append(index)
    index_of = torch.tensor(chosen)
    on_object = index_of >= 0
    return {
        "image": as_input(cv2.resize(scene.image, (SAM_SIZE, SAM_SIZE), interpolation=cv2.INTER_AREA)),
        "points": torch.tensor(points, dtype=torch.float32),
        "target": targets[index_of.clamp(min=0)] * on_object[:, None, None],
        "on_object": on_object,
    }


def predict_masks(model: SAM2Base, images: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images [B, 3, S, S], points [B, K, 2] -> logits [B K, 4, S/4, S/4], IoUs [B K, 4], objectness logits [B K]."""
    per_image = points.shape[1]
    _, features, _, sizes = model._prepare_backbone_features(model.forward_image(images))
    maps = [
        f.permute(1, 2, 0).unflatten(2, size).repeat_interleave(per_image, 0)
        for f, size in zip(features, sizes, strict=True)
    ]
    coordinates = points.flatten(0, 1)[:, None]
    labels = torch.ones(coordinates.shape[:2], dtype=torch.int32, device=coordinates.device)
    sparse, dense = model.sam_prompt_encoder(points=(coordinates, labels), boxes=None, masks=None)
    logits, ious, _, objectness = model.sam_mask_decoder.predict_masks(
        image_embeddings=maps[2],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=maps[:2],
    )
    return logits, ious, objectness[:, 0]


def region_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of the regions {logit > 0} and {target > 0.5} over the last two axes."""
    region, truth = logits > 0, target > 0.5
    return (region & truth).sum((-2, -1)) / (region | truth).sum((-2, -1)).clamp(min=1)


def sam2_loss(model: SAM2Base, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Focal and dice of the single mask and of the best of the other three, L1 of the IoUs, objectness.

    The two losing masks get a tenth of the weight, so that none of the three dies.
    """
    logits, ious, objectness = predict_masks(model, batch["image"], batch["points"])
    on_object = batch["on_object"].flatten()
    target = batch["target"].flatten(0, 1)[:, None]
    with torch.no_grad():
        true_ious = region_iou(logits, target) * on_object[:, None]
    iou_loss = (ious - true_ious).abs().mean()
    objectness_loss = F.binary_cross_entropy_with_logits(objectness, on_object.float())
    logits, target = logits[on_object], target[on_object].expand(-1, 4, -1, -1)
    odds = logits.sigmoid()
    focal = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * (odds - target).abs() ** 2
    overlap = (odds * target).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (odds.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    mask_loss = 20 * focal.mean((-2, -1)) + dice
    single, three = mask_loss[:, 0], mask_loss[:, 1:]
    loss = single.mean() + three.amin(1).mean() + 0.1 * three.mean() + iou_loss + 0.2 * objectness_loss
    own = true_ious[:, 1:].gather(1, ious[:, 1:].argmax(1, keepdim=True))[on_object]
    return loss, {"iou": own.mean().item(), "iou_error": iou_loss.item()}


# DINOv2: token averages of objects, seen whole in a scene and close up as references are, are told apart by cosine.


def dinov2_example(rng: np.random.Generator, scene: Scene) -> Batch:
    """A scene and a close-up: images [2, 3, S, S], region weights [2, 9, G, G] and labels [2, 9], token labels [2, G, G].

    Region 8 is the background; a region that is not there has the label IGNORED.
    """
    labels = np.full(9, IGNORED)
    labels[: len(scene.labels)] = scene.labels
    labels[8] = len(BASE_CLASSES) + scene.background
    masks = np.zeros((9, *scene.masks.shape[1:]), bool)
    masks[: len(scene.masks)] = scene.masks
    masks[8] = ~scene.masks.any(axis=0)
    views = []
    for window in (None, reference_window(scene.masks[rng.integers(len(scene.masks))])):
        image, seen = scene.image, masks
        if window is None:
            image = cv2.resize(image, (SAM_SIZE, SAM_SIZE), interpolation=cv2.INTER_AREA)
        else:
            image, seen = image[window], masks[:, *window]
        image = cv2.resize(image, (VIT_SIZE, VIT_SIZE), interpolation=cv2.INTER_CUBIC)
        weights = coverage(seen, GRID)
        present = torch.from_numpy(labels).where(weights.sum((1, 2)) > 1, IGNORED)
        cover, region = weights.max(0)
        views.append(
            {
                "image": as_input(image),
                "weights": weights,
                "labels": present,
                "token_labels": present[region].where(cover > 0.8, IGNORED),
            }
        )
    return stack(views)


def reference_window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The window (rows, columns) that the method crops around a reference instance with this mask."""
    ys, xs = np.nonzero(mask)
    half = max(np.ptp(xs) + 1, np.ptp(ys) + 1) * (1 + CONTEXT_RATIO) / 2
    cy, cx = (ys.min() + ys.max() + 1) / 2, (xs.min() + xs.max() + 1) / 2
    return slice(max(0, int(cy - half)), int(cy + half)), slice(max(0, int(cx - half)), int(cx + half))


def region_vectors(model: VisionTransformer, images: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Final tokens [B, G G, D] of images, and their averages [B, R, D] under region weights [B, R, G, G]."""
    tokens = model.forward_features(images)[:, model.num_prefix_tokens :]
    weights = weights.flatten(2)
    return tokens, weights @ tokens / weights.sum(2, keepdim=True).clamp(min=1e-6)


class CosineClassifier(nn.Module):
    """Logits of base classes and backgrounds: scaled cosines. Used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(len(BASE_CLASSES) + NUM_BACKGROUNDS, width) * 0.02)

    def forward(self, vectors: Tensor) -> Tensor:
        return 20 * F.normalize(vectors, dim=-1) @ F.normalize(self.weight, dim=-1).T


def dinov2_loss(model: VisionTransformer, head: CosineClassifier, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the averages of objects and backgrounds, and of the single tokens inside them."""
    tokens, vectors = region_vectors(model, batch["image"].flatten(0, 1), batch["weights"].flatten(0, 1))
    labels, token_labels = batch["labels"].flatten(0, 1), batch["token_labels"].flatten(0, 1).flatten(1)
    is_object = (labels >= 0) & (labels < len(BASE_CLASSES))
    logits = head(vectors)
    loss = F.cross_entropy(logits[is_object], labels[is_object])
    loss = loss + 0.3 * F.cross_entropy(logits[:, 8], labels[:, 8], ignore_index=IGNORED)
    for inside in ((token_labels >= 0) & (token_labels < len(BASE_CLASSES)), token_labels >= len(BASE_CLASSES)):
        token_loss = F.cross_entropy(head(tokens[inside]), token_labels[inside], reduction="sum")
        loss = loss + 0.3 * token_loss / inside.sum().clamp(min=1)
    accuracy = (logits[is_object].argmax(1) == labels[is_object]).float().mean()
    return loss, {"accuracy": accuracy.item()}


# Both


def build(name: str) -> tuple[nn.Module, nn.Module, Loss, Callable[[np.random.Generator, Scene], Batch]]:
    """A fresh network, all that is trained with it (itself included), its loss, and what draws its examples."""
    if name == SAM2_NANO:
        sam2 = build_sam2(name)
        return sam2, sam2, lambda batch: sam2_loss(sam2, batch), sam2_example
    encoder = build_dinov2(name, VIT_SIZE)
    head = CosineClassifier(encoder.embed_dim)
    return encoder, nn.ModuleList([encoder, head]), lambda batch: dinov2_loss(encoder, head, batch), dinov2_example


def train(name: str, out: Path, steps: int, seed: int, device: torch.device, workers: int, every: int) -> nn.Module:
    """Train ``name`` for ``steps``, going on from ``out/{name}.ckpt`` if it is there, and save its weights."""
    torch.manual_seed(seed)
    network, trained, loss_of, example = build(name)
    trained.to(device).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE[name], steps, pct_start=0.1)
    checkpoint, done = out / f"{name}.ckpt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        trained.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        done = state["step"]
    loader = DataLoader(
        DrawnBatches(seed, example), batch_size=None, sampler=range(done, steps), num_workers=workers, prefetch_factor=4
    )
    shown: dict[str, float] = {}
    started = time.perf_counter()
    bar = tqdm(loader, name, total=steps, initial=done)
    for step, batch in enumerate(bar, done + 1):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, measured = loss_of({key: value.to(device, non_blocking=True) for key, value in batch.items()})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for key, value in {"loss": loss.item(), **measured}.items():
            shown[key] = 0.98 * shown.get(key, value) + 0.02 * value
        bar.set_postfix({key: f"{value:.3f}" for key, value in shown.items()}, refresh=False)
        if step % every == 0 or step == steps:
            save_atomically(
                lambda path, step=step: torch.save(
                    {
                        "model": trained.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                        "step": step,
                    },
                    path,
                ),
                checkpoint,
            )
    print(f"{name}: {(time.perf_counter() - started) / max(1, steps - done):.3f} s a step")
    network.eval().requires_grad_(False)
    halves = {key: value.half().contiguous() for key, value in network.cpu().state_dict().items()}
    save_atomically(lambda path: save_file(halves, path), out / f"{name}.safetensors")
    return network


def save_atomically(save: Callable[[Path], Any], path: Path) -> None:
    """Write beside ``path``, then rename over it."""
    partial = path.with_suffix(".part")
    save(partial)
    os.replace(partial, path)
