"""``sample-references``: draw the paper's reference sets."""

from pathlib import Path

from no_time_to_train.commands.parser import command_parser
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.reference_sets import sample_references, write_references


def run(argv: list[str]) -> None:
    parser = command_parser(
        "sample-references",
        "Draw a reference set of N shots a class, the paper's for the same seed.",
        "--dataset few_shot_classes --n-shot 30 --seed 33 --out-path refs.pkl",
    )
    parser.add_argument(
        "--dataset", type=str | None, help="class split, such as few_shot_classes; default: all classes"
    )
    parser.add_argument(
        "--cat-names", type=str | None, help="classes by name, separated by commas, instead of --dataset"
    )
    parser.add_argument("--n-shot", type=int, required=True, help="instances a class")
    parser.add_argument("--seed", type=int, default=33)
    parser.add_argument("--out-path", type=str, required=True, help="reference set to write: .json or .pkl")
    parser.add_argument(
        "--json-file", type=str, default="data/coco/annotations/instances_train2017.json", help="COCO annotations"
    )
    parser.add_argument("--skip-impossible", action="store_true", help="leave out annotations with isimpossible 1")
    parser.add_argument("--fill-up", action="store_true", help="LVIS: repeat references where a class has too few")
    parser.add_argument("--plot", action="store_true", help="draw the references beside --out-path")
    parser.add_argument("--img-dir", type=str, default="data/coco/train2017", help="images for --plot")
    args = parser.parse_args(argv)
    coco = read_coco(args.json_file)
    categories = select_categories(coco, args.json_file, args.dataset, args.cat_names)
    references = sample_references(
        coco, categories, args.n_shot, args.seed, fill_up=args.fill_up, skip_impossible=args.skip_impossible
    )
    write_references(references, args.out_path)
    print(f"{len(references)} classes, {args.n_shot} references each: {args.out_path}")
    if args.plot:
        from no_time_to_train.data.datasets import ReferenceDataset
        from no_time_to_train.visual.drawing import save_picture
        from no_time_to_train.visual.memory_pictures import TILE, reference_sheet

        path = Path(args.out_path).with_suffix(".png")
        shots = ReferenceDataset(coco, args.img_dir, categories, references, size=TILE, context_ratio=0.2)
        save_picture(reference_sheet(shots, categories), path)
        print(f"picture: {path}")
