"""The image files that annotations name: found by their path, or else by as much of it as a folder on this disk has."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from no_time_to_train.data.images import IMAGE_ENDINGS, NEEDS, is_image
from no_time_to_train.data.names import check_file_name, composed
from no_time_to_train.errors import UserError, first_of
from no_time_to_train.files import has_results, is_file

#: Names of folders that hold annotation files only. Their images lie in sibling folders.
ANNOTATION_FOLDERS = {"annotations", "annotation", "ann", "labels", "json", "xml"}

#: Names of folders that say nothing about the images in them.
COMMON_FOLDERS = {
    *("images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "data", "dataset", "upload"),
    *("train", "training", "val", "valid", "validation", "test", "testing", "default", "train2017", "val2017"),
    "obj_train_data",
}

#: Names of folders that hold masks under the names of the images.
MASKS = {"segmentationclass", "segmentationobject", "masks", "mask"}

#: What Label Studio puts before the name of an uploaded file.
UPLOADED = r"(?<![^/])[0-9a-f]{8}-(?=[^/]+$)"


class Index(NamedTuple):
    """What lies below a place.

    Attributes:
        images: The images by their names, also with the folder's or without an ending, in small letters.
        common: Its own folders that say nothing about images, but ``images`` with another ``images`` in it.
        inner: Such folders in these, as ``images/default``.
        unread: The folders that cannot be read.
    """

    images: dict[str, list[Path]]
    common: list[Path]
    inner: list[Path]
    unread: list[Path]


#: Of each place that was searched, what lies below it.
Indexes = dict[Path, Index]


def is_named_like(folder: str, names: set[str]) -> bool:
    """Whether a folder has one of some names, or one with the part of a data set or a number, as ``train_masks``."""
    words = set(re.findall(r"[a-z]+", folder.lower()))
    return folder.lower() in names or (bool(words & names) and words <= names | COMMON_FOLDERS)


class ImageFiles:
    """The images of the annotations in one folder.

    They lie in the folder or below it; or, where it is one of ``ANNOTATION_FOLDERS``, below its parent; or below a
    root.

    Args:
        folder: The folder of the annotation files.
        root: A folder above it, where all references are.
        names: The names of all images that the annotations list. Of those that differ only in their folders, each
            needs a file in its own.
        indexes: What is known of places, shared with other folders.
    """

    def __init__(
        self, folder: Path, names: Iterable[str] = (), root: Path | None = None, indexes: Indexes | None = None
    ) -> None:
        self.folder = folder
        parents = [folder.parent] if folder.name.lower() in ANNOTATION_FOLDERS else []
        self.places = list(dict.fromkeys([folder, *parents, *([root] if root else [])]))
        self._indexes: Indexes = {} if indexes is None else indexes
        bases = Counter(PurePosixPath(name).name for name in set(map(_with_slashes, names)))
        self._repeated = {base for base, count in bases.items() if count > 1}
        self._listed = set(map(fold, bases))

    def _index(self, place: Path) -> Index:
        """What lies below a place, which is searched once."""
        if place in self._indexes:
            return self._indexes[place]
        index = self._indexes[place] = Index(defaultdict(list), [], [], [])
        seen: set[str] = set()
        for folder, folders, files in os.walk(place, True, lambda e: index.unread.append(Path(e.filename)), True):
            real = os.path.realpath(folder)
            if Path(folder) != place and has_results(Path(folder)):
                seen.add(real)
            folders[:] = [] if real in seen else sorted(filter(_may_hold_images, folders))
            for path in [] if real in seen else sorted(map(Path(folder).joinpath, files)):
                if is_image(path):
                    for name in (f"{path.parent.name}//{path.name}", path.name):
                        index.images[fold(name)].append(path)
                    index.images[fold(f"/{path.stem}")].append(path)
            if Path(folder) in (place, *index.common, *index.inner):
                own = [Path(folder, one) for one in folders if one.lower() in COMMON_FOLDERS]
                inside = index.common if Path(folder) == place else index.inner
                inside += [one for one in own if not (one / one.name).exists()]
            seen.add(real)
        return index

    def find(self, name: str) -> Path:
        """The file of an image.

        Args:
            name: As the annotation gives it: often a path on the annotator's computer, with slashes or backslashes.
        """
        try:
            check_file_name(name)
        except ValueError as error:
            raise UserError(f"an annotation in {self.folder} is of no image: {error}") from error
        name = _with_slashes(name)
        tries = dict.fromkeys([name, re.sub(UPLOADED, "", name), unquote(name)])
        for tried in tries if PurePosixPath(name).name else ():
            if found := self._find(tried):
                return found
        unread = [str(one) for place in self.places if place in self._indexes for one in self._indexes[place].unread]
        raise UserError(
            f"image {name or '(no name)'}, which is annotated in {self.folder}, was not found: put it into that folder"
            f"{f' (not searched, as they cannot be read: {first_of(unread)})' * bool(unread)}"
        )

    def _find(self, name: str) -> Path | None:
        path = PurePosixPath(name)
        for place in self.places:
            for candidate in (place / name, *([] if path.name in self._repeated else [place / path.name])):
                if is_file(candidate):
                    plain = Path(os.path.normpath(candidate))  # one image has one path, also where a name has ".."
                    return plain if is_file(plain) and plain.samefile(candidate) else candidate.resolve()
        for place in self.places:
            index = self._index(place)
            for folders in (index.common, index.inner) if path.name in self._repeated else (index.common,):
                below = [one / name for one in folders if ".." not in path.parts and is_file(one / name)]
                if len(below) == 1:  # ``images`` or ``images/default`` of an export, in which names are whole
                    return below[0]
            stem = path.stem if path.suffix.lower() in IMAGE_ENDINGS | NEEDS.keys() else path.name
            names = f"{path.parent.name}//{path.name}", path.name, f"/{stem}"
            found = next(filter(None, (index.images.get(fold(one)) for one in names)), [])
            found = [one for one in found if fold(one.name) == fold(path.name) or fold(one.name) not in self._listed]
            shared = {file: _shared_parts(file, path) for file in found}
            best = [file for file in found if shared[file] == max(shared.values())]
            if not best or (shared[best[0]] == 0 and self._is_elsewhere(path, best[0].parent.relative_to(place).name)):
                continue
            if any(not file.samefile(best[0]) for file in best[1:]):  # exports of this program are hard links
                raise UserError(
                    f"image {name}, which is annotated in {self.folder}, was found twice: {best[0]}, {best[1]}; "
                    "move one of them away"
                )
            return best[0]
        return None

    def _is_elsewhere(self, name: PurePosixPath, actual: str) -> bool:
        """Whether a file of the same name is another image: that of ``cam1`` is not that of ``cam2``."""
        folder, actual = name.parent.name.lower(), actual.lower()
        if not folder or folder == "..":
            return False
        if name.name in self._repeated:
            return True
        is_relative = not name.is_absolute() and ":" not in name.parts[0] and name.parts[0] != ".."
        return is_relative and bool(actual) and folder not in COMMON_FOLDERS and actual not in COMMON_FOLDERS


def fold(name: str) -> str:
    """What is equal for names that differ only in case, or in how an accent is encoded, as on macOS."""
    return composed(name).lower()


def _with_slashes(name: str) -> str:
    return name.replace("\\", "/").removeprefix("file://")


def _shared_parts(file: Path, name: PurePosixPath) -> int:
    """How many folders of a name the file has, too, from the last one up."""
    pairs = zip(reversed(file.parent.parts), reversed(name.parent.parts), strict=False)
    return next(
        (count for count, (one, other) in enumerate(pairs) if one.lower() != other.lower()), len(name.parent.parts)
    )


def _may_hold_images(folder: str) -> bool:
    return not folder.startswith((".", "__MACOSX")) and folder.lower() not in MASKS
