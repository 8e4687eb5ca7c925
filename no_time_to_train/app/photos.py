"""The photos of the app: those of the folder that it was started with, and those that were uploaded."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from no_time_to_train.data.images import as_rgb, is_image, read_rgb
from no_time_to_train.data.names import clean_name, unique_names, unique_stems
from no_time_to_train.data.targets import TargetImage, find_targets
from no_time_to_train.files import atomic_write

#: What the names of uploaded photos begin with.
UPLOADS = "uploads"


def find_photos(images: Sequence[str], uploads: Path, out: Path) -> list[TargetImage]:
    """The photos.

    Args:
        images: Folders, globs, images, or one COCO file. Videos are left out.
        out: The folder of the app, whose other files are no photos.

    Returns:
        The photos, whose names and stems are unique.
    """
    found = [target for target in find_targets(images, 1, out).images if target.path is not None] if images else []
    stored = sorted(path for path in uploads.glob("*") if is_image(path))
    names = unique_names([target.name for target in found] + [f"{UPLOADS}/{path.name}" for path in stored])
    stems = unique_stems(names)
    paths = [target.path for target in found if target.path is not None] + stored
    return [
        TargetImage(name, stem, partial(as_rgb, path), path)
        for name, stem, path in zip(names, stems, paths, strict=True)
    ]


def store_upload(file: Path, uploads: Path) -> TargetImage:
    """Check an uploaded file, and copy it to the folder of uploads.

    Returns:
        The copy as a photo. Its name has nothing of a path, and is not that of another upload.
    """
    read_rgb(file)
    name = clean_name(Path(clean_name(file.name)).name).lstrip(".") or "image"
    others = [path.name for path in uploads.glob("*")]
    place = uploads / unique_names([*others, name])[-1]
    with file.open("rb") as source, atomic_write(place) as target:
        shutil.copyfileobj(source, target)
    name = f"{UPLOADS}/{place.name}"
    return TargetImage(name, name, partial(as_rgb, place), place)  # the name is as unique as a stem
