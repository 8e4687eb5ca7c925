"""Measure the nano networks, each alone and both in the demo, on scenes of the novel classes.

    python scripts/evaluate_nano.py --weights runs/nano --out runs/nano/metrics.json

Without ``--weights``, the shipped networks are measured. ``no_time_to_train/nano/metrics.json`` is what this wrote of
them, and their model card quotes it.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from nano_dinov2 import evaluate_dinov2
from nano_sam2 import evaluate_sam2

from no_time_to_train.data.reference_sets import read_references, write_references
from no_time_to_train.demo.run_demo import run_stages, write_inputs
from no_time_to_train.networks.build import build_dinov2, build_sam2
from no_time_to_train.networks.registry import DINOV2_NANO, NANO_IMG_SIZE, SAM2_NANO, default_checkpoint

Figures = dict[str, float]


def evaluate_demo(folder: Path, shots: int, images: int, seed: int, options: list[str], permute: bool) -> Figures:
    """Mask AP of the demo; ``permute`` has every reference annotated as of another class."""
    write_inputs(folder, shots, images, seed)
    if permute:
        permute_references(folder)
    run_stages(folder, options=[*options, "--model.init_args.model_cfg.test.online_vis", "false"])
    segm = json.loads((folder / "metrics.json").read_text())["segm"]
    return {name: segm[name] for name in ("AP", "AP50")}


def permute_references(folder: Path) -> None:
    """Annotate a demo's references of each class as the next one's, the last as the first one's."""
    path = folder / "references/instances.json"
    data, references = json.loads(path.read_text()), read_references(folder / "references.json")
    wrong = dict(zip(references, [*list(references)[1:], next(iter(references))], strict=True))
    for annotation in data["annotations"]:
        annotation["category_id"] = wrong[annotation["category_id"]]
    path.write_text(json.dumps(data))
    write_references({wrong[category]: shots for category, shots in references.items()}, folder / "references.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder of sam2_nano.safetensors and dinov2_nano.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="tune on others")
    parser.add_argument("--images", type=int, default=100, help="target images of the demo, scenes for each network")
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
    vit = build_dinov2(DINOV2_NANO, NANO_IMG_SIZE, checkpoint=paths[DINOV2_NANO])
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
    args.out.write_text(json.dumps(metrics, indent=1) + "\n")


if __name__ == "__main__":
    main()
