"""Images per second on a GPU, and where the time goes: ``python -m timing.gpu``, written to ``timing/RESULTS.md``.

Networks of full size with seeded weights segment a drawn scene in float32, in bfloat16, and in bfloat16 with compiled
networks. In the same run, the automatic mask generator of sam2 proposes masks on the same grid of the same image: what
SAM 2 gives without this package. It names no object.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from torch import Tensor

from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.method.beyond.given import Square
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import without_autocast
from no_time_to_train.method.mask_proposals import point_grid
from no_time_to_train.method.segmenter import Segmenter, describe_proposals
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.registry import encoder_input_size
from timing.measure import Measured, measure
from timing.report import RESULTS, Section
from timing.stages import CLASSES, HEIGHT, WIDTH, seeded_segmenter

#: The columns between the name of a row and the whole image.
STEPS = ("SAM 2 encoder", "DINOv2", "mask decoder", "the rest")


class Bench:
    """The method on one image, as a whole and step by step.

    Args:
        segmenter: The networks and prototypes.
        scene: The image, uint8 [H, W, 3].
        repeats: How many times each step is measured. The fastest counts.
    """

    def __init__(self, segmenter: Segmenter, scene: np.ndarray, repeats: int) -> None:
        assert segmenter.proposer is not None
        self.segmenter, self.proposer, self.repeats = segmenter, segmenter.proposer, repeats
        self.device = segmenter.prototypes.device
        self.image: Tensor = target_tensor(scene, self.proposer.size).to(self.device)

    def segment(self) -> Detections:
        """The whole method, with the results as COCO records."""
        found = self.segmenter.segment(self.image.clone(), HEIGHT, WIDTH)  # features of the same tensor are kept
        to_coco_records(found, 1, list(range(CLASSES)))
        return found

    def segment_at_once(self, count: int) -> None:
        """The same with several images, of which the encoders take all at once."""
        self.segmenter.images.count = count
        squares = [Square(self.image.clone(), HEIGHT, WIDTH) for _ in range(count)]
        for proposals in self.segmenter.describe_each(squares):
            to_coco_records(self.segmenter.match_and_merge(proposals), 1, list(range(CLASSES)))

    def best(self, work: Callable[[], object], context: AbstractContextManager[object]) -> Measured[object]:
        """The fastest run of a piece of work in a context, after two runs that do not count."""
        with context:
            for _ in range(2):
                work()
            return min((measure(work, self.device) for _ in range(self.repeats)), key=lambda run: run.seconds)

    def row(self, name: str, autocast: Callable[[], AbstractContextManager[object]]) -> list[str]:
        """A row of the table: images per second, milliseconds per step, and memory.

        Args:
            name: The first cell.
            autocast: Makes the context in which the networks run.
        """
        proposer, segmenter = self.proposer, self.segmenter
        whole = self.best(self.segment, autocast())
        with autocast():
            features = segmenter.encoder.feature_map(self.image[None])[0]
            encoded = proposer.encode(self.image)
            points = point_grid(proposer.points_per_side, proposer.size).to(self.device)
            proposals = proposer.decode(*encoded, points)

        def rest() -> None:
            with without_autocast(self.image):
                described = describe_proposals(proposals, features, HEIGHT, WIDTH)
            to_coco_records(segmenter.match_and_merge(described), 1, list(range(CLASSES)))

        steps = [
            lambda: proposer.encode(self.image.clone()),
            lambda: segmenter.encoder.feature_map(self.image[None]),
            lambda: proposer.decode(*encoded, points),
            rest,
        ]
        times = [1000 * self.best(step, autocast()).seconds for step in steps]
        cells = [f"{1 / whole.seconds:.2f}", *(f"{time:.1f}" for time in times), f"{1000 * whole.seconds:.1f}"]
        return [name, *cells, f"{whole.peak / 1e6:.0f}"]

    def row_of_batch(self, name: str, count: int, context: AbstractContextManager[object]) -> list[str]:
        """A row of several images at once."""
        whole = self.best(lambda: self.segment_at_once(count), context)
        return self.whole_only(name, whole.seconds / count, whole.peak)

    def whole_only(self, name: str, seconds: float, peak: int) -> list[str]:
        """A row without the steps; ``seconds`` are those of an image."""
        return [name, f"{1 / seconds:.2f}", *[""] * len(STEPS), f"{1000 * seconds:.1f}", f"{peak / 1e6:.0f}"]

    def row_of_sam2(self, scene: np.ndarray, name: str, context: AbstractContextManager[object]) -> list[str]:
        """A row of sam2's automatic mask generator on the same grid, with the same threshold of the predicted IoU."""
        settings = self.segmenter.settings
        generator = SAM2AutomaticMaskGenerator(
            self.proposer.sam2,
            points_per_side=settings.points_per_side,
            points_per_batch=settings.points_per_batch,
            pred_iou_thresh=settings.pred_iou_thresh,
            output_mode="coco_rle",
        )
        side = self.proposer.size // 4  # sam2 knows the sizes of the official networks only
        generator.predictor._bb_feat_sizes = [(side, side), (side // 2, side // 2), (side // 4, side // 4)]
        whole = self.best(lambda: generator.generate(scene), context)
        return self.whole_only(name, whole.seconds, whole.peak)


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sam2", default="sam2_hiera_l", help="SAM 2 model.")
    parser.add_argument("--encoder", default="dinov2_large", help="DINOv2 model.")
    parser.add_argument("--points-per-side", type=int, default=32, help="Points per side of the grid.")
    parser.add_argument("--points-per-batch", type=int, default=1024, help="Prompts decoded at once.")
    parser.add_argument("--images-per-batch", type=int, default=8, help="Images that the encoders take at once.")
    parser.add_argument("--repeats", type=int, default=10, help="How many times each step is measured.")
    parser.add_argument("--device", default="cuda", help="Device. The CPU is for trying this command only.")
    parser.add_argument("--no-compile", action="store_true", help="Leave out the rows of compiled networks.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown file to write.")
    options = parser.parse_args(argv)
    device = torch.device(options.device)

    settings = Settings(points_per_side=options.points_per_side, points_per_batch=options.points_per_batch)
    img_size = encoder_input_size(options.encoder)
    segmenter = seeded_segmenter(options.sam2, options.encoder, img_size, settings).to(device)
    scene = draw_scene(np.random.default_rng(0), NOVEL_CLASSES, (HEIGHT, WIDTH)).image
    bench = Bench(segmenter, scene, options.repeats)
    tokens = segmenter.encoder.feature_map(bench.image[None])[0].flatten(1).T
    segmenter.remember(tokens[:: len(tokens) // CLASSES][:CLASSES].contiguous())
    section = Section(
        "On a GPU",
        "python -m timing.gpu",
        device,
        f"{options.sam2} and {options.encoder} with seeded weights, a {WIDTH}x{HEIGHT} image, "
        f"{options.points_per_side}x{options.points_per_side} points. Milliseconds per image; MB is the largest memory "
        "in addition to the weights.",
        ["", "images/s", *STEPS, "whole image", "MB"],
        slice(1, None),
    )
    add = section.add

    def context(dtype: torch.dtype | None) -> AbstractContextManager[object]:
        return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    float32, bfloat16 = partial(context, None), partial(context, torch.bfloat16)
    add(*bench.row_of_sam2(scene, "sam2's mask generator, float32", float32()))
    add(*bench.row_of_sam2(scene, "sam2's mask generator, bfloat16", bfloat16()))
    add(*bench.row("ours, float32", float32))
    add(*bench.row("ours, bfloat16", bfloat16))
    at_once = options.images_per_batch
    add(*bench.row_of_batch(f"ours, bfloat16, {at_once} images at once", at_once, bfloat16()))
    if not options.no_compile:
        segmenter.compile_encoders()
        add(*bench.row("ours, bfloat16, encoders compiled", bfloat16))
        segmenter.compile_decoder()
        add(*bench.row("ours, bfloat16, all compiled", bfloat16))
    section.write(options.out)


if __name__ == "__main__":
    main()
