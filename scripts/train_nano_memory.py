"""Teach the nano SAM 2 to carry masks from frame to frame: what only videos use is trained, and nothing else changes.

``python scripts/train_nano_memory.py`` writes the trained tensors into the weights that ship with the package. In
single images, which do not use them, the network gives the same masks as before. The clips are drawn during training
and show the base classes.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import safetensors.torch
import torch
from nano_batches import EVALUATION, TARGET_SIZE, TRAINING, coverage
from nano_patterns import BASE_CLASSES
from nano_sam2 import MASK_SIZE, mask_losses, region_iou
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
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

#: The most frames through which masks are carried, at first and later; and the most by which frames are apart.
CARRIED, APART = (1, 5), 3

#: The share of the steps that are at first.
AT_FIRST = 0.35

#: The learning rate rises to this once and then falls.
PEAK_RATE = 2e-3


class Carried(NamedTuple):
    """The masks of n objects in a frame.

    Attributes:
        logits: [n, 3, s, s], the three masks.
        ious: [n, 3], their predicted IoUs.
        best: [n, s, s], the mask with the best of them.
        presence: [n], whether the object is there, as logits.
        truth: [n, s, s] in [0, 1], the share of each cell that the object covers.
    """

    logits: Tensor
    ious: Tensor
    best: Tensor
    presence: Tensor
    truth: Tensor

    @property
    def there(self) -> Tensor:
        """bool [n], whether the object really is there."""
        return (self.truth > 0.5).flatten(1).any(1)


def random_clip(rng: np.random.Generator, classes: Sequence[PatternClass], carried: int, apart: int) -> Clip:
    """A clip of carried + 1 frames that has only the objects of its first frame, at least one."""
    clip = draw_clip(rng, classes, carried * apart + 1, TARGET_SIZE)
    shown = clip.masks[0].any(axis=(1, 2))
    if not shown.any():
        return random_clip(rng, classes, carried, apart)
    return Clip(clip.frames[::apart], clip.labels[shown], clip.masks[::apart, shown])


def carry(carrier: Propagator, clip: Clip) -> Iterator[Carried]:
    """Carry the masks of the first frame through the others, as ``Propagator`` does, but with gradients."""
    with torch.no_grad():
        maps = [carrier._encode(target_tensor(frame, TARGET_SIZE)) for frame in clip.frames]
        given = torch.from_numpy(clip.masks[0])[:, None].float()
        carrier.frame = 0
        *_, pointers, presence = carrier._look(maps[0], given, {})
    first = carrier._remember(maps[0], (2 * given - 1) * CERTAIN, pointers, presence)
    past: dict[int, dict[str, Any]] = {}
    memory = {"cond_frame_outputs": {0: first}, "non_cond_frame_outputs": past}
    for frame in range(1, len(maps)):
        carrier.frame = frame
        logits, _, ious, best, enlarged, pointers, presence = carrier._look(maps[frame], None, memory)
        past[frame] = carrier._remember(maps[frame], enlarged, pointers, presence)
        yield Carried(logits, ious, best[:, 0], presence[:, 0], coverage(clip.masks[frame], MASK_SIZE))


def memory_loss(carried: Carried) -> Tensor:
    """Focal and dice loss of the best of the three masks, L1 of the predicted IoUs, and presence.

    The mean over all three masks has a fifth of the weight.
    """
    truth = carried.truth[:, None].expand_as(carried.logits)
    masks = mask_losses(carried.logits, truth)
    error = (carried.ious - region_iou(carried.logits.detach(), truth)).abs().mean()
    presence = F.binary_cross_entropy_with_logits(carried.presence, carried.there.float())
    return masks.amin(1).mean() + 0.2 * masks.mean() + error + 0.2 * presence


class MemoryGuide(nn.Module):
    """A head for training only: predicts from the attended map where the object is.

    The decoder, which stays as it is, says little about that at first. This head trains the memory from the first step.

    Args:
        sam2: The network; its memory attention hands its output to the head.
    """

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()
        self.head = nn.Linear(sam2.hidden_dim, 1)
        self.attended = torch.empty(0)
        sam2.memory_attention.register_forward_hook(lambda module, inputs, output: setattr(self, "attended", output))

    def forward(self, truth: Tensor) -> Tensor:
        """The loss of the head, a scalar, for masks [n, s, s] in [0, 1]."""
        cells = F.adaptive_avg_pool2d(truth, TARGET_SIZE // 16).flatten(1)
        return F.binary_cross_entropy_with_logits(self.head(self.attended)[..., 0].T, cells)


@torch.no_grad()
def start_as_identity(carrier: Propagator) -> None:
    """Let the memory change little at first: the decoder knows the encoder's own maps.

    The last norm is fitted to them by least squares in each channel.
    """
    attention = carrier.sam2.memory_attention
    for layer in attention.layers:
        for linear in (layer.self_attn.out_proj, layer.linear2):
            linear.weight.mul_(0.1)
            linear.bias.zero_()
    frames = draw_clip(np.random.default_rng([6, TRAINING]), BASE_CLASSES, 30, TARGET_SIZE).frames
    maps = torch.cat([carrier._encode(target_tensor(frame, TARGET_SIZE))[-1] for frame in frames])
    tokens = maps.flatten(2).transpose(1, 2).flatten(0, 1)
    normed = F.layer_norm(tokens, tokens.shape[1:])
    attention.norm.weight.copy_(((normed - normed.mean(0)) * tokens).mean(0) / normed.var(0, correction=0))
    attention.norm.bias.copy_(tokens.mean(0) - attention.norm.weight * normed.mean(0))


@torch.no_grad()
def evaluate_memory(carrier: Propagator, seed: int, clips: int = 20, carried: int = 4) -> tuple[float, float]:
    """The IoU of masks that are carried through some frames, and of masks that stay where they were.

    Both are means over the objects of the novel classes that are there, and the later frames.
    """
    found = []
    for index in range(clips):
        clip = random_clip(np.random.default_rng([seed, EVALUATION, index]), NOVEL_CLASSES, carried, 1)
        still = coverage(clip.masks[0], MASK_SIZE) - 0.5
        for seen in carry(carrier, clip):
            iou = region_iou(seen.best, seen.truth) * (seen.presence > 0)
            found.append(torch.stack([iou, region_iou(still, seen.truth)])[:, seen.there])
    own, unmoved = torch.cat(found, dim=1).mean(dim=1).tolist()
    return own, unmoved


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900, help="Clips that are shown.")
    parser.add_argument("--out", type=Path, default=default_checkpoint("sam2_nano"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="Seeds of the clips that measure it.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cv2.setNumThreads(0)
    file = default_checkpoint("sam2_nano")
    sam2 = build_sam2("sam2_nano", file)
    fresh = build_sam2("sam2_nano").state_dict()
    trained = {name: value for name, value in sam2.named_parameters() if name.startswith(TRAINED)}
    for name, value in trained.items():
        value.copy_(fresh[name]).requires_grad_(True)
    carrier = Propagator(Segmenter(build_encoder("dinov2_nano"), MaskProposer(sam2)))
    start_as_identity(carrier)
    guide = MemoryGuide(sam2)
    optimizer = torch.optim.AdamW([*trained.values(), *guide.parameters()], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, options.steps, pct_start=0.1)
    sam2.pred_obj_scores = False  # else a mask that is taken for absent has no gradient
    for step in (bar := trange(options.steps, mininterval=10)):
        rng = np.random.default_rng([6, TRAINING, step])
        most = CARRIED[step > AT_FIRST * options.steps]
        clip = random_clip(rng, BASE_CLASSES, int(rng.integers(1, most + 1)), int(rng.integers(1, APART + 1)))
        losses = [memory_loss(seen) + 3 * guide(seen.truth) for seen in carry(carrier, clip)]
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    sam2.pred_obj_scores = True
    weights = safetensors.torch.load_file(file)
    halves = {name: value.detach().half() for name, value in trained.items()}
    with atomic_write(options.out) as written:
        written.write(safetensors.torch.save({**weights, **halves}))
    sam2.load_state_dict(halves, strict=False)
    for seed in options.seeds:
        for carried in (4, 9):
            own, still = evaluate_memory(carrier, seed, carried=carried)
            print(f"seed {seed}, {carried} frames: IoU {own:.3f}; of masks that do not move {still:.3f}", flush=True)


if __name__ == "__main__":
    main()
