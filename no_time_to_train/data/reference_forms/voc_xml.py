"""Pascal VOC: one XML file per image, with boxes and, in some data sets, polygons."""

import glob
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse
from supervision.dataset.formats.pascal_voc import detections_from_xml_obj

from no_time_to_train.data.images import is_image, shown_size
from no_time_to_train.data.reference_forms.reference import Reference, find_image
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError

NAME = "Pascal VOC xml"


def read(path: Path) -> list[Reference]:
    """The objects of a file.

    VOC counts pixels from 1 and includes both ends of a box; the boxes returned count from 0 and exclude the end.

    Raises:
        UserError: The file is broken, or its image is missing.
    """
    try:
        element = parse(path).getroot()
        if element.tag != "annotation":
            raise ValueError(f"its root is <{element.tag}>, not <annotation>")
        name = element.findtext("filename") or ""
        siblings = [other for other in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")) if is_image(other)]
        image = siblings[0] if siblings else find_image(name, path.parent)
        size = (int(element.findtext("size/height") or 0), int(element.findtext("size/width") or 0))
        height, width = size if all(size) else shown_size(image)
        found, classes = detections_from_xml_obj(element, [], (width, height))
    except (OSError, ParseError, DefusedXmlException, ValueError) as error:
        raise UserError(f"{path} is not a Pascal VOC annotation: {error}") from error
    references = []
    assert found.class_id is not None
    for index in range(len(found)):
        x1, y1, x2, y2 = found.xyxy[index].tolist()
        mask = None if found.mask is None or not found.mask[index].any() else encode_mask(found.mask[index])
        label = classes[found.class_id[index]]
        references.append(Reference(label, image, mask, (x1, y1, x2, y2), size=(height, width)))
    return references
