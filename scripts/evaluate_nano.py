"""Measure the nano networks on scenes of the novel classes, each network alone and both in the demo.

    python scripts/evaluate_nano.py --weights runs/nano --out runs/nano/metrics.json

Without ``--weights``, the networks of the package are measured. Their ``metrics.json`` in
``no_time_to_train/networks/nano`` was written by this command, and their model card quotes it.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nano_dinov2 import evaluate_dinov2
from nano_sam2 import evaluate_sam2

from no_time_to_train.benchmarks.own_data_set import run_stages
from no_time_to_train.data.reference_sets import read_references, write_references
from no_time_to_train.demo.run_demo import write_inputs
from no_time_to_train.files import read_json, write_json
from no_time_to_train.networks.build import build_sam2, build_vit
from no_time_to_train.networks.encoders import DINOV2_NANO
from no_time_to_train.networks.registry import SAM2_NANO, default_checkpoint, encoder_input_size

Figures = dict[str, float]


def evaluate_demo(folder: Path, shots: int, images: int, seed: int, options: list[str], permute: bool) -> Figures:
    """The mask AP of the demo.

    Args:
        folder: The folder of the demo.
        shots: References per class.
        images: Target images.
        seed: The seed of the scenes and of the references.
        options: Further options of the stages.
        permute: Annotate every reference as another class.

    Returns:
        ``AP`` and ``AP50`` as fractions.
    """
    write_inputs(folder, shots, images, seed)
    if permute:
        permute_references(folder)
    run_stages(folder, options=[*options, "--model.init_args.model_cfg.test.online_vis", "false"])
    segm = read_json(folder / "metrics.json")["segm"]
    return {name: segm[name] for name in ("AP", "AP50")}


def permute_references(folder: Path) -> None:
    """Annotate the references of each class of a demo as the next class, and those of the last as the first."""
    path = folder / "references/instances.json"
    data, references = read_json(path), read_references(folder / "references.json")
    wrong = dict(zip(references, [*list(references)[1:], next(iter(references))], strict=True))
    for annotation in data["annotations"]:
        annotation["category_id"] = wrong[annotation["category_id"]]
    write_json(path, data, indent=None)
    write_references({wrong[category]: shots for category, shots in references.items()}, folder / "references.json")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="Folder of sam2_nano.safetensors and dinov2_nano.safetensors.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--images", type=int, default=100, help="Target images of the demo, and scenes per network.")
    args = parser.parse_args()
    paths = {
        name: args.weights / f"{name}.safetensors" if args.weights else default_checkpoint(name)
        for name in (SAM2_NANO, DINOV2_NANO)
    }
    options = [
        *("--model.init_args.model_cfg.sam2_ckpt_path", str(paths[SAM2_NANO])),
        *("--model.init_args.model_cfg.encoder_ckpt_path", str(paths[DINOV2_NANO])),
    ]
    sam2 = build_sam2(SAM2_NANO, paths[SAM2_NANO])
    vit: Any = build_vit(DINOV2_NANO, encoder_input_size(DINOV2_NANO), checkpoint=paths[DINOV2_NANO])
    metrics: dict[str, dict[str, Figures]] = {}
    for seed in args.seeds:
        figures = {
            SAM2_NANO: evaluate_sam2(sam2, seed, args.images),
            DINOV2_NANO: evaluate_dinov2(vit, seed, args.images),
        }
        for name, shots, permute in (
            ("demo_5_shot", 5, False),
            ("demo_1_shot", 1, False),
            ("demo_5_shot_permuted_labels", 5, True),
        ):
            with TemporaryDirectory() as folder:
                figures[name] = evaluate_demo(Path(folder) / "demo", shots, args.images, seed, options, permute)
        metrics[f"seed {seed}"] = figures
        print(json.dumps({seed: figures}, indent=1), flush=True)
    write_json(args.out, metrics)


if __name__ == "__main__":
    main()
