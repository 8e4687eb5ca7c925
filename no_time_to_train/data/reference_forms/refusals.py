"""Forms that are known and not read: what they look like, and the way out."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from no_time_to_train.data.reference_forms import yolo_txt
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.image_files import COMMON_FOLDERS, is_named_like
from no_time_to_train.data.reference_forms.mask_images import MASK_FOLDERS
from no_time_to_train.errors import plural
from no_time_to_train.files import read_bytes, read_json

#: Folders of data sets, none of which is the name of a class, in small letters.
STRUCTURE = MASK_FOLDERS | {"images", "img", "imgs", "ann", "jpegimages", "segmentationobject"}

#: What labels have, and lists of names, images or notes have not.
NUMBERS = rb"(\d[\d.]{0,20}[ ,]{1,3}){3}\d"


@cache
def _refused() -> Any:
    """The JSON files that are not read: keys of them, the tool, and the way out; and the endings of other files."""
    return read_json(Path(__file__).with_name("refused.json"))


def _first_has(content: Any, keys: list[str]) -> bool:
    """Whether a JSON object, or the first of a list, has these keys."""
    first = content[0] if isinstance(content, list) and content else content
    return isinstance(first, dict) and set(keys) <= first.keys()


def _looks_like(content: Any, form: dict[str, Any]) -> bool:
    """Whether a JSON file has the keys of a form, and its annotations those of annotations."""
    of_annotations = form.get("keys_of_annotations", [])
    return _first_has(content, form["keys"]) and (
        not of_annotations or (isinstance(content, dict) and _first_has(content["annotations"], of_annotations))
    )


def explain(folder: Folder) -> str | None:
    """Why a folder whose form is none of those that are read is not one of class folders; None where it may be one."""
    if count := len(yolo_txt.label_files(folder)):
        return (
            f"{plural(count, 'label file')} that look like YOLO (makesense, labelImg), but nothing names the classes: "
            f"put classes.txt into {folder.root}, with the name of class 0 in line 1 and so on"
        )
    if (left := yolo_txt.without_image(folder)) and yolo_txt.find_classes(folder):
        return f"it holds labels of YOLO {', '.join(left)}; put the images into {folder.root}"
    for path in folder.ending(".json"):
        content = read_json(path)
        for form in _refused()["json"]:
            if _looks_like(content, form):
                return f"{path} looks like {form['tool']}: {form['advice']}"
        return f"{path} is of no form that is known here: export COCO from the tool that wrote it, or move it away"
    for path in folder.files:
        ending = path.suffix.lower()
        if kind := _refused()["endings"].get(ending):
            advice = "unpack it" if kind == "an archive" else "export COCO instead, or move it away"
            return f"{path} looks like {kind}, which is not read: {advice}"
    for path in folder.images:
        if re.match(r"task-\d+-annotation-\d+", path.name):
            return f"{path} looks like brush labels of Label Studio, which do not say their images: export JSON instead"
    for path in folder.ending(".csv"):
        return f"{path} is a table whose columns are unknown here (it may be Roboflow's classes): export COCO instead"
    for path in folder.ending(".xml"):
        return f"{path} is no annotation that is known here: export COCO or Pascal VOC from the tool that wrote it"
    reason = _explain_folders(folder)
    labels = next((path for path in folder.ending(".txt") if reason and re.search(NUMBERS, read_bytes(path))), None)
    return f"{labels} is of no form that is known here: export COCO instead, or move it away" if labels else reason


def _explain_folders(folder: Folder) -> str | None:
    """What the names of folders with images, or the lists next to them, say against class folders."""
    parts = [path.relative_to(folder.root).parts for path in folder.images]
    tops = {names[0].lower(): names[0] for names in parts if len(names) > 1}
    if parts and all(map(_is_split_class, parts)):
        names = sorted(tops.values())
        return f"it holds class folders in {', '.join(names)}: give one of these, such as {folder.root / names[0]}"
    for path in folder.ending(".txt"):
        if path.name.lower() in (*yolo_txt.SIDE_FILES, "labelmap.txt", "label_names.txt"):
            return f"{path} belongs to annotations, and none were found: put them into {folder.root}, or move it away"
    structure = sorted(top for top in tops if is_named_like(top, STRUCTURE))
    if structure or (tops and all(is_named_like(top, COMMON_FOLDERS) for top in tops)):
        name = tops[(structure or sorted(tops))[0]]
        return (
            f"{folder.root / name} is named like a part of a data set, not like a class, and no annotations were "
            "found: put them next to it, or give the folder the name of its class"
        )
    return None


def _is_split_class(parts: tuple[str, ...]) -> bool:
    """Whether an image lies in a folder such as ``train/CLASS``."""
    inner = parts[1].lower() if len(parts) == 3 else ""
    return parts[0].lower() in COMMON_FOLDERS and bool(inner) and inner not in COMMON_FOLDERS | MASK_FOLDERS
