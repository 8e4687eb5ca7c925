"""The folder of results as a whole: what may be in it, and how a finished one is replaced.

Nothing here imports torch or numpy, so that a wrong folder is reported at once.
"""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock

from no_time_to_train.data.names import composed
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import journal_folder, new_folder, read_json, real_path, refuse, replace_durably
from no_time_to_train.pipeline.journal import acquire, release, remove_folder

#: The files that all results have. A folder with all of them, and without a journal, is finished.
RESULTS = ("results.json", "images.json", "instances.csv", "index.html")

#: The page of the references alone, which may be written before the results.
REFERENCES_PAGE = "references.html"

#: What only ``track`` writes.
OF_TRACKS = ("tracks.csv", "tracks/*.jpg", "crossings.csv", "stays.csv", "mots/*.txt", "youtube_vis.json")

#: What ``segment``, ``track``, ``filter`` and ``evaluate`` write to the folder, as patterns; * stands for slashes, too.
WRITTEN = (
    *(*RESULTS, REFERENCES_PAGE, *OF_TRACKS),
    *("all_results.json", "counts.csv", "references.memory", "metrics.json", "run.json"),
    *("frames/*.jpg", "masks/*.png", "overlays/*.jpg", "previews/*.jpg", "thumbnails/*.jpg", "video/*.mp4"),
    *("references/[0-9]*_[0-9]*.jpg", "references/-[0-9]*_[0-9]*.jpg"),
    *("labelme/*.json", "labelme/*%[0-9A-F][0-9A-F]*", "x-anylabeling/*"),
    *("crops/*.png", "coco/annotations.json", "coco/images/*"),
    *("coco-train-val/annotations/instances_*.json", "coco-train-val/train/*", "coco-train-val/val/*"),
    *("yolo/data.yaml", "yolo/images/*", "yolo/labels/*.txt", "yolo/*.cache"),
    *("voc/labelmap.txt", "voc/Annotations/*.xml", "voc/ImageSets/Segmentation/default.txt"),
    *("voc/JPEGImages/*", "voc/Segmentation*/*.png", "cvat/annotations.xml", "cvat/images/*"),
    *("cvat-coco/annotations/instances_default.json", "cvat-coco/images/default/*"),
    *("label-studio/tasks.json", "label-studio/labeling_config.xml", "label-studio/images/*"),
)

#: Folders of images and of their label files: in both, a run writes the same names, with other endings.
PAIRS = (("yolo/images", "yolo/labels"), ("voc/JPEGImages", "voc/Annotations"))

#: Folders of files that have the names that ``images.json`` lists; in the folders beside it, the stems.
LISTED = (
    *("labelme", "x-anylabeling", "coco/images", "cvat/images", "cvat-coco/images/default", "label-studio/images"),
    *("coco-train-val/train", "coco-train-val/val"),
)

#: What to do where photos of results are missing.
MOVED = "images.json names photos by paths from its own folder: move both together, or the folder back"

#: Files that systems put into any folder that a person opens, and hidden ones.
OF_THE_SYSTEM = ("Thumbs.db", "desktop.ini", ".*")


def has_journal(out: Path) -> bool:
    """Whether a run that writes results to a folder is unfinished."""
    return journal_folder(out / "results.json").exists()


def is_finished(out: Path) -> bool:
    """Whether a folder holds the results of a run that has ended."""
    return all((out / name).is_file() for name in RESULTS) and not has_journal(out)


#: Hidden files and folders that people have in theirs, with work in them.
KEPT = (".git", ".gitignore", ".hg", ".svn", ".dvc", ".env", ".venv")


def foreign_files(out: Path, written: Collection[str] = ()) -> Iterator[str]:
    """The files in a folder, relative to it, that no run wrote, as patterns say. Hidden ones do not count."""
    written = written or (WRITTEN if is_finished(out) or has_journal(out) else (REFERENCES_PAGE,))
    for folder, subfolders, files in os.walk(out, onerror=refuse):
        yield from (name for name in KEPT if name in [*subfolders, *files])
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for file in sorted(files):
            name = Path(folder, file).relative_to(out).as_posix()
            if not (_is_hidden(file) or any(fnmatchcase(name, pattern) for pattern in written)):
                yield name


def _check_pairs(out: Path) -> None:
    """Raise a UserError where somebody put a file of their own next to exported images or labels."""
    for folders in PAIRS:
        images, labels = (_stems(out / folder) for folder in folders)
        if images and labels and (alone := images.keys() ^ labels.keys()):
            path = (images | labels)[min(alone)]
            where = " and ".join(folders)
            raise UserError(f"{path} is in only one of {where}, so no run wrote it: move it, or choose another folder")


def _check_listed(out: Path) -> None:
    """The same of the folders for which ``images.json`` says what a run wrote."""
    folders = [folder for folder in map(out.joinpath, LISTED) if folder.is_dir()]
    with suppress(KeyError, TypeError):  # somebody changed images.json
        images = read_json(out / "images.json")["images"] if folders else []
        for folder in folders:
            files = [one for one in folder.rglob("*") if not (one.is_dir() or _is_hidden(one.name))]
            key, by_stem = ("stem", True) if folder.parent == out else ("file_name", False)
            ours = {composed(str(folder / image[key])) for image in images}
            if own := [one for one in files if composed(str(one.with_suffix("") if by_stem else one)) not in ours]:
                raise UserError(f"{own[0]} is of no image of this run: move it, or choose another folder")


def _stems(folder: Path) -> dict[Path, Path]:
    """What is in a folder, by its path there without the ending; ultralytics puts caches next to labels."""
    found = [one for one in folder.rglob("*") if one.suffix != ".cache" and not _is_hidden(one.name)]
    return {one.relative_to(folder).with_suffix(""): one for one in found}


def check_results(folder: Path, *needed: str) -> tuple[dict[str, Any], list[str]]:
    """Check that a folder holds what ``results filter`` needs.

    Returns:
        The content of its images.json, and the names of the classes there, in their order.
    """
    for name in (*needed, "images.json", "references.memory"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no {name}: give the --out folder of a segment command that has ended")
    path = folder / "images.json"
    try:
        content: dict[str, Any] = read_json(path)
        return content, [category["name"] for category in content["categories"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not the one that segment wrote: {error!r}") from error


def put_back(out: Path) -> None:
    """Put a finished folder back that a process moved away, and was killed before the new one was in its place."""
    if not out.exists() and is_finished(_sibling(out, "old")):
        with _locked(out):
            pass


def check_output(out: Path, overwrite: bool) -> None:
    """Check that results may be written to a folder; ``overwrite`` allows it where finished results are in it."""
    if not real_path(out).name:
        raise UserError(f"{out} cannot be written: choose a folder in it")
    put_back(out)
    if os.path.lexists(out) and not out.is_dir():
        raise UserError(f"{out} is {'a file' if out.is_file() else 'not a folder'}: give a folder for the results")
    nearest = next(folder for folder in (out, *real_path(out).parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=nearest):  # os.access does not know of read-only systems, nor of /proc
            pass
    except OSError as error:
        raise UserError(f"{out} cannot be written: {nearest}: {error.strerror}") from error
    if foreign := next(foreign_files(out), None):
        missing = [name for name in RESULTS if not (out / name).is_file()]
        why = f"but no {missing[0]}" if missing and _is_result(foreign) else "which is not a file of results"
        raise UserError(f"{out} holds {foreign}, {why}: choose a new or an empty folder")
    if not is_finished(out):
        return
    if os.path.ismount(out):
        raise UserError(f"{out} is where a disk is mounted, so that it cannot be replaced: give a folder in it")
    _check_pairs(out)
    _check_listed(out)
    _check_siblings(out)
    if not overwrite:
        content = read_json(out / "images.json")
        images = content.get("images") if isinstance(content, dict) else None
        count = plural(len(images), "image") if isinstance(images, list) else "another run"
        raise UserError(f"{out} holds the results of {count}: give --overwrite to replace them, or another folder")


@contextmanager
def output_of_run(out: Path, overwrite: bool) -> Iterator[Path]:
    """The folder that a run writes to.

    This is ``out`` itself unless it is finished. Then it is ``.NAME.new`` next to it, which replaces ``out`` if the
    block succeeds; if not, ``out`` stays as it was, and the same command finds in ``.NAME.new`` what is done.
    """
    check_output(out, overwrite)
    if is_finished(out):
        with _replaced(out, "new") as new:
            yield new
    else:
        yield out


@contextmanager
def new_output(out: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder, which takes the place of ``out`` if the block succeeds, and is removed if it fails."""
    check_output(out, overwrite)
    if has_journal(out):
        raise UserError(f"{out} is unfinished: run its segment command again first, or choose another --out")
    with _replaced(out, "filtered") as new:
        yield new


@contextmanager
def _replaced(out: Path, ending: str) -> Iterator[Path]:
    """A folder next to ``out`` that replaces it, or is removed where the block fails and nothing can be resumed."""
    with _locked(out):
        new = _sibling(out, ending)
        try:
            yield new
        except BaseException:
            if not has_journal(new):
                shutil.rmtree(new, ignore_errors=True)
            raise
        _replace(out, new)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other processes from replacing a folder, put back one that a killed process moved, and remove leftovers."""
    _check_siblings(out)
    lock = FileLock(_sibling(out, "lock"))
    with new_folder(Path(lock.lock_file).parent):
        acquire(lock, out)
        try:
            _restore(out)
            for ending in ("filtered", "old"):
                shutil.rmtree(_sibling(out, ending), ignore_errors=True)
            yield
        finally:
            with suppress(OSError):  # Windows does not remove an open file, but filelock removes it there
                Path(lock.lock_file).unlink()
            release(lock)


def written_files(out: Path) -> dict[Path, tuple[int, int]]:
    """The results in the folder of an unfinished run, each with what changes when it is written again."""
    paths = (Path(folder, file) for folder, _, files in os.walk(out) for file in files)
    return {path: _state(path) for path in paths if _is_result(path.relative_to(out).as_posix())}


def remove_unchanged(earlier: dict[Path, tuple[int, int]]) -> None:
    """Remove the results of an earlier attempt, as :func:`written_files` listed them, that are not written again."""
    for path, state in earlier.items():
        if os.path.lexists(path) and _state(path) == state:
            path.unlink()


def _is_hidden(file: str) -> bool:
    return any(fnmatchcase(file, pattern) for pattern in OF_THE_SYSTEM)


def _is_result(name: str) -> bool:
    return name != REFERENCES_PAGE and any(fnmatchcase(name, pattern) for pattern in WRITTEN)


def _state(path: Path) -> tuple[int, int]:
    """The number of a file and when it was put in place."""
    state = path.lstat()
    return state.st_ino, state.st_ctime_ns


def _sibling(out: Path, ending: str) -> Path:
    """The hidden folder ``.NAME.ENDING`` next to a folder."""
    place = real_path(out)
    return place.with_name(f".{place.name}.{ending}")


def _check_siblings(out: Path) -> None:
    """Raise a UserError where something that no run wrote has the name of a folder, or of the lock, next to ``out``."""
    form = f"{real_path(out).name}/"  # convert replaces a folder of label files alone
    written = {*WRITTEN, *(pattern.removeprefix(form) for pattern in WRITTEN)}
    for place in (_sibling(out, ending) for ending in ("old", "filtered", "new", "lock")):
        found = next(foreign_files(place, written), None)
        if found or (place.is_file() and place.stat().st_size):
            what = f"{place} holds {found}, which is not a file of results" if found else f"{place} is a file"
            raise UserError(f"{what}, and is in the way of replacing {out}: move it, or choose another folder")


def _replace(out: Path, new: Path) -> None:
    """Put a folder in the place of another one, which is removed."""
    place, old = real_path(out), _sibling(out, "old")
    try:
        if place.exists():
            replace_durably(place, old)
        replace_durably(new, place)
    except OSError as error:
        _restore(out)
        raise UserError(
            f"{out} cannot be replaced: {error.strerror}; the new results are in {new if new.exists() else out}"
        ) from error
    with suppress(KeyboardInterrupt):  # the new folder is in its place, and the next run removes the rest
        remove_folder(old)


def _restore(out: Path) -> None:
    """Put a folder back that was moved away when its replacement failed."""
    place, old = real_path(out), _sibling(out, "old")
    if old.exists() and not place.exists():
        replace_durably(old, place)
