"""``download``: fetch official checkpoints."""

from no_time_to_train.commands.parser import command_parser
from no_time_to_train.errors import UserError
from no_time_to_train.networks.download import download
from no_time_to_train.networks.registry import FOLDER, list_checkpoints


def run(argv: list[str]) -> None:
    parser = command_parser(
        "download", "Download official checkpoints; a cut download goes on.", "sam2_hiera_large dinov2_vitl14"
    )
    parser.add_argument("names", type=str, nargs="*", help="checkpoints by name")
    parser.add_argument("--list", action="store_true", help="show the names")
    parser.add_argument("--folder", type=str, default=str(FOLDER), help="where to put them")
    args = parser.parse_args(argv)
    if args.list:
        print(list_checkpoints())
    elif not args.names:
        raise UserError("name a checkpoint to download; --list shows all")
    for name in args.names:
        download(name, args.folder)
