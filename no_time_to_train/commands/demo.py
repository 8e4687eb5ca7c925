"""``demo``: the three stages on drawn scenes with the nano networks."""

from pathlib import Path

from no_time_to_train.commands.parser import command_parser
from no_time_to_train.demo.run_demo import run_demo


def run(argv: list[str]) -> None:
    parser = command_parser(
        "demo",
        "Segment drawn scenes with the nano networks, with nothing to download.",
        "--shots 5 --images 24 --out demo",
    )
    parser.add_argument("--shots", type=int, default=5, help="references a class")
    parser.add_argument("--images", type=int, default=24, help="target images")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes and the references")
    parser.add_argument("--out", type=str, default="demo", help="folder for everything")
    args = parser.parse_args(argv)
    run_demo(Path(args.out), args.shots, args.images, args.seed)
