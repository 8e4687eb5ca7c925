"""The files among which references are looked for, and what was used of them and passed over."""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from no_time_to_train.data.images import is_image
from no_time_to_train.data.reference_forms.image_files import ImageFiles, Indexes
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_forms.shapes import Canvas, merge_groups
from no_time_to_train.errors import UserError
from no_time_to_train.files import SYSTEM_FOLDERS, has_results, read_text, refuse

#: Files without annotations that people and tools put next to them.
SIDE_FILES = (
    *("readme", "license", "licence", "changelog", "thumbs.db", "desktop.ini"),
    *("labelmap.txt", "labeling_config.xml", "meta.json", "obj_class_to_machine_color.json"),
)


#: How the names of files begin that nothing is read from: those of the system, and reports of this program.
LEFT_OUT = (*SYSTEM_FOLDERS, "reference_report.")


class Folder:
    """A folder, or a single annotation file in one.

    Attributes:
        path: The folder or the file.
        root: The folder, or that of the file.
        files: The files in the folder and below it, or the file alone, without those that are ``LEFT_OUT``.
        images: Those that are images by their ending.
        links: Links to folders, in which only images that annotations name are looked for.
        skipped: How many shapes that mark no area were passed over, by their kinds.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path if path.is_dir() else path.parent
        found = [] if path.is_dir() else [path]
        for folder, folders, files in os.walk(path, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(SYSTEM_FOLDERS)]
            found += [Path(folder, name) for name in (*folders, *files) if not name.startswith(LEFT_OUT)]
        results = {one for one in found if one.is_dir() and has_results(one)}
        found = [one for one in sorted(found) if results.isdisjoint(one.parents)]
        self.files = [one for one in found if not one.is_dir()]
        self.links = [str(one) for one in found if one.is_symlink() and one.is_dir()]
        self.images = [one for one in self.files if is_image(one)]
        self.skipped: Counter[str] = Counter()
        self._used: set[Path] = set()
        self._masks: set[Path] = set()
        self._finders: dict[Path, ImageFiles] = {}
        self._indexes: Indexes = {}
        self._beside: dict[Path, dict[str, Path]] = {}

    def ending(self, *endings: str) -> list[Path]:
        """The files with one of these endings."""
        return [path for path in self.files if path.suffix.lower() in endings]

    def use(self, *paths: Path, are_masks: bool = False) -> None:
        """Note that files were understood, and which of them are masks."""
        self._used.update(paths)
        self._masks.update(paths if are_masks else ())

    def unused(self) -> tuple[Path, ...]:
        """The files that were not understood."""
        left = [path for path in self.files if path not in self._used and "ImageSets" not in path.parts]
        return tuple(path for path in left if not path.name.lower().startswith(SIDE_FILES))

    def empty(self, annotated: set[Path]) -> tuple[Path, ...]:
        """The images that were understood, are not among those with an object, and are no masks."""
        return tuple(sorted(filter(is_image, self._used - annotated - self._masks)))

    def list_images(self, folder: Path, names: Iterable[str]) -> None:
        """Say which images the annotations in a folder list, before the first of them is looked for."""
        self._finders[folder] = ImageFiles(folder, names, self.root, self._indexes)

    def image_beside(self, path: Path) -> Path | None:
        """The first image in the folder of a file that has its name, with another ending."""
        if path.parent not in self._beside:
            images = sorted(filter(is_image, path.parent.iterdir()), reverse=True)
            self._beside[path.parent] = {image.stem: image for image in images}
        return self._beside[path.parent].get(path.stem)

    def find_image(self, name: object, folder: Path) -> Path:
        """The file of an image that an annotation in a folder names."""
        if folder not in self._finders:
            self._finders[folder] = ImageFiles(folder, root=self.root, indexes=self._indexes)
        image = self._finders[folder].find(str(name or ""))
        self.use(image)
        return image

    def is_empty(self, shapes: Any, name: object, path: Path) -> bool:
        """Whether an annotation file has no shapes for an image, which is noted then, and may be missing."""
        if not len(shapes):
            with suppress(UserError):
                self.find_image(name, path.parent)
        return not len(shapes)

    def canvas(self, name: object, path: Path, height: Any = None, width: Any = None) -> Canvas:
        """The canvas of an image that an annotation file names, with the size that it states."""
        return Canvas.of(self.find_image(name, path.parent), height, width)

    def read_shapes(
        self,
        path: Path,
        shapes: Iterable[Any],
        read: Callable[[Any], Reference | str | None],
        noun: str = "shape",
        group_of: Callable[[Any], Any] = lambda shape: None,
    ) -> list[Reference]:
        """The references that the shapes of a file mark.

        Args:
            read: Makes the reference of a shape; or returns the kind of a shape that marks no area, which is counted;
                or None for what is no shape.
            group_of: The group of a shape; those of a label and a group are one reference (:func:`merge_groups`).
        """
        references, groups = [], []
        for index, shape in enumerate(shapes):
            try:
                reference = read(shape)
                group = group_of(shape) if isinstance(reference, Reference) else None
            except Exception as error:  # a shape can hold anything, and so can an image in it
                reason = error if isinstance(error, UserError) else repr(error)
                raise UserError(f"{path}: {noun} {index} is broken: {reason}") from error
            if isinstance(reference, str):
                self.skipped[reference] += 1
            elif reference is not None:
                references.append(reference)
                groups.append(group)
        return merge_groups(references, groups)


def agreed(found: Mapping[Path, Any], what: str) -> tuple[Path, Any] | None:
    """The first of some files and its content, which the others share unless they are of another export."""
    first = next(iter(found.items()), None)
    if first and (others := [path for path, content in found.items() if content != first[1]]):
        raise UserError(f"{first[0]} and {others[0]} give the classes other {what}: give one folder at a time")
    return first


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file."""
    try:
        return list(csv.reader(io.StringIO(read_text(path)), skipinitialspace=True))
    except csv.Error as error:
        raise UserError(f"{path} is not valid CSV: {error}") from error
