"""Reference sets as lists of boxes by class, ``{class: [{"image": path, "bbox": [x, y, w, h]}, ...]}``.

FSOD-VFM publishes its references in this form.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from no_time_to_train.errors import UserError, suggest
from no_time_to_train.files import is_file


def is_box_list(content: Any) -> bool:
    """Whether the content of a JSON file has this form."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(
            isinstance(boxes, list)
            and boxes
            and all(isinstance(one, dict) and {"image", "bbox"} <= one.keys() for one in boxes)
            for boxes in content.values()
        )
    )


def to_coco(content: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The same references as a COCO file's content; ids count from 1 in the order of the file."""
    images = dict.fromkeys(str(one["image"]) for boxes in content.values() for one in boxes)
    names = {name: number for number, name in enumerate(images, start=1)}
    numbered = [
        {"image_id": names[str(one["image"])], "category_id": number, "bbox": one["bbox"]}
        for number, boxes in enumerate(content.values(), start=1)
        for one in boxes
    ]
    return {
        "images": [{"id": number, "file_name": name} for name, number in names.items()],
        "annotations": [{"id": number, **one} for number, one in enumerate(numbered, start=1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(content, start=1)],
    }


def renumber(data: dict[str, Any], ids: Mapping[str, int], path: str | Path) -> None:
    """Give the categories of a COCO file's content other ids by name, in place."""
    new = {}
    for category in data["categories"]:
        if category["name"] not in ids:
            raise UserError(f"{path}: there is no class {category['name']!r}{suggest(category['name'], ids)}")
        new[category["id"]] = ids[category["name"]]
        category["id"] = ids[category["name"]]
    for annotation in data["annotations"]:
        annotation["category_id"] = new[annotation["category_id"]]


def find_images(images: Iterable[dict[str, Any]], image_dir: str | Path) -> None:
    """Shorten those file names in entries of ``images`` that begin with folders above ``image_dir``, in place."""
    for image in images:
        parts = PurePosixPath(image["file_name"]).parts
        ends = [PurePosixPath(*parts[start:]) for start in range(len(parts))]
        found = next((end for end in ends if is_file(Path(image_dir) / end)), ends[0])
        image["file_name"] = found.as_posix()
