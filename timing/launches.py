"""What a GPU's host does for an image, counted on a pretended GPU: ``PYTORCH_JIT=0 python -m timing.launches``.

Networks of full size with seeded weights segment a drawn scene. The counts are exact, whatever else the machine does;
``timing/pretended_gpu.py`` says how they are made.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

torch.inference_mode = torch.no_grad  # type: ignore[misc, assignment]  # tensors of inference cannot be pretended to be elsewhere

from no_time_to_train.data.coco_results import to_coco_records  # noqa: E402
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene  # noqa: E402
from no_time_to_train.method.beyond.given import Square  # noqa: E402
from no_time_to_train.method.settings import Settings  # noqa: E402
from no_time_to_train.method.target_image import target_tensor  # noqa: E402
from no_time_to_train.networks.devices import computing_in, store_weights  # noqa: E402
from no_time_to_train.networks.registry import encoder_input_size  # noqa: E402
from timing.pretended_gpu import pretend_cuda  # noqa: E402
from timing.report import RESULTS, Section  # noqa: E402
from timing.stages import CLASSES, HEIGHT, WIDTH, seeded_segmenter  # noqa: E402


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sam2", default="sam2_hiera_l", help="SAM 2 model.")
    parser.add_argument("--encoder", default="dinov2_large", help="DINOv2 model.")
    parser.add_argument("--points-per-side", type=int, default=8, help="One batch, as the paper's 32 are on a GPU.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown file to write.")
    options = parser.parse_args(argv)
    section = Section(
        "Launches and waits of a GPU's host",
        "PYTORCH_JIT=0 python -m timing.launches",
        torch.device("cpu"),
        f"{options.sam2} and {options.encoder} with seeded weights, a {WIDTH}x{HEIGHT} image on a pretended GPU, "
        "one batch of points. A launch is an operation of torch.",
        ["an image", "launches", "casts", "of them casts of weights", "waits", "bytes to the host"],
        slice(1, None),
    )
    settings = Settings(points_per_side=options.points_per_side)
    segmenter = seeded_segmenter(options.sam2, options.encoder, encoder_input_size(options.encoder), settings)
    scene = draw_scene(np.random.default_rng(0), NOVEL_CLASSES, (HEIGHT, WIDTH)).image
    with pretend_cuda() as device:
        segmenter.to("cuda").remember(torch.rand(CLASSES, segmenter.encoder.dim))
        assert segmenter.proposer is not None
        image = target_tensor(scene, segmenter.proposer.size).to("cuda")
        rows = {"float32": 1, "bfloat16, weights cast in every image": 1, "bfloat16": 1, "bfloat16, 4 at once": 4}
        for name, at_once in rows.items():
            if name == "bfloat16":
                store_weights(name, segmenter)
            segmenter.images.count = at_once
            device.reset()
            with computing_in("float32" if name == "float32" else "bfloat16", image.device):
                for proposals in segmenter.describe_each(Square(image.clone(), HEIGHT, WIDTH) for _ in range(at_once)):
                    to_coco_records(segmenter.match_and_merge(proposals), 1, list(range(CLASSES)))
            weights = device.by_operation["_to_copy of a weight"]
            counts = device.launches, device.by_operation["_to_copy"] + weights, weights, device.waits
            section.add(name, *(str(round(count / at_once)) for count in (*counts, device.bytes_to_host)))
    section.write(options.out)


if __name__ == "__main__":
    main()
