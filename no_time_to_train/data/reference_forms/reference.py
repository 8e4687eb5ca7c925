"""A reference as all forms give it."""

import glob
from dataclasses import dataclass
from pathlib import Path

from no_time_to_train.data.rle import Rle
from no_time_to_train.errors import UserError

#: x1, y1, x2, y2 in pixels, ends excluded.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Reference:
    """One object shown: its class, its image, and its mask, a box around it or a point (x, y) on it.

    Attributes:
        label: the class's name.
        image: the image's file.
        mask: a file (of a transparent cut-out, the image itself) or RLE; None: to be made from the box or point.
        box: where there is a mask, too, the crop is taken around the box.
        point: in pixels.
        size: height and width of the image that the annotation states, or None.
    """

    label: str
    image: Path
    mask: Path | Rle | None = None
    box: Box | None = None
    point: tuple[float, float] | None = None
    size: tuple[int, int] | None = None


#: Folders that data sets keep annotation files in; their images lie in other folders beside these.
ANNOTATION_FOLDERS = {"annotations", "labels", "json", "xml"}


def find_image(name: str, folder: Path) -> Path:
    """The file of an image that an annotation names.

    Args:
        name: as the annotation has it: a path on the annotator's machine, which may have been Windows.
        folder: of the annotation file. The image lies there or in a folder or two below; or, where the folder is one
            of annotations only, below its parent.

    Raises:
        UserError: it is nowhere, or in several places.
    """
    name = name.replace("\\", "/")
    base = name.rpartition("/")[2]
    places = [folder, folder.parent] if folder.name.lower() in ANNOTATION_FOLDERS else [folder]
    for place in places if base else []:
        for candidate in (place / name, place / base):
            if candidate.is_file():
                return candidate
        for depth in ("*", "*/*"):
            found = sorted(place.glob(f"{depth}/{glob.escape(base)}"))
            found = [path for path in found if path.as_posix().endswith(f"/{name}")] or found
            if len(found) > 1:
                raise UserError(f"image {name}, which is annotated in {folder}, is there twice: {found[0]}, {found[1]}")
            if found:
                return found[0]
    raise UserError(f"image {name or '(no name)'}, which is annotated in {folder}, is not there: put it there")
