"""The cases of ``cases/*.jsonl``: each is read as it says, or refused in one line that names the file."""

import json
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from no_time_to_train.benchmarks.prepare import cdfsod, lvis, pascal_voc
from no_time_to_train.benchmarks.prepare.steps import PrepareOptions
from no_time_to_train.benchmarks.report.runs import find_runs
from no_time_to_train.data import reference_sets
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.ground_truth import read_ground_truth
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.proposal_files import ProposalFile
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.evaluation.results_file import read_results
from no_time_to_train_extras.app.project import Project
from tests.prepare.sites import write_files, zip_of

CASES = Path(__file__).parent / "cases"

#: Height and width of the image of every case.
SIZE = (30, 40)

#: What stands between two parts of a message whose middle does not matter.
GAP = " ... "

MASK = np.zeros(SIZE, np.uint8)
MASK[10:18, 20:28] = 1


def valid_content(name: str) -> Any:
    """The valid file of a reader, which its cases change: a JSON value, or a text."""
    text = valid_file(name).read_text()
    return json.loads(text) if valid_file(name).suffix == ".json" else text


def valid_file(name: str) -> Path:
    (path,) = (CASES / "valid").glob(f"{name}.*")
    return path


class Reader(NamedTuple):
    """How the cases of a file are read.

    Attributes:
        path: The file that a case replaces.
        read: Reads the folder of the case, and returns the names of the classes of what it marks. What it makes of
            them, it writes to ``out.json``.
        beside: The other files of the folder, each with the reader whose valid file it is.
    """

    path: str
    read: Callable[[Path], list[str]]
    beside: Mapping[str, str] = {}


def read_annotations(folder: Path) -> list[str]:
    coco = read_coco(folder / "a.json")
    return [coco.cats[annotation["category_id"]]["name"] for annotation in coco.dataset["annotations"]]


def read_detections(folder: Path) -> list[str]:
    coco = read_coco(valid_file("coco"))
    return [coco.cats[record["category_id"]]["name"] for record in read_results(folder / "a.json", coco)]


def read_references(folder: Path) -> list[str]:
    return [reference.label for reference in find_references(folder).references]


def read_reference_set(folder: Path) -> list[str]:
    shots = [
        (number, shot) for number, shots in reference_sets.read_references(folder / "a.json").items() for shot in shots
    ]
    return [f"class {number}: {shot['img_id']} {','.join(map(str, shot['ann_ids']))}" for number, shot in shots]


def read_truth(folder: Path) -> list[str]:
    """Ground truth for results next to an ``images.json``."""
    shutil.copy(folder / "a.png", folder / "truth")
    path = folder / "truth/a.json"
    coco = read_ground_truth(path if path.exists() else path.parent, folder / "results.json")
    return [coco.cats[annotation["category_id"]]["name"] for annotation in coco.dataset["annotations"]]


def names_in(path: Path) -> list[str]:
    """The names of the classes that are annotated in a COCO file."""
    data = json.loads(path.read_text())
    names = {one["id"]: one["name"] for one in data["categories"]}
    return [names[one["category_id"]] for one in data["annotations"]]


def prepare_cdfsod(folder: Path) -> list[str]:
    write_files(folder, {"train/a.jpg": b""})
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


def read_proposals(folder: Path) -> list[str]:
    return ["proposal"] * len(ProposalFile(folder / "a.json").given(1, "", *SIZE))


def read_project(folder: Path) -> list[str]:
    return [one.label for one in Project(folder / "project.json").annotations.values()]


VOC_LIST, VOC_XML = "VOC2007/ImageSets/Main/trainval.txt", "VOC2007/Annotations/1.xml"
READERS = {
    "coco": Reader("a.json", read_annotations),
    "coco_references": Reader("a.json", read_references),
    "results": Reader("a.json", read_detections),
    "instances": Reader("a.json", lambda folder: Instances.load(folder / "a.json").labels.tolist()),
    "labelme": Reader("a.json", read_references),
    "voc": Reader("a.xml", read_references),
    "yolo": Reader("a.txt", read_references, {"data.yaml": "yolo_names"}),
    "yolo_names": Reader("data.yaml", read_references, {"a.txt": "yolo"}),
    "cvat": Reader("a.xml", read_references),
    "darwin": Reader("a.json", read_references),
    "datumaro": Reader("annotations/a.json", read_references),
    "via": Reader("a.csv", read_references),
    "reference_set": Reader("a.json", read_reference_set),
    "listed": Reader("images.json", read_truth, {"truth/data.yaml": "yolo_names", "truth/a.txt": "yolo"}),
    "listed_coco": Reader("images.json", read_truth, {"truth/a.json": "coco"}),
    "prepare_cdfsod": Reader("annotations/1_shot.json", prepare_cdfsod),
    "prepare_lvis": Reader("a.json", prepare_lvis),
    "prepare_voc": Reader(VOC_XML, prepare_voc, {VOC_LIST: "prepare_voc_list"}),
    "prepare_voc_list": Reader(VOC_LIST, prepare_voc, {VOC_XML: "prepare_voc"}),
    "run": Reader("run.json", read_runs, {"metrics.json": "metrics"}),
    "proposals": Reader("a.json", read_proposals),
    "project": Reader("project.json", read_project),
    "metrics": Reader("metrics.json", read_runs, {"run.json": "run"}),
}


def cases_in(name: str) -> list[dict[str, Any]]:
    """The lines of a file of cases."""
    return [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text().splitlines()]


def says(words: str, message: str) -> bool:
    """Whether a message holds the words of a case."""
    return bool(re.search(".*".join(map(re.escape, words.split(GAP))), message))


def cases() -> list[Any]:
    """One parameter per line of the files."""
    return [pytest.param(name, case, id=f"{name}: {case['case']}") for name in READERS for case in cases_in(name)]


def place_in(content: Any, place: str) -> tuple[Any, Any]:
    """The part of a JSON value that holds a place, such as ``images/0/id``, and its key."""
    *parents, last = (int(key) if key.isdigit() else key for key in place.split("/"))
    for parent in parents:
        content = content[parent]
    return content, last


def edit(content: Any, case: dict[str, Any]) -> None:
    """Change a JSON value as a case says."""
    for place, value in case.get("set", {}).items():
        part, last = place_in(content, place)
        if isinstance(part, list) and last == len(part):
            part.append(value)
        else:
            part[last] = value
    for place in case.get("remove", []):
        part, last = place_in(content, place)
        del part[last]


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
    edit(edited, case)
    return bytes.fromhex(case.get("hex", "")) + json.dumps(edited).encode()


def write_case(name: str, content: bytes, folder: Path) -> Path:
    """Write the file of a case, and what belongs to it, into a folder."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(255 * MASK).save(folder / "a.png")
    reader = READERS[name]
    beside = {path: valid_file(other).read_bytes() for path, other in reader.beside.items()}
    write_files(folder, {**beside, reader.path: content})
    return folder


@pytest.mark.parametrize(("name", "case"), cases())
def test_a_case_is_read_or_refused_as_it_says(name: str, case: dict[str, Any], tmp_path: Path) -> None:
    reader = READERS[name]
    write_case(name, content_of(case, valid_content(name)), tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if "refused" in case:
            with pytest.raises(UserError) as error:
                reader.read(tmp_path)
            assert str(tmp_path) in str(error.value)
            assert len(str(error.value).splitlines()) == 1
            assert not (tmp_path / "out.json").exists()
            assert says(case["refused"], str(error.value))
        else:
            assert reader.read(tmp_path) == case["read"]
    notices = [str(warning.message) for warning in caught if issubclass(warning.category, UserNotice)]
    if "notice" in case:
        assert len(notices) == 1
        assert case["notice"] in notices[0]
    elif "read" in case:
        assert not notices
