"""YOLO: one text file per image, with boxes or polygons, and the names of the classes in ``data.yaml``."""

from pathlib import Path

import yaml
from supervision.dataset.formats.yolo import yolo_annotations_to_detections

from no_time_to_train.data.images import is_image, shown_size
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError

NAME = "YOLO txt"


def find_data_file(root: Path) -> Path | None:
    """The file in ``root`` that names the classes; None where there is none."""
    return next((path for name in ("data.yaml", "data.yml") if (path := root / name).is_file()), None)


def read(path: Path, root: Path) -> list[Reference]:
    """The boxes and polygons of all images in ``root`` and the folders below it.

    Images without a label file are passed over. The splits that ``data.yaml`` names are read as one.

    Args:
        path: The file with the names of the classes.
        root: The folder of the images and label files.

    Raises:
        UserError: ``data.yaml`` names no classes, a line is broken, or an image cannot be read.
    """
    names = read_names(path)
    references = []
    for image in sorted(filter(is_image, root.rglob("*"))):
        labels = label_file(image)
        if not labels.is_file():
            continue
        height, width = shown_size(image)
        for number, line in enumerate(labels.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if not line.strip():
                continue
            is_polygon = len(line.split()) > 6
            try:
                found = yolo_annotations_to_detections([line], (width, height), with_masks=is_polygon)
                assert found.class_id is not None
                label = names[int(found.class_id[0])]
            except (ValueError, KeyError) as error:
                reason = f"{path} names no class {error}" if isinstance(error, KeyError) else error
                raise UserError(f"{labels}, line {number}: {reason}") from error
            x1, y1, x2, y2 = found.xyxy[0].tolist()
            mask = None if found.mask is None else encode_mask(found.mask[0])
            box = None if is_polygon else (x1, y1, x2, y2)
            references.append(Reference(label, image, mask, box, size=(height, width)))
    return references


def read_names(path: Path) -> dict[int, str]:
    """The names of the classes by index; ``names`` in ``data.yaml`` is a list or a mapping.

    Raises:
        UserError: The file cannot be read, or has no ``names``.
    """
    try:
        names = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(index): str(name) for index, name in pairs}
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} holds no list 'names' of classes: {' '.join(str(error).split())}") from error


def label_file(image: Path) -> Path:
    """Where the labels of an image lie: in the folder ``labels`` in place of ``images``, or else next to the image."""
    parts = list(image.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            labels = Path(*parts).with_suffix(".txt")
            if labels.is_file():
                return labels
            break
    return image.with_suffix(".txt")
