"""The commands of ``no-time-to-train``: typed functions whose docstrings are their help.

A command's module imports nothing slow at its top, so that help and mistakes in options take a fraction of a second.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from no_time_to_train.commands.parser import CommandParser, parser_of

#: The groups of the list that ``--help`` shows: command -> the module of this package that holds its function.
GROUPS = {
    "Find your own objects": {"segment": "segment", "app": "app", "demo": "demo", "download": "download"},
    "References, memories and results": {
        "references measure": "references",
        "references from-coco": "references",
        "memory show": "memory",
        "memory merge": "memory",
        "memory remove": "memory",
        "results filter": "results",
        "convert": "convert",
    },
    "Reproduce the paper": {
        "prepare": "prepare",
        "boxes-to-masks": "boxes_to_masks",
        "sample": "sample",
        "test": "test",
        "evaluate": "evaluate",
        "report": "report",
        "benchmark": "benchmark",
    },
}
COMMANDS = {command: module for commands in GROUPS.values() for command, module in commands.items()}

#: What commands were called in earlier versions -> their names. The old names work as well.
OLD_NAMES = {
    "references check": "references measure",
    "coco-to-references": "references from-coco",
    "sample-references": "sample",
    "filter": "results filter",
}


def split_command(argv: list[str]) -> tuple[str, list[str]]:
    """The command that a command line begins with, by its name today, and the rest.

    The command is "" where there is none, and the first word where no command has this name.
    """
    for length in (2, 1):
        name = " ".join(argv[:length])
        if name in COMMANDS or name in OLD_NAMES:
            return OLD_NAMES.get(name, name), argv[length:]
    return (argv[0], argv[1:]) if argv else ("", [])


def function_of(command: str) -> Callable[..., Any]:
    """The function of a command, a key of ``COMMANDS``: its last word, with underscores."""
    module = import_module(f"{__name__}.{COMMANDS[command]}")
    function: Callable[..., Any] = getattr(module, command.split()[-1].replace("-", "_"))
    return function


def build_parser(command: str) -> CommandParser:
    """The parser of a command, a key of ``COMMANDS``."""
    return parser_of(command, function_of(command))
