"""Train the nano SAM 2 and the nano DINOv2 from scratch on drawn scenes of the base classes.

    python scripts/train_nano.py --out runs/nano              # both
    python scripts/train_nano.py --out runs/nano dinov2_nano  # one of them

The ViT is trained in two phases: like DINOv2, it ends with a larger input. An interrupted run resumes from its last
checkpoint. The scenes of step i depend only on the seed and on i, so a resumed run sees the same scenes as one that was
not interrupted. ``evaluate_nano.py`` measures the result on the novel classes, which training never shows.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano_batches import Batch, DrawnBatches
from nano_dinov2 import Classifier, Views, dinov2_example, dinov2_loss, start_as_waves
from nano_sam2 import EncoderGuide, sam2_example, sam2_loss
from safetensors.torch import save
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from no_time_to_train.demo.scenes import Scene
from no_time_to_train.files import atomic_write
from no_time_to_train.networks.build import build_sam2, build_vit
from no_time_to_train.networks.encoders import DINOV2_NANO
from no_time_to_train.networks.registry import SAM2_NANO

#: Scenes per step.
SCENES = 4


@dataclass(frozen=True)
class Phase:
    """A part of a training. The next phase starts with the weights of this one.

    Attributes:
        steps: The number of steps.
        peak_rate: The learning rate rises to this once and then falls.
        views: How scenes are presented to the ViT; None for SAM 2.
    """

    steps: int
    peak_rate: float
    views: Views | None = None


PHASES = {
    SAM2_NANO: [Phase(7000, 1.5e-3)],
    DINOV2_NANO: [
        Phase(4500, 1.5e-3, Views(size=224, context=2.0, tiles=(40, 140), surfaces=(3, 4))),
        Phase(1800, 8e-4, Views(size=336, context=3.0, tiles=(50, 190), surfaces=(3, 5))),
    ],
}


@dataclass
class Recipe:
    """A new network and how it is trained.

    Attributes:
        network: The network.
        trained: The network and everything that is trained with it.
        loss: Returns the loss of a batch, and measures for the progress bar.
        example: Makes a training example from a scene.
        finish: Changes the network after the last step.
    """

    network: nn.Module
    trained: nn.Module
    loss: Callable[[Batch], tuple[Tensor, dict[str, float]]]
    example: Callable[[np.random.Generator, Scene], Batch]
    finish: Callable[[], None]


def build(name: str, views: Views | None) -> Recipe:
    """The recipe of a network.

    Args:
        name: A key of ``PHASES``.
        views: How scenes are presented to the ViT; None for SAM 2.
    """
    if views is None:
        sam2 = build_sam2(name)
        guide = EncoderGuide(sam2.hidden_dim)
        trained = nn.ModuleList([sam2, guide])
        return Recipe(sam2, trained, lambda batch: sam2_loss(sam2, guide, batch), sam2_example, lambda: None)
    vit: Any = build_vit(name, views.size)
    start_as_waves(vit)
    head = Classifier(vit.embed_dim)
    trained = nn.ModuleList([vit, head])
    return Recipe(
        vit,
        trained,
        lambda batch: dinov2_loss(vit, head, batch),
        lambda rng, scene: dinov2_example(rng, scene, views),
        lambda: head.fold_into(vit.norm),
    )


def train(name: str, out: Path, phases: list[Phase], seed: int, device: torch.device, workers: int, every: int) -> None:
    """Train a network and save its weights as ``out/NAME.safetensors``; resume from ``out/NAME.*.ckpt`` if they exist.

    Args:
        name: A key of ``PHASES``.
        out: The folder of checkpoints and weights.
        phases: The parts of the training.
        seed: The seed of the scenes and of the initial weights.
        device: The device to train on.
        workers: Processes that draw scenes.
        every: Steps between checkpoints.
    """
    before = None
    for number, phase in enumerate(phases, 1):
        torch.manual_seed(seed)
        recipe = build(name, phase.views)
        checkpoint = out / f"{name}.{number}.ckpt"
        train_phase(f"{name} {number}/{len(phases)}", recipe, phase, before, checkpoint, seed, device, workers, every)
        before = checkpoint
    network = recipe.network.cpu().eval().requires_grad_(False)
    recipe.trained.cpu()
    recipe.finish()
    halves = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    with atomic_write(out / f"{name}.safetensors") as file:
        file.write(save(halves))


def train_phase(
    title: str,
    recipe: Recipe,
    phase: Phase,
    before: Path | None,
    checkpoint: Path,
    seed: int,
    device: torch.device,
    workers: int,
    every: int,
) -> None:
    """Train for one phase.

    Args:
        title: The title of the progress bar.
        recipe: What to train.
        phase: How long, and at which learning rate.
        before: The checkpoint of the phase before; None in the first phase.
        checkpoint: The checkpoint of this phase. If it exists, the phase resumes from it.
        seed: The seed of the scenes.
        device: The device to train on.
        workers: Processes that draw scenes.
        every: Steps between checkpoints.
    """
    trained = recipe.trained
    trained.to(device).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, phase.peak_rate, phase.steps, pct_start=0.1)
    done, steps = 0, phase.steps
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        trained.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        done = state["step"]
    elif before is not None:
        weights = torch.load(before, map_location=device, weights_only=True)["model"]
        side = int((trained.state_dict()["0.pos_embed"].shape[1] - 1) ** 0.5)
        weights["0.pos_embed"] = resample_abs_pos_embed(weights["0.pos_embed"], (side, side))
        trained.load_state_dict(weights)
    loader = DataLoader(
        DrawnBatches(seed, SCENES, recipe.example),
        batch_size=None,
        sampler=range(done, steps),
        num_workers=workers,
        prefetch_factor=4,
    )
    shown: dict[str, float] = {}
    started = time.perf_counter()
    bar = tqdm(loader, title, total=steps, initial=done)
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
            state = {
                "model": trained.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "step": step,
            }
            with atomic_write(checkpoint) as file:
                torch.save(state, file)
    print(f"{title}: {(time.perf_counter() - started) / max(1, steps - done):.3f} s per step")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Any of {', '.join(PHASES)}. Default: both.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for checkpoints and weights.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the scenes and of the initial weights.")
    parser.add_argument("--steps", type=int, help="Steps of each phase, for trials.")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="Default: cuda where available."
    )
    parser.add_argument("--workers", type=int, default=1, help="Processes that draw scenes.")
    parser.add_argument("--checkpoint-every", type=int, default=250, metavar="STEPS", help="Steps between checkpoints.")
    args = parser.parse_args()
    names = args.names or list(PHASES)
    if unknown := set(names) - set(PHASES):
        parser.error(f"there is no nano network {min(unknown)!r}: choose from {', '.join(PHASES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        phases = [replace(phase, steps=args.steps or phase.steps) for phase in PHASES[name]]
        train(name, args.out, phases, args.seed, torch.device(args.device), args.workers, args.checkpoint_every)


if __name__ == "__main__":
    main()
