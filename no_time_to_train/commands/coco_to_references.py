"""``coco-to-references``: a COCO file's own annotations as a reference set."""

from no_time_to_train.commands.parser import command_parser
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.reference_sets import coco_to_references, write_references


def run(argv: list[str]) -> None:
    parser = command_parser(
        "coco-to-references",
        "Take the first N annotations of every class of a COCO file as its reference set, one entry an instance.",
        "refs.json refs.pkl 5",
    )
    parser.add_argument("json_file", type=str, help="COCO annotations with the references")
    parser.add_argument("out_path", type=str, help="reference set to write: .json or .pkl")
    parser.add_argument("n_shot", type=int | None, nargs="?", help="instances a class; default: all")
    args = parser.parse_args(argv)
    references = coco_to_references(read_coco(args.json_file), args.n_shot)
    write_references(references, args.out_path)
    print(f"{len(references)} classes, {sum(map(len, references.values()))} references: {args.out_path}")
