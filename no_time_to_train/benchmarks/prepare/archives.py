"""Unpacking zip and tar archives so that nothing they hold can reach outside a folder."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from tqdm import tqdm

from no_time_to_train.errors import UserError

#: What zipfile, tarfile and the decompressors raise for a broken archive.
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Member:
    """A regular file of an archive; ``size`` in bytes."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack the files of a zip or tar archive for whose names ``wanted`` holds.

    The whole archive is checked before anything is written. Each file appears whole or not at all; one that is there
    with the right size is left alone, so that a killed run goes on.

    Raises:
        UserError: the archive is broken; a member is a link or a device, or would leave ``folder``; or the disk
            is full.
    """
    with open_archive(archive, folder) as members:
        chosen = [member for member in members if wanted(member.name) and not _is_unpacked(member, folder)]
        total = sum(member.size for member in chosen)
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < total:
            raise UserError(f"no room for {total / 1e6:.0f} MB in {folder}: make room or choose another --root")
        with tqdm(total=total, unit="B", unit_scale=True, desc=f"unpacking {archive.name}") as bar:
            for member in chosen:
                _write(member, folder / member.name)
                bar.update(member.size)


@contextmanager
def open_archive(archive: Path, folder: Path | None = None) -> Iterator[list[Member]]:
    """The regular files of a zip or tar archive; for unpacking to ``folder``, all members are checked first.

    Raises:
        UserError: see :func:`unpack`.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield _zip_members(zipped, archive, folder)
        else:
            with tarfile.open(archive) as tarred:
                yield _tar_members(tarred, archive, folder)
    except BROKEN as error:
        raise UserError(f"archive {archive} is broken ({error}): delete it and run the same command again") from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive}: {error}") from error


def _zip_members(zipped: zipfile.ZipFile, archive: Path, folder: Path | None) -> list[Member]:
    members = []
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
        if folder:
            _check(info.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), archive, folder)
        if not info.is_dir():
            members.append(Member(info.filename, info.file_size, partial(zipped.open, info)))
    return members


def _tar_members(tarred: tarfile.TarFile, archive: Path, folder: Path | None) -> list[Member]:
    members = []
    for info in tarred.getmembers():
        if folder:
            _check(info.name, info.isreg() or info.isdir(), archive, folder)
            tarfile.data_filter(info, str(folder))  # Python's own refusals beside ours
        if info.isreg():
            members.append(Member(info.name, info.size, partial(_open_tarred, tarred, info)))
    return members


def _open_tarred(tarred: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tarred.extractfile(info)
    assert file is not None  # a regular file
    return file


def _check(name: str, plain: bool, archive: Path, folder: Path) -> None:
    """Refuse what is no ``plain`` file or folder, and a name that leaves ``folder``, by itself or through a link."""
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
