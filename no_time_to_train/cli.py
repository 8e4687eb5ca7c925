"""The command line: ``no-time-to-train COMMAND`` and the paper's ``python run_lightning.py test``."""

import os
import sys
from importlib import import_module

from no_time_to_train.commands import COMMANDS
from no_time_to_train.errors import UserError


def usage() -> str:
    """What ``--help`` without a command prints."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(["usage: no-time-to-train COMMAND ...", "", *rows, "", "COMMAND --help says more."])


def main(argv: list[str] | None = None) -> None:
    """Run a command; bad input ends in one line on stderr and exit status 2."""
    command, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
        return
    try:
        if command not in COMMANDS:
            raise UserError(f"there is no command {command!r}; choose one of {', '.join(COMMANDS)}")
        import_module(f"no_time_to_train.commands.{command.replace('-', '_')}").run(rest)
    except UserError as error:
        if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0:  # one line, whatever the processes
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
