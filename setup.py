"""What pyproject.toml cannot say: a wheel has configs/ and the pages of docs/ in the package, and links that work."""

import os
import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# GitHub's workflows say in which repository, and at which tag, they build.
SERVER, NAME, TAG = (os.environ.get(f"GITHUB_{key}", "") for key in ("SERVER_URL", "REPOSITORY", "REF_NAME"))
REPOSITORY = f"{SERVER}/{NAME}" if NAME else ""


class BuildWithPages(build_py):
    """Builds the package; an editable one finds configurations and pages in the clone."""

    def run(self) -> None:
        super().run()
        for file in [] if self.editable_mode else [*Path("configs").glob("*.yaml"), *Path("docs").glob("*.md")]:
            target = Path(self.build_lib, "no_time_to_train", file)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(file), str(target))


def absolute(link: re.Match[str]) -> str:
    """A relative link of README.md as PyPI needs it: to the repository, or where none is known, its text alone."""
    picture, text, path = link.groups()
    if REPOSITORY:
        return f"{picture}[{text}]({REPOSITORY}/{'raw' if picture else 'blob'}/{TAG}/{path})"
    return "" if picture else text


readme = Path("README.md").read_text(encoding="utf-8")
setup(
    cmdclass={"build_py": BuildWithPages},
    long_description=re.sub(r"(!?)\[([^\]]*)\]\(([^):]+)\)", absolute, readme),
    long_description_content_type="text/markdown",
    project_urls={"Repository": REPOSITORY} if REPOSITORY else {},
)
