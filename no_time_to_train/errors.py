"""What a user is told: mistakes that end a command, notes that do not, and the wording that messages share."""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

#: The most characters of a line.
LONGEST_LINE = 1000

#: How the environment variables of the libraries begin.
OF_LIBRARIES = ("CUDA", "HF_", "MKL_", "MPL", "OMP_", "PL_", "PYTHON", "PYTORCH", "TORCH", "TQDM_")


class UserError(Exception):
    """A mistake that the user can correct: the message says in one line what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


class UserNotice(UserWarning):
    """Something that the user should know although the work continues: what was found and what was done about it."""


def suggest(name: str, known: Iterable[str], most: int = 10) -> str:
    """The end of a message about an unknown name: the closest known names, or ``most`` of them where none is close."""
    known = sorted(known)
    if near := get_close_matches(name, known):
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; known are {', '.join(known[:most])}" + f" and {len(known) - most} more" * (len(known) > most)


def plural(count: int, noun: str) -> str:
    """A number of things: ``1 image``, ``2 images``, ``3 classes``, ``4 boxes``."""
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith(('s', 'x')) else 's'}"


def first_of(names: Sequence[str], most: int = 3) -> str:
    """The first of some names for a message, with "..." where there are more."""
    return ", ".join([*names[:most], *["..."] * (len(names) > most)])


def memory_problem(error: Exception, advice: str) -> str | None:
    """What to say where memory or threads were refused, with an advice; None for another error."""
    text = " ".join(str(error).split())
    if "can't start new thread" in text:
        return "the system allows no more threads: end other programs, or raise the limit (ulimit -u)"
    if isinstance(error, ImportError) and "failed to map" in text:  # a library; numpy says much before
        return f"the memory is too small for {text.rpartition(': failed to map')[0].split()[-1]}; raise ulimit -v"
    if type(error).__name__ == "OutOfMemoryError" or "allocate memory" in text or isinstance(error, MemoryError):
        return f"the memory is too small: {text or 'an allocation failed'}; {advice}"
    return None


def environment_problem(error: Exception) -> str | None:
    """What to say where a library refuses the value of an environment variable; None for another error."""
    text = " ".join(str(error).split())
    known = [name for name in os.environ if name.startswith(OF_LIBRARIES) and f"'{os.environ[name]}'" in text]
    if isinstance(error, Warning) and "PYTHONWARNINGS" in os.environ:
        known = ["PYTHONWARNINGS"]
    return f"{known[0]}={os.environ[known[0]]} in the environment: {text}; unset it" if known else None


def raise_if_refused(error: Exception, path: object) -> None:
    """Raise why a library could not read a file, where the file is not to blame: its disk, its rights, the memory."""
    if isinstance(error, OSError) and error.strerror:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if "No such device" in str(error):  # what mapping a file gives there
        raise UserError(f"{path} cannot be read: its disk maps no files into memory; copy it to another") from error
    if problem := memory_problem(error, "end other programs, or take smaller networks or images"):
        raise UserError(f"{path} cannot be read: {problem}") from error


def one_line(message: object) -> str:
    """A message without its middle where it is long, and with escapes such as ``\\n`` for what cannot be printed."""
    text = "".join(one if one.isprintable() else repr(one)[1:-1] for one in str(message))
    return text if len(text) <= LONGEST_LINE else f"{text[:700]} ... {text[-250:]}"
