"""The demo: draw scenes, run the three stages on them with the nano networks, and show the results on a page."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from no_time_to_train.commands.test import test as run_stage
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import ReferenceDataset
from no_time_to_train.data.reference_sets import sample_references, write_references
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write, read_json
from no_time_to_train.networks.registry import DINOV2_NANO, default_context_ratio
from no_time_to_train.visual.drawing import save_picture
from no_time_to_train.visual.html import render
from no_time_to_train.visual.memory_pictures import TILE, reference_sheet

STAGES = ("fill_memory", "postprocess_memory", "test")

#: Name of the stages' configuration. A folder that has this file was written by the demo.
CONFIG = "config.yaml"

#: Scenes for the references: this many per shot, and some more, so that every class has enough instances.
SCENES_PER_SHOT, MORE_SCENES = 8, 16


def run_demo(out: Path, shots: int, images: int, seed: int) -> None:
    """Draw scenes of the novel classes, run the three stages on them, and write ``index.html``.

    Args:
        out: Folder for everything: a new one, an empty one, or one of an earlier demo, which is replaced.
        shots: References per class, 1 or more.
        images: Target images, 1 or more.
        seed: Seed of the scenes and of the choice of references, 0 or more.

    Raises:
        UserError: A number is too small, or ``out`` has other content.
    """
    write_inputs(out, shots, images, seed)
    run_stages(out)
    write_page(out)
    print(f"open {out / 'index.html'} in a browser")


def write_inputs(out: Path, shots: int, images: int, seed: int) -> None:
    """Draw the references and the targets, choose the reference set, and write the configuration of the stages.

    Args:
        out: See :func:`run_demo`.
        shots: See :func:`run_demo`.
        images: See :func:`run_demo`.
        seed: See :func:`run_demo`.

    Raises:
        UserError: See :func:`run_demo`.
    """
    if shots < 1 or images < 1 or seed < 0:
        raise UserError("--n-shot and --images must be 1 or more, --seed 0 or more")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / CONFIG).exists())):
        raise UserError(f"{out} holds something that is not a demo: choose another --out")
    print(f"drawing {images} targets, and {shots} references of each class; the networks have never seen these classes")
    for picture in (out / "pictures").glob("*.jpg"):  # an earlier demo may have had more targets
        picture.unlink()
    references_json = write_coco(out / "references", NOVEL_CLASSES, SCENES_PER_SHOT * shots + MORE_SCENES, 2 * seed)
    targets_json = write_coco(out / "targets", NOVEL_CLASSES, images, 2 * seed + 1)

    coco = read_coco(references_json)
    categories = select_categories(coco, references_json)
    references = sample_references(coco, categories, shots, seed)
    write_references(references, out / "references.json")
    crops = ReferenceDataset(
        coco, out / "references/images", categories, references, TILE, default_context_ratio(DINOV2_NANO)
    )
    save_picture(reference_sheet(crops, categories), out / "references.png")

    config = configuration(out, references_json, targets_json)
    with atomic_write(out / CONFIG) as file:
        file.write(yaml.safe_dump(config, sort_keys=False).encode())


def configuration(out: Path, references_json: Path, targets_json: Path) -> dict[str, object]:
    """The configuration of the stages: only what differs from the defaults.

    Args:
        out: Folder of the demo.
        references_json: Annotation file of the references, next to their folder ``images``.
        targets_json: Annotation file of the targets, next to their folder ``images``.
    """
    return {
        "model": {
            "class_path": "no_time_to_train.lightning_module.NoTimeToTrain",
            "init_args": {
                "test_mode": "test",
                "model_cfg": {
                    "sam2_cfg_file": "sam2_nano",
                    "encoder_cfg": {"name": "dinov2_nano"},
                    "sam2_infer_cfgs": {"points_per_side": 24},
                    "test": {"online_vis": True},
                    "dataset_name": "drawn scenes",
                },
                "dataset_cfgs": {
                    "fill_memory": {
                        "root": str(references_json.parent / "images"),
                        "json_file": str(references_json),
                        "memory_pkl": str(out / "references.json"),
                    },
                    "test": {"root": str(targets_json.parent / "images"), "json_file": str(targets_json)},
                },
                "data_load_cfgs": {"workers": 1},
            },
        },
        "trainer": {
            "devices": 1,
            "logger": {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(out)}},
        },
    }


def run_stages(out: Path, stages: Sequence[str] = STAGES, options: Sequence[str] = ()) -> None:
    """Run stages of a demo as the command line does, and print the commands.

    Args:
        out: Folder of the demo, see :func:`write_inputs`.
        stages: The stages to run, in this order.
        options: Further options of ``no-time-to-train test``, for every stage.

    Raises:
        UserError: An option is wrong, or a stage fails.
    """
    memory, prototypes = str(out / "memory.ckpt"), str(out / "memory_postprocessed.ckpt")
    paths = {
        "fill_memory": ["--out_path", memory],
        "postprocess_memory": ["--ckpt_path", memory, "--out_path", prototypes],
        "test": ["--ckpt_path", prototypes],
    }
    for stage in stages:
        arguments = ["--config", str(out / CONFIG), "--model.test_mode", stage, *paths[stage], *options]
        print(f"\n$ no-time-to-train test {shlex.join(arguments)}", flush=True)
        run_stage(arguments)


def write_page(out: Path) -> None:
    """Write ``index.html``: the AP, the references with their masks, and each target next to its predictions.

    Args:
        out: Folder of a demo whose stages have run.

    Raises:
        UserError: A file of the stages is missing, or the page cannot be written.
    """
    page = render(
        "demo.html",
        title="No Time To Train: demo",
        metrics=read_json(out / "metrics.json"),
        pictures=[
            f"pictures/{path.name}"
            for path in sorted((out / "pictures").glob("*.jpg"), key=lambda path: int(path.stem))
        ],
    )
    with atomic_write(out / "index.html") as file:
        file.write(page.encode())
