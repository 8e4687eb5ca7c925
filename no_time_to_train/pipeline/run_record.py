"""``run.json``: what a run was, so that its folder explains itself.

A run's folder holds one ``run.json`` with a section a stage. The stages are separate processes; each rewrites its own
section when it begins and when it ends. A section whose status is still "running" without a process belongs to a run
that was cut off.
"""

import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write, read_json, sha256

FILE_NAME = "run.json"
PACKAGES = ("no-time-to-train", "torch", "torchvision", "pytorch-lightning", "sam2", "timm", "pycocotools", "numpy")


@contextmanager
def record_stage(
    folder: Path, stage: str, files: dict[str, str | None], references: str | None = None, **about: Any
) -> Iterator[None]:
    """Record the stage that the block runs in ``folder/run.json``.

    Args:
        folder: the run's folder.
        stage: the section's name.
        files: what the stage depends on, by name, recorded with SHA-256; those that do not exist are left to the stage
            to complain about.
        references: reference set, recorded with its annotations' ids.
        about: recorded as it is: configuration, labels.
    """
    path = folder / FILE_NAME
    sections = read_json(path) if path.exists() else {}
    section = {
        "status": "running",
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "versions": versions(),
        "files": {name: fingerprint(file, sections) for name, file in files.items() if file and Path(file).is_file()},
        **about,
    }
    if references and Path(references).is_file():
        section["references"] = {
            "path": references,
            "annotations": {
                key: [s["ann_ids"][0] for s in shots] for key, shots in read_references(references).items()
            },
        }

    def write(**changes: Any) -> None:
        section.update(changes)
        with atomic_write(path) as file:
            file.write(json.dumps({**sections, stage: section}, indent=1).encode() + b"\n")

    write()
    start = time.monotonic()
    try:
        yield
    except BaseException as error:  # an interrupt, too, ends the stage
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        write(status="failed", error=reason, seconds=round(time.monotonic() - start, 1))
        raise
    write(status="finished", seconds=round(time.monotonic() - start, 1))


def versions() -> dict[str, str]:
    """Versions of Python and of what the results depend on, and the git commit where ours is a checkout."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout that is not installed
            continue
    commit = git_commit(Path(__file__).parents[1])
    return {**found, "git": commit} if commit else found


def git_commit(folder: Path) -> str | None:
    """The commit of the git checkout whose top is ``folder``, with "-dirty" where files differ; None if it is none."""
    if not (folder / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def fingerprint(path: str, sections: dict[str, Any]) -> dict[str, Any]:
    """A file's path, size, time of change and SHA-256; the last from an earlier stage's section if the rest agrees."""
    stat = Path(path).stat()
    identity = {"path": path, "bytes": stat.st_size, "modified": stat.st_mtime}
    for section in sections.values():
        for known in section.get("files", {}).values():
            if identity.items() <= known.items():
                return dict(known)
    return {**identity, "sha256": sha256(path)}
