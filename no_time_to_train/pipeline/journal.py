"""The journal of a run: what is done, item by item, so that the same command goes on where a killed one was.

A folder beside the output, removed once the output is there. It holds

- ``work.json``, what the results depend on: a run whose results would differ is refused;
- ``lock``, which the first process of a run holds while it lives;
- ``ATTEMPT-RANK.lines``, a line an item that a process has finished: its index, a checksum, its record as JSON;
- ``ATTEMPT.failure``, why an attempt must stop, for its other processes to read.

No process ever writes into a file that another, or an earlier attempt, has begun. A line that was cut off or changed
does not pass its checksum, and its item is done again.
"""

import hashlib
import heapq
import json
import math
import shutil
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write, read_json


class Journal:
    """The journal of the run that makes ``output``.

    Attributes:
        folder: where it is, on a disk that all processes share.
        done: indices of the items that earlier attempts have finished; known from :meth:`begin` on.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.parent / f".{output.name}.run"
        self.done: set[int] = set()
        self.lock = FileLock(self.folder / "lock")
        self.file: FileIO | None = None

    @property
    def is_open(self) -> bool:
        """Whether this process has taken the folder."""
        return self.lock.is_locked

    def open(self, work: dict[str, Any]) -> int:
        """Take the folder for a new attempt; called by the first process before the others :meth:`begin`.

        Args:
            work: all that the results depend on, as JSON values.

        Returns:
            The attempt's number, from 1.

        Raises:
            UserError: another run holds it, it has finished items of other work, or it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"another run is writing {self.output} now: wait for its end, or name another") from error
        except OSError as error:
            raise UserError(f"{self.folder.parent} cannot be written: {error.strerror}") from error
        path = self.folder / "work.json"
        work = json.loads(json.dumps(work))
        known = read_json(path) if path.exists() else work
        if known != work and (finished := len(self.finished())):
            self.lock.release()
            raise UserError(
                f"{self.folder} has {finished} finished items of a run with another {difference(known, work)}; "
                "give that run's command to finish it, or remove the folder to begin anew"
            )
        with atomic_write(path) as file:
            file.write(json.dumps(work, indent=1).encode())
        return 1 + max((attempt for attempt, _ in self._files()), default=0)

    def begin(self, attempt: int, rank: int) -> None:
        """Begin this process's file.

        Raises:
            UserError: this process does not see the folder, or cannot write there.
        """
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} is not seen by rank {rank}: all nodes must share that disk")
        self.failure_path = self.folder / f"{attempt}.failure"
        self.done = self.finished(before=attempt)
        try:
            self.file = FileIO(self.folder / f"{attempt}-{rank}.lines", "wb")  # not buffered
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error

    def finished(self, before: float = math.inf) -> set[int]:
        """Indices of the items that attempts of a lower number than ``before`` have finished."""
        return {index for attempt, path in self._files() if attempt < before for index, _ in read_lines(path)}

    def add(self, index: int, record: dict[str, Any]) -> None:
        """Note that an item is finished. From here on, no end of this process loses it.

        Raises:
            UserError: the disk is full, say.
        """
        content = json.dumps(record).encode()
        line = b"%d %s %s\n" % (index, checksum(index, content), content)
        try:
            assert self.file is not None
            written = self.file.write(line)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error
        if written != len(line):
            raise UserError(f"{self.folder} cannot be written: the disk is full")

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of all finished items by ascending index, each once, read as they are needed."""
        last = -1
        files = [read_lines(path) for _, path in self._files()]
        for index, content in heapq.merge(*files, key=lambda line: line[0]):
            if index != last:
                yield json.loads(content)
            last = index

    def report_failure(self, reason: str) -> None:
        """Tell all processes why this attempt must stop."""
        try:
            with atomic_write(self.failure_path) as file:
                file.write(reason.encode())
        except UserError as error:  # a full disk: the others need not know why, if they know that it is so
            self.failure_path.touch()
            raise UserError(reason) from error

    @property
    def failure(self) -> str | None:
        """Why this attempt must stop, or None."""
        path = self.failure_path
        return path.read_text() if path.exists() else None

    def close(self) -> None:
        """Let go of the folder, which stays for another attempt."""
        if self.file is not None:
            self.file.close()
        self.lock.release()

    def remove(self) -> None:
        """The output is there: nothing of this is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def _files(self) -> list[tuple[int, Path]]:
        """The processes' files with the number of their attempt."""
        return sorted((int(path.name.split("-")[0]), path) for path in self.folder.glob("*-*.lines"))


def checksum(index: int, content: bytes) -> bytes:
    """What stands between an item's index and its record."""
    return hashlib.sha256(b"%d %s" % (index, content)).hexdigest()[:16].encode()


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The index and the record of each sound line of a process's file, in their order."""
    with path.open("rb") as file:
        for line in file:
            index, _, rest = line.partition(b" ")
            check, _, content = rest.removesuffix(b"\n").partition(b" ")
            if line.endswith(b"\n") and index.isdigit() and check == checksum(int(index), content):
                yield int(index), content


def difference(known: Any, ours: Any, name: str = "") -> str:
    """The first place where two JSON values differ, and what both have there."""
    if isinstance(known, dict) and isinstance(ours, dict):
        key = next(key for key in {**known, **ours} if known.get(key) != ours.get(key))
        return difference(known.get(key), ours.get(key), f"{name}.{key}" if name else key)
    return f"{name}: {json.dumps(known)} there, {json.dumps(ours)} here"
