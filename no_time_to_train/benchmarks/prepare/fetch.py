"""Archives at public addresses: downloaded, unpacked and deleted."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from no_time_to_train.benchmarks.prepare.archives import open_archive, unpack
from no_time_to_train.benchmarks.prepare.steps import PrepareOptions, Step
from no_time_to_train.errors import UserError
from no_time_to_train.networks.download import fetch_file


@dataclass(frozen=True)
class Archive:
    """A public archive.

    Attributes:
        urls: Its addresses, in the order in which they are tried.
        megabytes: Its approximate size in 10**6 bytes, for messages.
        md5: Its checksum, where the publisher or torchvision states one. Zip archives have a checksum per member.
    """

    urls: tuple[str, ...]
    megabytes: int
    md5: str | None = None

    @property
    def file_name(self) -> str:
        """The name under which the archive is saved."""
        return self.urls[0].rpartition("/")[2]

    def source(self, downloads: Path) -> str:
        """Where the archive comes from, for messages; ``downloads`` is the folder of the downloaded archives."""
        path = downloads / self.file_name
        return f"source: {self.urls[0]} (about {self.megabytes} MB); without a network, save that file as {path}"


def download_archive(archive: Archive, downloads: Path) -> Path:
    """Download an archive from the first address that has it, unless it is already there."""
    target = downloads / archive.file_name
    check = partial(check_archive, md5=archive.md5)
    for url in archive.urls[:-1]:
        try:
            return fetch_file(url, target, check, "the archive")
        except UserError as error:
            print(f"{error}; trying the next address")
    return fetch_file(archive.urls[-1], target, check, "the archive")


def check_archive(path: Path, md5: str | None) -> None:
    """Check that a file is the complete archive.

    Args:
        md5: Its expected checksum. Without one, the file only has to open as a zip or tar archive.
    """
    if md5 is None:
        with open_archive(path):
            return
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != md5:
        raise UserError(f"archive {path} has the checksum {digest.hexdigest()} instead of {md5}")


def archive_step(
    name: str,
    problem: Callable[[], str | None],
    archive: Archive,
    folder: Path,
    wanted: Callable[[str], bool],
    options: PrepareOptions,
) -> Step:
    """The step that downloads an archive, unpacks it, and deletes it unless ``options.keep_archives``.

    Args:
        wanted: Whether the member of this name is unpacked.
    """

    def make() -> None:
        path = download_archive(archive, options.downloads)
        unpack(path, folder, wanted)
        if not options.keep_archives:
            path.unlink()

    return Step(name, problem, make, archive.source(options.downloads))
