"""A folder of entries, each a file of its own: what the journal of a run and the proposal cache keep.

Any number of processes write entries at the same time. Each is written atomically, so however a process ends, an entry
is there or is not. A checksum over the entry's name and content finds files that were cut off, changed or renamed.
"""

import hashlib
from pathlib import Path

from no_time_to_train.files import atomic_write


class Entries:
    """The entries in a folder, which is created with the first one.

    Args:
        ending: What the names of their files end with, such as ``.item``. Other files are ignored.
    """

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder, self.ending = folder, ending

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob(f"*{self.ending}"))

    def path(self, name: str) -> Path:
        """The file of an entry."""
        return self.folder / f"{name}{self.ending}"

    def read(self, name: str) -> bytes | None:
        """The content of an entry; None where there is none, or where the file is not exactly what was written."""
        path = self.path(name)
        try:
            if not path.is_file():  # opening a pipe would wait forever
                return None
            stored = path.read_bytes()
        except OSError:
            return None
        content = stored[32:]
        return content if stored[:32] == checksum(name, content) else None

    def write(self, name: str, content: bytes) -> None:
        """Write an entry."""
        with atomic_write(self.path(name)) as file:
            file.write(checksum(name, content) + content)


def checksum(name: str, content: bytes) -> bytes:
    """The 32 bytes before the content of an entry."""
    return hashlib.sha256(name.encode() + content).digest()
