"""What pyproject.toml cannot say: a wheel has configs/ and the pages of docs/ in the package."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPages(build_py):
    """Builds the package; an editable one finds configurations and pages in the clone."""

    def run(self) -> None:
        super().run()
        for file in [] if self.editable_mode else [*Path("configs").glob("*.yaml"), *Path("docs").glob("*.md")]:
            target = Path(self.build_lib, "no_time_to_train", file)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(file), str(target))


setup(cmdclass={"build_py": BuildWithPages})
