"""Pascal VOC: one XML file per image, with boxes and, in some data sets, polygons."""

import glob
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring
from supervision.dataset.formats.pascal_voc import detections_from_xml_obj

from no_time_to_train.data.images import is_image
from no_time_to_train.data.reference_forms.reference import Reference, annotated_size, find_image
from no_time_to_train.data.rle import are_coordinates, check_polygons, encode_mask
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_bytes

NAME = "Pascal VOC xml"

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(path: Path) -> list[Reference]:
    """The objects of a file.

    VOC counts pixels from 1 and includes both ends of a box; the boxes returned count from 0 and exclude the end.
    """
    try:
        element = fromstring(read_bytes(path))
        if element.tag != "annotation":
            raise ValueError(f"its root is <{element.tag}>, not <annotation>")
        name = element.findtext("filename") or ""
        siblings = [other for other in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")) if is_image(other)]
        image = siblings[0] if siblings else find_image(name, path.parent)
        stated = (float(element.findtext(f"size/{side}") or 0) for side in ("height", "width"))
        size = annotated_size(image, *stated)
        return [_read_object(entry, image, size) for entry in element.findall("object")]
    except UserError:
        raise
    except Exception as error:  # the parsers raise OSError, ParseError, DefusedXmlException, ValueError, ...
        raise UserError(f"{path} is not a Pascal VOC annotation: {error}") from error


def _read_object(entry: Element, image: Path, size: tuple[int, int]) -> Reference:
    """The reference that an <object> marks. One at a time is parsed, because each may need a mask of the image's size.

    Raises:
        ValueError: It is broken.
    """
    height, width = size
    corners = [float(entry.findtext(f"bndbox/{key}") or "nan") for key in CORNERS]
    if not are_coordinates(corners):
        raise ValueError(f"the box of {entry.findtext('name')!r} has a coordinate that is not a number, or far outside")
    check_polygons([[float(value.text or "nan") for value in part] for part in entry.findall("polygon")], height, width)
    root = Element("annotation")
    root.append(entry)
    found, (label,) = detections_from_xml_obj(root, [], (width, height))
    # Not found.xyxy, whose ends supervision moves to 0 as well before its version 0.31.2.
    (x1, x2), (y1, y2) = sorted(corners[::2]), sorted(corners[1::2])
    mask = None if found.mask is None or not found.mask[0].any() else encode_mask(found.mask[0])
    return Reference(label, image, mask, (x1 - 1, y1 - 1, x2, y2), size=size)
