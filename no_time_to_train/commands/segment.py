"""``segment``: your own objects, from a folder of pictures."""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from no_time_to_train.commands.parser import OneLineParser, command_parser
from no_time_to_train.data.reference_forms import Reference, add_references, find_references
from no_time_to_train.data.reference_forms.command_line import parse
from no_time_to_train.data.targets import find_targets
from no_time_to_train.errors import UserError
from no_time_to_train.method.settings import Settings
from no_time_to_train.pipeline.segment_images import segment_images
from no_time_to_train.reference_segmenter import ReferenceSegmenter


def add_arguments(parser: OneLineParser) -> None:
    parser.add_argument("--references", type=str | None, help="folder or annotation file: docs/your_own_objects.md")
    parser.add_argument(
        "--reference",
        type=str,
        action="append",
        default=[],
        help="LABEL:IMAGE:box=X1,Y1,X2,Y2 or :point=X,Y or :mask=FILE; may be given again",
    )
    parser.add_argument(
        "--memory", type=str, action="append", default=[], help="memory kept before; may be given again"
    )
    parser.add_argument("--save-memory", type=str | None, help="keep the objects for next time")
    parser.add_argument(
        "--images", type=str, nargs="+", default=[], help="folders, globs, images, videos, or a COCO json"
    )
    parser.add_argument("--out", type=str | None, help="folder to write")
    parser.add_argument(
        "--format", type=Literal["labelme", "yolo", "cvat-coco"], nargs="+", default=[], help="labels to write as well"
    )
    parser.add_argument("--score", type=float, default=0.5, help="lowest score of an instance, from 0 to 1")
    parser.add_argument("--every", type=int, default=30, help="of a video, take one frame of so many")
    parser.add_argument("--sam2", type=str, default="sam2_hiera_large", help="checkpoint's name or path")
    parser.add_argument("--dinov2", type=str, default="dinov2_vitl14", help="checkpoint's name or path")
    parser.add_argument("--nano", action="store_true", help="the small networks that need no download")
    parser.add_argument("--sam-checkpoint", type=str | None, help="SAM ViT-B, -L or -H to make masks, instead of SAM 2")
    parser.add_argument("--points-per-side", type=int, default=32, help="grid of prompts; fewer are faster")
    parser.add_argument("--device", type=str | None, help="such as cuda:1 or cpu; default: the GPU if there is one")


def run(argv: list[str]) -> None:
    parser = command_parser(
        "segment",
        "Show a few objects, and get every one like them in your pictures.",
        "--references refs/ --images photos/ --out out/",
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    if not (args.references or args.reference or args.memory):
        raise UserError("nothing to look for: give --references FOLDER, --reference LABEL:IMAGE:box=..., or --memory")
    if not args.save_memory and not args.images:
        raise UserError("nothing to do: give --images, and --out for the results, or --save-memory")
    if args.images and not args.out:
        raise UserError("--out is missing: the folder to write the results to")
    if not 0 <= args.score <= 1 or args.every < 1 or args.points_per_side < 1:
        raise UserError("--score is from 0 to 1; --every and --points-per-side are at least 1")
    references: list[Reference] = []
    if args.references:
        form, found = find_references(Path(args.references))
        references += found
        print(f"references: {form} in {args.references}: {counts(one.label for one in found)}")
    references += [parse(text) for text in args.reference]
    targets = find_targets(args.images, args.every, Path(args.out)) if args.images else None
    if targets is not None:
        print(f"targets: {targets.form}")

    segmenter = ReferenceSegmenter.from_pretrained(
        "nano" if args.nano else args.sam2,
        None if args.nano else args.dinov2,
        device=args.device,
        sam_checkpoint=args.sam_checkpoint,
        settings=Settings(points_per_side=args.points_per_side),
    )
    for memory in args.memory:
        segmenter.load_memory(memory)
    add_references(segmenter, references)
    if args.save_memory:
        segmenter.save_memory(args.save_memory)
        print(f"memory: {args.save_memory}")
    if targets is None:
        return
    out = Path(args.out)
    segmenter.renumber(targets.category_ids)
    summary = segment_images(segmenter, targets, out, args.score, args.format)
    for reason in summary.skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    what = counts(summary.found.elements()) or f"nothing (try a --score under {args.score:g})"
    interrupted = "interrupted, and the same command goes on: " if summary.interrupted else ""
    before = f" ({summary.done_before} done by the run before)" if summary.done_before else ""
    print(f"{interrupted}{summary.images} images{before}: {what}; look at {out / 'index.html'}")
    if summary.interrupted:
        sys.exit(130)
    if not summary.images:
        raise UserError("no image could be read")


def counts(labels: Iterable[str]) -> str:
    """How many of which classes, in words."""
    return ", ".join(f"{count} {label}" for label, count in sorted(Counter(labels).items()))
