"""Teach the nano SAM 2 what a box is: the two embeddings of a box's corners are trained, and nothing else changes.

``python scripts/nano_boxes.py`` writes them into the weights that ship with the package (7 minutes on one CPU core).
With points, which do not use these embeddings, the network gives the same masks as before.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
from nano_batches import TARGET_SIZE, as_input, coverage, random_scene
from nano_patterns import BASE_CLASSES
from nano_sam2 import MASK_SIZE, decode_prompts, image_features, mask_losses, region_iou
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from tqdm import trange

from no_time_to_train.demo.scenes import NOVEL_CLASSES, Scene
from no_time_to_train.networks.build import build_sam2
from no_time_to_train.networks.registry import default_checkpoint

#: By how much of its side each corner of a box is moved at most, because detectors' boxes are not exact.
JITTER = 0.08

#: The learning rate falls from this to a twentieth of it.
LEARNING_RATE = 3e-2


def box_example(rng: np.random.Generator, scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """The image, float [3, S, S], normalized; moved boxes, float [n, 4], xyxy in its pixels; masks, float [n, s, s]."""
    height, width = scene.masks.shape[1:]
    corners = []
    for mask in scene.masks:
        ys, xs = np.nonzero(mask)
        corners.append([xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height])
    boxes = np.array(corners) * TARGET_SIZE
    boxes += rng.uniform(-JITTER, JITTER, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    image = as_input(cv2.resize(scene.image, (TARGET_SIZE, TARGET_SIZE), interpolation=cv2.INTER_AREA))
    return image, torch.tensor(boxes, dtype=torch.float32), coverage(scene.masks, MASK_SIZE)


def predict_boxes(model: SAM2Base, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The four masks of each box as logits [n, 4, s, s], and their predicted IoUs [n, 4]."""
    maps = [feature.expand(len(boxes), -1, -1, -1) for feature in image_features(model, image[None])]
    labels = torch.tensor([2, 3], dtype=torch.int32).expand(len(boxes), -1)
    logits, ious, _ = decode_prompts(model, maps, boxes.view(-1, 2, 2), labels)
    return logits, ious


def box_loss(logits: Tensor, ious: Tensor, target: Tensor) -> Tensor:
    """Focal and dice loss of the single mask and of the best of the other three, and L1 of the IoUs."""
    target = target[:, None].expand_as(logits)
    masks = mask_losses(logits, target)
    error = (ious - region_iou(logits.detach(), target)).abs().mean()
    return masks[:, 0].mean() + masks[:, 1:].amin(1).mean() + error


@torch.no_grad()
def evaluate_boxes(model: SAM2Base, seed: int, scenes: int = 100) -> float:
    """The mean IoU of the mask that the network ranks first, of the boxes in scenes of the novel classes."""
    found = []
    for index in range(scenes):
        rng = np.random.default_rng([seed, index])
        image, boxes, target = box_example(rng, random_scene(rng, NOVEL_CLASSES))
        logits, ious = predict_boxes(model, image, boxes)
        best = ious[:, 1:].argmax(1, keepdim=True)
        found.append(region_iou(logits, target[:, None])[:, 1:].gather(1, best).mean())
    return float(torch.stack(found).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=default_checkpoint("sam2_nano"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = default_checkpoint("sam2_nano")
    model = build_sam2("sam2_nano", file)
    point, *corners = model.sam_prompt_encoder.point_embeddings[1:4]
    for corner in corners:
        corner.weight.data.copy_(point.weight)
        corner.weight.requires_grad_(True)
    optimizer = torch.optim.Adam([corner.weight for corner in corners])
    bar = trange(options.steps)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * max(1 - step / options.steps, 0.05)
        optimizer.zero_grad()
        for number in range(2):
            rng = np.random.default_rng([5, step, number])
            image, boxes, target = box_example(rng, random_scene(rng, BASE_CLASSES))
            loss = box_loss(*predict_boxes(model, image, boxes), target)
            loss.backward()
        optimizer.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    weights = safetensors.torch.load_file(file)
    for number, corner in enumerate(corners, start=2):
        weights[f"sam_prompt_encoder.point_embeddings.{number}.weight"] = corner.weight.detach().half()
    safetensors.torch.save_file(weights, options.out)
    print("IoU of seeds 1, 2, 3:", *(f"{evaluate_boxes(model, seed):.3f}" for seed in (1, 2, 3)))


if __name__ == "__main__":
    main()
