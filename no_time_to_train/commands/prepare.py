"""``prepare``: download, convert and check a data set of the paper."""

from importlib import import_module
from pathlib import Path
from typing import Literal

from no_time_to_train.commands.boxes_to_masks import mask_maker
from no_time_to_train.errors import UserError


def prepare(
    dataset: Literal["coco", "pascal-voc", "cdfsod", "lvis"],
    *,
    root: Path = Path("data"),
    check: bool = False,
    masks: Literal["references", "all", "none"] = "references",
    sets: str | None = None,
    keep_archives: bool = False,
    subset: bool = False,
    sam2: str = "sam2_hiera_large",
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
        sam2: SAM 2 for the masks, by its checkpoint's name or path (download --list shows the names).
        sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H, to use instead of SAM 2, as the paper does.
        device: Such as cuda:1 or cpu. Default: the GPU if there is one.
        sam2_cfg_file: Kept for compatibility: SAM 2 by its configuration's name.
        sam2_ckpt_path: Kept for compatibility: the checkpoint of sam2_cfg_file.

    Examples:
        no-time-to-train prepare coco --root data/
    """
    if sets and dataset != "cdfsod":
        raise UserError("--sets is for cdfsod only")
    from no_time_to_train.benchmarks.prepare.steps import PrepareOptions, run_parts

    options = PrepareOptions(
        root,
        mask_maker(sam2, sam_checkpoint, device, sam2_cfg_file, sam2_ckpt_path),
        masks,
        keep_archives,
        subset,
        tuple(name.strip() for name in sets.split(",")) if sets else (),
    )
    module = "coco2017" if dataset == "coco" else dataset.replace("-", "_")
    parts = import_module(f"no_time_to_train.benchmarks.prepare.{module}").parts(options)
    run_parts(parts, check)
    print(f"{dataset} is ready in {root}")
