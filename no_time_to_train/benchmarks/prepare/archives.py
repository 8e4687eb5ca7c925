"""Zip and tar archives, downloaded, and unpacked so that no member can be written outside the chosen folder.

Python's own filter, ``tarfile.data_filter``, is not used: some versions of Python 3.10 and 3.11 lack it, and zipfile
has none, so the check of :func:`_check` would be needed all the same.
"""

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from tqdm import tqdm

from no_time_to_train.benchmarks.prepare.steps import PrepareOptions, Problem, Step
from no_time_to_train.errors import UserError, first_of, one_line
from no_time_to_train.files import read_json
from no_time_to_train.networks.download import fetch_file


@dataclass(frozen=True)
class Archive:
    """A public archive.

    Attributes:
        urls: Its addresses, in the order in which they are tried.
        megabytes: Its approximate size in 10**6 bytes, for messages.
        md5: Its checksum, where the publisher or torchvision states one. Zip archives have a checksum per member.
    """

    urls: Sequence[str]
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


def archives_of(data_set: str) -> dict[str, Archive]:
    """The archives of a data set, by their names in ``archives.json``; torchvision states the same checksums."""
    content = read_json(Path(__file__).with_name("archives.json"))[data_set]
    return {name: Archive(**one) for name, one in content.items()}


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
    """Check that a file has the checksum. Without one, it only has to open as a zip or tar archive."""
    if md5 is None:
        with open_archive(path):
            return
    from torchvision.datasets.utils import calculate_md5  # imports torch, which takes seconds

    found = calculate_md5(path)
    if found != md5:
        raise UserError(f"archive {path} has the checksum {found} instead of {md5}")


def archive_step(
    name: str, problem: Problem, archive: Archive, folder: Path, wanted: Callable[[str], bool], options: PrepareOptions
) -> Step:
    """The step that downloads an archive, unpacks the members that are ``wanted``, and deletes it unless it is kept."""

    def make() -> None:
        path = download_archive(archive, options.downloads)
        unpack(path, folder, wanted)
        if not options.keep_archives:
            path.unlink()

    return Step(name, problem, make, archive.source(options.downloads))


class Member(NamedTuple):
    """A regular file in an archive: its path there, its unpacked size in bytes, and what opens it for reading."""

    name: str
    size: int
    open: Callable[[], Any]


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack the members of a zip or tar archive that are ``wanted``, by their names.

    All members are checked before anything is written. Each file is written atomically. Files that exist with the
    right size are skipped, so that an interrupted run resumes; with another size, they are a user's, and refused.
    """
    with open_archive(archive, folder) as members:
        needed = [member for member in members if wanted(member.name)]
        if not needed:
            held = first_of([member.name for member in members]) or "no files"
            raise UserError(f"archive {archive} has {held}, and none of the files that are needed")
        chosen = [member for member in needed if not _is_unpacked(member, folder)]
        if changed := next((path for member in chosen if (path := folder / member.name).exists()), None):
            raise UserError(f"{changed} is not the one in {archive}: move or delete it, and run the same command again")
        total = sum(member.size for member in chosen)
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < total:
            raise UserError(f"{folder} has no room for {total / 1e6:.0f} MB: free some space or choose another --root")
        with tqdm(total=total, unit="B", unit_scale=True, desc=f"unpacking {archive.name}") as bar:
            for member in chosen:
                _write(member, folder / member.name)
                bar.update(member.size)


@contextmanager
def open_archive(archive: Path, folder: Path | None = None) -> Iterator[list[Member]]:
    """Open a zip or tar archive and list its regular files; all members are checked for the folder to unpack it to."""
    try:
        with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive) as opened:
            yield list(_members(opened, archive, folder))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"archive {archive} cannot be unpacked: {error}") from error
    except Exception as error:  # zipfile, tarfile and their decompressors raise nearly anything
        reason = one_line(error) or type(error).__name__
        raise UserError(f"archive {archive} is broken ({reason}): delete it and run the same command again") from error


def _members(opened: zipfile.ZipFile | tarfile.TarFile, archive: Path, folder: Path | None) -> Iterator[Member]:
    """The regular files of an open archive; every member is checked where there is a folder."""
    if isinstance(opened, zipfile.ZipFile):
        for zipped in opened.infolist():
            if zipped.flag_bits & 1:
                raise UserError(f"archive {archive} is encrypted: unpack it with its password, and pack it again")
            kind = stat.S_IFMT(zipped.external_attr >> 16)  # 0 where the archive was not made on Unix
            if folder:
                _check(zipped.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), archive, folder)
            if not zipped.is_dir():
                yield Member(zipped.filename, zipped.file_size, partial(opened.open, zipped))
        return
    for tarred in opened.getmembers():
        if folder:
            _check(tarred.name, tarred.isreg() or tarred.isdir(), archive, folder)
        if tarred.isreg():
            yield Member(tarred.name, tarred.size, partial(opened.extractfile, tarred))


def _check(name: str, plain: bool, archive: Path, folder: Path) -> None:
    """Refuse a member that is no ``plain`` file or folder, or that would be written outside ``folder``."""
    if not plain:
        raise UserError(f"archive {archive} is refused: {name!r} is a link or a device")
    parts = PurePosixPath(name)
    outside = parts.is_absolute() or ".." in parts.parts or "\\" in name or PureWindowsPath(name).drive
    if outside or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise UserError(f"archive {archive} is refused: {name!r} would be written outside {folder}")


def _is_unpacked(member: Member, folder: Path) -> bool:
    path = folder / member.name
    return path.is_file() and path.stat().st_size == member.size


def _write(member: Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unpacking")
    try:
        with member.open() as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
