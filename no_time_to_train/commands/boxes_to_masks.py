"""``boxes-to-masks``: give the boxes of a COCO file masks."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import ANNOTATIONS, check_files, check_replaceable
from no_time_to_train.networks import registry

if TYPE_CHECKING:
    from no_time_to_train.networks.box_prompts import BoxSegmenter


#: SAM ViT-H, whose masks the published results of PASCAL VOC and CD-FSOD were computed with.
SAM_H = registry.FOLDER / registry.CHECKPOINTS["sam_vit_h"].file_name


def boxes_to_masks(
    json_file: Path | None = None,
    *,
    image_dir: Path,
    out: Path | None = None,
    references: Path | None = None,
    pictures: Path | None = None,
    as_published: bool = False,
    sam2: str = "sam2_hiera_large",
    nano: bool = False,
    categories: Path | None = None,
    sam_checkpoint: Path | None = None,
    device: str | None = None,
    sam2_cfg_file: str | None = None,
    sam2_ckpt_path: Path | None = None,
    input_json: Path | None = None,
    output_json: Path | None = None,
    model_type: str | None = None,
    batch_size: int | None = None,
    max_boxes_per_image: int | None = None,
    visualize: bool = False,
) -> None:
    """Give the boxes of a COCO file masks, with SAM 2 or SAM.

    An interrupted run resumes.

    Args:
        json_file: COCO annotations with boxes; or boxes by class, as FSOD-VFM's references.
        image_dir: Folder of the images.
        out: COCO annotations to write. Default: <json_file>_with_segm.json, next to json_file.
        references: Reference set; only its annotations get masks.
        pictures: Folder for pictures of the masks.
        as_published: Store outlines as polygons, without holes, as in the paper's results on PASCAL VOC and CD-FSOD.
        sam2: SAM 2 by its checkpoint's name or path (download --list shows the names).
        nano: Use the small SAM 2 that ships with this package. It knows drawn objects only.
        categories: COCO file whose category ids the classes get, by name.
        sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H, to use instead of SAM 2, as the paper does.
        device: Such as cuda:1 or cpu. Default: the GPU if there is one.
        sam2_cfg_file: Kept for compatibility: SAM 2 by its configuration's name.
        sam2_ckpt_path: Kept for compatibility: the checkpoint of sam2_cfg_file.
        input_json: Kept for compatibility: json_file in the authors' script, which implies as_published.
        output_json: Kept for compatibility: out in the authors' script.
        model_type: Kept for compatibility: the checkpoint shows which SAM it is.
        batch_size: Kept for compatibility: has no effect, because results do not depend on it.
        max_boxes_per_image: Kept for compatibility: has no effect, because results do not depend on it.
        visualize: Kept for compatibility: pictures, in <json_file>_with_SAM_segm.

    Examples:
        no-time-to-train boxes-to-masks refs.json --image-dir photos --out refs_masks.json --pictures masks/
    """
    boxes = json_file or input_json
    if boxes is None:
        raise UserError("give the COCO annotations with boxes (see no-time-to-train boxes-to-masks --help)")
    out = out or output_json or boxes.with_name(f"{boxes.stem}_with_segm.json")
    if visualize and pictures is None:
        pictures = boxes.with_name(f"{boxes.stem}_with_SAM_segm")
    check_files(boxes, *([categories] if categories else []), *([references] if references else []))
    if not image_dir.is_dir():
        raise UserError(f"folder not found: {image_dir}")
    build, checkpoint = mask_maker("nano" if nano else sam2, sam_checkpoint, device, sam2_cfg_file, sam2_ckpt_path)
    registry.check_exist(checkpoint)
    check_replaceable(out, ANNOTATIONS)

    from no_time_to_train.data.reference_sets import read_references
    from no_time_to_train.pipeline import boxes_to_masks as pipeline

    chosen = read_references(references) if references else None
    made = pipeline.boxes_to_masks(
        boxes, image_dir, out, build, chosen, pictures, as_published or input_json is not None, categories
    )
    print(f"masks of {plural(made, 'box')}: {out}" + (f"; pictures: {pictures}" if pictures else ""))


def mask_maker(
    sam2: str, sam_checkpoint: Path | None, device: str | None, sam2_cfg_file: str | None, sam2_ckpt_path: Path | None
) -> "tuple[Callable[[], BoxSegmenter], Path]":
    """What builds the network that the options choose, when it is needed; and its checkpoint."""
    if sam2_cfg_file or sam2_ckpt_path:
        name = (sam2_cfg_file or "sam2_hiera_l").removesuffix(".yaml")
        network = registry.Network(name, sam2_ckpt_path or registry.default_checkpoint(name))
    else:
        network = registry.find_network(sam2, registry.SAM2_NAMES)

    def build() -> "BoxSegmenter":
        from no_time_to_train.networks.box_prompts import build_box_segmenter

        return build_box_segmenter(*network, sam_checkpoint, device)

    return build, sam_checkpoint or network.checkpoint
