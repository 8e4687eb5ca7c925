"""The journal of a run: which items are done and what they gave, so that a killed run can be resumed.

A run processes items (images, references) and writes an output. Its journal is the folder ``.OUTPUT.run`` next to the
output, which is removed once the output is written. It holds

- ``work.json``: everything that the results depend on. A run whose results would differ is refused.
- ``lock``: held by the first process of a run as long as it lives.
- ``HASH.item``: one file per finished item, with its record as JSON (``entries.py``). The name is the hash of
  ``work.json`` and of the item's key, so a record is found only by the work that it belongs to.
- ``ATTEMPT.failure``: why an attempt must stop. One of its processes writes it, the others read it.

An attempt is one execution of the run's command, by one process or several. A run of one process needs only
:meth:`Journal.run`. In a run of several processes the first one calls :meth:`Journal.start`, then each of them
:meth:`Journal.join`. Other files in the folder are ignored.
"""

import hashlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from no_time_to_train.errors import UserError, UserNotice, first_of
from no_time_to_train.files import (
    atomic_write,
    check_replaceable,
    journal_folder,
    make_folder,
    new_folder,
    read_bytes,
    read_json,
)
from no_time_to_train.pipeline.entries import Entries


class Journal:
    """The journal of the run that writes ``output``.

    Args:
        output: The file or folder that the run writes.

    Attributes:
        attempt: What :meth:`start` returned to the first process, once this one has joined it.
        folder: The journal's folder, on a disk that all processes of the run share.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = journal_folder(output)
        self.items = Entries(self.folder, ".item")
        self.lock_file, self.work_file = self.folder / "lock", self.folder / "work.json"
        self.lock = FileLock(self.lock_file)

    @contextmanager
    def run(self, depends_on: dict[str, Any]) -> Iterator[None]:
        """An attempt by a single process: the journal is removed if the block succeeds, and closed if it fails."""
        with new_folder(self.folder.parent):
            attempt = self.start(depends_on)
            try:
                self.join(attempt)
                yield
            except BaseException:  # including Ctrl-C
                self.close()
                raise
        try:
            self.remove()
        except KeyboardInterrupt:  # half a journal would make what is complete unfinished
            self.remove()

    def start(self, depends_on: dict[str, Any]) -> str:
        """Create or reopen the journal and lock it. Only the first process calls this.

        Args:
            depends_on: Everything that the records depend on, as JSON values.

        Returns:
            The attempt's name, which all processes need to join it.
        """
        if not self.output.is_dir():  # pictures go to a folder
            check_replaceable(self.output)
        self._check_in_the_way()
        acquire(self.lock, self.output)
        try:
            self._check_work(depends_on)
        except BaseException:
            self.close()
            raise
        return secrets.token_hex(8)

    def _check_in_the_way(self) -> None:
        """Raise a UserError where something that no run made has the name of the folder or of a file in it."""
        expected = {self.folder: Path.is_dir, self.lock_file: Path.is_file, self.work_file: Path.is_file}
        for path, is_ours in expected.items():
            if os.path.lexists(path) and (path.is_symlink() or not is_ours(path)):
                raise UserError(f"{path} is in the way of this run's journal: delete it")
        for path in self.folder.glob("[!.]*"):
            if path.suffix not in (".item", ".failure", ".lines", ".tmp") and path not in expected:
                raise UserError(f"{path} is in the folder of this run's journal, which is removed: move it")

    def _check_work(self, depends_on: dict[str, Any]) -> None:
        """Write ``work.json``, or raise a UserError where the finished items depend on something else."""
        if any(self.folder.glob("*.lines")):
            raise UserError(f"{self.folder} is of an earlier version: delete it to start over")
        content = json.dumps(depends_on, indent=1)
        ours, finished = json.loads(content), len(self.items)
        theirs = read_json(self.work_file) if self.work_file.exists() else ours
        if theirs != ours and finished:
            raise UserError(
                f"{self.folder} holds {finished} finished items of a run with another {first_difference(theirs, ours)};"
                " run that command again to finish it, or delete the folder to start over"
            )
        with atomic_write(self.work_file) as file:
            file.write(content.encode())

    def join(self, attempt: str) -> None:
        """Get ready to read and to add items. Every process calls this once.

        Args:
            attempt: What :meth:`start` returned to the first process.
        """
        if not self.work_file.is_file():
            raise UserError(f"{self.folder} is gone: somebody has removed it, or the nodes do not share that disk")
        self.attempt = attempt
        self.work = hashlib.sha256(read_bytes(self.work_file)).hexdigest()
        self.failure_path = self.folder / f"{attempt}.failure"

    @property
    def holds_lock(self) -> bool:
        """Whether this process has started an attempt and neither closed nor removed the journal."""
        return self.lock.is_locked

    def done(self, count: int) -> list[int]:
        """Those of the items 0 to ``count - 1`` that are finished."""
        return [index for index in range(count) if self.items.read(self._name(index)) is not None]

    def get(self, key: int | str) -> dict[str, Any] | None:
        """The record of an item; None where it is not finished."""
        content = self.items.read(self._name(key))
        try:
            return None if content is None else json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.folder} holds an item that no run wrote: delete it to start over") from error

    def add(self, key: int | str, record: dict[str, Any]) -> None:
        """Record that an item is finished. The record survives however this process ends.

        Args:
            key: What identifies the item in this run: its index, or its name and its content.
            record: What the output needs of the item, as JSON values.
        """
        self.items.write(self._name(key), json.dumps(record).encode())

    def _name(self, key: int | str) -> str:
        return hashlib.sha256(f"{self.work}{json.dumps(key)}".encode()).hexdigest()[:32]

    def records(self, count: int, unit: str = "items") -> Iterator[dict[str, Any]]:
        """The records of the items 0 to ``count - 1``, read one at a time. Call it before the output is made.

        Args:
            unit: What the items are, for the message where one is missing.
        """
        if missing := sorted(set(range(count)).difference(self.done(count))):
            numbers = first_of([str(index + 1) for index in missing], 5)
            raise UserError(
                f"{self.folder} lacks {len(missing)} of {count} {unit} (number {numbers}), although the run has "
                "processed them: was it changed or removed? Run the same command again to process them"
            )
        return (record for index in range(count) if (record := self.get(index)) is not None)

    def report_failure(self, reason: str) -> None:
        """Let all processes of this attempt know that it must stop, and why."""
        try:
            with atomic_write(self.failure_path) as file:
                file.write(reason.encode(errors="backslashreplace"))
        except UserError as error:  # the disk is full, but an empty file still says that this attempt has failed
            self.failure_path.touch()
            raise UserError(reason) from error

    @property
    def failure(self) -> str | None:
        """Why this attempt must stop, or None."""
        path = self.failure_path
        return path.read_text("utf-8") if path.exists() else None

    def close(self) -> None:
        """End a failed attempt. Where items are finished, the folder stays for the next one; else it is removed."""
        if len(self.items):
            release(self.lock)
        else:
            self.remove()

    def remove(self) -> None:
        """Remove the folder, because the output is written or nothing is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with_lock_file = self.folder.exists()  # Windows does not remove an open file, nor a folder that has one
        release(self.lock)
        if with_lock_file:
            remove_folder(self.folder)


def acquire(lock: FileLock, output: Path) -> None:
    """Take the lock that the process which writes ``output`` holds, and make its folder."""
    path = Path(lock.lock_file)
    try:
        make_folder(path.parent)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another run is writing {output}: wait until it ends, or choose another output") from error
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error


def release(lock: FileLock) -> None:
    """Give a lock back. Where the disk fails at that, what it was for is done, and the end of this process frees it."""
    with suppress(OSError):
        lock.release()


def remove_folder(folder: Path) -> None:
    """Remove a folder that nothing depends on, and say where it stays."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        warnings.warn(f"{folder} could not be removed: delete it", UserNotice, stacklevel=3)


def first_difference(theirs: Any, ours: Any, name: str = "") -> str:
    """The first place where two different JSON values differ, as keys joined by dots, and both values there."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        key = next(key for key in {**theirs, **ours} if theirs.get(key, ...) != ours.get(key, ...))
        return first_difference(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
    if all(isinstance(one, str) and len(one) == 64 for one in (theirs, ours)):  # hashes say nothing to a person
        return f"{name}: what it holds has changed"
    return f"{name}: {json.dumps(theirs)} there, {json.dumps(ours)} here"
