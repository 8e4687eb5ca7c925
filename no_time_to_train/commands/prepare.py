"""``prepare``: download, convert and check a data set of the paper."""

from importlib import import_module
from pathlib import Path
from typing import Literal

from no_time_to_train.benchmarks.prepare.steps import Settings, run_parts
from no_time_to_train.commands.boxes_to_masks import add_network_arguments
from no_time_to_train.commands.parser import command_parser
from no_time_to_train.errors import UserError
from no_time_to_train.networks.box_prompts import build_box_segmenter

DATASETS = ("coco", "pascal-voc", "cdfsod", "lvis")


def run(argv: list[str]) -> None:
    parser = command_parser(
        "prepare",
        "Download, unpack, convert and check a data set; what is done already is left alone.",
        "coco --root data/",
    )
    parser.add_argument("dataset", type=str, help=" | ".join(DATASETS))
    parser.add_argument("--root", type=str, default="data", help="folder of all data sets")
    parser.add_argument("--check", action="store_true", help="only say what is missing and where it is to be had")
    parser.add_argument(
        "--masks",
        type=Literal["references", "all", "none"],
        default="references",
        help="pascal-voc, cdfsod: boxes that get masks; all: those of the targets too",
    )
    parser.add_argument("--sets", type=str | None, help="cdfsod: sets by name, separated by commas; default: all")
    parser.add_argument("--keep-archives", action="store_true", help="do not delete archives once unpacked")
    parser.add_argument(
        "--subset", action="store_true", help="accept other numbers of images and annotations than the published ones"
    )
    add_network_arguments(parser)
    args = parser.parse_args(argv)
    if args.dataset not in DATASETS:
        raise UserError(f"prepare: there is no data set {args.dataset!r}; choose one of {', '.join(DATASETS)}")
    if args.sets and args.dataset != "cdfsod":
        raise UserError("--sets is for cdfsod only")

    settings = Settings(
        Path(args.root),
        lambda: build_box_segmenter(args.sam2_cfg_file, args.sam2_ckpt_path, args.sam_checkpoint, args.device),
        args.masks,
        args.keep_archives,
        args.subset,
        tuple(name.strip() for name in args.sets.split(",")) if args.sets else (),
    )
    dataset = import_module(f"no_time_to_train.benchmarks.prepare.{args.dataset.replace('-', '_')}")
    run_parts(dataset.parts(settings), args.check)
    print(f"{args.dataset} is ready in {settings.root}")
