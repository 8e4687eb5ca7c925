"""Files: read with clear errors, and written atomically."""

import codecs
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO, UnsupportedOperation
from mmap import ACCESS_READ, mmap
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, BinaryIO
from zipfile import BadZipFile, is_zipfile

from no_time_to_train.errors import UserError

#: How a text begins that spreadsheets take for a formula, in wide letters, too.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

#: What every folder of results holds, which shows what is in it and below it.
IN_RESULTS = ("run.json", "results.json", "index.html")

#: How folders begin in which systems keep thumbnails, copies, and what was deleted or lost, and hidden ones.
SYSTEM_FOLDERS = (".", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")

#: Kinds of files that commands write to folders which a user names.
CONFIGURATION, REPORT, PICTURE, ANNOTATIONS = (
    f"{what} of this program" for what in ("a configuration", "a report", "a picture", "a COCO file")
)

#: How a COCO file of annotations begins that this program has made.
MADE_HERE = {"generator": "no-time-to-train"}

#: How the files begin that a user may name as an output, by what messages call them.
KINDS = {
    "a memory": re.compile(rb"PK.*?no-time-to-train memory bank [12]", re.DOTALL),
    "COCO results": re.compile(rb'\s*\[\s*\{.*?"image_id"', re.DOTALL),
    "a file of proposals": re.compile(rb'\{"annotations": \[.*"name": "proposal"\}\], "images"', re.DOTALL),
    ANNOTATIONS: re.compile(rb'\{\s*"generator": "no-time-to-train"'),
    "a COCO file": re.compile(rb'\s*\{.*?"images"\s*:\s*\[', re.DOTALL),
    "a reference set": re.compile(
        rb'\s*\{\s*"-?\d+"\s*:\s*\[|\x80[\x02-\x05](.*img_id|(\x95.{8})?\}(\x94|q\x00)\(?[KMJ.])', re.DOTALL
    ),
    CONFIGURATION: re.compile(rb"model:\s+class_path: no_time_to_train\."),
    REPORT: re.compile(
        rb'\s*<!doctype html>.{,250}"generator" content="no-time-to-train"|# Runs next to the published figures\s|'
        rb'dataset,method,shots,measure,|\{\s*"(dataset_name"|iou": [\d.]+,\s*"score"|format": "no-time-to-train )',
        re.DOTALL,
    ),
    PICTURE: re.compile(rb"(\x89PNG|\xff\xd8).{,250}no-time-to-train", re.DOTALL),
    "empty": re.compile(rb"\s*(\[\s*\]|\{\s*\})?\s*\Z"),
}

#: The permissions that new files lack. Only setting it tells, and what a thread wrote meanwhile would have them all.
os.umask(UMASK := os.umask(0))

#: How the names of temporary files end, as a pattern: as :mod:`tempfile` chooses them.
TEMPORARY = f"{'[a-z0-9_]' * 8}.tmp"


class WholeFile(BufferedWriter):
    """A file that hides its number: Pillow would write there itself, and overlook that a disk has taken only a part."""

    def fileno(self) -> int:
        raise UnsupportedOperation


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that replaces ``path`` when the block succeeds and is deleted when it fails.

    Readers see either the old content or the complete new one, and a power cut after the block loses nothing. Missing
    folders are created. Where ``path`` is a symbolic link, the file that it points to is replaced, and the link stays.
    One of ``KINDS`` but a picture replaces only a file of its kind.
    """
    check_replaceable(path)
    target = real_path(path)
    temporary = None
    try:
        with new_folder(target.parent):
            try:
                prefix = _temporary_prefix(target)
                descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=".tmp")
                temporary = Path(name)
                with WholeFile(FileIO(descriptor, "w")) as file:
                    yield file
                    file.flush()
                    sync(descriptor, target)
                if (kind := kind_of(temporary)) not in ("empty", PICTURE):
                    check_replaceable(path, kind)
                with suppress(OSError):  # a disk on which another user owns all files, such as FAT
                    temporary.chmod(0o666 & ~UMASK)
                replace_durably(temporary, target)
                temporary = None
            finally:
                if temporary is not None:
                    with suppress(OSError):  # the first error is the one to report
                        temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def replace_durably(source: Path, target: Path) -> None:
    """Rename a file or folder, so that a power cut after it does not undo it."""
    source.replace(target)
    sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Create a folder with those that it is in, so that a power cut after it does not undo it."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Create a folder, see :func:`make_folder`. Where the block fails, what is new of it and empty is removed."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        make_folder(folder)
        yield
    except BaseException:  # including Ctrl-C
        with suppress(OSError):  # something is in it
            for one in missing:
                one.rmdir()
        raise


def sync(descriptor: int, path: Path) -> None:
    """Wait until an open file or folder is on the disk."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):  # some network disks cannot do it
            error.filename = str(path)
            raise


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":  # which opens no folders, and writes names in order
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor, folder)
    finally:
        os.close(descriptor)


def relative_path(path: Path, folder: Path) -> str:
    """The path of a file relative to a folder, with slashes; the absolute one on another drive of Windows."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def link_or_copy(source: Path, place: Path, symbolic: bool = False) -> None:
    """Make a hard or a symbolic link to a file, or copy it where the disk allows no such link."""
    make_folder(place.parent)
    try:
        (place.symlink_to if symbolic else place.hardlink_to)(source)
        sync_folder(place.parent)
    except OSError:  # another disk, or a system without links
        with source.open("rb") as content, atomic_write(place) as file:
            shutil.copyfileobj(content, file)


def check_replaceable(path: str | Path, kind: str | None = None) -> None:
    """Check that a file may be written to a path, before the work whose result it gets.

    Args:
        kind: What will be written, one of ``KINDS``: another file is somebody else's, and stays. None checks no kind.
    """
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISREG(mode) and kind is not None and kind_of(path) not in (kind, "empty"):
            raise UserError(f"{path} is not replaced, because it is not {kind}: delete it, or choose another path")
    except FileNotFoundError:
        return
    except (OSError, TypeError, ValueError) as error:  # a part of it is a file, no one may look, it is no path
        raise UserError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
        raise UserError(f"{path} cannot be written: it is {found}; give the path of a file")


def kind_of(path: str | Path) -> str | None:
    """Which of ``KINDS`` a file is, or "empty"; None where it is another. It is mapped into memory, not read."""
    with Path(path).open("rb") as file:
        try:
            content: mmap | bytes = mmap(file.fileno(), 0, access=ACCESS_READ)
        except (OSError, ValueError):  # some network disks cannot do it, and no disk with an empty file
            content = file.read()
        return next((kind for kind, pattern in KINDS.items() if pattern.match(content)), None)


def matching_files(pattern: str) -> list[Path]:
    """The files and folders that a pattern stands for, by name. Brackets in the name of a folder are no pattern."""
    path = Path(pattern)
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    escaped = Path(glob.escape(str(folder)), path.relative_to(folder))
    next(folder.iterdir(), None)  # an OSError where nobody may look, which glob hides
    return list(map(Path, sorted(glob.glob(str(escaped), recursive=True))))  # noqa: PTH207 (absolute patterns)


def refuse(error: OSError) -> None:
    """For ``os.walk``: a folder that may not be read is not taken for an empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error


def real_path(path: str | Path) -> Path:
    """The absolute path without links. That of a link to itself is the link, where ``Path.resolve`` may raise."""
    return Path(os.path.realpath(path))


def remove_leftovers(path: str | Path) -> None:
    """Remove the temporary files that killed processes left while they wrote ``path``.

    Call it only while no other process can be writing ``path``.
    """
    target = real_path(path)
    for leftover in target.parent.glob(f"{glob.escape(_temporary_prefix(target))}{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def _temporary_prefix(path: Path) -> str:
    """What the names of a file's temporary files begin with; short enough where its own name is a long one."""
    name = os.fsencode(path.name)
    return f".{path.name}." if len(name) < 200 else f".{hashlib.sha256(name).hexdigest()[:32]}."


def remove_leftovers_in(folder: str | Path) -> None:
    """Remove the temporary files that killed processes left in a folder and its subfolders.

    Call it only while no other process can be writing there.
    """
    for leftover in Path(folder).rglob(f".*.{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def journal_folder(output: Path) -> Path:
    """The folder of the journal of the run that writes ``output``."""
    return output.parent / f".{output.name}.run"


def has_results(folder: Path) -> bool:
    """Whether a folder holds results, or those of a run that is unfinished."""
    unfinished = journal_folder(folder / "results.json").is_dir()
    return unfinished or all((folder / name).is_file() for name in IN_RESULTS)


def is_file(path: str | Path) -> bool:
    """Whether a path is a file, which one is not whose name is too long."""
    try:
        return Path(path).is_file()
    except TypeError as error:
        raise UserError(f"{short_repr(path)} is not a path: give a text or a Path") from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def check_files(*paths: str | Path) -> None:
    """Check that files exist, without the slow imports that reading them takes."""
    for path in paths:
        if not is_file(path):
            raise UserError(f"{path} is not a file" if Path(path).exists() else f"file not found: {path}")


def check_readable(path: str | Path) -> None:
    """Check that the ends of a file can be read, where a library would call one that cannot be a broken one."""
    try:
        with Path(path).open("rb") as file:
            file.seek(len(file.read(1)) and -1, os.SEEK_END)
            file.read(1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def check_memories(paths: Iterable[str | Path]) -> None:
    """Check that memory files exist and are archives, without the slow imports that reading them takes."""
    for path in paths:
        if not is_file(path):
            raise UserError(f"memory not found: {path} is no file; fill_memory and segment --save-memory write one")
        check_readable(path)
        with suppress(BadZipFile):  # one of several disks
            if is_zipfile(path):
                continue
        raise UserError(f"memory {path} cannot be read: it is truncated, or not a memory bank")


def read_bytes(path: str | Path) -> bytes:
    """Read a file."""
    try:
        check_files(path)
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 that says so by its first bytes."""
    content = read_bytes(path)
    is_utf16 = len(content) > 2 and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in content:
            raise UserError(f"{path} cannot be read: it is no text, but packed or an image: unpack it first") from error
        raise UserError(
            f"{path} cannot be read: {error}; it may be in GBK or another old encoding: save it as UTF-8 (in Python: "
            "path.write_text(path.read_text('gbk'), 'utf-8'))"
        ) from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # ValueError for integers of thousands of digits, too
        raise UserError(f"{path} is not valid JSON: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of which no key may be there twice: its first value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"it has the key {short_repr(twice)} twice in one place: leave one of them out")
    return found


def write_json(path: str | Path, content: Any, indent: int | None = 1) -> None:
    """Write a JSON file atomically.

    Args:
        content: Any value that JSON can hold.
        indent: Spaces per level; None writes everything on one line, as suits large files.
    """
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    with atomic_write(path) as file:
        # What UTF-8 cannot hold, the bytes of a foreign file name, is written as JSON's own escape \udcXX.
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")


def spreadsheet_cell(value: Any) -> Any:
    """A cell of a CSV file that no spreadsheet takes for a formula: such a text gets an apostrophe in front.

    Args:
        value: A number, which stays as it is, or a text from a file, such as the name of a class.
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(FORMULAS) else value


#: Where an installed package has ``configs/`` and ``docs/``, and where a clone has them.
INSTALLED, CLONE = Path(__file__).parent, Path(__file__).parents[1]


def find_configuration(name: str) -> str:
    """The path of a configuration; of one that comes with this package, some words of its name are enough.

    Args:
        name: A path, also ``configs/custom_sam2l.yaml`` outside a clone, or a name such as ``coco_10shot``.
    """
    words, folder = set(Path(name).stem.split("_")), str(Path(name).parent)
    shipped = [path for root in (INSTALLED, CLONE) for path in sorted((root / "configs").glob("*.yaml"))]
    found = [path for path in shipped if words <= set(path.stem.split("_"))]
    if Path(name).exists() or folder not in (".", "configs"):
        return name
    if not Path(name).suffix and len({path.name for path in found}) != 1:
        known = ", ".join(dict.fromkeys(path.stem for path in found or shipped))
        raise UserError(f"configuration {name} was not found: give the path of a file, or one of {known}")
    return str(found[0]) if found else name


def with_documents(text: str) -> str:
    """A text in which ``docs/NAME.md`` is a path that exists: in an installed package, that of the copy in it."""
    if not (INSTALLED / "docs").is_dir():
        return text
    return re.sub(r"\bdocs/(?=\w+\.md)", lambda _: f"{INSTALLED / 'docs'}{os.sep}", text)
