"""Instances: chosen by index, as arrays, polygons and tables, written and read."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import masks_to_boxes

from no_time_to_train import Instances, UserError
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category
from tests.conftest import Patch

CATEGORIES = [Category(1, "boat"), Category(4, "gull")]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "é 1.png"
    path.parent.mkdir()
    Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)).save(path)
    return path


@pytest.fixture
def instances(image: Path) -> Instances:
    """Four instances: two parts, a ring, a line one pixel wide, and one pixel."""
    masks = np.zeros((4, 40, 60), bool)
    masks[0, 2:10, 3:12] = masks[0, 20:30, 3:12] = True
    masks[1, 5:25, 20:40] = True
    masks[1, 10:20, 25:35] = False
    masks[2, 5:30, 50] = True
    masks[3, 39, 59] = True
    boxes = masks_to_boxes(torch.from_numpy(masks)).long()
    scores = torch.tensor([0.959, 0.7, 0.4, 1 / 3])
    detections = Detections(Masks.pack(masks), boxes, scores, torch.tensor([1, 0, 1, 0]))
    return Instances(np.asarray(Image.open(image)), CATEGORIES, detections, image)


def test_an_id_that_is_none_is_refused(instances: Instances) -> None:
    assert instances.to_coco(np.int64(7))[0]["image_id"] == 7
    with pytest.raises(UserError, match="image_id must be"):
        instances.to_coco(np.array([7, 8]))  # type: ignore[arg-type]  # the mistake


def equal(ours: Instances, theirs: Instances) -> bool:
    arrays = ("boxes", "scores", "masks", "labels", "class_ids")
    return all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in arrays)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        *((slice(1, 3), [1, 2]), (slice(None, None, -1), [3, 2, 1, 0])),
        *(([0, 2], [0, 2]), ([-1, 0, 0], [3, 0, 0]), ((0, 2), [0, 2]), ([], [])),
        *((np.array([3, 1]), [3, 1]), (np.array([], int), []), (torch.tensor([2, 0]), [2, 0])),
        *(([True, False, False, True], [0, 3]), (np.array([False, True, True, False]), [1, 2])),
        *((np.zeros(4, bool), []), (torch.tensor([True, False, True, False]), [0, 2])),
    ],
)
def test_an_index_chooses_several(instances: Instances, index: Any, expected: list[int]) -> None:
    chosen = instances[index]
    assert isinstance(chosen, Instances)
    assert list(chosen) == [list(instances)[row] for row in expected]
    assert chosen.path == instances.path
    assert chosen.image is instances.image


@pytest.mark.parametrize("index", [1, np.int64(1), np.array(1), torch.tensor(1), -3])
def test_an_index_chooses_one(instances: Instances, index: Any) -> None:
    assert instances[index] == list(instances)[1]


GRADIENT = torch.ones(4, requires_grad=True)


@pytest.mark.parametrize("index", [4, [4], [True], np.ones(5, bool), "boat", 1.5, [[0, 1]], None, [0.5], GRADIENT])
def test_a_wrong_index_is_an_index_error(instances: Instances, index: Any) -> None:
    with pytest.raises(IndexError):
        instances[index]


def test_instances_describe_themselves_and_are_shown_by_notebooks(instances: Instances) -> None:
    assert repr(instances[:2]) == "Instances(image=60x40, gull 0.95, boat 0.70)"
    assert repr(instances[:0]) == "Instances(image=60x40)"
    assert repr(instances[[0] * 12]).endswith("gull 0.95, and 2 more)")
    assert repr(instances[0]) == f"Instance(label='gull', score={instances[0].score}, box=(3, 2, 11, 29))"
    assert instances[0] in instances
    assert instances[0] != instances[2]
    picture = Image.open(io.BytesIO(instances._repr_png_()))
    assert (np.asarray(picture) == np.asarray(instances.plot())).all()


def test_what_is_no_palette_is_refused(instances: Instances) -> None:
    with pytest.raises(UserError, match="palette must be"):
        instances.plot("red")  # type: ignore[arg-type]


def test_arrays_have_one_row_per_instance(instances: Instances) -> None:
    assert instances.boxes.tolist() == [[3, 2, 11, 29], [20, 5, 39, 24], [50, 5, 50, 29], [59, 39, 59, 39]]
    assert instances.labels.tolist() == ["gull", "boat", "gull", "boat"]
    assert instances.class_ids.tolist() == [1, 0, 1, 0]
    dtypes = {"boxes": np.int64, "scores": np.float32, "masks": bool, "class_ids": np.int64}
    for name, dtype in dtypes.items():
        for found in (instances, instances[:0]):
            array = getattr(found, name)
            assert array.dtype == dtype
            assert len(array) == len(found)
    assert instances[:0].labels.dtype.kind == "U"
    assert instances[:0].boxes.shape == (0, 4)
    assert [one.score for one in instances[instances.labels == "gull"]] == instances.scores[[0, 2]].tolist()
    assert [one.score for one in instances[instances.scores >= 0.5]] == instances.scores[:2].tolist()


def test_polygons_are_the_outlines_of_the_parts(instances: Instances) -> None:
    parts, ring, line, pixel = instances.to_polygons()
    assert sorted(polygon[:, 1].min() for polygon in parts) == [2, 20]
    assert {tuple(point) for point in ring[0].tolist()} == {(20, 5), (39, 5), (39, 24), (20, 24)}
    assert line[0].tolist() == [[50, 5], [51, 5], [51, 30], [50, 30]]  # too thin for an outline: its box
    assert pixel[0].tolist() == [[59, 39], [60, 39], [60, 40], [59, 40]]
    assert instances[:0].to_polygons() == []


def test_the_table_is_made_of_columns_and_needs_pandas(instances: Instances, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))  # what is handed to it
    columns = {name: list(column) for name, column in instances.to_pandas().items()}
    assert list(columns) == ["label", "score", "x1", "y1", "x2", "y2", "area"]
    assert [column[1] for column in columns.values()] == ["boat", pytest.approx(0.7), 20, 5, 39, 24, 300]
    monkeypatch.setitem(sys.modules, "pandas", None)  # import then fails
    with pytest.raises(UserError, match="to_pandas needs the pandas package: pip install pandas"):
        instances.to_pandas()


def test_what_is_saved_is_loaded_also_if_it_was_moved_with_its_images(instances: Instances, tmp_path: Path) -> None:
    instances.save(tmp_path / "found" / "a.json")
    loaded = Instances.load(tmp_path / "found" / "a.json")
    assert equal(loaded, instances)
    assert loaded.categories == CATEGORIES
    assert (loaded.image == instances.image).all()
    assert loaded.path.resolve() == instances.path
    assert repr(loaded) == repr(instances)
    instances[:0].save(tmp_path / "none.json")
    assert equal(Instances.load(tmp_path / "none.json"), instances[:0])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("images", "found"):
        (tmp_path / name).rename(moved / name)
    assert (Instances.load(moved / "found" / "a.json").image == instances.image).all()


def test_a_relative_path_of_the_image_is_the_one_that_it_was_read_from(
    instances: Instances, image: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(image.parent)
    found = Instances(instances.image, CATEGORIES, instances.detections, Path(image.name))
    monkeypatch.chdir(tmp_path)
    found[:2].save("found.json")
    assert (Instances.load("found.json").image == instances.image).all()


def test_the_image_may_be_missing(instances: Instances, image: Path, tmp_path: Path) -> None:
    instances.save(tmp_path / "a.json")
    instances.path = None
    instances.save(tmp_path / "b.json")
    image.unlink()
    for name, reason in (("a", r"the image of these instances .*1\.png was not found"), ("b", "is not known")):
        loaded = Instances.load(tmp_path / f"{name}.json")
        assert equal(loaded, instances)
        assert repr(loaded[:1]) == repr(instances[:1])
        assert loaded._repr_png_() is None
        with pytest.raises(UserError, match=reason):
            loaded.plot()
        assert Instances.load(tmp_path / f"{name}.json", image=instances.image).plot().size == (60, 40)
    content = (tmp_path / "a.json").read_text(encoding="utf-8")
    (tmp_path / "long.json").write_text(content.replace("images/é 1.png", "x" * 5000), encoding="utf-8")
    assert equal(Instances.load(tmp_path / "long.json"), loaded)
    with pytest.raises(UserError, match=r"the image is 6x4 pixels, that of .*a\.json was 60x40"):
        Instances.load(tmp_path / "a.json", image=Image.new("RGB", (6, 4)))


def test_records_with_an_id_of_numpy_are_json(instances: Instances) -> None:
    records = instances.to_coco(np.int64(7))  # type: ignore[arg-type]  # as numpy and pandas give it
    assert {record["image_id"] for record in json.loads(json.dumps(records))} == {7}


def test_the_file_is_one_of_coco(instances: Instances, image: Path, tmp_path: Path) -> None:
    instances.save(tmp_path / "a.json")
    coco = read_coco(tmp_path / "a.json")
    assert coco.imgs[1] == {"id": 1, "file_name": "images/é 1.png", "height": 40, "width": 60}
    for annotation, one in zip(coco.anns.values(), instances, strict=True):
        x1, y1, x2, y2 = one.box
        assert annotation["bbox"] == [x1, y1, x2 - x1 + 1, y2 - y1 + 1]
        assert annotation["area"] == one.mask.sum()
        assert annotation["score"] == one.score
        assert coco.cats[annotation["category_id"]]["name"] == one.label
        assert (coco.annToMask(annotation) == one.mask).all()
    references = find_references(tmp_path / "a.json").references
    assert [reference.label for reference in references] == instances.labels.tolist()
