"""The app's project: steps, undo and redo, all of them on disk; and what is shown of a photo."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from no_time_to_train.data.rle import Rle, encode_mask
from no_time_to_train.errors import UserError
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train_extras.app.corrections import Item, correct, doubt
from no_time_to_train_extras.app.project import Annotation, Project, Step
from tests.conftest import Patch


def square(left: int, side: int = 4) -> Rle:
    mask = np.zeros((10, 30), bool)
    mask[2 : 2 + side, left : left + side] = True
    return encode_mask(mask)


def boat(number: int, left: int = 0, **changes: object) -> Annotation:
    return Annotation(**{"id": number, "photo": "sea.jpg", "label": "boat", "mask": square(left), **changes})  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project.json")


def test_undo_and_redo_go_through_all_steps(project: Project) -> None:
    project.do(Step("boat: shown", add=[boat(1)]))
    project.do(Step("boat: wrong", add=[boat(2, 9, verdict="wrong")], remove=[1], thresholds={"boat": 0.4}))
    assert [project.next_undo, project.next_redo] == ["boat: wrong", None]
    assert project.undo() == "boat: wrong"
    assert (list(project.annotations), project.thresholds) == ([1], {})
    assert project.undo() is not None
    assert (project.undo(), list(project.annotations)) == (None, [])
    assert [project.redo(), project.redo(), project.redo()] == ["boat: shown", "boat: wrong", None]
    assert (list(project.annotations), project.thresholds) == ([2], {"boat": 0.4})


def test_a_new_step_replaces_the_undone_ones_and_ids_are_not_used_twice(project: Project) -> None:
    project.do(Step("one", add=[boat(1)]))
    project.do(Step("two", add=[boat(project.new_id())]))
    project.undo()
    assert project.new_id() == 3, "the undone annotation may come back"
    project.do(Step("three", add=[boat(3)]))
    assert (list(project.annotations), project.next_redo) == ([1, 3], None)


def test_another_process_finds_every_step_that_was_done(project: Project) -> None:
    project.do(Step("one", add=[boat(1, reference=False)], thresholds={"boat": 0.25}, colors={"boat": "#ff0080"}))
    project.do(Step("two", add=[boat(2, 9)]))
    project.undo()
    again = Project(project.path)
    assert (again.annotations, again.thresholds) == (project.annotations, {"boat": 0.25})
    assert again.colors == {"boat": "#ff0080"}
    assert again.redo() is not None
    assert again.of_photo("sea.jpg") == [boat(1, reference=False), boat(2, 9)]


@pytest.mark.parametrize(("field", "value"), [("colors", {"boat": "#ff0080"}), ("reviewed", {"1 a": True})])
def test_projects_of_versions_without_a_field_are_read(project: Project, field: str, value: Any) -> None:
    project.do(Step("boat: shown", add=[boat(1)], **{field: value}))
    content = json.loads(project.path.read_text())
    del content["steps"][0][field]
    project.path.write_text(json.dumps(content))
    again = Project(project.path)
    assert ({*getattr(again, field)}, list(again.annotations)) == (set(), [1])


def test_a_step_that_cannot_be_written_changes_nothing(project: Project, monkeypatch: Patch) -> None:
    project.do(Step("one", add=[boat(1)]))
    full = Mock(side_effect=UserError("the disk is full"))
    monkeypatch.setattr("no_time_to_train_extras.app.project.write_json", full)
    with pytest.raises(UserError, match="full"):
        project.do(Step("two", add=[boat(2)]))
    assert (list(project.annotations), project.next_undo) == ([1], "one")


def test_a_confirmed_object_takes_the_place_of_what_was_found_there() -> None:
    found = [Item("gull", 0.9, square(0)), Item("boat", 0.8, square(12)), Item("boat", 0.3, square(20))]
    items = correct(found, [boat(7, 0)], Thresholds(0.5))
    assert items == [Item("boat", 1.0, square(0), 7), Item("boat", 0.8, square(12))]
    assert [item.confirmed for item in items] == [True, False]


def test_a_wrong_object_is_hidden_as_this_class_only() -> None:
    found = [Item("gull", 0.9, square(0)), Item("boat", 0.8, square(0)), Item("boat", 0.7, square(12))]
    items = correct(found, [boat(7, 0, verdict="wrong", reference=False)], Thresholds(0.5))
    assert items == [Item("gull", 0.9, square(0)), Item("boat", 0.7, square(12))]


def test_a_photo_without_instances_or_annotations_shows_nothing() -> None:
    assert correct([], [], Thresholds()) == []
    assert correct([], [boat(1)], Thresholds()) == [Item("boat", 1.0, square(0), 1)]


def test_doubt_is_largest_where_a_score_is_at_the_threshold() -> None:
    thresholds = Thresholds(0.9, {"boat": 0.5})
    near, far = Item("boat", 0.55, square(0)), Item("boat", 0.95, square(12))
    assert doubt([far, near], thresholds) == pytest.approx(0.95)
    assert doubt([far], thresholds) < doubt([near], thresholds)
    assert doubt([Item("boat", 0.5, square(0), annotation=1)], thresholds) == 0
