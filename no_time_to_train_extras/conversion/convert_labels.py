"""Annotations in any form of references, as the label files of a tool."""

import os
from pathlib import Path

from no_time_to_train.data.ground_truth import LabeledObjects, by_image, size_of
from no_time_to_train.data.label_files import FORMATS, LabeledImage
from no_time_to_train.data.names import clean_characters, unique_names, unique_stems
from no_time_to_train.data.reference_forms import FoundReferences, find_references
from no_time_to_train.method.memory_bank import Category, free_id


def convert(source: Path, form: str, folder: Path, link: bool = False) -> FoundReferences:
    """Write annotations as the label files of a tool.

    Args:
        source: A folder or an annotation file, as for ``find_references``.
        form: A key of ``label_files.FORMATS``.
        link: Make symbolic links to the images instead of hard links or copies.

    Returns:
        What was read.
    """
    found = find_references(source)
    files = FORMATS[form](folder, categories_of(found), link)
    images = by_image(found) | {path: [] for path in found.empty}
    names = image_names(list(images))
    for number, (path, stem) in enumerate(zip(images, unique_stems(list(names.values())), strict=True), start=1):
        height, width = size_of(path, images[path])
        objects = LabeledObjects(images[path], height, width)
        files.add(LabeledImage(names[path], stem, path, number, height, width), objects)
    files.finish()
    return found


def image_names(images: list[Path]) -> dict[Path, str]:
    """The names of images: their paths relative to the folder that they have in common, never with ``..``."""
    common = os.path.commonpath([os.path.normpath(image.parent.absolute()) for image in images])
    names = [clean_characters(Path(os.path.relpath(image, common)).as_posix()) for image in images]
    return dict(zip(images, unique_names(names), strict=True))


def categories_of(found: FoundReferences) -> list[Category]:
    """The classes with their ids; those of a form without ids are numbered from 1, as they come."""
    ids = dict(found.category_ids)
    for reference in found.references:
        if reference.label not in ids:
            ids[reference.label] = free_id(ids.values())
    return [Category(number, label) for label, number in ids.items()]
