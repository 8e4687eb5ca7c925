"""``segment`` and ``filter`` that are killed, fail, run twice at once, or resume after something has changed."""

import os
import shutil
import signal
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from no_time_to_train.data.targets import find_targets
from no_time_to_train.errors import UserError
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.settings import SPEED_SETTINGS, Settings
from no_time_to_train.pipeline import replace_folder
from no_time_to_train.pipeline.filter_results import filter_results
from no_time_to_train.pipeline.output_folder import OutputFolder
from no_time_to_train.pipeline.replace_folder import new_output, output_of_run
from no_time_to_train.pipeline.segment_images import segment_images
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train_extras.app.app_command import photos_of
from tests.conftest import Patch
from tests.stand_in import StandIn, files_of, run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (40, 30), (60 * index, 90, 30)).save(folder / f"{index}.png")
    return folder


#: Functions at one of whose calls a run is killed, whether or not it replaces results.
MOMENTS = [(StandIn, "propose", 1), (StandIn, "propose", 3), (OutputFolder, "add", 2), (OutputFolder, "finish", 1),
           (Path, "replace", 12)]  # fmt: skip


def killed(work: Callable[[], object]) -> None:
    """Do some work in a process of its own, which must be killed by it."""
    process = os.fork()
    if not process:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def kill_at(monkeypatch: Patch, owner: object, name: str, call: int = 1) -> None:
    """Kill the process at a call of a function."""
    function, calls = getattr(owner, name), iter(range(1, 1000))

    def counted(*arguments: object, **options: object) -> object:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize(
    ("owner", "name", "call", "overwrite"),
    [
        *((*moment, overwrite) for moment in MOMENTS for overwrite in (False, True)),
        (replace_folder, "replace_durably", 1, True),
        (replace_folder, "replace_durably", 2, True),
        (shutil, "rmtree", 4, True),
    ],
)
def test_a_killed_run_changes_no_results_and_can_be_finished(
    owner: object, name: str, call: int, overwrite: bool, photos: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    out, fresh = tmp_path / "first/out", tmp_path / "fresh/out"
    run(fresh, photos, StandIn(["coin"]))
    if overwrite:
        run(out, photos)
        before = files_of(out)
    with monkeypatch.context() as patch:
        kill_at(patch, owner, name, call)
        killed(lambda: run(out, photos, StandIn(["coin"]), overwrite=overwrite))
    if overwrite and out.exists():
        assert files_of(out) in (before, files_of(fresh))
    run(out, photos, StandIn(["coin"]), overwrite=True)
    assert files_of(out) == files_of(fresh)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_killed_filter_changes_nothing_and_the_next_one_removes_what_it_left(
    photos: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    out = tmp_path / "first/out"
    run(out, photos)
    before = files_of(out)
    with monkeypatch.context() as patch:
        kill_at(patch, OutputFolder, "finish")
        killed(lambda: filter_results(out, out, 0.2, (), (), True))
    assert files_of(out) == before
    assert len(list(out.parent.iterdir())) > 1
    filter_results(out, out, 0.2, (), (), True)
    run(tmp_path / "fresh/out", photos, score=0.2)
    assert files_of(out) == files_of(tmp_path / "fresh/out")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(("text", "number"), [("", signal.SIGINT), ("SIGTERM", signal.SIGTERM)])
def test_a_run_on_several_devices_knows_which_signal_ended_it(
    text: str, number: signal.Signals, photos: Path, tmp_path: Path
) -> None:
    share = Mock(side_effect=KeyboardInterrupt(*filter(None, [text])))
    segmenter, targets = StandIn(), find_targets([str(photos)], 1)
    assert segment_images(segmenter, targets, tmp_path / "out", Thresholds(), share=share).interrupted == number


@pytest.mark.parametrize("overwrite", [False, True])
def test_ctrl_c_after_the_results_are_complete_does_not_call_them_unfinished(
    overwrite: bool, photos: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    run(out := tmp_path / "first/out", photos)
    removed, ending = [], ".old" if overwrite else ".run"

    def interrupted(path: Path, ignore_errors: bool) -> None:
        if path.name.endswith(ending) and path.exists() and path not in removed:
            removed.append(path)
            raise KeyboardInterrupt
        rmtree(path, ignore_errors)

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", interrupted)
    out = out if overwrite else tmp_path / "second/out"
    assert not run(out, photos, StandIn(["coin"]), overwrite=overwrite).interrupted
    assert removed
    run(out, photos, StandIn(["coin"]), overwrite=True)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_results_that_were_copied_without_their_photos_say_what_is_missing(photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", photos)
    shutil.copytree(tmp_path / "out", tmp_path / "elsewhere/far/out")
    with pytest.raises(UserError, match=r"image not found: .*0\.png; images\.json names photos by paths from its own"):
        filter_results(tmp_path / "elsewhere/far/out", tmp_path / "new", 0.2, (), (), False)
    with pytest.raises(UserError, match=r"image not found: .*0\.png; images\.json names photos by paths from its own"):
        photos_of(tmp_path / "elsewhere/far/out")
    shutil.copytree(photos, tmp_path / "elsewhere/far/photos")
    filter_results(tmp_path / "elsewhere/far/out", tmp_path / "new", 0.2, (), (), False)


def test_a_resumed_run_that_fails_keeps_the_results_of_the_interrupted_one(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, photos, StandIn(calls=2, error=KeyboardInterrupt()))
    names = ("results.json", "images.json", "instances.csv", "index.html", "all_results.json")
    before = [(out / name).read_bytes() for name in names]
    with pytest.raises(RuntimeError):
        run(out, photos, StandIn(calls=1, error=RuntimeError("no memory left")))
    assert [(out / name).read_bytes() for name in names] == before
    assert run(out, photos).done_before == 3


def change_setting(name: str, segmenter: StandIn) -> None:
    settings = copy(segmenter.segmenter.settings)
    object.__setattr__(settings, name, "another")  # without checks of ranges
    segmenter.segmenter.settings = settings


CHANGES: dict[str, Callable[[StandIn], object]] = {
    "objects": lambda one: one.memory.categories.__setitem__(0, Category(7, "cup")),
    "references": lambda one: one.memory.vectors.mul_(2),
    "references (negative)": lambda one: one.memory.negative.logical_not_(),
    "networks.encoder": lambda one: one.segmenter["encoder"].weight.data[0, 0].add_(torch.finfo().eps),
    "networks.proposer": lambda one: one.segmenter["proposer"].bias.data.add_(1),
    "precision": lambda one: setattr(one, "precision", "bfloat16"),
    "networks.encoder (precision)": lambda one: one.segmenter["encoder"].half(),
    **{f"settings.{name}": partial(change_setting, name) for name in vars(Settings()) if name not in SPEED_SETTINGS},
}


def test_a_mounted_disk_which_cannot_be_replaced_is_refused_before_the_work(
    photos: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    run(tmp_path / "out", photos)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "out")
    with pytest.raises(UserError, match=r"out is where a disk is mounted, .*: give a folder in it"):
        run(tmp_path / "out", photos, segmenter := StandIn(), overwrite=True)
    assert segmenter.seen == 0


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_does_not_resume_with_what_gives_other_instances(change: str, photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", photos, StandIn(calls=2, error=KeyboardInterrupt()))
    segmenter = StandIn()
    CHANGES[change](segmenter)
    with pytest.raises(UserError, match=rf"2 finished items of a run with another {change.partition(' ')[0]}"):
        run(tmp_path / "out", photos, segmenter)
    assert segmenter.seen == 0


def test_a_run_resumes_with_another_batch_size_and_other_paths_of_the_references(photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", photos, StandIn(calls=2, error=KeyboardInterrupt()))
    segmenter = StandIn()
    segmenter.segmenter.settings = replace(Settings(), points_per_batch=7, images_per_batch=2)
    segmenter.memory.sources = ["elsewhere"] * len(segmenter.memory)
    segmenter.memory.vectors = segmenter.memory.vectors.clone()
    assert run(tmp_path / "out", photos, segmenter).done_before == 2


def test_an_image_whose_pixels_changed_is_segmented_again(photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", photos, StandIn(calls=3, error=KeyboardInterrupt()))
    Image.new("RGB", (30, 40), (0, 90, 30)).save(photos / "0.png")
    segmenter = StandIn()
    assert run(tmp_path / "out", photos, segmenter).done_before == 2
    assert segmenter.seen == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_run_into_a_folder_is_refused_and_harmless(overwrite: bool, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "first/out"
    if overwrite:
        run(out, photos)
    second: list[BaseException] = []

    class Meddling(StandIn):
        def propose(self, image, **_):  # type: ignore[no-untyped-def]
            for work in (
                lambda: run(out, photos, overwrite=overwrite),
                lambda: filter_results(out if overwrite else tmp_path / "done", out, 0.2, (), (), True),
            ):
                try:
                    work()
                except UserError as error:
                    second.append(error)
            return super().propose(image)

    run(tmp_path / "done", photos)
    run(out, photos, Meddling(["coin"]), overwrite=overwrite)
    assert len(second) == 8
    assert all("another run is writing" in str(error) or "is unfinished" in str(error) for error in second)
    run(tmp_path / "fresh/out", photos, StandIn(["coin"]))
    assert files_of(out) == files_of(tmp_path / "fresh/out")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_new_results_stay_where_none_can_be_replaced(photos: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    out = tmp_path / "out"
    run(out, photos)

    with monkeypatch.context() as patch:
        patch.setattr(replace_folder, "replace_durably", Mock(side_effect=OSError(16, "Device or resource busy")))
        for replaced in (new_output, output_of_run):
            with (
                pytest.raises(UserError, match="Device or resource busy; the new results are in") as error,
                replaced(out, overwrite=True) as new,
            ):
                (new / "masks").mkdir(parents=True)
            assert (new / "masks").is_dir()
            assert str(new) in str(error.value)


def test_results_may_be_next_to_or_inside_the_images(photos: Path, tmp_path: Path) -> None:
    out = photos / "out"
    targets = find_targets([str(photos)], 1, out)
    segment_images(StandIn(), targets, out, Thresholds())  # type: ignore[arg-type]
    assert find_targets([str(photos)], 1, out).count == 4
    (out / "index.html").unlink()
    (out / ".results.json.run").mkdir()  # the run was killed
    assert find_targets([str(photos)], 1, tmp_path / "another").count == 4
    with pytest.raises(UserError, match=r"all that is there is in .*: give other photos"):
        find_targets([str(photos)], 1, photos)
