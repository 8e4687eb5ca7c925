"""``prepare``: download, convert and check a data set of the paper."""

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from no_time_to_train.commands.boxes_to_masks import SAM_H, mask_maker
from no_time_to_train.errors import UserError, UserNotice

if TYPE_CHECKING:
    from no_time_to_train.networks.box_prompts import BoxSegmenter


def prepare(
    dataset: Literal["coco", "pascal-voc", "cdfsod", "lvis"],
    *,
    root: Path = Path("data"),
    check: bool = False,
    masks: Literal["references", "all", "none"] = "references",
    sets: str | None = None,
    keep_archives: bool = False,
    subset: bool = False,
    sam2: str | None = None,
    sam_checkpoint: Path | None = None,
    device: str | None = None,
    sam2_cfg_file: str | None = None,
    sam2_ckpt_path: Path | None = None,
) -> None:
    """Download, convert and check a data set of the paper.

    Finished steps are not repeated.

    Args:
        dataset: coco, pascal-voc, cdfsod or lvis.
        root: Folder of all data sets.
        check: Only say what is missing and where to get it.
        masks: For pascal-voc and cdfsod, the boxes that get masks; all includes those of the targets.
        sets: For cdfsod, the sets by name, separated by commas. Default: all six.
        keep_archives: Do not delete archives after unpacking them.
        subset: Accept other numbers of images and annotations than the published ones.
        sam2: SAM 2 for the masks, by its checkpoint's name or path (download --list shows the names). Default: SAM
            ViT-H, as in the paper, if its checkpoint is in checkpoints/, and sam2_hiera_large otherwise.
        sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H for the masks.
        device: Such as cuda:1 or cpu. Default: the GPU if there is one.
        sam2_cfg_file: Kept for compatibility: SAM 2 by its configuration's name.
        sam2_ckpt_path: Kept for compatibility: the checkpoint of sam2_cfg_file.

    Examples:
        no-time-to-train prepare coco --root data/
    """
    if sets and dataset != "cdfsod":
        raise UserError("--sets is for cdfsod only")
    if root.is_file():
        raise UserError(f"--root {root} is a file: give a folder")
    from no_time_to_train.benchmarks.prepare.steps import PrepareOptions, run_parts

    if sam2 or sam_checkpoint or sam2_cfg_file or sam2_ckpt_path:
        build, _ = mask_maker(sam2 or "sam2_hiera_large", sam_checkpoint, device, sam2_cfg_file, sam2_ckpt_path)
    else:
        build = default_mask_maker(device)
    options = PrepareOptions(
        root, build, masks, keep_archives, subset, tuple(name.strip() for name in sets.split(",")) if sets else ()
    )
    module = "coco2017" if dataset == "coco" else dataset.replace("-", "_")
    parts = import_module(f"no_time_to_train.benchmarks.prepare.{module}").parts(options)
    run_parts(parts, check)
    print(f"{dataset} is ready in {root}")


def default_mask_maker(device: str | None) -> "Callable[[], BoxSegmenter]":
    """What builds the network for the masks where no option chooses one: SAM ViT-H, or SAM 2 with a notice."""
    found = SAM_H.is_file()
    build, _ = mask_maker("sam2_hiera_large", SAM_H if found else None, device, None, None)

    def build_with_notice() -> "BoxSegmenter":
        if not found:
            warnings.warn(
                f"masks are made by SAM 2, because {SAM_H} does not exist; those of the published results are of SAM "
                "ViT-H (no-time-to-train download sam_vit_h, and pip install segment-anything)",
                UserNotice,
                stacklevel=2,
            )
        return build()

    return build_with_notice
