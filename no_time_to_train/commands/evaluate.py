"""``evaluate``: score a COCO results file, whatever detector it comes from."""

import json
from pathlib import Path
from typing import Literal

from no_time_to_train.commands.parser import command_parser
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation import DEFAULT_THRESHOLD, evaluate
from no_time_to_train.evaluation.results_file import read_results
from no_time_to_train.files import atomic_write
from no_time_to_train.pipeline.run_record import recorded


def run(argv: list[str]) -> None:
    parser = command_parser(
        "evaluate",
        "Score a COCO results file of any detector as the test stage scores its own, and write metrics.json.",
        "--gt instances_val2017.json --results results.json --split few_shot_classes --method Co-DETR",
    )
    parser.add_argument("--gt", type=str, required=True, help="ground truth, a COCO annotation file")
    parser.add_argument("--results", type=str, required=True, help="COCO results file")
    parser.add_argument("--split", type=str | None, help="class split, such as few_shot_classes; default: all classes")
    parser.add_argument("--cat-names", type=str | None, help="classes by name, separated by commas, not --split")
    parser.add_argument(
        "--protocol", type=Literal["coco", "voc", "lvis", "semantic"], default="coco", help="how to score"
    )
    parser.add_argument(
        "--semantic-threshold", type=float, default=DEFAULT_THRESHOLD, help="lowest score painted (semantic)"
    )
    parser.add_argument("--errors", action="store_true", help="say where the AP goes, too")
    parser.add_argument("--out-dir", type=str | None, help="folder of metrics.json; default: that of the results")
    parser.add_argument("--dataset-name", type=str | None, help="benchmark's data set in the report; default: --split")
    parser.add_argument("--method", type=str | None, help="the detector's name in the report")
    parser.add_argument("--n-shot", type=int | None, help="shots, for the report")
    parser.add_argument("--seed", type=int | None, help="seed, for the report")
    args = parser.parse_args(argv)
    folder = Path(args.out_dir or Path(args.results).parent)
    labels = {
        "dataset_name": args.dataset_name or args.split,
        **{key: args[key] for key in ("method", "n_shot", "seed") if args[key] is not None},
    }
    with recorded(folder, "evaluate", {"gt": args.gt, "results": args.results}, protocol=args.protocol, labels=labels):
        coco = read_coco(args.gt)
        categories = select_categories(coco, args.gt, args.split, args.cat_names)
        metrics, tables = evaluate(
            coco, read_results(args.results, coco), categories, args.protocol, args.semantic_threshold, args.errors
        )
        if not metrics:
            raise UserError(f"{args.gt} has no annotation of the classes: there is nothing to evaluate")
        with atomic_write(folder / "metrics.json") as file:
            file.write(json.dumps({**labels, **metrics}, indent=1).encode() + b"\n")
    print(f"{tables}metrics: {folder / 'metrics.json'}")
