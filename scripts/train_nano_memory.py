"""Teach the nano SAM 2 to carry masks from frame to frame: what only videos use is trained, and nothing else changes.

``python scripts/train_nano_memory.py`` writes the trained tensors into the weights that ship with the package. In single
images, which do not use them, the network gives the same masks as before. The clips are drawn during training and show
the base classes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
from nano_batches import EVALUATION, TARGET_SIZE, TRAINING, coverage
from nano_patterns import BASE_CLASSES
from nano_sam2 import MASK_SIZE, mask_losses, region_iou
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from tqdm import trange

from no_time_to_train.demo.scenes import NOVEL_CLASSES, PatternClass
from no_time_to_train.files import atomic_write
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.build import build_encoder, build_sam2
from no_time_to_train.networks.registry import default_checkpoint
from no_time_to_train_extras.video.moving_scenes import Clip, draw_clip
from no_time_to_train_extras.video.propagation import CERTAIN, Propagator

#: The parts of SAM 2 that only videos use.
TRAINED = ("memory_attention.", "memory_encoder.", "obj_ptr_proj.", "maskmem_tpos_enc")

#: The fewest and the most frames through which masks are carried in training, and by how many frames these are apart.
CARRIED, APART = (2, 4), (1, 2)

#: The learning rate rises to this once and then falls.
PEAK_RATE = 3e-3


def random_clip(rng: np.random.Generator, classes: Sequence[PatternClass], carried: int, apart: int) -> Clip:
    """A clip whose first frame shows each of its objects."""
    clip = draw_clip(rng, classes, carried * apart + 1, TARGET_SIZE)
    shown = clip.masks[0].any(axis=(1, 2))
    if not shown.any():
        return random_clip(rng, classes, carried, apart)
    return Clip(clip.frames[::apart], clip.labels[shown], clip.masks[::apart, shown])


def carry(carrier: Propagator, clip: Clip) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Carry the masks of the first of T + 1 frames through the others; gradients flow through all of it.

    Returns:
        Predicted IoUs [T, n], logits [T, n, s, s] and whether the object is there, as logits [T, n]; and what is true,
        [T, n, s, s] in [0, 1].
    """
    with torch.no_grad():
        images = [target_tensor(frame, TARGET_SIZE) for frame in clip.frames]
        maps = [carrier._encode(image) for image in images]
        given = torch.from_numpy(clip.masks[0])[:, None].float()
        carrier.frame = 0
        _, _, _, pointers, presence = carrier._look(maps[0], given, {})
    past: dict[int, dict[str, Tensor]] = {}
    first = carrier._remember(maps[0], (2 * given - 1) * CERTAIN, pointers, presence)
    rows = []
    for carrier.frame in range(1, len(images)):
        memory = {"cond_frame_outputs": {0: first}, "non_cond_frame_outputs": past}
        predicted_iou, logits, enlarged, pointers, presence = carrier._look(maps[carrier.frame], None, memory)
        past[carrier.frame] = carrier._remember(maps[carrier.frame], enlarged, pointers, presence)
        truth = coverage(clip.masks[carrier.frame], MASK_SIZE)
        rows.append((predicted_iou.amax(1), logits[:, 0], presence[:, 0], truth))
    predicted_iou, logits, presence, truth = map(torch.stack, zip(*rows, strict=True))
    return predicted_iou, logits, presence, truth


def memory_loss(carrier: Propagator, clip: Clip) -> tuple[Tensor, float]:
    """Focal and dice loss of the masks, L1 of the predicted IoUs, and presence; and the mean IoU."""
    predicted_iou, logits, presence, truth = carry(carrier, clip)
    there = (truth > 0.5).any(3).any(2)
    iou = region_iou(logits.detach(), truth)[there]
    masks = mask_losses(logits, truth)[there]
    error = (predicted_iou[there] - iou).abs()
    presence_loss = F.binary_cross_entropy_with_logits(presence, there.float())
    return masks.mean() + error.mean() + 0.2 * presence_loss, float(iou.mean())


@torch.no_grad()
def evaluate_memory(carrier: Propagator, seed: int, clips: int = 20, carried: int = 4) -> float:
    """The mean IoU of masks of the novel classes that are carried through 4 frames with the objects that are there."""
    found = []
    for index in range(clips):
        clip = random_clip(np.random.default_rng([seed, EVALUATION, index]), NOVEL_CLASSES, carried, 1)
        _, logits, presence, truth = carry(carrier, clip)
        iou = region_iou(logits, truth) * (presence > 0)
        found.append(iou[(truth > 0.5).any(3).any(2)].mean())
    return float(torch.stack(found).mean())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="Clips that are shown.")
    parser.add_argument("--out", type=Path, default=default_checkpoint("sam2_nano"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="Seeds of the clips that measure it.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    file = default_checkpoint("sam2_nano")
    sam2 = build_sam2("sam2_nano", file)
    carrier = Propagator(Segmenter(build_encoder("dinov2_nano"), MaskProposer(sam2)))
    print("IoU before:", *(f"{evaluate_memory(carrier, seed):.3f}" for seed in options.seeds), flush=True)
    trained = {name: value for name, value in sam2.named_parameters() if name.startswith(TRAINED)}
    for value in trained.values():
        value.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.values(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, options.steps, pct_start=0.1)
    sam2.pred_obj_scores = False  # else a mask that is taken for absent has no gradient
    shown = 0.0
    for step in (bar := trange(options.steps, mininterval=10)):
        rng = np.random.default_rng([6, TRAINING, step])
        apart, carried = (int(rng.integers(*limits, endpoint=True)) for limits in (APART, CARRIED))
        loss, iou = memory_loss(carrier, random_clip(rng, BASE_CLASSES, carried, apart))
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        schedule.step()
        shown += (iou - shown) / min(step + 1, 50)
        bar.set_postfix(loss=f"{loss.item():.3f}", iou=f"{shown:.3f}", refresh=False)
    sam2.pred_obj_scores = True
    weights = safetensors.torch.load_file(file)
    halves = {name: value.detach().half() for name, value in trained.items()}
    with atomic_write(options.out) as written:
        written.write(safetensors.torch.save({**weights, **halves}))
    print("IoU after:", *(f"{evaluate_memory(carrier, seed):.3f}" for seed in options.seeds))


if __name__ == "__main__":
    main()
