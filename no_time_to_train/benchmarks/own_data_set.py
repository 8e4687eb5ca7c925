"""The three stages, the scores and a page on an own COCO data set: what ``benchmark`` and ``demo`` run."""

import shlex
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.file_hashes import sha256
from no_time_to_train.files import CONFIGURATION, REPORT, atomic_write, check_replaceable
from no_time_to_train.method.settings import ModeName, PointsPerSide, Settings, Tiles, of_mode
from no_time_to_train.networks.registry import ENCODER_NAMES, PRESETS, SAM2_NAMES, PresetName, find_networks
from no_time_to_train.pipeline.processes import SIGNALS, catch_signals, end_with_parent
from no_time_to_train.pipeline.run_record import FILE_NAME, read_sections, versions
from no_time_to_train.plugins import find_plugin, is_plugin
from no_time_to_train.ranges import Positive, Seed

if TYPE_CHECKING:
    from pycocotools.coco import COCO

#: The stages of the method, in their order.
STAGES = ("fill_memory", "postprocess_memory", "test")

#: The stages' configuration, in the folder of a benchmark or a demo.
CONFIG = "config.yaml"

#: What a benchmark writes to its folder besides pictures.
WRITTEN = {CONFIG: CONFIGURATION, "results.json": "COCO results", "metrics.json": REPORT, "index.html": REPORT}
WRITTEN |= {"memory.ckpt": "a memory", "memory_postprocessed.ckpt": "a memory", "references.json": "a reference set"}

#: Where the images of an annotation file may be, relative to its folder.
IMAGE_FOLDERS = (".", "images", "..", "../images")


@dataclass(frozen=True)
class BenchmarkOptions:
    """The references, the classes and the networks of a benchmark.

    Attributes:
        n_shot: References per class. Default: all annotations.
        seed: Choose the references at random with this seed, by the paper's rules. Default: the first ones of the file.
        seeds: Several seeds: a run for each, in folders of --out, unless it is done, and a report of all.
        cat_names: Classes by name, separated by commas. Default: all classes of the references.
        reference_dir: Folder of the references' images. Default: the annotation file's folder, or images next to it.
        image_dir: Folder of the targets' images. Default: likewise.
        preset: accurate is the paper's choice, and the default; balanced and fast take smaller networks and guided
            prompts (docs/speed.md). Other options override it.
        sam2: SAM 2 by its checkpoint's name or path (download --list shows the names).
        dinov2: DINOv2 or another encoder by its checkpoint's name or path (docs/encoders.md).
        nano: Use the two small networks that ship with this package. They know drawn patterns only.
        mode: paper scores and merges masks as the paper does; best has settings that found more on drawn scenes
            (docs/beyond_the_paper.md).
        tiles: For small objects: look at N x N overlapping tiles of each target as well (docs/beyond_the_paper.md).
        points_per_side: Point prompts per side of the grid. Fewer are faster and may miss small objects.
        device: cuda or cpu. Default: the GPU if there is one.
        devices: Share the images among this many GPUs, or processes with --device cpu (docs/several_gpus.md).
    """

    n_shot: Positive | None = None
    seed: Seed | None = None
    seeds: Sequence[Seed] = ()
    cat_names: str | None = None
    reference_dir: Path | None = None
    image_dir: Path | None = None
    preset: PresetName | None = None
    sam2: str | None = None
    dinov2: str | None = None
    nano: bool = False
    mode: ModeName = "paper"
    tiles: Tiles = Settings.tiles
    points_per_side: PointsPerSide = Settings.points_per_side
    device: str | None = None
    devices: Positive = 1

    def settings(self) -> dict[str, Any]:
        """The settings of the method that differ from the paper's, and the density of the prompts."""
        mode = {key: str(find_plugin(one)) if is_plugin(one) else one for key, one in of_mode(self.mode).items()}
        chosen = {"prompts": PRESETS[self.preset or "accurate"].prompts, "tiles": self.tiles, **mode}
        others = {key: value for key, value in chosen.items() if value != getattr(Settings, key)}
        return {"points_per_side": self.points_per_side, **others}


def run_stages(folder: Path, stages: Sequence[str] = STAGES, options: Sequence[str] = (), devices: int = 1) -> None:
    """Run some stages, in this order, with the configuration ``folder/config.yaml``, and print their commands.

    Memories and results go to the folder; ``options`` are further ones for every stage.
    """
    from no_time_to_train.light_imports import import_light

    import_light("pytorch_lightning")
    from no_time_to_train.stage_cli import run_stage

    memory, prototypes = str(folder / "memory.ckpt"), str(folder / "memory_postprocessed.ckpt")
    paths = {
        "fill_memory": ["--out_path", memory],
        "postprocess_memory": ["--ckpt_path", memory, "--out_path", prototypes],
        "test": ["--ckpt_path", prototypes],
    }
    for stage in stages:
        arguments = ["--config", str(folder / CONFIG), "--model.test_mode", stage, *paths[stage], *options]
        if shared := stage != "postprocess_memory" and devices > 1:
            arguments += ["--trainer.devices", str(devices), "--trainer.strategy", "ddp"]
        print(f"\n$ no-time-to-train test {shlex.join(arguments)}", flush=True)
        if not shared:
            run_stage(arguments)
        else:  # the stage's processes begin with the command of the stage, not with this one
            command = [sys.executable, "-m", "no_time_to_train", "test", *arguments]
            catch_signals()
            process = subprocess.Popen(command, preexec_fn=end_with_parent if sys.platform == "linux" else None)
            try:
                status = process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                raise
            if status:
                sys.exit(status if status > 0 else f"error: stage {stage} was ended by {SIGNALS.get(-status, -status)}")


def run_benchmark(references: Path, targets: Path, out: Path, options: BenchmarkOptions, keep: bool = False) -> None:
    """Run the three stages on two COCO files, score the results and write the page; all goes to ``out``.

    ``keep`` leaves a finished run of the same settings as it is, as those of the seeds that are done.
    """
    for one, other in (("seed", "seeds"), ("nano", "preset")):
        if getattr(options, one) not in (None, False) and getattr(options, other):
            raise UserError(f"--{one} and --{other} choose the same thing: leave one of them out")
    for seed in options.seeds:
        print(f"\nseed {seed}: {out / f'seed_{seed}'}")
        run_benchmark(references, targets, out / f"seed_{seed}", replace(options, seed=seed, seeds=()), keep=True)
    if options.seeds:
        return
    settings = [out / CONFIG, out / "references.json"]
    earlier = [file.read_bytes() if file.is_file() else None for file in settings]
    folders = configure(references, targets, out, options)
    same = keep and earlier == [file.read_bytes() for file in settings]
    if same and is_done(out, *with_images(references, folders[0]), *with_images(targets, folders[1])):
        print(f"already done: remove {out} to run it again")
        return
    labels = {"--n_shot": options.n_shot, "--seed": options.seed}  # for the report: the reference set has its size
    words = [str(word) for option, value in labels.items() if value is not None for word in (option, value)]
    run_stages(out, STAGES[:2], devices=options.devices)
    run_stages(out, STAGES[2:], words, options.devices)

    from no_time_to_train.pipeline.results_page import write_results_page

    write_results_page(out, targets.stem, references, targets, *folders)


def is_done(folder: Path, *inputs: Path) -> bool:
    """Whether a folder has a finished run of this version, later than its inputs, whose other files are unchanged."""
    page, test = folder / "index.html", read_sections(folder / FILE_NAME).get("test", {})
    if not page.is_file() or test.get("status") != "finished" or test.get("versions") != versions():
        return False
    files = [(Path(one["path"]), one["sha256"]) for one in test["files"].values()]
    unchanged = all(path.is_file() and sha256(path) == known for path, known in files)
    written = page.stat().st_mtime
    return unchanged and all(one.is_file() and one.stat().st_mtime < written for one in inputs)


def with_images(json_file: Path, folder: Path) -> list[Path]:
    """An annotation file, and the images in a folder that it lists."""
    from no_time_to_train.data.coco import read_coco

    return [json_file, *(folder / entry["file_name"] for entry in read_coco(json_file).imgs.values())]


def configure(references: Path, targets: Path, out: Path, options: BenchmarkOptions) -> tuple[Path, Path]:
    """Write the reference set and the stages' configuration into a folder.

    Returns:
        The folders of the images of references and of targets.
    """
    for path in (references, targets):
        if not path.is_file():
            raise UserError(f"file not found: {path}")
    for name, kind in WRITTEN.items():
        check_replaceable(out / name, kind)
    if options.seed is not None and options.n_shot is None:
        raise UserError("--seed chooses among the annotations: give --n-shot as well")
    networks = ("nano", None) if options.nano else (options.sam2, options.dinov2)
    proposing, encoding = find_networks(*networks, preset=options.preset)

    import yaml

    from no_time_to_train.data import reference_sets
    from no_time_to_train.data.class_splits import select_categories
    from no_time_to_train.data.coco import read_coco
    from no_time_to_train.networks.checkpoints import recognize
    from no_time_to_train.pipeline.target_pictures import picture_files
    from no_time_to_train.visual.drawing import check_pictures

    coco = read_coco(references)
    categories = select_categories(coco, references, cat_names=options.cat_names)
    if options.seed is None:
        chosen = reference_sets.coco_to_references(coco, options.n_shot)
    else:
        chosen = reference_sets.sample_references(coco, categories, options.n_shot or 0, options.seed)
    names = [category.name for category in categories if chosen.get(category.id)]
    if not names:
        raise UserError(f"{references} has no annotation of the classes")
    if without := [category.name for category in categories if category.name not in names]:
        warnings.warn(f"classes without a reference are left out: {', '.join(without)}", UserNotice, stacklevel=2)
    target_coco = read_coco(targets)
    used = [category for category in categories if category.name in names]
    for ours, theirs in zip(used, select_categories(target_coco, targets, cat_names=list(names)), strict=True):
        if ours != theirs:
            raise UserError(
                f"{references} and {targets} number the classes differently: {ours.id} is {ours.name!r} in the one, "
                f"and {theirs.id} is {theirs.name!r} in the other; give both the same categories"
            )
    folders = [out / name for name in ("overlays", "previews", "thumbnails")]
    check_pictures(folder / name for name in picture_files(target_coco).values() for folder in folders)
    check_pictures(out.glob("references/[-0-9]*_[0-9]*.jpg"))
    reference_sets.write_references(chosen, out / "references.json")
    reference_dir = options.reference_dir or find_images(coco, references, "--reference-dir")
    image_dir = options.image_dir or find_images(target_coco, targets, "--image-dir")
    model = {
        "sam2_cfg_file": recognize(proposing, SAM2_NAMES),
        "sam2_ckpt_path": str(proposing.checkpoint),
        "encoder_cfg": {"name": recognize(encoding, ENCODER_NAMES)},
        "encoder_ckpt_path": str(encoding.checkpoint),
        "sam2_infer_cfgs": options.settings(),
        "dataset_name": targets.stem,
    }
    shots = {"root": str(reference_dir), "json_file": str(references), "memory_pkl": str(out / "references.json")}
    data = {
        "fill_memory": {**shots, "cat_names": names},
        # The names are copied, because YAML would write the same list as an alias.
        "test": {"root": str(image_dir), "json_file": str(targets), "cat_names": list(names)},
    }
    accelerator = {"cuda": "gpu", None: "auto"}.get(options.device, options.device)
    logger = {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(out)}}
    config = {
        "model": {
            "class_path": "no_time_to_train.lightning_module.NoTimeToTrain",
            "init_args": {"test_mode": "test", "model_cfg": model, "dataset_cfgs": data},
        },
        "trainer": {"accelerator": accelerator, "devices": 1, "logger": logger},
    }
    with atomic_write(out / CONFIG) as file:
        file.write(yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())
    return reference_dir, image_dir


def find_images(coco: "COCO", json_file: Path, option: str) -> Path:
    """The folder that the file names of an annotation file are relative to, by its first image.

    ``option`` names the folder instead, for the message.
    """
    entries: list[dict[str, Any]] = list(coco.imgs.values())
    if not entries:
        raise UserError(f"{json_file} lists no images")
    for folder in IMAGE_FOLDERS:
        root = json_file.parent / folder
        if (root / entries[0]["file_name"]).is_file():
            return root
    raise UserError(f"{json_file}: image {entries[0]['file_name']} was not found near the file: give {option} FOLDER")
