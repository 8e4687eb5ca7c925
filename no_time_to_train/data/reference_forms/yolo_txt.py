"""YOLO: one text file per image, with boxes or polygons, and the names of the classes in ``data.yaml``."""

from pathlib import Path

from supervision.dataset.formats.yolo import yolo_annotations_to_detections

from no_time_to_train.data.images import is_image, shown_size
from no_time_to_train.data.names import clean_class_names
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import are_coordinates, check_polygons, encode_mask
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_text, read_yaml

NAME = "YOLO txt"


def find_data_file(root: Path) -> Path | None:
    """The file in ``root`` that names the classes; None where there is none."""
    return next((path for name in ("data.yaml", "data.yml") if (path := root / name).is_file()), None)


def read(path: Path, names: dict[int, str], root: Path) -> list[Reference]:
    """The boxes and polygons of all images in ``root`` and the folders below it.

    Images without a label file are passed over. The splits that ``data.yaml`` names are read as one.

    Args:
        path: The file with the names of the classes.
        names: The names; see :func:`read_names`.
        root: The folder of the images and label files.
    """
    references = []
    for image in sorted(filter(is_image, root.rglob("*"))):
        labels = label_file(image)
        if not labels.is_file():
            continue
        height, width = shown_size(image)
        for number, line in enumerate(read_text(labels).splitlines(), start=1):
            if not line.strip():
                continue
            is_polygon = len(line.split()) > 6
            try:
                _check_line(line, height, width, is_polygon)
                found = yolo_annotations_to_detections([line], (width, height), with_masks=is_polygon)
                assert found.class_id is not None
                label = names[int(found.class_id[0])]
            except Exception as error:  # the parser raises ValueError, IndexError, OverflowError, ...
                reason = f"{path} names no class {error}" if isinstance(error, KeyError) else error
                raise UserError(f"{labels}, line {number}: {reason}") from error
            x1, y1, x2, y2 = found.xyxy[0].tolist()
            mask = None if found.mask is None else encode_mask(found.mask[0])
            box = None if is_polygon else (x1, y1, x2, y2)
            references.append(Reference(label, image, mask, box, size=(height, width)))
    return references


def read_names(path: Path) -> dict[int, str]:
    """The names of the classes by index; ``names`` in ``data.yaml`` is a list or a mapping."""
    try:
        names = read_yaml(path)["names"]
        pairs = list(names.items() if isinstance(names, dict) else enumerate(names))
        found = {int(index): str(name) for index, name in pairs}
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise UserError(f"{path} holds no list 'names' of classes: {error!r}") from error
    cleaned = clean_class_names(found.values(), path)
    if len(found) < len(pairs) or len(set(cleaned.values())) < len(pairs):
        raise UserError(f"{path} names two classes alike, or gives a number twice: {', '.join(cleaned.values())}")
    return {index: cleaned[name] for index, name in found.items()}


def _check_line(line: str, height: int, width: int, is_polygon: bool) -> None:
    """Check the numbers of a line, which are shares of the image's sides.

    Raises:
        ValueError: One is not a number, or far outside the image.
    """
    numbers = [float(value) for value in line.split()[1:]]
    pixels = [value * (width, height)[index % 2] for index, value in enumerate(numbers)]
    if is_polygon:
        check_polygons([pixels], height, width)
    elif not are_coordinates(pixels[:4]):
        raise ValueError("a coordinate is not a number, or far outside the image")


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
