"""The app without a browser: references that are objects in the photos, and lowest scores that nobody has to choose."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.app.photos import Thumbnails, find_photos
from no_time_to_train.app.project import Annotation, Project
from no_time_to_train.app.references import take_annotations
from no_time_to_train.app.view import View
from no_time_to_train.app.workspace import Workspace
from no_time_to_train.data.reference_forms import Reference, find_references
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.method.settings import Settings

#: The photos, and the seed that draws them.
PHOTOS, SEED = 3, 777


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_coco(folder, NOVEL_CLASSES, PHOTOS, SEED)
    return folder


@pytest.fixture(scope="module")
def references(folder: Path) -> list[Reference]:
    return find_references(folder / "instances.json").references


@pytest.fixture
def workspace(folder: Path, tmp_path: Path) -> Iterator[Workspace]:
    segmenter = ReferenceSegmenter.from_pretrained("nano", device="cpu", settings=Settings(points_per_side=12))
    photos = find_photos([str(folder / "images")], tmp_path / "uploads", tmp_path)
    found = Workspace(segmenter, photos, tmp_path / "app")
    yield found
    found.search.close()


def settle(workspace: Workspace) -> None:
    """Wait until all photos are ranked with the present memory, and the lowest scores were looked for."""
    search = workspace.search
    if search.thread.ident is None:
        search.start()
    with search.state:
        assert search.state.wait_for(lambda: search.settled == search.memory and search.progress().done, 120)


def photos_of(workspace: Workspace) -> list:
    return [photo.target for photo in workspace.photos.values()]


def confirmed(workspace: Workspace) -> int:
    return sum(item.confirmed for name in workspace.photos for item in workspace.items(name))


def test_references_in_the_photos_are_confirmed_in_one_step_and_the_others_stay_references(
    workspace: Workspace, references: list[Reference], folder: Path, tmp_path: Path
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
    workspace.confirm(annotations, folder / "instances.json")
    assert confirmed(workspace) == len(references) + 1
    assert workspace.project.next_undo == f"{len(references) + 1} references of instances.json"
    workspace.undo()
    assert (confirmed(workspace), workspace.classes) == (0, [])
    workspace.confirm(annotations, folder / "instances.json")
    assert confirmed(workspace) == 0, "the person took them back"


def test_what_the_person_said_about_an_object_counts_more_than_a_reference(
    workspace: Workspace, references: list[Reference], folder: Path
) -> None:
    annotations, _ = take_annotations(references, photos_of(workspace), workspace.segmenter)
    workspace.do("gravel: shown", [Annotation(0, annotations[0].photo, "gravel", annotations[0].mask)])
    workspace.confirm(annotations, folder)
    assert workspace.items(annotations[0].photo)[0].label == "gravel"
    assert confirmed(workspace) == len(references)


def test_a_copy_of_a_photo_counts_as_the_photo(
    workspace: Workspace, references: list[Reference], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.png"
    shutil.copy(references[0].image, copy)
    one = Reference(references[0].label, copy, references[0].mask)
    annotations, others = take_annotations([one], photos_of(workspace), workspace.segmenter)
    assert ([one.photo for one in annotations], others) == ([references[0].image.name], [])


def test_lowest_scores_begin_at_the_automatic_ones_and_a_chosen_one_stays(
    workspace: Workspace, references: list[Reference], folder: Path
) -> None:
    annotations, _ = take_annotations(references, photos_of(workspace), workspace.segmenter)
    photos_by_class: dict[str, set[str]] = {}
    for one in annotations:
        photos_by_class.setdefault(one.label, set()).add(one.photo)
    several = {label for label, photos in photos_by_class.items() if len(photos) > 1}
    workspace.confirm(annotations[:1], folder)
    settle(workspace)
    assert workspace.automatic == {}, "one reference shows nothing"
    assert workspace.thresholds.of(annotations[0].label) == workspace.score
    workspace.confirm(annotations, folder)
    settle(workspace)
    assert workspace.automatic
    assert workspace.automatic.keys() <= several
    label, score = next(iter(workspace.automatic.items()))
    assert workspace.thresholds.of(label) == score
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


def test_classes_that_were_loaded_keep_the_default_score(
    workspace: Workspace, references: list[Reference], folder: Path, tmp_path: Path
) -> None:
    workspace.segmenter.add_references(references)
    loaded = Workspace(workspace.segmenter, photos_of(workspace), tmp_path / "other")
    try:
        settle(loaded)
        assert loaded.automatic == {}
        assert len(loaded.classes) > 1
    finally:
        loaded.search.close()


def test_many_photos_are_shown_in_parts_and_nothing_is_sent_where_nothing_changed(
    workspace: Workspace, tmp_path: Path
) -> None:
    gr = pytest.importorskip("gradio", reason="the app's extra is not installed")
    from no_time_to_train.app.actions import Actions
    from no_time_to_train.app.lists import AT_ONCE, Lists, Shelf

    for number in range(AT_ONCE + 2):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    many = Workspace(
        workspace.segmenter, find_photos([str(tmp_path)], tmp_path / "app", tmp_path / "app"), tmp_path / "app"
    )
    thumbnails = Thumbnails(tmp_path / "app" / "thumbnails", many.photos)
    lists, shelf, skip = Lists(many, thumbnails), Shelf(), [gr.skip()] * 5
    gallery, text, back, more, _ = lists.update(shelf, "000.png")
    assert (len(gallery["value"]), text["value"]) == (AT_ONCE, f"1 to {AT_ONCE} of {AT_ONCE + 2}")
    assert (gallery["selected_index"], back["interactive"], more["interactive"]) == (0, False, True)
    deadline = time.monotonic() + 60
    while thumbnails.made < AT_ONCE and time.monotonic() < deadline:
        time.sleep(0.01)
    gallery, *_ = lists.update(shelf, "000.png")
    assert {Path(file).name for file, _ in gallery["value"]} == {f"{number:03}.jpg" for number in range(AT_ONCE)}
    assert lists.update(shelf, "000.png") == skip
    gallery, text, *_ = lists.update(shelf, f"{AT_ONCE:03}.png")
    assert [caption for _, caption in gallery["value"]] == [f"{AT_ONCE + number:03}.png" for number in range(2)]
    assert text["value"] == f"{AT_ONCE + 1} to {AT_ONCE + 2} of {AT_ONCE + 2}", "the open photo is brought into view"
    _, text, *_ = Actions(many, lists, folder, folder).turn(View(f"{AT_ONCE + 1:03}.png"), shelf, by=-1)
    assert text["value"] == f"1 to {AT_ONCE} of {AT_ONCE + 2}", "the person's turn counts more"
    many.search.close()


def test_a_photo_is_drawn_once_more_after_it_was_opened(workspace: Workspace, tmp_path: Path) -> None:
    """An answer about the photo that was open before may come late, and would otherwise stay."""
    gr = pytest.importorskip("gradio", reason="the app's extra is not installed")
    from no_time_to_train.app.actions import Actions
    from no_time_to_train.app.lists import Lists, Shelf

    lists, shelf = Lists(workspace, Thumbnails(tmp_path / "thumbnails", workspace.photos)), Shelf()
    actions = Actions(workspace, lists, tmp_path, tmp_path)
    view, title, *_ = actions.open(next(iter(workspace.photos)))
    assert actions.tick(view, shelf)[0] == title
    assert actions.tick(view, shelf)[:2] == [gr.skip()] * 2


@pytest.mark.parametrize("steps", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_random_steps_of_four_clients_end_with_every_photo_searched_and_no_step_lost(
    workspace: Workspace, references: list[Reference], folder: Path, steps: int
) -> None:
    annotations, _ = take_annotations(references, photos_of(workspace), workspace.segmenter)
    workspace.confirm(annotations, folder)
    workspace.search.start()
    labels = sorted({one.label for one in annotations})

    def client(seed: int) -> int:
        random, done = Random(seed), 0
        for _ in range(steps // 4):
            name = random.choice(list(workspace.photos))
            items, before = workspace.items(name), workspace.project.version
            way = random.choice(["right", "wrong", "remove", "rename", "undo", "redo", "show", "threshold"])
            if way in ("undo", "redo"):
                getattr(workspace, way)()
            elif way == "show":
                one = random.choice(annotations)
                workspace.show(one.photo, decode_mask(one.mask), random.choice(labels))
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
