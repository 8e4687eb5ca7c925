"""The command line: ``no-time-to-train COMMAND`` and the paper's ``python run_lightning.py test``."""

import os
import sys
import warnings
from importlib import import_module
from typing import TextIO

from no_time_to_train.commands import COMMANDS
from no_time_to_train.errors import UserError, UserNotice


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
    warnings.simplefilter("always", UserNotice)
    warnings.showwarning = show_notice
    try:
        if command not in COMMANDS:
            raise UserError(f"there is no command {command!r}; choose one of {', '.join(COMMANDS)}")
        import_module(f"no_time_to_train.commands.{command.replace('-', '_')}").run(rest)
    except UserError as error:
        if is_first_process():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def is_first_process() -> bool:
    """Whether this process is to speak, where several run the same command."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


def show_notice(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show our own warnings in one line, those of libraries as Python does."""
    if not issubclass(category, UserNotice):
        print(warnings.formatwarning(message, category, filename, lineno, line), file=file or sys.stderr, end="")
    elif is_first_process():
        print(f"note: {message}", file=sys.stderr)
