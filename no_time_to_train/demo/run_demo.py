"""A first run with nothing to download: drawn scenes, the nano networks, and the real path through the three stages."""

import html
import json
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import yaml

from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import ReferenceDataset
from no_time_to_train.data.reference_sets import sample_references, write_references
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write
from no_time_to_train.networks.registry import NANO_IMG_SIZE
from no_time_to_train.visual.drawing import save_picture
from no_time_to_train.visual.memory_pictures import TILE, reference_sheet

STAGES = ("fill_memory", "postprocess_memory", "test")
CONFIG = "config.yaml"  # of the three stages; a folder that has it is a demo's

#: Context around a reference, in place of the paper's 0.2. It shows a reference about as large as targets show objects:
#: the nano encoder does not know a pattern again at four times its size, as DINOv2 does.
CONTEXT_RATIO = 4.0

#: Scenes drawn for the references, for each shot and beside: enough that every class has its shots.
SCENES_A_SHOT, SCENES_BESIDE = 8, 16


def run_demo(out: Path, shots: int, images: int, seed: int) -> None:
    """Draw scenes of the novel classes, sample references, run the three stages, and write a gallery.

    Args:
        out: folder for everything: new, empty, or an earlier demo's.
        shots: references a class.
        images: target images.
        seed: of the scenes and of the references.

    Raises:
        UserError: a number is not positive, or ``out`` holds something else.
    """
    draw(out, shots, images, seed)
    run_stages(out)
    write_gallery(out)
    print(f"look at {out / 'index.html'}")


def draw(out: Path, shots: int, images: int, seed: int) -> None:
    """Write the references, the targets, the reference set and the stages' configuration into ``out``."""
    if shots < 1 or images < 1 or seed < 0:
        raise UserError("--shots and --images must be 1 or more, --seed 0 or more")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / CONFIG).exists())):
        raise UserError(f"{out} holds something that is not a demo: choose another --out")
    print(f"drawing {images} target scenes, and references: {shots} of each class; the networks have seen none of them")
    for picture in (out / "pictures").glob("*.jpg"):  # an earlier demo's may be more
        picture.unlink()
    references_json = write_coco(out / "references", NOVEL_CLASSES, SCENES_A_SHOT * shots + SCENES_BESIDE, 2 * seed)
    targets_json = write_coco(out / "targets", NOVEL_CLASSES, images, 2 * seed + 1)
    coco = read_coco(references_json)
    categories = select_categories(coco, references_json)
    references = sample_references(coco, categories, shots, seed)
    write_references(references, out / "references.json")
    crops = ReferenceDataset(coco, str(out / "references/images"), categories, references, TILE, CONTEXT_RATIO)
    save_picture(reference_sheet(crops, categories), out / "references.png")
    with atomic_write(out / CONFIG) as file:
        file.write(yaml.safe_dump(configuration(out, references_json, targets_json), sort_keys=False).encode())


def configuration(out: Path, references_json: Path, targets_json: Path) -> dict[str, object]:
    """The configuration of the stages: the nano networks on the drawn scenes."""
    return {
        "model": {
            "class_path": "no_time_to_train.lightning_module.NoTimeToTrain",
            "init_args": {
                "test_mode": "test",
                "model_cfg": {
                    "sam2_cfg_file": "sam2_nano",
                    "sam2_infer_cfgs": {"points_per_side": 24},
                    "encoder_cfg": {"name": "dinov2_nano", "img_size": NANO_IMG_SIZE},
                    "test": {"online_vis": True, "vis_thr": 0.5},
                    "dataset_name": "drawn scenes",
                },
                "dataset_cfgs": {
                    "fill_memory": {
                        "root": str(references_json.parent / "images"),
                        "json_file": str(references_json),
                        "memory_pkl": str(out / "references.json"),
                        "context_ratio": CONTEXT_RATIO,
                    },
                    "test": {
                        "root": str(targets_json.parent / "images"),
                        "json_file": str(targets_json),
                        "image_size": 256,
                    },
                },
                "data_load_cfgs": {"workers": 1},
            },
        },
        "trainer": {
            "accelerator": "auto",
            "devices": 1,
            "logger": {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(out)}},
        },
    }


def run_stages(out: Path, stages: Sequence[str] = STAGES, options: Sequence[str] = ()) -> None:
    """Run stages in ``out`` as the command line does, each with further options."""
    command = import_module("no_time_to_train.commands.test")
    memory, prototypes = str(out / "memory.ckpt"), str(out / "memory_postprocessed.ckpt")
    paths = {
        "fill_memory": ["--out_path", memory],
        "postprocess_memory": ["--ckpt_path", memory, "--out_path", prototypes],
        "test": ["--ckpt_path", prototypes],
    }
    for stage in stages:
        arguments = ["--config", str(out / CONFIG), "--model.test_mode", stage, *paths[stage], *options]
        print(f"\n$ no-time-to-train test {shlex.join(arguments)}", flush=True)
        command.run(arguments)


def write_gallery(out: Path) -> None:
    """Write ``index.html``: the AP, the references with their masks, the targets beside their predictions."""
    metrics = json.loads((out / "metrics.json").read_text())
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{100 * (value or 0):.1f}</td></tr>"
        for name, value in metrics["segm"]["per_class"].items()
    )
    pictures = "".join(
        f'<img src="pictures/{path.name}" loading="lazy" alt="target {path.stem}">\n'
        for path in sorted((out / "pictures").glob("*.jpg"), key=lambda path: int(path.stem))
    )
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>No Time To Train: demo</title>
<style>body {{ font: 15px sans-serif; margin: 2em; }} img {{ max-width: 100%; margin: 4px; }}
td {{ padding: 0 1em 0 0; }}</style>
<h1>No Time To Train: demo</h1>
<p>Mask AP {100 * metrics["segm"]["AP"]:.1f}, AP50 {100 * metrics["segm"]["AP50"]:.1f},
box AP {100 * metrics["bbox"]["AP"]:.1f}. Mask AP of each class:</p><table>{rows}</table>
<h2>References</h2><img src="references.png" alt="references with their masks">
<h2>Targets: ground truth left, predictions right</h2>
{pictures}</html>
"""
    with atomic_write(out / "index.html") as file:
        file.write(page.encode())
