"""The journal of a run: which items are done and what they gave, so that a killed run can be resumed.

A run processes items (images, references) and writes an output. Its journal is the folder ``.OUTPUT.run`` next to the
output, which is removed once the output is written. It holds

- ``work.json``: everything that the results depend on. A run whose results would differ is refused.
- ``lock``: held by the first process of a run as long as it lives.
- ``ATTEMPT-RANK.lines``: one line per item that a process has finished, with its index, a checksum and its record as
  JSON.
- ``ATTEMPT.failure``: why an attempt must stop. One of its processes writes it, the others read it.

An attempt is one execution of the run's command, by one process or several (ranks). No process writes to a file that
another process or an earlier attempt has created. A line that was cut off or changed does not match its checksum, and
its item is done again. Other files in the folder are ignored.

A run of one process needs only :meth:`Journal.run`. In a run of several processes the first one starts an attempt
(:meth:`Journal.start_attempt`), then each of them joins it (:meth:`Journal.join_attempt`) and says when it has finished
(:meth:`Journal.leave_attempt`). Before a run makes its output, it calls :meth:`Journal.check_complete`.
"""

import hashlib
import heapq
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write, check_replaceable, read_json, remove_leftovers

#: The name of a process's file: the number of its attempt, and its rank.
LINES = re.compile(r"([0-9]{1,12})-[0-9]{1,9}\.lines")

#: The most digits of an item's index.
MAX_DIGITS = 12


class Journal:
    """The journal of the run that writes ``output``.

    Args:
        output: The file or folder that the run writes.

    Attributes:
        folder: The journal's folder, on a disk that all processes of the run share.
        done: Indices of the items that earlier attempts have finished; known once this process has joined an attempt.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.parent / f".{output.name}.run"
        self.done: set[int] = set()
        self.lock_file, self.work_file = self.folder / "lock", self.folder / "work.json"
        self.lock = FileLock(self.lock_file)
        self.file: FileIO | None = None

    @contextmanager
    def run(self, depends_on: dict[str, Any]) -> Iterator[None]:
        """An attempt by a single process: the journal is removed if the block succeeds, and closed if it fails."""
        attempt = self.start_attempt(depends_on)
        try:
            self.join_attempt(attempt, rank=0)
            yield
        except BaseException:  # including Ctrl-C
            self.close()
            raise
        self.remove()

    def start_attempt(self, depends_on: dict[str, Any]) -> int:
        """Create or reopen the journal and lock it. Only the first process calls this.

        Args:
            depends_on: Everything that the records depend on, as JSON values.

        Returns:
            The attempt's number, from 1, which all processes need to join it.
        """
        if not self.output.is_dir():  # pictures go to a folder
            check_replaceable(self.output)
        try:
            self._check_in_the_way()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"another run is writing {self.output}: wait until it ends, or choose another output"
            ) from error
        except OSError as error:
            raise UserError(f"{self.folder.parent} cannot be written: {error.strerror}") from error
        try:
            self._check_work(depends_on)
        except BaseException:
            self.close()
            raise
        numbers = (
            re.match("[0-9]{1,9}(?![0-9])", path.name) for path in self.folder.iterdir()
        )  # of any file: none is reused
        return 1 + max((int(number[0]) for number in numbers if number), default=0)

    def _check_in_the_way(self) -> None:
        """Raise a UserError where something that no run made has the name of the folder or of a file in it."""
        expected = {self.folder: Path.is_dir, self.lock_file: Path.is_file, self.work_file: Path.is_file}
        for path, is_ours in expected.items():
            if os.path.lexists(path) and (path.is_symlink() or not is_ours(path)):
                raise UserError(f"{path} is in the way of this run's journal: delete it")

    def _check_work(self, depends_on: dict[str, Any]) -> None:
        """Write ``work.json``, or raise a UserError where the finished items depend on something else."""
        content = json.dumps(depends_on, indent=1)
        ours = json.loads(content)
        theirs = read_json(self.work_file) if self.work_file.exists() else None
        if theirs != ours and (finished := len(self.finished())):
            if theirs is None:
                raise UserError(f"{self.work_file} is missing: delete {self.folder} to start over")
            raise UserError(
                f"{self.folder} holds {finished} finished items of a run with another {first_difference(theirs, ours)};"
                " run that command again to finish it, or delete the folder to start over"
            )
        remove_leftovers(self.work_file)
        with atomic_write(self.work_file) as file:
            file.write(content.encode())

    def join_attempt(self, attempt: int, rank: int) -> None:
        """Create this process's file and read what earlier attempts have finished. Every process calls this once.

        Args:
            attempt: The number that :meth:`start_attempt` returned to the first process.
            rank: This process's number, which no other process of the attempt has.
        """
        if not self.folder.is_dir():
            raise UserError(f"rank {rank} does not see {self.folder}: all nodes must share that disk")
        self.failure_path = self.folder / f"{attempt}.failure"
        self.done = self.finished(before=attempt)
        try:
            self.file = FileIO(self.folder / f"{attempt}-{rank}.lines", "xb")  # not buffered
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error

    def leave_attempt(self) -> None:
        """Close this process's file, so that the first process sees all its lines, on another node, too."""
        assert self.file is not None
        try:
            os.fsync(self.file)
            self.file.close()
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error

    @property
    def holds_lock(self) -> bool:
        """Whether this process has started an attempt and neither closed nor removed the journal."""
        return self.lock.is_locked

    def finished(self, before: float = math.inf) -> set[int]:
        """Indices of the items that attempts with a number lower than ``before`` have finished."""
        return {index for attempt, path in self._files() if attempt < before for index, _ in _read_lines(path)}

    def add(self, index: int, record: dict[str, Any]) -> None:
        """Record that an item is finished. The record survives however this process ends.

        Args:
            index: The item's index. A process adds items in ascending order.
            record: What the output needs of the item, as JSON values.
        """
        assert self.file is not None
        content = json.dumps(record).encode()
        line = b"%d %s %s\n" % (index, _checksum(index, content), content)
        try:
            written = self.file.write(line)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error
        if written != len(line):
            raise UserError(f"{self.folder} cannot be written: the disk is full")

    def records(self) -> Iterator[dict[str, Any]]:
        """The record of each finished item once, in ascending order of index. They are read one at a time."""
        last = -1
        files = [_read_lines(path) for _, path in self._files()]
        for index, content in heapq.merge(*files, key=lambda line: line[0]):
            if index != last:
                try:
                    yield json.loads(content)
                except (ValueError, RecursionError) as error:
                    raise UserError(
                        f"{self.folder} holds an item that no run wrote: delete it to start over"
                    ) from error
            last = index

    def check_complete(self, count: int, unit: str = "items") -> None:
        """Check that exactly the items 0 to ``count - 1`` are finished. Call it before the output is made.

        Args:
            count: The number of items of the run.
            unit: What the items are, for the message.
        """
        finished, wanted = self.finished(), set(range(count))
        if missing := sorted(wanted - finished):
            numbers = ", ".join(str(index + 1) for index in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise UserError(
                f"{self.folder} lacks {len(missing)} of {count} {unit} (number {numbers}), although the run has "
                "processed them: was it changed or removed? Run the same command again to process them"
            )
        if strange := len(finished - wanted):
            raise UserError(f"{self.folder} holds {strange} more than {count} {unit}: delete it to start over")

    def report_failure(self, reason: str) -> None:
        """Let all processes of this attempt know that it must stop, and why."""
        try:
            with atomic_write(self.failure_path) as file:
                file.write(reason.encode())
        except UserError as error:  # the disk is full, but an empty file still says that this attempt has failed
            self.failure_path.touch()
            raise UserError(reason) from error

    @property
    def failure(self) -> str | None:
        """Why this attempt must stop, or None."""
        path = self.failure_path
        return path.read_text() if path.exists() else None

    def close(self) -> None:
        """End a failed attempt. Where items are finished, the folder stays for the next one; else it is removed."""
        if self.finished():
            self._release()
        else:
            self.remove()

    def remove(self) -> None:
        """Remove the folder, because the output is written or nothing is finished."""
        self._close_file()  # Windows does not remove an open file, nor a folder that has one
        for _, path in self._files():  # before work.json: no record is ever left without what it depends on
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        with_lock_file = self.folder.exists()
        self.lock.release()
        if with_lock_file:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _release(self) -> None:
        self._close_file()
        self.lock.release()

    def _close_file(self) -> None:
        if self.file is not None:
            self.file.close()

    def _files(self) -> list[tuple[int, Path]]:
        """The files of all processes, each with the number of its attempt."""
        if not self.folder.is_dir():
            return []
        named = ((LINES.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(name[1]), path) for name, path in named if name and path.is_file())


def first_difference(theirs: Any, ours: Any, name: str = "") -> str:
    """The first place where two different JSON values differ, as text.

    Args:
        theirs: What the finished items depend on.
        ours: What this run depends on.
        name: The place of both values, as keys joined by dots.

    Returns:
        The place and both values there.
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        key = next(key for key in {**theirs, **ours} if theirs.get(key, ...) != ours.get(key, ...))
        return first_difference(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
    return f"{name}: {json.dumps(theirs)} there, {json.dumps(ours)} here"


def _checksum(index: int, content: bytes) -> bytes:
    """The checksum of a line, which stands between the item's index and its record."""
    return hashlib.sha256(b"%d %s" % (index, content)).hexdigest()[:16].encode()


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The index and the record of each intact line of a process's file, in the file's order."""
    try:
        with path.open("rb") as file:
            for line in file:
                index, _, rest = line.partition(b" ")
                check, _, content = rest.removesuffix(b"\n").partition(b" ")
                is_index = index.isdigit() and len(index) <= MAX_DIGITS
                if line.endswith(b"\n") and is_index and check == _checksum(int(index), content):
                    yield int(index), content
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
