"""``python -m timing`` measures all sections of ``timing/RESULTS.md``, one after the other, or those that are named.

The section of GPUs is measured where there is one.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from timing.report import RESULTS

#: The modules that measure a section each, in the order of the sections.
SECTIONS = ("stages", "guided", "presets", "gpu")


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m timing", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"The sections to measure: {', '.join(SECTIONS)}.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown file to write.")
    options = parser.parse_args(argv)
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"there is no section {sorted(unknown)[0]}: choose from {', '.join(SECTIONS)}")
    for name in options.sections or SECTIONS[: 4 if torch.cuda.is_available() else 3]:
        # A process of its own, because memory that one section freed would hide what the next one needs.
        subprocess.run([sys.executable, "-m", f"timing.{name}", "--out", str(options.out)], check=True)


if __name__ == "__main__":
    main()
