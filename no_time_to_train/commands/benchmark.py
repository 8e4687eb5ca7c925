"""``benchmark``: the three stages and the scores on an own COCO data set, with one command."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from no_time_to_train.commands.test import run_stages
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.method.settings import PointsPerSide
from no_time_to_train.networks.registry import ENCODER_NAMES, SAM2_NAMES, find_networks
from no_time_to_train.ranges import Positive, Seed

if TYPE_CHECKING:
    from pycocotools.coco import COCO

#: Where the images of an annotation file may be, relative to its folder.
IMAGE_FOLDERS = (".", "images", "..", "../images")


def benchmark(
    references: Path,
    targets: Path,
    *,
    out: Path,
    n_shot: Positive | None = None,
    seed: Seed | None = None,
    cat_names: str | None = None,
    reference_dir: Path | None = None,
    image_dir: Path | None = None,
    sam2: str = "sam2_hiera_large",
    dinov2: str = "dinov2_vitl14",
    nano: bool = False,
    points_per_side: PointsPerSide = 32,
    device: str | None = None,
) -> None:
    """Score the method on your own COCO data set: the three stages, the AP, and a page.

    Args:
        references: COCO annotations with masks, from which the references are taken.
        targets: COCO annotations of the images to search, with the ground truth.
        out: Folder for memory, results, metrics and the page. The same command resumes there.
        n_shot: References per class. Default: all annotations.
        seed: Choose the references at random with this seed, by the paper's rules. Default: the first ones of the file.
        cat_names: Classes by name, separated by commas. Default: all classes of the references.
        reference_dir: Folder of the references' images. Default: the annotation file's folder, or images next to it.
        image_dir: Folder of the targets' images. Default: likewise.
        sam2: SAM 2 by its checkpoint's name or path (download --list shows the names).
        dinov2: DINOv2 or another encoder by its checkpoint's name or path (docs/encoders.md).
        nano: Use the two small networks that ship with this package. They know drawn patterns only.
        points_per_side: Point prompts per side of the grid. Fewer are faster and may miss small objects.
        device: cuda or cpu. Default: the GPU if there is one.

    Examples:
        no-time-to-train benchmark refs.json targets.json --n-shot 5 --out run/
    """
    configure(
        references,
        targets,
        out,
        n_shot=n_shot,
        seed=seed,
        cat_names=cat_names,
        reference_dir=reference_dir,
        image_dir=image_dir,
        sam2=sam2,
        dinov2=dinov2,
        nano=nano,
        points_per_side=points_per_side,
        device=device,
    )
    labels = {"--n_shot": n_shot, "--seed": seed}  # for the report; the reference set has its size already
    options = [str(word) for option, value in labels.items() if value is not None for word in (option, value)]
    run_stages(out, ("fill_memory", "postprocess_memory"))
    run_stages(out, ("test",), options)
    write_page(out, targets.stem, references, targets, reference_dir, image_dir)
    print(f"open {out / 'index.html'} in a browser")


def configure(
    references: Path,
    targets: Path,
    out: Path,
    *,
    n_shot: Positive | None = None,
    seed: Seed | None = None,
    cat_names: str | None = None,
    reference_dir: Path | None = None,
    image_dir: Path | None = None,
    sam2: str = "sam2_hiera_large",
    dinov2: str = "dinov2_vitl14",
    nano: bool = False,
    points_per_side: PointsPerSide = 32,
    device: str | None = None,
) -> None:
    """Write the reference set ``references.json`` and the stages' configuration ``config.yaml`` into a folder.

    The arguments are those of :func:`benchmark`.
    """
    for path in (references, targets):
        if not path.is_file():
            raise UserError(f"file not found: {path}")
    if seed is not None and n_shot is None:
        raise UserError("--seed chooses among the annotations: give --n-shot as well")
    proposing, encoding = find_networks("nano" if nano else sam2, None if nano else dinov2)

    import yaml

    from no_time_to_train.data import reference_sets
    from no_time_to_train.data.class_splits import select_categories
    from no_time_to_train.data.coco import read_coco
    from no_time_to_train.files import atomic_write
    from no_time_to_train.networks.checkpoints import recognize

    coco = read_coco(references)
    categories = select_categories(coco, references, cat_names=cat_names)
    if seed is None:
        chosen = reference_sets.coco_to_references(coco, n_shot)
    else:
        chosen = reference_sets.sample_references(coco, categories, n_shot or 0, seed)
    names = [category.name for category in categories if chosen.get(category.id)]
    if not names:
        raise UserError(f"{references} has no annotation of the classes")
    if without := [category.name for category in categories if category.name not in names]:
        warnings.warn(f"classes without a reference are left out: {', '.join(without)}", UserNotice, stacklevel=2)
    reference_sets.write_references(chosen, out / "references.json")
    config = {
        "model": {
            "class_path": "no_time_to_train.lightning_module.NoTimeToTrain",
            "init_args": {
                "test_mode": "test",
                "model_cfg": {
                    "sam2_cfg_file": recognize(proposing, SAM2_NAMES),
                    "sam2_ckpt_path": str(proposing.checkpoint),
                    "encoder_cfg": {"name": recognize(encoding, ENCODER_NAMES)},
                    "encoder_ckpt_path": str(encoding.checkpoint),
                    "sam2_infer_cfgs": {"points_per_side": points_per_side},
                    "dataset_name": targets.stem,
                },
                "dataset_cfgs": {
                    "fill_memory": {
                        "root": str(reference_dir or find_images(coco, references, "--reference-dir")),
                        "json_file": str(references),
                        "memory_pkl": str(out / "references.json"),
                        "cat_names": names,
                    },
                    "test": {
                        "root": str(image_dir or find_images(read_coco(targets), targets, "--image-dir")),
                        "json_file": str(targets),
                        "cat_names": list(names),  # a copy, because YAML would write the same list as an alias
                    },
                },
            },
        },
        "trainer": {
            "accelerator": {"cuda": "gpu", None: "auto"}.get(device, device),
            "devices": 1,
            "logger": {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(out)}},
        },
    }
    with atomic_write(out / "config.yaml") as file:
        file.write(yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())


def write_page(
    out: Path,
    title: str,
    references: Path,
    targets: Path,
    reference_dir: Path | None = None,
    image_dir: Path | None = None,
) -> None:
    """Write ``index.html`` with the targets, what was found in them, the ground truth and the AP.

    The arguments are those of :func:`benchmark`, and the page's heading.
    """
    from no_time_to_train.data.coco import read_coco
    from no_time_to_train.pipeline.results_page import write_results_page

    shown, searched = read_coco(references), read_coco(targets)
    reference_dir = reference_dir or find_images(shown, references, "--reference-dir")
    image_dir = image_dir or find_images(searched, targets, "--image-dir")
    write_results_page(out, title, shown, reference_dir, searched, image_dir)


def find_images(coco: "COCO", json_file: Path, option: str) -> Path:
    """The folder that the file names of an annotation file are relative to, by its first image.

    Args:
        coco: The annotation file.
        json_file: Its path.
        option: The option that names the folder instead, for the message.
    """
    entries: list[dict[str, Any]] = list(coco.imgs.values())
    if not entries:
        raise UserError(f"{json_file} lists no images")
    for folder in IMAGE_FOLDERS:
        root = json_file.parent / folder
        if (root / entries[0]["file_name"]).is_file():
            return root
    raise UserError(f"{json_file}: image {entries[0]['file_name']} was not found near the file: give {option} FOLDER")
