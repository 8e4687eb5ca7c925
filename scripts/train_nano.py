"""Train the nano SAM 2 and the nano DINOv2 from scratch on drawn scenes of the base classes.

    python scripts/train_nano.py --out runs/nano              # both
    python scripts/train_nano.py --out runs/nano dinov2_nano  # one of them

A run that is cut off goes on from its last checkpoint. Step i draws its scenes from the seed and i alone, so that an
interrupted run sees what an uninterrupted one sees. ``evaluate_nano.py`` measures what came out on the novel classes,
which no training sees.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano_batches import Batch, DrawnBatches
from nano_dinov2 import VIT_SIZE, Classifier, dinov2_example, dinov2_loss, start_as_waves
from nano_sam2 import EncoderGuide, sam2_example, sam2_loss
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from no_time_to_train.models import DINOV2_NANO, SAM2_NANO, build_dinov2, build_sam2
from no_time_to_train.scenes import Scene

CYCLES = {SAM2_NANO: [7000], DINOV2_NANO: [4500, 3500]}  # steps; in each the rate goes up once, then down
SCENES = {SAM2_NANO: 4, DINOV2_NANO: 4}  # a step
PEAK_RATE = {SAM2_NANO: 1.5e-3, DINOV2_NANO: 1.5e-3}


@dataclass
class Recipe:
    """A fresh network and how it is trained."""

    network: nn.Module
    trained: nn.Module  # the network and all that is trained with it
    loss: Callable[[Batch], tuple[Tensor, dict[str, float]]]
    example: Callable[[np.random.Generator, Scene], Batch]
    finish: Callable[[], None]  # what is left to do to the network after the last step


def build(name: str) -> Recipe:
    if name == SAM2_NANO:
        sam2 = build_sam2(name)
        guide = EncoderGuide(sam2.hidden_dim)
        trained = nn.ModuleList([sam2, guide])
        return Recipe(sam2, trained, lambda batch: sam2_loss(sam2, guide, batch), sam2_example, lambda: None)
    vit = build_dinov2(name, VIT_SIZE)
    start_as_waves(vit)
    head = Classifier(vit.embed_dim)
    trained = nn.ModuleList([vit, head])
    return Recipe(
        vit, trained, lambda batch: dinov2_loss(vit, head, batch), dinov2_example, lambda: head.fold_into(vit.norm)
    )


def rate(step: int, cycles: list[int]) -> float:
    """The learning rate over its peak: up over a tenth of each cycle, and down to nothing."""
    while step >= cycles[0] and len(cycles) > 1:
        step, cycles = step - cycles[0], cycles[1:]
    rise = cycles[0] / 10
    share = step / rise if step < rise else (cycles[0] - step) / (cycles[0] - rise)
    return (1 - math.cos(math.pi * share)) / 2


def train(name: str, out: Path, cycles: list[int], seed: int, device: torch.device, workers: int, every: int) -> None:
    """Train ``name``, going on from ``out/{name}.ckpt`` if it is there, and save its weights."""
    torch.manual_seed(seed)
    recipe = build(name)
    network, trained = recipe.network, recipe.trained
    trained.to(device).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), PEAK_RATE[name], weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, cycles))
    checkpoint, done, steps = out / f"{name}.ckpt", 0, sum(cycles)
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        trained.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        done = state["step"]
    loader = DataLoader(
        DrawnBatches(seed, SCENES[name], recipe.example),
        batch_size=None,
        sampler=range(done, steps),
        num_workers=workers,
        prefetch_factor=4,
    )
    shown: dict[str, float] = {}
    started = time.perf_counter()
    bar = tqdm(loader, name, total=steps, initial=done)
    for step, batch in enumerate(bar, done + 1):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, measured = recipe.loss({key: value.to(device, non_blocking=True) for key, value in batch.items()})
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
    recipe.finish()
    halves = {key: value.half().contiguous() for key, value in network.cpu().state_dict().items()}
    save_atomically(lambda path: save_file(halves, path), out / f"{name}.safetensors")


def save_atomically(save: Callable[[Path], Any], path: Path) -> None:
    """Write beside ``path``, then rename over it."""
    partial = path.with_suffix(".part")
    save(partial)
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CYCLES)}; default: both")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and weights")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--steps", type=int, help="fewer or more than the recipe's, for trials")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--checkpoint-every", type=int, default=250, metavar="STEPS")
    args = parser.parse_args()
    names = args.names or list(CYCLES)
    if unknown := set(names) - set(CYCLES):
        parser.error(f"no nano network is called {min(unknown)!r}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        cycles = [args.steps] if args.steps else CYCLES[name]
        train(name, args.out, cycles, args.seed, torch.device(args.device), args.workers, args.checkpoint_every)


if __name__ == "__main__":
    main()
