"""Forms that are known and not read: what they look like, and the way out."""

import re
from collections.abc import Callable
from typing import Any

from no_time_to_train.data.reference_forms import yolo_txt
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.image_files import COMMON_FOLDERS
from no_time_to_train.data.reference_forms.mask_images import MASK_FOLDERS
from no_time_to_train.errors import plural
from no_time_to_train.files import read_json

#: The advice where a tool can export COCO.
EXPORT_COCO = "export COCO from it instead"

#: Folders of data sets, none of which is the name of a class, in small letters.
STRUCTURE = {
    "images",
    "img",
    "imgs",
    "labels",
    "masks",
    "ann",
    "annotations",
    "jpegimages",
    "segmentationobject",
} | MASK_FOLDERS


def _keys(*keys: str) -> Callable[[Any], bool]:
    """Whether a JSON object, or the first of a list, has these keys."""

    def has(content: Any) -> bool:
        first = content[0] if isinstance(content, list) and content else content
        return isinstance(first, dict) and set(keys) <= first.keys()

    return has


#: JSON files: a test of their content, the tool, and the way out.
JSON_FILES: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (_keys("project", "metadata", "file"), "VIA 3", "export COCO from it, or annotate with VIA 2"),
    (_keys("asset", "regions"), "VoTT", "export Pascal VOC from it instead"),
    (_keys("assets", "tags"), "VoTT", "export Pascal VOC from it instead"),
    (_keys("data_row"), "Labelbox", "convert it to COCO with labelbox's COCO converter"),
    (_keys("Labeled Data"), "Labelbox", "convert it to COCO with labelbox's COCO converter"),
    (_keys("metadata", "instances"), "SuperAnnotate", EXPORT_COCO),
    (_keys("name", "labels"), "BDD100K (Scalabel)", "convert it to COCO with scalabel"),
    (_keys("dataset", "samples"), "Segments.ai", EXPORT_COCO),
    (_keys("samples"), "FiftyOne", "export a COCODetectionDataset from it instead"),
    (
        lambda content: _keys("annotations")(content) and _keys("segments_info")(content["annotations"]),
        "COCO panoptic",
        "give the file with 'instances' in its name",
    ),
    (
        lambda content: _keys("annotations")(content) and _keys("caption")(content["annotations"]),
        "COCO captions",
        "give the file with 'instances' in its name",
    ),
)

#: Endings of files that hold annotations and are not read.
ENDINGS = {
    ".tfrecord": "TFRecord",
    ".tfrecords": "TFRecord",
    ".parquet": "Parquet",
    ".mat": "MATLAB",
    ".npy": "numpy",
    ".npz": "numpy",
    ".ndjson": "Labelbox or ultralytics",
    ".jsonl": "JSON lines (PaliGemma, Vertex AI)",
    ".zip": "a zip file",
    ".nii": "NIfTI",
}


def explain(folder: Folder) -> str | None:
    """Why a folder whose form is none of those that are read is not one of class folders; None where it may be one."""
    if count := yolo_txt.unnamed_labels(folder):
        return (
            f"{plural(count, 'label file')} that look like YOLO (makesense, labelImg), but nothing names the classes: "
            f"put classes.txt into {folder.root}, with the name of class 0 in line 1 and so on"
        )
    for path in folder.ending(".json"):
        content = read_json(path)
        for looks_like, tool, advice in JSON_FILES:
            if looks_like(content):
                return f"{path} looks like {tool}: {advice}"
        return f"{path} is of no form that is known here: export COCO from the tool that wrote it, or move it away"
    for path in folder.files:
        if path.suffix.lower() in ENDINGS:
            advice = "unpack it" if path.suffix.lower() == ".zip" else "export COCO instead, or move it away"
            return f"{path} looks like {ENDINGS[path.suffix.lower()]}, which is not read: {advice}"
    for path in folder.images:
        if re.match(r"task-\d+-annotation-\d+", path.name):
            return f"{path} looks like brush labels of Label Studio, which do not say their images: export JSON instead"
    for path in folder.ending(".csv"):
        return f"{path} is a table whose columns are unknown here (it may be Roboflow's classes): export COCO instead"
    for path in folder.ending(".xml"):
        return f"{path} is no annotation that is known here: export COCO or Pascal VOC from the tool that wrote it"
    return _explain_folders(folder)


def _explain_folders(folder: Folder) -> str | None:
    """What the names of folders with images, or the lists next to them, say against class folders."""
    parts = [path.relative_to(folder.root).parts for path in folder.images]
    tops = {names[0].lower(): names[0] for names in parts if len(names) > 1}
    if parts and all(map(_is_split_class, parts)):
        names = sorted(tops.values())
        return f"it holds class folders in {', '.join(names)}: give one of these, such as {folder.root / names[0]}"
    for path in folder.ending(".txt"):
        if path.name.lower() in (*yolo_txt.SIDE_FILES, "labelmap.txt"):
            return (
                f"{path} belongs to annotations, of which none were found: put them into {folder.root}, or move it away"
            )
    structure = sorted(tops.keys() & STRUCTURE)
    if structure or (tops and tops.keys() <= COMMON_FOLDERS):
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
