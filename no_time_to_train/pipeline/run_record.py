"""``run.json``: how a run was made, kept in its folder.

A run's folder holds one ``run.json`` with one section per stage. Each stage is a process of its own, which writes its
section when it starts and again when it ends. A section whose status is "running" although no process is left belongs
to a stage that was killed.
"""

import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from no_time_to_train.errors import UserError
from no_time_to_train.file_hashes import sha256
from no_time_to_train.files import atomic_write, read_json, remove_leftovers
from no_time_to_train.plugins import ALLOWED

FILE_NAME = "run.json"

#: Packages that results depend on.
PACKAGES = ("no-time-to-train", "torch", "torchvision", "pytorch-lightning", "sam2", "timm", "pycocotools", "numpy")


@contextmanager
def record_stage(
    folder: Path, stage: str, files: Mapping[str, str | None], since: float | None = None, **about: Any
) -> Iterator[dict[str, Any]]:
    """Record the stage that the block runs in ``folder/run.json``. What the block adds to the section is recorded, too.

    Args:
        files: Files that the stage depends on, by name. They are recorded with their SHA-256. Files that do not exist
            are left out: the stage reports them.
        since: When it began, in seconds of ``time.time``; None means now.
        about: Anything else to record, as JSON values, such as the configuration.
    """
    path = folder / FILE_NAME
    remove_leftovers(path)
    known = {name: fingerprint(file) for name, file in files.items() if file and Path(file).is_file()}
    start = time.time() if since is None else since
    section = {"status": "running", **of_this_process(start), "files": known, **about}

    def write(**changes: Any) -> None:
        section.update(changes)
        sections = read_sections(path)  # again, because another stage may have written its section
        write_sections(path, {**sections, stage: section})

    write()
    try:
        yield section
    except BaseException as error:  # including Ctrl-C
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        with suppress(UserError):  # the first error is the one to report
            write(status="failed", error=reason, seconds=round(time.time() - start, 1))
        raise
    write(status="finished", seconds=round(time.time() - start, 1))


def record_refused(folder: Path, stage: str, error: UserError, **about: Any) -> None:
    """Record a stage whose inputs were refused, unless the folder has a record of another attempt that did not fail."""
    path = folder / FILE_NAME
    sections = read_sections(path)
    if sections.get(stage, {"status": "failed"}).get("status") == "failed":
        section = {"status": "failed", "error": str(error), **of_this_process(time.time()), **about}
        write_sections(path, {**sections, stage: section})


def of_this_process(start: float) -> dict[str, Any]:
    """When, in seconds of ``time.time``, and how a stage was started, and the versions that it uses."""
    started = datetime.fromtimestamp(start, timezone.utc).isoformat(timespec="seconds")
    hashes = {name: sha256(module.__file__) for name, module in ALLOWED.items() if module.__file__}
    plugins = {"plugins": hashes} if hashes else {}
    return {"started": started, "command": shlex.join(sys.argv), "versions": versions(), **plugins}


def read_sections(path: Path) -> dict[str, dict[str, Any]]:
    """The sections of a ``run.json`` by stage; none where the file does not exist."""
    sections = read_json(path) if path.exists() else {}
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise UserError(f"{path} is not the record of a run: delete it")
    return sections


def write_sections(path: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a ``run.json`` as ASCII, because paths may hold bytes that are not UTF-8."""
    with atomic_write(path) as file:
        file.write(json.dumps(sections, indent=1).encode() + b"\n")


def versions() -> dict[str, str]:
    """The versions of Python and of :data:`PACKAGES`, and the git commit if this package is in a checkout."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout that is not installed
            continue
    commit = git_commit(Path(__file__).parents[2])
    return {**found, "git": commit} if commit else found


def git_commit(folder: Path) -> str | None:
    """The commit of the git checkout at ``folder``, with "-dirty" if files differ from it; None without a checkout."""
    if not (folder / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def fingerprint(path: str) -> dict[str, Any]:
    """A file's path, size in bytes, time of modification and SHA-256."""
    stat = Path(path).stat()
    return {"path": path, "bytes": stat.st_size, "modified": stat.st_mtime, "sha256": sha256(path)}
