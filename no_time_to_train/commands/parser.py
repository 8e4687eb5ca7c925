"""Parsers made from typed functions: options from the signature, help from the docstring.

A parameter whose type is a dataclass stands for the options that are its fields, so that commands can share them. A
parameter of type ``list[str]`` gets the whole command line; the options ``--model.KEY`` and ``--trainer.KEY`` are not
checked then.
Parameters before ``*`` in the signature are positional arguments, keyword-only ones are options. A parameter whose help
begins with "Kept for compatibility" is accepted and not shown; of one whose help begins with "With --OTHER, " or
"With --OTHER or --ANOTHER VALUE, ", a notice says that it has no effect alone. Nothing here imports torch.
"""

import argparse
import inspect
import re
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from docstring_parser import Docstring, DocstringStyle
from docstring_parser import parse as parse_docstring

from no_time_to_train.errors import UserError, UserNotice, suggest
from no_time_to_train.files import with_documents
from no_time_to_train.plugins import OwnPart, allow, find_plugin, is_plugin
from no_time_to_train.ranges import choices_of, parse_number, range_of

#: Other spellings of options, in earlier versions and the paper's commands -> their name here.
ALIASES = {
    "--out-path": "--out",
    "--out-dir": "--out",
    "--img-dir": "--image-dir",
    "--dataset": "--split",
    "--shots": "--n-shot",
    "--score": "--threshold",
    "--pred-json": "--results",
    "--class-split": "--split",
    "--check-references": "--show-references",
    "--for": "--duration",  # a word of Python, which no parameter can have
}

#: Options of the command ``test`` whose keys and values ``commands/test.py`` checks.
CONFIGURATION = ("--model", "--trainer", "--print_config")

HIDDEN = "Kept for compatibility"

#: The option ``--plugin``, which every command has besides its own.
PLUGIN: dict[str, Any] = {
    "action": "append",
    "default": [],
    "metavar": "MODULE",
    "help": "A Python module of your own that may run: options and configurations can name what is in it as "
    "MODULE:NAME (docs/extending.md). May be given several times.",
}

#: How help texts show an option's value, by its type.
METAVARS = {Path: "PATH", str: "TEXT", int: "N", float: "X"}

#: Width of help texts in characters.
WIDTH = 110


class Choices(list[Any]):
    """The values of an option that may also be the name of a part of one's own."""

    def __contains__(self, value: object) -> bool:
        return super().__contains__(value) or (is_plugin(value) and bool(find_plugin(value)))


class CommandParser(argparse.ArgumentParser):
    """A parser that reports mistakes as a :class:`UserError`, and accepts ``_`` for ``-`` and the ``ALIASES``.

    Attributes:
        shared: The parameters that stand for several options, with their dataclasses.
        words: The parameter that gets the whole command line; "" if there is none.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.shared: dict[str, type[Any]] = {}
        self.words = ""

    def format_help(self) -> str:
        return with_documents(super().format_help())

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_command(self, argv: list[str]) -> dict[str, Any]:
        """Parse a command line.

        Args:
            argv: The arguments after the command's name.

        Returns:
            The arguments of the command's function by name.
        """
        argv = [self._spelled(argument) for argument in argv]
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--plugin", **PLUGIN)
        own_parts, argv = first.parse_known_args(argv)
        for module in own_parts.plugin:
            allow(module)
        own = [word for option in split_options(argv) if not self._is_configuration(option[0]) for word in option]
        given = [argument.partition("=")[0] for argument in own if argument.startswith("--")]
        for option in given:
            if option not in self._option_string_actions:
                near = suggest(option.partition(".")[0], self.options())
                raise UserError(f"{self.prog}: there is no option {option}{near}")
        values = vars(self.parse_intermixed_args(own))
        for option in sorted({*given}):
            if given.count(option) > 1 and self._option_string_actions[option].nargs is None and not self.words:
                warnings.warn(f"{option} is given twice: the last one counts", UserNotice, stacklevel=2)
            if (needs := self._missing(option, values)) is not None:
                warnings.warn(f"{option} has no effect without {needs}", UserNotice, stacklevel=2)
        del values["plugin"]
        if self.words:
            values[self.words] = argv
        for name, kind in self.shared.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        return values

    def _missing(self, option: str, values: dict[str, Any]) -> str | None:
        """What an option has an effect with only, as its help says, where that was not chosen."""
        found = re.match(r"With (--[\w -]+), ", self._option_string_actions[option].help or "")
        others = [other[2:].partition(" ") for other in found[1].split(" or ")] if found else []
        chosen = [(values[name.replace("-", "_")], value) for name, _, value in others]
        return found[1] if found and not any(given and value in ("", given) for given, value in chosen) else None

    def options(self) -> list[str]:
        """The options as they are spelled."""
        known = [
            option
            for option, action in self._option_string_actions.items()
            if option.startswith("--") and action.help != argparse.SUPPRESS
        ]
        return [*known, *CONFIGURATION] if self.words else known

    def _is_configuration(self, argument: str) -> bool:
        """Whether an argument is an option of the configuration, such as ``--model.test_mode=test``."""
        return bool(self.words) and re.split("[.=]", argument)[0] in CONFIGURATION

    def _spelled(self, argument: str) -> str:
        """An argument with its option spelled as here; one that does not exist stays as it is."""
        name, equals, value = argument.partition("=")
        if name.startswith("--") and value == "--":  # which argparse of Python 3.11 drops
            self.error(f"argument {name}: -- is no value")
        if not name.startswith("--") or self._is_configuration(name):
            return argument
        spelled = self.flag(name[2:])
        if spelled not in self._option_string_actions:
            spelled = ALIASES.get(spelled, "")
        return spelled + equals + value if spelled in self._option_string_actions else argument

    def flag(self, name: str) -> str:
        """The option of a parameter: with dashes, or in ``test`` with underscores, as in the paper's commands."""
        return f"--{name.replace('-', '_')}" if self.words else f"--{name.replace('_', '-')}"


def split_options(argv: list[str]) -> list[list[str]]:
    """A command line in parts that begin with an option each; the first one may begin with another word."""
    parts: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not parts:
            parts.append([word])
        else:
            parts[-1].append(word)
    return parts


def parser_of(command: str, function: Callable[..., Any]) -> CommandParser:
    """The parser of ``no-time-to-train COMMAND``, which runs a function.

    Args:
        command: The command's name.
        function: Its parameters have type hints, and its docstring describes them in Google style.
    """
    documentation = parse_docstring(inspect.getdoc(function) or "", DocstringStyle.GOOGLE)
    parser = CommandParser(
        prog=f"no-time-to-train {command}",
        description="\n\n".join(filter(None, [documentation.short_description, documentation.long_description])),
        epilog=_examples(documentation),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=WIDTH),
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="Show this help and exit.")
    _add_all(parser, function, documentation)
    parser.add_argument("--plugin", **PLUGIN)
    return parser


def _add_all(parser: CommandParser, function: Callable[..., Any], documentation: Docstring) -> None:
    """Add all parameters of a function, or of a dataclass whose fields are options, to a parser."""
    hints = get_type_hints(function, include_extras=True)
    bases = function.__bases__ if isinstance(function, type) else ()  # a dataclass inherits options
    inherited = [parse_docstring(base.__doc__ or "", DocstringStyle.GOOGLE) for base in bases]
    descriptions = {one.arg_name: one.description or "" for part in (*inherited, documentation) for one in part.params}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if hint == list[str]:
            parser.words = name
            continue
        if is_dataclass(hint) and isinstance(hint, type):
            parser.shared[name] = hint
            _add_all(parser, hint, parse_docstring(inspect.getdoc(hint) or "", DocstringStyle.GOOGLE))
            continue
        help_text = " ".join(descriptions.get(name, "").split()).replace("%", "%%")
        is_option = is_dataclass(function) or parameter.kind is inspect.Parameter.KEYWORD_ONLY
        _add(parser, name, hint, parameter.default, not is_option, help_text)


def _add(parser: CommandParser, name: str, hint: Any, default: Any, positional: bool, help_text: str) -> None:
    """Add one parameter of a function to its parser."""
    required = default is inspect.Parameter.empty
    if not (required or default in (None, False) or default == ()):
        help_text = f"{help_text} Default: {default}."
    options: dict[str, Any] = {"help": argparse.SUPPRESS if help_text.startswith(HIDDEN) else help_text}
    if not required:
        options["default"] = default
    flag = parser.flag(name)
    if hint is bool:
        parser.add_argument(flag, action="store_true", **options)
        return
    many, kind = _kind(hint)
    declared = range_of(kind)
    if known := choices_of(kind):
        options["choices"] = Choices(known) if OwnPart in get_args(kind) else known
    elif declared:
        options["type"] = partial(parse_number, name.upper() if positional else flag, hint=kind)
        kind = declared[0]
    else:
        options["type"] = partial(_filled, kind) if kind in (Path, str) else kind
    if positional:
        options["nargs"] = ("+" if required else "*") if many else (None if required else "?")
        parser.add_argument(name, metavar=name.upper() if "type" in options else None, **options)
    else:
        if many:
            options |= {"nargs": "+", "action": "extend"}
            options["default"] = list(options.get("default", []))
        metavar = None if "choices" in options else METAVARS[kind]
        parser.add_argument(flag, required=required, metavar=metavar, **options)


def _filled(kind: type[Any], text: str) -> Any:
    """A path or a text that is not empty, as that of a variable which is not set in a script."""
    if not text:
        path = "the path is empty; that of the current folder is ."
        raise argparse.ArgumentTypeError(path if kind is Path else "the text is empty; leave the option out")
    return kind(text)


def _kind(hint: Any) -> tuple[bool, Any]:
    """Whether a type hint is a sequence, and the type of its value or values, without None."""
    if get_origin(hint) in (Union, types.UnionType) and not (choices_of(hint) and OwnPart in get_args(hint)):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Sequence:
        return True, get_args(hint)[0]
    return False, hint


def _examples(documentation: Docstring) -> str:
    """The docstring's ``Examples`` section."""
    texts = [one.description or "" for one in documentation.meta if one.args and one.args[0] == "examples"]
    return (
        "examples:\n" + "\n".join(f"  {line.strip()}" for text in texts for line in text.splitlines()) if texts else ""
    )
