"""The app without a browser: references that are objects in the photos, and lowest scores that nobody has to choose."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train import UserError
from no_time_to_train.cli import main
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.label_files import FORMATS
from no_time_to_train.data.reference_forms import Reference, find_references
from no_time_to_train.data.rle import decode_mask, encode_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.pipeline.output_folder import OutputFolder

pytest.importorskip("gradio", reason="the app's extra is not installed")

import gradio as gr

from no_time_to_train_extras.app import guarded_app
from no_time_to_train_extras.app.actions import Actions
from no_time_to_train_extras.app.corrections import Item
from no_time_to_train_extras.app.endpoints import Endpoints
from no_time_to_train_extras.app.exports import Exports, export
from no_time_to_train_extras.app.lists import AT_ONCE, Lists, Shelf
from no_time_to_train_extras.app.page import temporary_folder
from no_time_to_train_extras.app.page_service import PageService
from no_time_to_train_extras.app.photos import Pictures, Thumbnails, find_photos
from no_time_to_train_extras.app.project import Annotation, Project
from no_time_to_train_extras.app.references import take_annotations
from no_time_to_train_extras.app.video_frames import Videos
from no_time_to_train_extras.app.view import View
from no_time_to_train_extras.app.workspace import Workspace
from no_time_to_train_extras.server.service import Upload
from tests.conftest import Patch, gallery_data, nano_segmenter
from tests.workspaces import settle, wait_for

#: The photos, the seed that draws them, and what the step in which references are confirmed is called after.
PHOTOS, SEED, SOURCE = 3, 777, Path("instances.json")
Start = Callable[[Iterable[Path], Path], Workspace]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_coco(folder, NOVEL_CLASSES, PHOTOS, SEED)
    return folder


@pytest.fixture(scope="module")
def references(folder: Path) -> list[Reference]:
    return find_references(folder / "instances.json").references


@pytest.fixture
def start() -> Iterator[Start]:
    """The app as it starts on some folders, with nothing shown yet; its search is stopped in the end."""
    segmenter, started = nano_segmenter(12), []

    def start_app(images: Iterable[Path], out: Path) -> Workspace:
        segmenter.set_memory(None)
        started.append(Workspace(segmenter, *find_photos([*map(str, images)], out / "uploads", out), out))
        return started[-1]

    yield start_app
    for one in started:
        one.search.close()


@pytest.fixture
def workspace(start: Start, folder: Path, tmp_path: Path) -> Workspace:
    return start([folder / "images"], tmp_path / "app")


@pytest.fixture
def annotations(workspace: Workspace, references: list[Reference]) -> list[Annotation]:
    """The references as objects of the photos; nothing is confirmed yet."""
    return take_annotations(references, photos_of(workspace), workspace.segmenter)[0]


def actions_of(workspace: Workspace, folder: Path) -> Actions:
    """What the page calls; its files are in a folder."""
    lists = Lists(workspace, Thumbnails(folder / "thumbnails", workspace.photos))
    return Actions(workspace, lists, Exports(workspace, folder), folder / "uploads")


def event(number: int, name: str, *values: object) -> Mock:
    """What the page sends when a person does something."""
    return Mock(_data={"acts": [{"number": number, "act": name, "values": list(values)}]})


def photos_of(workspace: Workspace) -> list:
    return [photo.target for photo in workspace.photos.values()]


def confirmed(workspace: Workspace) -> int:
    return sum(item.confirmed for name in workspace.photos for item in workspace.items(name))


def test_pictures_that_a_system_cleans_away_while_the_app_runs_are_made_again(
    workspace: Workspace, tmp_path: Path
) -> None:
    thumbnails, (name, *_) = Thumbnails(tmp_path / "own" / "thumbnails", workspace.photos), workspace.photos
    for _ in range(2):
        for _ in range(1000):
            if (shown := thumbnails.file(name)) != thumbnails.blank:
                break
            time.sleep(0.01)
        assert shown.is_file()
        assert Pictures(thumbnails.folder).file("sha256 abc", np.zeros((9, 9, 3), np.uint8)).is_file()
        shutil.rmtree(tmp_path / "own")


def test_references_in_the_photos_are_confirmed_in_one_step_and_the_others_stay_references(
    workspace: Workspace, references: list[Reference], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.png"
    shutil.copy(references[0].image, elsewhere)
    with elsewhere.open("ab") as file:
        file.write(b" ")  # an image of its own
    boxed = Reference(references[1].label, references[1].image, box=(10, 10, 60, 60))
    plain = Reference("boat", references[0].image)
    away = Reference(references[0].label, elsewhere, references[0].mask)
    given = [*references, boxed, plain, away]
    annotations, others = take_annotations(given, photos_of(workspace), workspace.segmenter)
    assert others == [plain, away]
    workspace.confirm(annotations, SOURCE)
    assert confirmed(workspace) == len(references) + 1
    assert workspace.project.next_undo == f"{len(references) + 1} references of instances.json"
    workspace.undo()
    assert (confirmed(workspace), workspace.classes) == (0, [])
    workspace.confirm(annotations, SOURCE)
    assert confirmed(workspace) == 0, "the person took them back"


def test_what_the_person_said_counts_more_than_a_reference(workspace: Workspace, annotations: list[Annotation]) -> None:
    workspace.do("gravel: shown", [Annotation(0, annotations[0].photo, "gravel", annotations[0].mask)])
    workspace.confirm(annotations, SOURCE)
    assert workspace.items(annotations[0].photo)[0].label == "gravel"
    assert confirmed(workspace) == len(annotations)


def test_of_what_two_people_say_of_an_object_at_once_the_last_counts(
    workspace: Workspace, annotations: list[Annotation]
) -> None:
    one = annotations[0]
    found = Item(one.label, 0.9, one.mask)  # as both see it
    workspace.right(one.photo, found)
    workspace.right(one.photo, found)
    assert [said.verdict for said in workspace.said(one.photo)] == ["right"]
    workspace.wrong(one.photo, found)
    workspace.right(one.photo, found)
    assert [said.verdict for said in workspace.said(one.photo)] == ["right"]


def test_an_object_of_a_class_that_joins_another_is_no_longer_said_to_be_none_of_it(
    workspace: Workspace, annotations: list[Annotation]
) -> None:
    one = annotations[0]
    workspace.show(one.photo, decode_mask(one.mask), "ship")
    (item,) = (item for item in workspace.items(one.photo) if item.confirmed)
    workspace.rename(one.photo, replace(item, annotation=None), "boat")  # is a boat, is no ship
    workspace.rename_class("boat", "ship")
    assert [(said.label, said.verdict) for said in workspace.said(one.photo)] == [("ship", "right")]


@pytest.mark.parametrize("value", [float("nan"), True, 2, "0.5"])
def test_what_a_project_could_not_be_opened_with_is_not_written(value: Any, workspace: Workspace) -> None:
    with pytest.raises(UserError, match="the threshold must be a number"):
        workspace.set_threshold("boat", value)
    with pytest.raises(UserError, match="was removed"):
        workspace.forget(value)


def test_a_copied_photo_counts_as_the_photo(workspace: Workspace, references: list[Reference], tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    shutil.copy(references[0].image, copy)
    one = Reference(references[0].label, copy, references[0].mask)
    annotations, others = take_annotations([one], photos_of(workspace), workspace.segmenter)
    assert ([one.photo for one in annotations], others) == ([references[0].image.name], [])


def test_thresholds_are_automatic_and_chosen_ones_stay(workspace: Workspace, annotations: list[Annotation]) -> None:
    photos_by_class: dict[str, set[str]] = {}
    for one in annotations:
        photos_by_class.setdefault(one.label, set()).add(one.photo)
    several = {label for label, photos in photos_by_class.items() if len(photos) > 1}
    workspace.confirm(annotations[:1], SOURCE)
    settle(workspace)
    assert workspace.automatic == {}, "one reference shows nothing"
    assert workspace.thresholds.of(annotations[0].label) == workspace.score
    workspace.confirm(annotations, SOURCE)
    settle(workspace)
    assert workspace.automatic
    assert workspace.automatic.keys() <= several
    label, score = next(iter(workspace.automatic.items()))
    assert workspace.thresholds.of(label) == score
    workspace.set_threshold(label, round(score, 2))
    assert workspace.project.thresholds == {}, "a slider that stays where it is says nothing"
    workspace.set_threshold(label, 0.97)
    assert workspace.thresholds.of(label) == 0.97
    workspace.undo()
    workspace.undo()
    settle(workspace)
    assert workspace.automatic == {}
    workspace.redo()
    workspace.redo()
    settle(workspace)
    assert workspace.thresholds.of(label) == 0.97
    workspace.set_threshold(label, None)
    assert workspace.thresholds.of(label) == score


def test_references_in_photos_in_which_nothing_is_proposed_stop_no_search(
    workspace: Workspace, references: list[Reference], folder: Path
) -> None:
    workspace.segmenter.segmenter.proposer.pred_iou_thresh = 1.0
    annotations, _ = take_annotations(references, photos_of(workspace), workspace.segmenter)
    workspace.confirm(annotations, folder)
    settle(workspace)
    assert (workspace.search.problem, workspace.automatic) == ("", {})


def test_loaded_classes_keep_the_default(workspace: Workspace, references: list[Reference], tmp_path: Path) -> None:
    workspace.segmenter.add_references(references)
    loaded = Workspace(workspace.segmenter, photos_of(workspace), Videos({}), tmp_path / "other")
    try:
        settle(loaded)
        assert loaded.automatic == {}
        assert len(loaded.classes) > 1
    finally:
        loaded.search.close()


def test_many_photos_are_shown_in_parts_and_only_what_changed_is_sent(start: Start, tmp_path: Path) -> None:
    for number in range(AT_ONCE + 2):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    many = start([tmp_path], tmp_path / "app")
    actions, shelf, skip = actions_of(many, tmp_path / "app"), Shelf(), [gr.skip()] * 5
    lists = actions.lists
    gallery, text, back, more, _ = lists.update(shelf, "000.png")
    assert (gallery["value"].count("<img"), text["value"]) == (AT_ONCE, f"1 to {AT_ONCE} of {AT_ONCE + 2}")
    assert re.findall("data-photo='([^']*)' aria-current", gallery["value"]) == ["000.png"]
    assert (back["interactive"], more["interactive"]) == (False, True)
    deadline = time.monotonic() + 60
    while lists.thumbnails.made < AT_ONCE and time.monotonic() < deadline:
        time.sleep(0.01)
    gallery, *_ = lists.update(shelf, "000.png")
    assert re.findall(r"(\d+)\.jpg'", gallery["value"]) == [f"{number:03}" for number in range(AT_ONCE)]
    assert lists.update(shelf, "000.png") == skip
    gallery, text, *_ = lists.update(shelf, f"{AT_ONCE:03}.png")
    assert re.findall(r"<span>(.*?)</span>", gallery["value"]) == [f"{AT_ONCE + number:03}.png" for number in range(2)]
    assert text["value"] == f"{AT_ONCE + 1} to {AT_ONCE + 2} of {AT_ONCE + 2}", "the open photo is brought into view"
    _, text, *_ = actions.turn(View(f"{AT_ONCE + 1:03}.png"), shelf, by=-1)
    assert text["value"] == f"1 to {AT_ONCE} of {AT_ONCE + 2}", "the person's turn counts more"
    gallery, *_ = actions.sort(View("000.png"), shelf, "name", " 06")
    assert re.findall("data-photo='([^']*)'", gallery["value"]) == ["006.png", "060.png", "061.png"]
    assert actions.act(View("061.png"), shelf, event(1, "step", 1))[0].photo == "006.png"


def test_a_photo_is_drawn_once_more_after_it_was_opened(workspace: Workspace, tmp_path: Path) -> None:
    """An answer about the photo that was open before may come late, and would otherwise stay."""
    actions, shelf = actions_of(workspace, tmp_path), Shelf()
    view, scene, *_ = actions.load(View())
    assert actions.tick(view, shelf)[0] == scene
    assert actions.tick(view, shelf)[:2] == [gr.skip()] * 2


@pytest.mark.parametrize("steps", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_random_steps_of_four_clients_end_with_every_photo_searched_and_no_step_lost(
    workspace: Workspace, annotations: list[Annotation], steps: int
) -> None:
    workspace.confirm(annotations, SOURCE)
    workspace.search.start()
    labels = sorted({one.label for one in annotations})

    def client(seed: int) -> int:
        random, done = Random(seed), 0
        for _ in range(steps // 4):
            name = random.choice(list(workspace.photos))
            items, before = workspace.items(name), workspace.project.version
            way = random.choice(["right", "wrong", "remove", "rename", "undo", "redo", "show", "show", "threshold"])
            if way in ("undo", "redo"):
                getattr(workspace, way)()
            elif way == "show":
                one = random.choice(annotations)
                mask = np.roll(decode_mask(one.mask), random.randrange(40), axis=(0, 1))  # the networks look at it
                workspace.show(one.photo, mask, random.choice(labels))
            elif way == "threshold":
                workspace.set_threshold(random.choice(labels), random.random())
            elif items:
                label = [random.choice(labels)] if way == "rename" else []
                getattr(workspace, way)(name, random.choice(items), *label)
            done += workspace.project.version > before
        return done

    with ThreadPoolExecutor(4) as clients:
        assert sum(clients.map(client, range(4))) > steps // 2
    settle(workspace)
    assert workspace.search.thread.is_alive()
    assert workspace.search.problem == ""
    assert {photo.memory for photo in workspace.photos.values()} == {workspace.search.memory}
    again = Project(workspace.project.path)
    assert list(again.annotations.values()) == list(workspace.project.annotations.values())


def test_a_failure_that_nobody_foresaw_is_shown_and_the_search_goes_on(
    workspace: Workspace, annotations: list[Annotation], monkeypatch: Patch
) -> None:

    monkeypatch.setattr("no_time_to_train_extras.app.search.PAUSE", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(workspace.finder, "measure", Mock(side_effect=ValueError("zip() argument 2 is shorter")))
        workspace.confirm(annotations, SOURCE)
        settle(workspace)
        wait_for(workspace, lambda: "zip() argument" in workspace.search.problem)
    workspace.undo()
    settle(workspace)
    assert workspace.search.thread.is_alive()
    wait_for(workspace, lambda: not workspace.search.problem)


def test_a_full_disk_marks_no_photo_and_the_search_goes_on_with_room(workspace: Workspace, monkeypatch: Patch) -> None:
    full = UserError("the cache cannot be written: No space left on device")
    monkeypatch.setattr("no_time_to_train_extras.app.search.PAUSE", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(workspace.search.cache, "write", Mock(side_effect=full))
        workspace.search.start()
        wait_for(workspace, lambda: "No space left" in workspace.search.problem)
    settle(workspace)
    assert [photo.problem for photo in workspace.photos.values()] == [""] * PHOTOS
    assert workspace.search.problem == ""


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A folder of photos that a test may change."""
    return shutil.copytree(folder / "images", tmp_path / "own")


def test_what_is_no_file_among_the_photos_is_named_and_the_others_are_searched(start: Start, own: Path) -> None:
    os.mkfifo(own / "a pipe.png")
    (own / "a device.png").symlink_to("/dev/zero")
    (own / "a loop.png").symlink_to(own / "a loop.png")
    found = start([own], own.parent / "other")
    one = Reference("boat", sorted(own.glob("0*.png"))[0], box=(10, 10, 60, 60))
    assert len(take_annotations([one], photos_of(found), found.segmenter)[0]) == 1
    settle(found)
    problems = {name: photo.problem for name, photo in found.photos.items() if photo.problem}
    assert problems.keys() >= {"a pipe.png", "a device.png"}
    assert all(name in problem for name, problem in problems.items())
    assert sum(photo.proposed for photo in found.photos.values()) == PHOTOS


def confirmed_elsewhere(start: Start, references: list[Reference], own: Path) -> tuple[Workspace, list[Annotation]]:
    """Another workspace, whose photos are a folder's, in which references are confirmed and everything was searched."""
    found = start([own], own.parent / "other")
    annotations, _ = take_annotations(references, photos_of(found), found.segmenter)
    found.confirm(annotations, own)
    settle(found)
    return found, annotations


@pytest.mark.parametrize("damage", ["removed", "cut off", "smaller"])
def test_a_photo_that_is_damaged_after_the_search_is_left_out_of_the_export_by_name(
    start: Start, references: list[Reference], own: Path, damage: str
) -> None:
    found, annotations = confirmed_elsewhere(start, references, own)
    bad = own / annotations[0].photo
    content = bad.read_bytes()
    bad.unlink()
    if damage == "cut off":
        bad.write_bytes(content[: len(content) // 2])
    elif damage == "smaller":
        Image.new("RGB", (90, 70)).save(bad)
    summary = export(found, own.parent / "results")
    assert summary.images == PHOTOS - 1
    assert len(summary.skipped) == 1
    assert bad.name in summary.skipped[0]


def test_a_photo_that_is_replaced_is_searched_again_and_shows_no_annotation_of_the_old_one(
    start: Start, references: list[Reference], own: Path
) -> None:
    found, annotations = confirmed_elsewhere(start, references, own)
    changed = own / annotations[0].photo
    Image.new("RGB", (90, 70)).save(changed)
    with pytest.raises(UserError, match="has changed"):
        found.search.read(changed.name)
    settle(found)
    assert not any(item.confirmed for item in found.items(changed.name))
    assert export(found, own.parent / "results").images == PHOTOS


def test_a_photo_that_is_replaced_is_noticed_when_it_is_annotated_or_opened(
    start: Start, references: list[Reference], own: Path
) -> None:
    found, (annotation, *_) = confirmed_elsewhere(start, references, own)
    name, mask = annotation.photo, decode_mask(annotation.mask)
    Image.new("RGB", (90, 70)).save(own / name)
    with pytest.raises(UserError, match=f"{name} has changed: it is searched again"):
        found.show(name, mask, "boat")
    settle(found)
    Image.new("RGB", (80, 60)).save(own / name)
    found.search.open(name)
    assert found.opened.pixels(name).shape == (60, 80, 3)


def test_a_photo_that_was_copied_in_part_is_searched_when_the_rest_has_come_and_it_is_annotated_or_exported(
    start: Start, references: list[Reference], own: Path
) -> None:
    found, (annotation, *_) = confirmed_elsewhere(start, references, own)
    name, mask = annotation.photo, decode_mask(annotation.mask)
    content = (own / name).read_bytes()

    def break_off() -> None:
        (own / name).write_bytes(content[:999])
        found.search.open(name)
        settle(found)
        assert found.photos[name].problem
        (own / name).write_bytes(content)

    break_off()
    with pytest.raises(UserError, match=f"{name} has changed: it is searched again"):
        found.show(name, mask, "boat")
    settle(found)
    assert not found.photos[name].problem
    break_off()
    assert export(found, own.parent / "results").skipped
    settle(found)
    assert not export(found, own.parent / "results").skipped


def test_a_program_gets_the_scores_after_a_step_before_the_search_has_come_to_the_photo(
    workspace: Workspace, annotations: list[Annotation], tmp_path: Path
) -> None:
    endpoints, name = Endpoints(workspace, Exports(workspace, tmp_path)), annotations[-1].photo
    workspace.confirm(annotations[:1], SOURCE)
    workspace.set_threshold(annotations[0].label, 0.05)
    settle(workspace)
    before = endpoints.objects(name)
    workspace.confirm(annotations[1:], SOURCE)
    settle(workspace)
    assert endpoints.objects(name) != before
    workspace.search.run(False)  # as where it is still at other photos
    workspace.undo()
    assert endpoints.objects(name) == before


def test_the_temporary_folder_of_an_app_that_was_killed_is_removed_at_the_next_start_on_its_project(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    killed, other = map(temporary_folder, folders)
    Path(killed.name, "photo.jpg").touch()
    with temporary_folder(folders[0]) as place:
        assert {*tmp_path.iterdir()} == {*folders, Path(other.name), Path(place)}


def test_an_export_right_after_a_step_has_its_results_and_names_photos_that_were_not_searched(
    workspace: Workspace, annotations: list[Annotation], folder: Path, tmp_path: Path
) -> None:
    workspace.confirm(annotations[:1], SOURCE)
    settle(workspace)
    workspace.search.run(False)  # as where it is still at other photos
    workspace.confirm(annotations[1:], SOURCE)
    new = workspace.search.add(shutil.copy(folder / "images/000001.png", tmp_path / "new.png"), "new.png")
    assert export(workspace, tmp_path / "now").skipped == [f"{new}: not searched yet"]
    workspace.search.run(True)
    settle(workspace)
    export(workspace, tmp_path / "later")
    now, later = (json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("now", "later"))
    assert now == [record for record in later if record["image_id"] <= PHOTOS]  # the new photo is the last one


def test_a_photo_replaced_while_it_is_read_leaves_no_masks_of_the_old_one(start: Start, own: Path) -> None:
    found = start([own], own.parent / "other")
    name, *_ = found.photos
    target = found.photos[name].target
    old = found.search.cache.key(target.path)

    def read() -> NDArray[np.uint8]:
        Image.new("RGB", (90, 70)).save(target.path)
        return target.read()

    found.photos[name].target = replace(target, read=read)
    settle(found)
    assert found.search.cache.read(old) is None
    assert found.search.cache.read(found.search.cache.key(target.path)).width == 90


def test_annotations_follow_the_content_of_a_photo_to_its_name_at_the_next_start(
    start: Start, references: list[Reference], own: Path, tmp_path: Path
) -> None:
    out = tmp_path / "project"
    first = start([own], out)
    annotations, _ = take_annotations(references, photos_of(first), first.segmenter)
    shown = annotations[0]
    first.confirm([shown], own)
    before = tmp_path / "before" / shown.photo
    before.parent.mkdir()
    Image.new("RGB", (90, 70)).save(before)
    again = start([before.parent, own], out)
    (place,) = {name for name in again.photos if any(item.confirmed for item in again.items(name))}
    assert place != shown.photo
    assert again.photos[place].target.path == own / shown.photo
    (own / shown.photo).rename(own / "renamed.png")
    (own / "renamed.png").rename(tmp_path / "away.png")
    without = start([before.parent, own], out)
    assert confirmed(without) == 0
    assert without.classes == [shown.label], "its vector is known"
    (out / "shots.memory").unlink()
    lost = start([before.parent, own], out)
    assert lost.classes == []
    with pytest.raises(UserError, match=f"1 annotation not shown: {shown.photo} is not here, or has changed"):
        export(lost, tmp_path / "results")
    (tmp_path / "away.png").rename(own / "back.png")
    back = start([before.parent, own], out)
    assert [item.confirmed for item in back.items("back.png")] == [True]


def test_a_project_of_an_earlier_version_keeps_its_annotations(
    start: Start, references: list[Reference], own: Path
) -> None:
    out = own.parent / "project"
    first = start([own], out)
    first.confirm(take_annotations(references, photos_of(first), first.segmenter)[0], own)
    content = json.loads((out / "project.json").read_text())
    for one in content["steps"][0]["add"]:
        del one["content"]
    (out / "project.json").write_text(json.dumps(content))
    assert confirmed(start([own], out)) == confirmed(first) == len(references)


def test_three_hundred_objects_of_a_photo_are_exported(workspace: Workspace, tmp_path: Path) -> None:
    name, *_ = workspace.photos
    height, width = workspace.opened.pixels(name).shape[:2]
    places = [(y, x) for y in range(0, height - 8, 16) for x in range(0, width - 8, 16)][:300]
    annotations = []
    for y, x in places:
        mask = np.zeros((height, width), bool)
        mask[y : y + 8, x : x + 8] = True
        annotations.append(Annotation(0, name, "tile", encode_mask(mask), reference=not annotations))
    workspace.confirm(annotations, SOURCE)
    settle(workspace)
    export(workspace, tmp_path / "results", list(FORMATS))
    with Image.open(tmp_path / "results" / "masks" / f"{Path(name).stem}.png") as masks:
        assert len(np.unique(masks)) > 256


@pytest.fixture
def exports(workspace: Workspace, annotations: list[Annotation], tmp_path: Path) -> Exports:
    """The exports of photos that were searched, with confirmed objects."""
    workspace.confirm(annotations, SOURCE)
    settle(workspace)
    return Exports(workspace, tmp_path / "results")


def test_what_is_downloaded_has_the_formats_that_were_asked_for_whoever_exported_last(exports: Exports) -> None:
    exports.update(["yolo"])
    exports.write(["voc"])  # as a program does by the endpoint
    exports.update(["yolo"])
    assert (exports.out / "yolo").is_dir()
    assert not (exports.out / "voc").exists()


def test_exports_at_once_wait_for_each_other(exports: Exports) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert [one.images for one in pool.map(exports.write, [["yolo"], ["voc"]])] == [PHOTOS, PHOTOS]


def test_an_export_that_was_killed_can_be_repeated(
    workspace: Workspace, annotations: list[Annotation], tmp_path: Path, monkeypatch: Patch
) -> None:
    workspace.confirm(annotations, SOURCE)
    settle(workspace)
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "finish", Mock(side_effect=KeyboardInterrupt))
        patch.setattr("shutil.rmtree", Mock())  # a process that is killed removes nothing
        with pytest.raises(KeyboardInterrupt):
            export(workspace, tmp_path / "results")
    assert export(workspace, tmp_path / "results").images == PHOTOS


def test_photos_of_one_name_that_are_added_at_once_are_all_kept_and_replace_no_other(
    start: Start, own: Path, tmp_path: Path
) -> None:
    (own / "uploads").mkdir()
    Image.new("RGB", (99, 77)).save(own / "uploads" / "photo.png")
    found = start([own], tmp_path / "project")
    (tmp_path / "project" / "uploads").mkdir()
    actions = actions_of(found, tmp_path / "project")
    files = [tmp_path / str(number) / "photo.png" for number in range(16)]
    for number, file in enumerate(files):
        file.parent.mkdir()
        Image.new("RGB", (20 + number, 20)).save(file)
    with ThreadPoolExecutor(8) as browsers:
        list(browsers.map(lambda file: actions.add_photos(View(), [str(file)]), files))
    added = {name: photo.target.read().shape[1] for name, photo in found.photos.items() if name.startswith("uploads/")}
    assert sorted(added.values()) == [*range(20, 36), 99]
    assert added["uploads/photo.png"] == 99


def test_an_unreadable_photo_has_the_reason_in_its_title(start: Start, own: Path, tmp_path: Path) -> None:
    (own / "000000.png").write_text("no image")
    found = start([own], tmp_path / "project")
    scene = json.loads(actions_of(found, tmp_path).load(View())[1])
    assert (scene["photo"], scene["url"]) == ("000000.png", None)
    assert "cannot be read" in scene["hint"]


def test_a_color_that_was_chosen_is_that_of_the_export_and_stays_where_this_is_filtered(
    workspace: Workspace, annotations: list[Annotation], tmp_path: Path
) -> None:
    workspace.confirm(annotations, SOURCE)
    settle(workspace)
    out, first = tmp_path / "results", workspace.classes[0]

    def colors() -> tuple[str, int]:
        """The color of the class in the gallery, and how many pixels of the overlays nearly have the chosen one."""
        of_class = {one["name"]: one["color"] for one in gallery_data(out / "index.html")["classes"]}
        pictures = [read_rgb(path).astype(int) for path in (out / "overlays").rglob("*.jpg")]
        return of_class[first], sum(int((abs(one - (255, 0, 255)).max(axis=2) < 40).sum()) for one in pictures)

    export(workspace, out)
    usual, before = colors()
    workspace.set_color(first, "#ff00ff")
    export(workspace, out)
    exported = colors()
    assert usual != exported[0] == "#ff00ff"
    assert exported[1] > before + 100
    main(["results", "filter", str(out), "--threshold", "0.5"])
    assert colors() == exported


def test_a_renamed_class_keeps_what_it_has_and_one_that_it_joins_has_its_own(
    workspace: Workspace, annotations: list[Annotation]
) -> None:
    workspace.confirm(annotations, SOURCE)
    (first, second, *others), count = before, _ = list(workspace.classes), confirmed(workspace)
    workspace.set_threshold(first, 0.25)
    workspace.set_threshold(second, 0.75)
    for label in (first, "no class"):
        workspace.set_color(label, "#ff0080")
    workspace.rename_class(first, "new name")
    assert (workspace.classes, confirmed(workspace)) == (["new name", second, *others], count)
    assert (workspace.thresholds.of("new name"), workspace.project.colors) == (0.25, {"new name": "#ff0080"})
    workspace.rename_class("new name", second)
    assert (workspace.classes, confirmed(workspace)) == ([second, *others], count), "the two are one class"
    assert (workspace.project.thresholds, workspace.project.colors) == ({second: 0.75}, {})
    workspace.undo()
    with pytest.raises(UserError, match="'pink' is no color"):
        workspace.set_color("new name", "pink")
    assert workspace.project.colors == {"new name": "#ff0080"}
    workspace.undo()
    assert workspace.classes == before
    workspace.loaded = workspace.segmenter.memory
    with pytest.raises(UserError, match="memory file"):
        workspace.rename_class(first, "new name")


def test_a_reviewed_photo_stays_reviewed_under_any_name(workspace: Workspace) -> None:
    first, second, *_ = list(workspace.photos)
    workspace.review(first)
    assert workspace.ordered("review") == sorted(workspace.photos, key=lambda name: name == first)
    again = Project(workspace.project.path)
    assert again.reviewed == {workspace.search.content(first)}
    workspace.review(first)
    assert not workspace.is_reviewed(first)
    assert workspace.undo() == f"{first}: not reviewed"
    assert [workspace.is_reviewed(name) for name in (first, second)] == [True, False]


def test_a_photo_with_as_many_objects_as_are_found_at_most_says_so(
    workspace: Workspace, annotations: list[Annotation], tmp_path: Path
) -> None:
    segmenter = workspace.segmenter.segmenter
    segmenter.settings = replace(segmenter.settings, max_instances=2)
    workspace.confirm(annotations[:1], SOURCE)
    workspace.set_threshold(annotations[0].label, 0.05)
    settle(workspace)
    full = [name for name in workspace.photos if workspace.shown(name).full]
    assert full
    assert "--max-instances" in json.loads(actions_of(workspace, tmp_path).scene(View(full[0])))["hint"]


def test_unused_pictures_and_uploads_are_removed_and_sooner_if_many(tmp_path: Path, monkeypatch: Patch) -> None:
    app = guarded_app.GuardedApp("127.0.0.1", tmp_path, lambda name, values: "")
    ages = {"shown/image.jpg": 70, "new/image.jpg": 5, "upload/a.png": 70, "upload/old.png": 700}
    for name, age in {**ages, "thumbnails/b.jpg": 700}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    app.blocks = Mock(upload_file_set={str(tmp_path / "upload" / name) for name in ("a.png", "old.png")})
    app.remove_old()
    left = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.*"))]
    assert left == ["new/image.jpg", "thumbnails/b.jpg", "upload/a.png"]
    app.looked = 0
    monkeypatch.setattr(guarded_app, "LARGEST_TEMPORARY", 300)
    app.remove_old()
    assert not (tmp_path / "upload" / "a.png").exists()


def test_the_search_never_sees_a_step_without_the_memory_that_follows_from_it(
    workspace: Workspace, annotations: list[Annotation], monkeypatch: Patch
) -> None:
    labels = [one.label for one in annotations]
    several = max(labels, key=labels.count)
    workspace.confirm([next(one for one in annotations if one.label == several)], SOURCE)
    settle(workspace)
    learn = workspace.learn
    with ThreadPoolExecutor(1) as search:

        def slowly() -> None:
            found.append(search.submit(workspace._find_thresholds))
            wait(found, timeout=0.3)
            learn()

        found: list[Future[None]] = []
        monkeypatch.setattr(workspace, "learn", slowly)
        workspace.confirm(annotations, SOURCE)
    assert [one.exception() for one in found] == [None]


def test_a_program_gets_what_the_page_shows_and_keeps_the_memory_with_which_it_asked(
    workspace: Workspace, annotations: list[Annotation]
) -> None:
    shown = annotations[0]
    workspace.do("shown", [shown])
    service = PageService(workspace)
    memory = service.memory(None)
    settle(workspace)
    other = next(photo.target for photo in workspace.photos.values() if photo.target.name != shown.photo)
    scores = sorted(item.score for item in workspace.photos[other.name].found)
    workspace.set_threshold(shown.label, (scores[-3] + scores[-2]) / 2)
    uploads = [Upload("", other.path.read_bytes())]

    def find(threshold: float | None) -> list:
        ((_, found),) = service.segment(uploads, memory, threshold)
        return sorted(encode_mask(one.mask)["counts"] for one in found)

    assert find(None) == sorted(item.mask["counts"] for item in workspace.items(other.name))
    assert len(find(None)) == 2
    every = find(0)
    workspace.undo()
    workspace.undo()
    assert (find(0), workspace.classes, service.known()) == (every, [], {})
