"""The command line: ``no-time-to-train COMMAND`` and the paper's ``python run_lightning.py test``."""

import errno
import os
import re
import sys
import time
import warnings
from difflib import get_close_matches
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from select import select
from threading import Thread
from typing import Any, TextIO

from no_time_to_train.commands import COMMANDS, GROUPS, OLD_NAMES, build_parser, function_of, split_command
from no_time_to_train.errors import UserError, UserNotice, environment_problem, memory_problem, one_line, suggest
from no_time_to_train.files import with_documents
from no_time_to_train.pipeline.processes import begin_command, is_first_process, keep_interrupts, signal_of


def main(argv: list[str] | None = None) -> None:
    """Run a command. A mistake of the user ends in one line on stderr and exit status 2, Ctrl-C in exit status 130.

    Args:
        argv: The command and its arguments; None takes those of this process.
    """
    argv = sys.argv[1:] if argv is None else argv
    warnings.simplefilter("always", UserNotice)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # such as a broken EXIF: says no file
    warnings.showwarning = show_notice
    sys.unraisablehook = keep_interrupts
    lasting = [LastingOutput.replace(name) for name in ("stdout", "stderr")]
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: paths may hold bytes that are not UTF-8
    try:
        begin_command(argv)
        say_loading()
        try:
            run(argv)
        except SystemExit as ended:  # of --help, which may not have been printed
            if ended.code:
                LastingOutput.ended = ended.code in range(129, 160)
                raise
        sys.stdout.flush()
        for failure in [one.failure for one in lasting if one is not None]:
            if failure is not None and failure.errno != errno.EPIPE:  # head has read what it wanted
                raise UserError(f"not everything could be printed: {failure.strerror}")
    except Exception as error:
        problem: object = error
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename is not None else ""
            problem = error.strerror and f"{where}{error.strerror}"
        elif not isinstance(error, UserError):
            problem = memory_problem(error, "give a smaller --preset, fewer --images-per-batch or smaller images")
            problem = problem or environment_problem(error)
        if problem is None:
            raise
        if is_first_process():
            print(with_documents(f"error: {one_line(problem)}"), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        LastingOutput.ended = True
        if is_first_process():
            print(f"interrupted{f' by {error}' * bool(str(error))}", file=sys.stderr)
        sys.exit(128 + signal_of(error))  # as shells report it


class LastingOutput(FileIO):
    """Standard output or error that a run outlives: what is printed after it was closed, or its disk full, is lost."""

    failure: OSError | None = None
    ended = False  # by a signal: then nothing waits for a reader that has stopped reading

    def write(self, text: Any) -> int:
        try:
            if self.ended and os.name != "nt" and not select([], [self], [], 0)[1]:
                return len(text)
            return super().write(text)
        except OSError as error:
            self.failure = self.failure or error
            return len(text)

    @classmethod
    def replace(cls, name: str) -> "LastingOutput | None":
        """Put one in the place of ``sys.stdout`` or ``sys.stderr``, unless somebody else has, such as a test."""
        stream, descriptor = getattr(sys, name), {"stdout": 1, "stderr": 2}[name]
        if stream is not getattr(sys, f"__{name}__"):
            return None
        if os.name == "nt" and stream is not None and stream.isatty():  # it would take UTF-8 for another encoding
            return None
        if stream is None:  # closed; the next file that is opened would get its number
            opened = os.open(os.devnull, os.O_WRONLY)
            if opened != descriptor:
                os.dup2(opened, descriptor)
        else:
            stream.flush()
            if os.name != "nt":
                os.set_blocking(descriptor, True)  # a slow reader of a pipe loses nothing
        output = cls(descriptor, "w", closefd=False)
        encoding = stream.encoding if stream is not None else "utf-8"
        new = TextIOWrapper(BufferedWriter(output), encoding, "backslashreplace", line_buffering=True)
        setattr(sys, name, new)
        return output


def run(argv: list[str]) -> None:
    """Run a command; a UserError says what is wrong with it."""
    home = re.compile(r"(?<![^=])~(?=[/\\])")  # as in --out=~/results, in which shells leave it
    try:
        Path.cwd()
        argv = [home.sub(lambda _: str(Path.home()), word, count=1) for word in argv]
    except OSError as error:
        raise UserError("the current folder has been removed: change to another one") from error
    except RuntimeError as error:
        raise UserError("~ stands for no folder, as this user has none: set HOME, or give whole paths") from error
    command, rest = split_command(argv)
    actions = [name.split()[1] for name in COMMANDS if name.startswith(f"{command} ")]
    if command == "--version":
        from no_time_to_train import __version__

        print(f"no-time-to-train {__version__}")
    elif command in COMMANDS:
        function_of(command)(**build_parser(command).parse_command(rest))
    elif command in ("", "-h", "--help") or (actions and rest in ([], ["-h"], ["--help"])):
        print(usage(command if actions else ""))
    elif actions:
        raise UserError(f"{command} {rest[0]}: choose one of {', '.join(actions)}")
    else:
        meant = next((OLD_NAMES[old] for old in get_close_matches(command, OLD_NAMES, 1)), command)
        raise UserError(f"there is no command {command!r}{suggest(meant, COMMANDS)}")


def usage(first: str = "") -> str:
    """What ``--help`` prints without a command, or with only the first word of one."""
    called = f"{first} ACTION" if first else "COMMAND"
    groups = {title: [name for name in names if name.startswith(first)] for title, names in GROUPS.items()}
    width = max(len(name) for names in groups.values() for name in names)
    lines = [f"usage: no-time-to-train {called} ..."]
    for title, names in groups.items():
        lines += ["", f"{title}:"] * bool(names)
        lines += [f"  {name:<{width}}  {(function_of(name).__doc__ or '').strip().splitlines()[0]}" for name in names]
    return "\n".join([*lines, "", f"no-time-to-train {called} --help shows the options."])


def say_loading() -> None:
    """Print a line as soon as this process imports numpy or torch: what follows may take seconds."""

    def watch() -> None:
        while not sys.modules.keys() & {"numpy", "torch"}:
            time.sleep(0.05)
        print("loading ...", file=sys.stderr, flush=True)

    if "torch" not in sys.modules and is_first_process():
        Thread(target=watch, daemon=True).start()


def show_notice(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show this package's own warnings in one line, and those of libraries as Python does."""
    if category.__name__ == "DecompressionBombWarning":  # of PIL, which this package reports as an error
        return
    if not issubclass(category, UserNotice):
        print(warnings.formatwarning(message, category, filename, lineno, line), file=file or sys.stderr, end="")
    elif is_first_process():
        print(with_documents(f"note: {one_line(message)}"), file=sys.stderr)
