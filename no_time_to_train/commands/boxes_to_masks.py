"""``boxes-to-masks``: give the boxes of a COCO file masks."""

from no_time_to_train.commands.parser import OneLineParser, command_parser
from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.networks.box_prompts import build_box_segmenter
from no_time_to_train.pipeline.boxes_to_masks import boxes_to_masks


def add_network_arguments(parser: OneLineParser) -> None:
    """The options that choose the network that makes masks from boxes."""
    parser.add_argument("--sam2-cfg-file", type=str, default="sam2_hiera_l", help="SAM 2 by name")
    parser.add_argument("--sam2-ckpt-path", type=str | None, help="its checkpoint; default: the official one's place")
    parser.add_argument(
        "--sam-checkpoint", type=str | None, help="official checkpoint of SAM ViT-B, -L or -H, to use instead of SAM 2"
    )
    parser.add_argument("--device", type=str | None, help="such as cuda:1 or cpu; default: the GPU if there is one")


def run(argv: list[str]) -> None:
    parser = command_parser(
        "boxes-to-masks",
        "Write a COCO file anew with masks that SAM 2 (or SAM) makes from its boxes; a killed run goes on.",
        "refs.json --image-dir photos --out-path refs_masks.json --pictures masks/",
    )
    parser.add_argument("json_file", type=str, help="COCO annotations with boxes")
    parser.add_argument("--image-dir", type=str, required=True, help="folder of its images")
    parser.add_argument("--out-path", type=str, required=True, help="COCO annotations to write")
    parser.add_argument("--references", type=str | None, help="reference set: make only its annotations' masks")
    parser.add_argument("--pictures", type=str | None, help="folder for pictures of the masks")
    add_network_arguments(parser)
    args = parser.parse_args(argv)
    made = boxes_to_masks(
        args.json_file,
        args.image_dir,
        args.out_path,
        lambda: build_box_segmenter(args.sam2_cfg_file, args.sam2_ckpt_path, args.sam_checkpoint, args.device),
        read_references(args.references) if args.references else None,
        args.pictures,
    )
    print(f"masks of {made} boxes: {args.out_path}" + (f"; pictures: {args.pictures}" if args.pictures else ""))
