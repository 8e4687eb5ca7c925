"""The presets of ``segment`` side by side, in float32 and bfloat16: ``python -m timing.presets``.

Networks of full size with seeded weights work on a drawn scene. Float32 and bfloat16 are measured in turn, several
times, and the fastest run of each counts. An image takes the time of both encoders and of the decoder for as many
prompts as the preset decodes; what follows takes less than a second.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.method.beyond.guided import choose_points
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.mask_proposals import MaskProposer, point_grid
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.build import build_sam2, build_vit
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.networks.registry import DINOV2_NAMES, PRESETS, SAM2_NAMES, Preset, encoder_input_size
from timing.measure import measure_both
from timing.report import RESULTS, Section
from timing.stages import HEIGHT, WIDTH, seeded

#: Points on which the decoder is measured.
POINTS = 64


def measure_preset(
    preset: Preset, repeats: int, device: torch.device, clock: Callable[[], float]
) -> tuple[list[list[float]], int]:
    """Measure the networks of a preset.

    Args:
        preset: The preset.
        repeats: How many times each network is measured in each precision.
        device: Where the networks run.
        clock: See ``measure.measure``.

    Returns:
        Seconds in float32 and in bfloat16, each of SAM 2's encoder, DINOv2, and the decoder for ``POINTS`` points; and
        the number of prompts of an image, whose memory shows one of its objects.
    """
    settings = Settings(prompts=preset.prompts)
    sam2, dinov2 = SAM2_NAMES[preset.sam2], DINOV2_NAMES[preset.dinov2]
    encoder = Encoder(seeded(build_vit(dinov2, encoder_input_size(dinov2)))).to(device)
    proposer = MaskProposer(seeded(build_sam2(sam2)), settings).to(device)
    scene = draw_scene(np.random.default_rng(0), NOVEL_CLASSES, (HEIGHT, WIDTH))
    image = target_tensor(scene.image, proposer.size).to(device)
    points = point_grid(settings.points_per_side, proposer.size).to(device)
    encoded, features = proposer.encode(image), encoder.feature_map(image[None])[0]
    steps: list[Callable[[], object]] = [
        lambda: proposer.encode(image.clone()),  # features of the same tensor are kept
        lambda: encoder.feature_map(image[None]),
        lambda: proposer.decode(*encoded, points[:: len(points) // POINTS][:POINTS]),
    ]

    def in_bfloat16(step: Callable[[], object]) -> Callable[[], object]:
        def work() -> object:
            with computing_in("bfloat16", device):
                return step()

        return work

    runs = [measure_both(step, in_bfloat16(step), device, repeats, clock) for step in steps]
    times = [[run.seconds for run in of_precision] for of_precision in zip(*runs, strict=True)]
    return times, prompts_of(features, scene.masks[0], points, proposer.size, settings)


def prompts_of(features: Tensor, mask: np.ndarray, points: Tensor, size: int, settings: Settings) -> int:
    """How many points are decoded in an image with this feature map, whose memory shows the object of a mask."""
    if settings.prompts == "grid":
        return len(points)
    inside = torch.from_numpy(mask)[None, None].float().to(features.device)
    weights = torch.nn.functional.adaptive_avg_pool2d(inside, features.shape[-1])[0, 0]
    prototype = (features * weights).sum(dim=(1, 2))[None] / weights.sum()
    memory = prototype
    return len(choose_points(features, memory, points, size, settings.prompt_threshold, settings.prompt_budget))


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS), help="The presets to measure.")
    parser.add_argument("--repeats", type=int, default=5, help="How many times each network is measured.")
    parser.add_argument("--processor-time", action="store_true", help="Seconds of the processor, not of the clock.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="Device.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown file to write.")
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    clock = time.process_time if options.processor_time else time.perf_counter
    columns = ["SAM 2 encoder", "DINOv2", f"decoder, {POINTS} points", "prompts", "image", "times faster"]
    section = Section(
        "Presets and precisions",
        f"python -m timing.presets{' --processor-time' * options.processor_time}",
        device,
        f"Seeded weights, a {WIDTH}x{HEIGHT} image, a memory of one class. Seconds"
        f"{' of the processor' * options.processor_time}, the fastest of {options.repeats}; "
        "an image takes those of both encoders and of the decoder for its prompts.",
        ["preset", "precision", *columns],
        slice(2, None),
    )
    slowest = None
    for name in options.presets:
        both, prompts = measure_preset(PRESETS[name], options.repeats, device, clock)
        for precision, (sam2, dinov2, decoder) in zip(("float32", "bfloat16"), both, strict=True):
            whole = sam2 + dinov2 + decoder * prompts / POINTS
            slowest = slowest or whole
            cells = [f"{sam2:.2f}", f"{dinov2:.2f}", f"{decoder:.2f}", str(prompts), f"{whole:.1f}"]
            section.add(name, precision, *cells, f"{slowest / whole:.1f}")
    section.write(options.out)


if __name__ == "__main__":
    main()
