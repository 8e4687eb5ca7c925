"""Archives at public addresses: fetched, unpacked, and deleted again."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from no_time_to_train.benchmarks.prepare.archives import open_archive, unpack
from no_time_to_train.errors import UserError
from no_time_to_train.networks.download import fetch_file


@dataclass(frozen=True)
class Archive:
    """A public archive.

    Attributes:
        urls: its addresses, tried in this order.
        megabytes: about its size in 10**6 bytes, to tell the user.
        md5: its checksum, where its publisher or torchvision states it; the members of a zip have their own.
    """

    urls: tuple[str, ...]
    megabytes: int
    md5: str | None = None

    @property
    def file_name(self) -> str:
        return self.urls[0].rpartition("/")[2]

    def source(self, downloads: Path) -> str:
        """How a message says where the archive is to be had."""
        return f"it comes with {self.urls[0]} (about {self.megabytes} MB; or save that as {downloads / self.file_name})"


def obtain(archive: Archive, downloads: Path) -> Path:
    """Download an archive to the folder ``downloads`` unless it is there, from the first address that has it."""
    target = downloads / archive.file_name
    check = partial(check_archive, md5=archive.md5)
    for url in archive.urls[:-1]:
        try:
            return fetch_file(url, target, check, "the archive")
        except UserError as error:
            print(f"{error}; trying the next address")
    return fetch_file(archive.urls[-1], target, check, "the archive")


def check_archive(path: Path, md5: str | None) -> None:
    """Raise a UserError if a file is not a whole zip or tar archive, or has another checksum."""
    if md5 is None:
        with open_archive(path):
            return
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != md5:
        raise UserError(f"archive {path} has the checksum {digest.hexdigest()} instead of {md5}")


def fetch_and_unpack(
    archive: Archive, downloads: Path, folder: Path, wanted: Callable[[str], bool], keep: bool
) -> None:
    """Download an archive, unpack what is wanted of it into ``folder``, and delete it unless ``keep``."""
    path = obtain(archive, downloads)
    unpack(path, folder, wanted)
    if not keep:
        path.unlink()
