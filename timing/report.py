"""A section of ``timing/RESULTS.md``: a table, the command that measured it, the day and the machine."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from timing.measure import machine

#: The file that has all figures.
RESULTS = Path(__file__).parent / "RESULTS.md"

#: What the file begins with.
HEAD = "# Speed and memory"


class Section:
    """A table, which is printed row by row and then written.

    Args:
        title: The heading. A file has one section of this title.
        command: The command that measures it.
        device: The device that is measured.
        text: What was measured.
        columns: The heads of the columns.
        numbers: The columns that are aligned right.

    Attributes:
        lines: The lines printed so far.
    """

    def __init__(
        self, title: str, command: str, device: torch.device, text: str, columns: Sequence[str], numbers: slice
    ) -> None:
        self.title = title
        self.lines: list[str] = []
        alignment = ["---"] * len(columns)
        alignment[numbers] = ["---:"] * len(alignment[numbers])
        for line in (
            f"## {title}",
            "",
            f"`{command}`, {date.today().isoformat()}: {machine(device)}.",
            "",
            text,
            "",
            table_row(columns),
            table_row(alignment),
        ):
            self.add_line(line)

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.add_line(table_row(cells))

    def add_line(self, line: str) -> None:
        """Add a line of text."""
        self.lines.append(line)
        print(line, flush=True)

    def write(self, path: Path) -> None:
        """Write the section to a Markdown file, in the place of an earlier one of its title or after the others."""
        page = path.read_text() if path.exists() else HEAD
        head, *sections = page.rstrip().split("\n\n## ")
        by_title = {section.partition("\n")[0]: section for section in sections}
        by_title[self.title] = "\n".join(self.lines).removeprefix("## ")
        path.write_text("\n\n## ".join([head, *by_title.values()]) + "\n")


def table_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
