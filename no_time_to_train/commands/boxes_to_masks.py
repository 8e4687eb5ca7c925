"""``boxes-to-masks``: give the boxes of a COCO file masks."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from no_time_to_train.networks.registry import SAM2_NAMES, Network, default_checkpoint, find_network

if TYPE_CHECKING:
    from no_time_to_train.networks.box_prompts import BoxSegmenter


def boxes_to_masks(
    json_file: Path,
    *,
    image_dir: Path,
    out: Path,
    references: Path | None = None,
    pictures: Path | None = None,
    sam2: str = "sam2_hiera_large",
    sam_checkpoint: Path | None = None,
    device: str | None = None,
    sam2_cfg_file: str | None = None,
    sam2_ckpt_path: Path | None = None,
) -> None:
    """Give the boxes of a COCO file masks, with SAM 2 or SAM.

    An interrupted run resumes.

    Args:
        json_file: COCO annotations with boxes.
        image_dir: Folder of the images.
        out: COCO annotations to write.
        references: Reference set; only its annotations get masks.
        pictures: Folder for pictures of the masks.
        sam2: SAM 2 by its checkpoint's name or path (download --list shows the names).
        sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H, to use instead of SAM 2, as the paper does.
        device: Such as cuda:1 or cpu. Default: the GPU if there is one.
        sam2_cfg_file: Kept for compatibility: SAM 2 by its configuration's name.
        sam2_ckpt_path: Kept for compatibility: the checkpoint of sam2_cfg_file.

    Examples:
        no-time-to-train boxes-to-masks refs.json --image-dir photos --out refs_masks.json --pictures masks/
    """
    from no_time_to_train.data.reference_sets import read_references
    from no_time_to_train.pipeline import boxes_to_masks as pipeline

    build = mask_maker(sam2, sam_checkpoint, device, sam2_cfg_file, sam2_ckpt_path)
    chosen = read_references(references) if references else None
    made = pipeline.boxes_to_masks(json_file, image_dir, out, build, chosen, pictures)
    print(f"masks of {made} boxes: {out}" + (f"; pictures: {pictures}" if pictures else ""))


def mask_maker(
    sam2: str, sam_checkpoint: Path | None, device: str | None, sam2_cfg_file: str | None, sam2_ckpt_path: Path | None
) -> "Callable[[], BoxSegmenter]":
    """What builds the network that the options choose, when it is needed. See :func:`boxes_to_masks`."""
    if sam2_cfg_file or sam2_ckpt_path:
        name = (sam2_cfg_file or "sam2_hiera_l").removesuffix(".yaml")
        network = Network(name, sam2_ckpt_path or default_checkpoint(name))
    else:
        network = find_network(sam2, SAM2_NAMES)

    def build() -> "BoxSegmenter":
        from no_time_to_train.networks.box_prompts import build_box_segmenter

        return build_box_segmenter(*network, sam_checkpoint, device)

    return build
