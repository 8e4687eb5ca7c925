"""References in whatever form people have them: the form is detected, and all become one list.

``supervision`` parses the lines of YOLO and the objects of VOC. Its readers of whole sets are not used: they want all
images in one folder, and keep every mask of the set in memory at the image's size.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pycocotools import mask as rle
from tqdm import tqdm

from no_time_to_train.data.images import as_rgb
from no_time_to_train.data.reference_forms import class_folders, coco_json, labelme_json, voc_xml, yolo_txt
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json

if TYPE_CHECKING:
    from no_time_to_train.reference_segmenter import ReferenceSegmenter

__all__ = ["Found", "Reference", "add_references", "find_references"]

FORMS = (
    "a folder a class with images and NAME_mask.png or transparent cut-outs, LabelMe json, COCO json, Pascal VOC xml, "
    "or YOLO txt with data.yaml"
)


class Found(NamedTuple):
    """References and the name of the form that they were in."""

    form: str
    references: list[Reference]


def find_references(path: Path) -> Found:
    """The references in a folder or an annotation file, in the first form that it holds.

    Raises:
        UserError: there is none, or a file is broken.
    """
    if not path.exists():
        raise UserError(f"references not found: {path}")
    found = _in_folder(path) if path.is_dir() else _in_files([path], path.parent)
    if found is None:
        raise UserError(f"{path} holds no references: give {FORMS}")
    if not found.references:
        raise UserError(f"{path} ({found.form}) marks no object")
    return found


def _in_folder(root: Path) -> Found | None:
    data = yolo_txt.data_file(root)
    if data is not None:
        return Found(yolo_txt.NAME, yolo_txt.read(data, root))
    files = sorted(path for path in root.rglob("*") if not path.name.startswith("."))
    found = _in_files(files, root)
    if found is None and class_folders.holds(root):
        return Found(class_folders.NAME, class_folders.read(root))
    return found


def _in_files(files: list[Path], root: Path) -> Found | None:
    """What annotation files hold; those of the first form that is among them."""
    if len(files) == 1 and files[0].suffix in (".yaml", ".yml"):
        return Found(yolo_txt.NAME, yolo_txt.read(files[0], root))
    contents = [(path, read_json(path)) for path in files if path.suffix.lower() == ".json"]
    for form in (coco_json, labelme_json):
        chosen = [path for path, content in contents if form.is_file(content)]
        if chosen:
            return Found(form.NAME, [reference for path in chosen for reference in form.read(path)])
    chosen = [path for path in files if path.suffix.lower() == ".xml"]
    if chosen:
        return Found(voc_xml.NAME, [one for path in chosen for one in voc_xml.read(path)])
    return None


def add_references(segmenter: "ReferenceSegmenter", references: list[Reference]) -> None:
    """Show references to a segmenter.

    Raises:
        UserError: an image or a mask cannot be read, or they do not fit; the message names the reference.
    """
    for reference in tqdm(references, desc="references", unit="object"):
        try:
            _add(segmenter, reference)
        except UserError as error:
            raise UserError(f"reference {reference.image} ({reference.label}): {error}") from error


def _add(segmenter: "ReferenceSegmenter", reference: Reference) -> None:
    if isinstance(reference.mask, Path):
        segmenter.add_reference(reference.label, reference.image, reference.mask)
        return
    image = as_rgb(reference.image, reference.size)
    if reference.size not in (None, image.shape[:2]):
        (height, width), stated = image.shape[:2], f"{reference.size[1]}x{reference.size[0]}"
        raise UserError(f"the image is {width}x{height} pixels, its annotation is for {stated}")
    mask = None if reference.mask is None else rle.decode(reference.mask)
    segmenter.add_reference(reference.label, image, mask, reference.box, reference.point)
