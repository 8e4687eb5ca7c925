"""The parser of every command: one line of complaint, and an example in the help."""

from typing import NoReturn

from jsonargparse import ArgumentParser

from no_time_to_train.errors import UserError


class OneLineParser(ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(" ".join(message.split()))


def command_parser(command: str, description: str, example: str) -> OneLineParser:
    """The parser of ``no-time-to-train COMMAND``; ``example`` are the arguments of a call that the help shows."""
    return OneLineParser(
        prog=f"no-time-to-train {command}",
        description=f"{description} Example: no-time-to-train {command} {example}",
    )
