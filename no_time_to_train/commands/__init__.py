"""The commands of ``no-time-to-train``: typed functions whose docstrings are their help.

A command's module imports nothing slow at its top, so that help and mistakes in options take a fraction of a second.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from no_time_to_train.commands.parser import CommandParser, parser_of

#: The groups of the list that ``--help`` shows. The first word of a command names the module with its function.
GROUPS = {
    "Find your own objects": ("segment", "track", "app", "serve", "serve label-studio", "demo", "download"),
    "References, memories and results": (
        *("references measure", "references from-coco", "memory show", "memory merge", "memory remove"),
        *("results filter", "convert", "propose"),
    ),
    "Reproduce the paper": ("prepare", "boxes-to-masks", "sample", "test", "evaluate", "report", "benchmark"),
}
COMMANDS = [command for commands in GROUPS.values() for command in commands]

#: The modules of the commands of no_time_to_train_extras.
EXTRAS = {
    "app": "app.app_command",
    "convert": "conversion.convert_command",
    "propose": "proposers.propose_command",
    "serve": "server.serve_command",
    "serve label-studio": "label_studio_backend.label_studio_command",
    "track": "video.track_command",
}

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
    """The function of one of ``COMMANDS``: its last word, with underscores."""
    words = command.replace("-", "_").split()
    extra = EXTRAS.get(command)
    module = import_module(f"no_time_to_train_extras.{extra}" if extra else f"{__name__}.{words[0]}")
    function: Callable[..., Any] = getattr(module, words[-1])
    return function


def build_parser(command: str) -> CommandParser:
    """The parser of one of ``COMMANDS``."""
    return parser_of(command, function_of(command))
