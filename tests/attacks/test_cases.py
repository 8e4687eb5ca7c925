"""The cases of ``cases/*.jsonl``: each is read as it says, or refused in one line that names the file."""

import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from no_time_to_train.benchmarks.prepare import cdfsod, lvis, pascal_voc
from no_time_to_train.benchmarks.prepare.steps import PrepareOptions
from no_time_to_train.benchmarks.report.runs import find_runs
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.evaluation.results_file import read_results
from tests.prepare.sites import coco_file, write_files, zip_of

CASES = Path(__file__).parent / "cases"

#: Height and width of the image of every case.
SIZE = (30, 40)

#: What stands between two parts of a message whose middle does not matter.
GAP = " ... "

MASK = np.zeros(SIZE, np.uint8)
MASK[10:18, 20:28] = 1
RLE = coco_mask.encode(np.asfortranarray(MASK))

SQUARE = [5, 5, 15, 5, 15, 15, 5, 15]

COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}, {"id": 2, "file_name": "b.png"}],
    "categories": [{"id": 3, "name": "boat"}, {"id": 4, "name": "cup"}, {"id": 9, "name": "other"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [5, 5, 10, 10], "iscrowd": 0, "segmentation": [SQUARE]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 4,
            "bbox": [20, 10, 8, 8],
            "segmentation": {"size": list(SIZE), "counts": RLE["counts"].decode()},
        },
    ],
}
LABELME = {
    "imagePath": "a.png",
    "imageHeight": 30,
    "imageWidth": 40,
    "shapes": [
        {"label": "boat", "shape_type": "polygon", "group_id": None, "points": [[5, 5], [15, 5], [15, 15]]},
        {"label": "cup", "shape_type": "polygon", "group_id": 4, "points": [[20, 10], [28, 10], [28, 18]]},
    ],
}
RESULTS = [
    {
        "image_id": 1,
        "category_id": annotation["category_id"],
        "score": 0.5,
        "bbox": annotation["bbox"],
        "segmentation": COCO["annotations"][1]["segmentation"],
    }
    for annotation in COCO["annotations"]
]
INSTANCES = {
    "images": [{"file_name": "", "height": 30, "width": 40}],
    "categories": COCO["categories"],
    "annotations": [RESULTS[0]],
}
VOC = """<annotation><filename>a.png</filename><size><width>40</width><height>30</height></size>
<object><name>boat</name><bndbox><xmin>6</xmin><ymin>6</ymin><xmax>15</xmax><ymax>15</ymax></bndbox>
<polygon><x1>6</x1><y1>6</y1><x2>15</x2><y2>6</y2><x3>15</x3><y3>15</y3></polygon></object>
<object><name>cup</name><bndbox><xmin>21</xmin><ymin>11</ymin><xmax>28</xmax><ymax>18</ymax></bndbox></object>
</annotation>"""
YOLO = "0 0.25 0.3 0.2 0.3\n1 0.51 0.4 0.7 0.4 0.7 0.6\n"
NAMES = "names: [boat, cup]\n"
LVIS = {
    "images": [{"id": 1, "coco_url": "http://images.cocodataset.org/val2017/000000000139.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
    "categories": [{"id": 1, "name": "boat"}],
}
PREPARED_VOC = (
    "<annotation><size><width>60</width><height>40</height></size><object><name>boat</name><bndbox><xmin>1</xmin>"
    "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
LABELS = {"dataset_name": "few_shot_classes", "n_shot": 10, "seed": 33, "method": None}
RUN: dict[str, Any] = {
    "fill_memory": {"status": "finished", "seconds": 5.0},
    "test": {"status": "finished", "seconds": 9.5, "labels": LABELS},
}
METRICS: dict[str, Any] = {"bbox": {"AP": 0.366, "AP50": None, "per_class": {"boat": 0.5}}, "segm": {"AP": 0.341}}


class Reader(NamedTuple):
    """How the cases of a file are read.

    Attributes:
        path: The file that a case replaces.
        valid: Its content as it should be.
        read: Reads the folder of the case, and returns the names of the classes of what it marks. What it makes of
            them, it writes to ``out.json``.
        beside: The other files of the folder.
    """

    path: str
    valid: Any
    read: Callable[[Path], list[str]]
    beside: Mapping[str, str] = {}


def read_annotations(folder: Path) -> list[str]:
    coco = read_coco(folder / "a.json")
    return [coco.cats[annotation["category_id"]]["name"] for annotation in coco.dataset["annotations"]]


def read_detections(folder: Path) -> list[str]:
    (folder / "truth.json").write_text(json.dumps(COCO))
    coco = read_coco(folder / "truth.json")
    return [coco.cats[record["category_id"]]["name"] for record in read_results(folder / "a.json", coco)]


def read_references(folder: Path) -> list[str]:
    return [reference.label for reference in find_references(folder).references]


def names_in(path: Path) -> list[str]:
    """The names of the classes that are annotated in a COCO file."""
    data = json.loads(path.read_text())
    names = {one["id"]: one["name"] for one in data["categories"]}
    return [names[one["category_id"]] for one in data["annotations"]]


def prepare_cdfsod(folder: Path) -> list[str]:
    cdfsod.convert(folder / "annotations/1_shot.json", "FISH", folder / "out.json")
    return names_in(folder / "out.json")


def prepare_lvis(folder: Path) -> list[str]:
    options = PrepareOptions(folder, lambda: None)  # type: ignore[arg-type, return-value]  # it makes no masks
    content = {"lvis_v1_val.json": (folder / "a.json").read_bytes()}
    write_files(options.downloads, {"lvis_v1_val.json.zip": zip_of(content)})
    lvis.convert("val", folder / "out.json", options)
    return names_in(folder / "out.json")


def prepare_voc(folder: Path) -> list[str]:
    pascal_voc.convert(folder, [pascal_voc.ImageSet("VOC2007", "trainval")], folder / "out.json")
    return names_in(folder / "out.json")


def read_runs(folder: Path) -> list[str]:
    """The status of the run; why it failed, as an error."""
    (run,) = find_runs(folder)
    if run.status == "failed":
        raise UserError(f"{folder}: {run.reason}")
    return [run.status]


VOC_LIST, VOC_XML = "VOC2007/ImageSets/Main/trainval.txt", "VOC2007/Annotations/1.xml"
READERS = {
    "coco": Reader("a.json", COCO, read_annotations),
    "coco_references": Reader("a.json", {**COCO, "images": COCO["images"][:1]}, read_references),
    "results": Reader("a.json", RESULTS, read_detections),
    "instances": Reader("a.json", INSTANCES, lambda folder: Instances.load(folder / "a.json").labels.tolist()),
    "labelme": Reader("a.json", LABELME, read_references),
    "voc": Reader("a.xml", VOC, read_references),
    "yolo": Reader("a.txt", YOLO, read_references, {"data.yaml": NAMES}),
    "yolo_names": Reader("data.yaml", NAMES, read_references, {"a.txt": YOLO}),
    "prepare_cdfsod": Reader("annotations/1_shot.json", coco_file(["a.jpg"]), prepare_cdfsod, {"train/a.jpg": ""}),
    "prepare_lvis": Reader("a.json", LVIS, prepare_lvis),
    "prepare_voc": Reader(VOC_XML, PREPARED_VOC, prepare_voc, {VOC_LIST: "1"}),
    "prepare_voc_list": Reader(VOC_LIST, "1", prepare_voc, {VOC_XML: PREPARED_VOC}),
    "run": Reader("run.json", RUN, read_runs, {"metrics.json": json.dumps(METRICS)}),
    "metrics": Reader("metrics.json", METRICS, read_runs, {"run.json": json.dumps(RUN)}),
}


def cases() -> list[Any]:
    """One parameter per line of the files."""
    return [
        pytest.param(name, case, id=f"{name}: {case['case']}")
        for name in READERS
        for case in map(json.loads, (CASES / f"{name}.jsonl").read_text().splitlines())
    ]


def place_in(content: Any, place: str) -> tuple[Any, Any]:
    """The part of a JSON value that holds a place, such as ``images/0/id``, and its key."""
    *parents, last = (int(key) if key.isdigit() else key for key in place.split("/"))
    for parent in parents:
        content = content[parent]
    return content, last


def content_of(case: dict[str, Any], valid: Any) -> bytes:
    """The content of the file of a case."""
    if "repeat" in case:
        text, count = case["repeat"]
        return (text * count + ("]" * count if case.get("then") == "closed" else "")).encode()
    if "hex" in case and case.get("then") != "as it should be":
        return bytes.fromhex(case["hex"])
    if "text" in case:
        return case["text"].encode()
    if "replace" in case:
        old, new = case["replace"]
        assert old in valid
        valid = valid.replace(old, new)
    if isinstance(valid, str):
        return valid.encode()
    edited = json.loads(json.dumps(valid))
    for place, value in case.get("set", {}).items():
        part, last = place_in(edited, place)
        if isinstance(part, list) and last == len(part):
            part.append(value)
        else:
            part[last] = value
    for place in case.get("remove", []):
        part, last = place_in(edited, place)
        del part[last]
    return bytes.fromhex(case.get("hex", "")) + json.dumps(edited).encode()


def write_case(name: str, content: bytes, folder: Path) -> Path:
    """Write the file of a case, and what belongs to it, into a folder."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(255 * MASK).save(folder / "a.png")
    reader = READERS[name]
    beside = {path: text.encode() for path, text in reader.beside.items()}
    write_files(folder, {**beside, reader.path: content})
    return folder


@pytest.mark.parametrize(("name", "case"), cases())
def test_a_case_is_read_or_refused_as_it_says(name: str, case: dict[str, Any], tmp_path: Path) -> None:
    reader = READERS[name]
    write_case(name, content_of(case, reader.valid), tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if "refused" in case:
            with pytest.raises(UserError) as error:
                reader.read(tmp_path)
            assert str(tmp_path) in str(error.value)
            assert len(str(error.value).splitlines()) == 1
            assert not (tmp_path / "out.json").exists()
            assert re.search(".*".join(map(re.escape, case["refused"].split(GAP))), str(error.value)), str(error.value)
        else:
            assert reader.read(tmp_path) == case["read"]
    notices = [str(warning.message) for warning in caught if issubclass(warning.category, UserNotice)]
    if "notice" in case:
        assert len(notices) == 1
        assert case["notice"] in notices[0]
    elif "read" in case:
        assert not notices
