"""YOLO: a text file an image, and the classes' names in ``data.yaml``."""

from pathlib import Path

import yaml
from supervision.dataset.formats.yolo import yolo_annotations_to_detections

from no_time_to_train.data.images import is_image, shown_size
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError

NAME = "YOLO txt"


def data_file(root: Path) -> Path | None:
    """The file with the classes' names in ``root``."""
    return next((path for name in ("data.yaml", "data.yml") if (path := root / name).is_file()), None)


def read(path: Path, root: Path) -> list[Reference]:
    """The boxes and polygons of all images in ``root`` and its folders that have labels.

    Labels lie in a folder ``labels`` where their images lie in ``images``, or beside the images. The splits that
    ``data.yaml`` names are not told apart.

    Raises:
        UserError: ``data.yaml`` has no names, a line is broken, or no image has labels.
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
            polygon = len(line.split()) > 6
            try:
                found = yolo_annotations_to_detections([line], (width, height), with_masks=polygon)
                assert found.class_id is not None
                label = names[int(found.class_id[0])]
            except (ValueError, KeyError) as error:
                reason = f"{path} names no class {error}" if isinstance(error, KeyError) else error
                raise UserError(f"{labels}, line {number}: {reason}") from error
            x1, y1, x2, y2 = found.xyxy[0].tolist()
            drawn = encode_mask(found.mask[0]) if polygon and found.mask is not None else None
            box = None if polygon else (x1, y1, x2, y2)
            references.append(Reference(label, image, drawn, box, size=(height, width)))
    return references


def read_names(path: Path) -> dict[int, str]:
    """The classes' names by index: ``names`` is a list or a mapping."""
    try:
        names = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
        return {
            int(index): str(name) for index, name in (names.items() if hasattr(names, "items") else enumerate(names))
        }
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} holds no list 'names' of classes: {' '.join(str(error).split())}") from error


def label_file(image: Path) -> Path:
    """Where the labels of an image are: in the folder ``labels`` for ``images``, else beside it."""
    parts = list(image.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            other = Path(*parts).with_suffix(".txt")
            if other.is_file():
                return other
            break
    return image.with_suffix(".txt")
