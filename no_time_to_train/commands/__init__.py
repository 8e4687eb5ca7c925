"""The commands of ``no-time-to-train``: typed functions whose docstrings are their help.

A command's module imports nothing slow at its top, so that help and mistakes in options take a fraction of a second.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from no_time_to_train.commands.parser import CommandParser, parser_of

#: Command -> the module of this package that holds it, and the function's name.
COMMANDS = {
    "demo": ("demo", "demo"),
    "segment": ("segment", "segment"),
    "app": ("app", "app"),
    "filter": ("filter", "filter"),
    "references check": ("references", "check"),
    "memory show": ("memory", "show"),
    "memory merge": ("memory", "merge"),
    "memory remove": ("memory", "remove"),
    "benchmark": ("benchmark", "benchmark"),
    "test": ("test", "test"),
    "sample-references": ("sample_references", "sample_references"),
    "coco-to-references": ("coco_to_references", "coco_to_references"),
    "evaluate": ("evaluate", "evaluate"),
    "report": ("report", "report"),
    "download": ("download", "download"),
    "prepare": ("prepare", "prepare"),
    "boxes-to-masks": ("boxes_to_masks", "boxes_to_masks"),
}


def function_of(command: str) -> Callable[..., Any]:
    """The function of a command, a key of ``COMMANDS``."""
    module, name = COMMANDS[command]
    function: Callable[..., Any] = getattr(import_module(f"{__name__}.{module}"), name)
    return function


def build_parser(command: str) -> CommandParser:
    """The parser of a command, a key of ``COMMANDS`` other than ``test``, whose options are the configuration's."""
    return parser_of(command, function_of(command))
