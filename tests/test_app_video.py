"""Videos in the app: frames become photos by what is said about them, and tracks are found in the background."""

import json
import random
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from no_time_to_train import ReferenceSegmenter, UserError
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.demo.scenes import NOVEL_CLASSES
from no_time_to_train.files import journal_folder
from no_time_to_train_extras.app.exports import export
from no_time_to_train_extras.app.photos import Thumbnails, find_photos
from no_time_to_train_extras.app.video_frames import NEAR, Video
from no_time_to_train_extras.app.video_view import scene_video
from no_time_to_train_extras.app.workspace import Workspace, same_memory
from no_time_to_train_extras.video.moving_scenes import RATE, Clip, draw_clip
from tests.conftest import Patch
from tests.stand_in import write_video
from tests.workspaces import settle

Start = Callable[[], Workspace]

#: Frames of the clip.
FRAMES = 6


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(np.random.default_rng([777, 0]), NOVEL_CLASSES, frames=FRAMES, side=160)


@pytest.fixture
def folder(clip: Clip, tmp_path: Path) -> Path:
    """A folder with one video, ``clip.avi``, and one photo."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "clip.avi", clip.frames[..., ::-1], RATE)
    cv2.imwrite(str(folder / "photo.png"), clip.frames[0, ::2, ::2])
    return folder


@pytest.fixture
def start(segmenter: ReferenceSegmenter, folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts the app; the one that was started before has ended."""
    started: list[Workspace] = []

    def start() -> Workspace:
        for earlier in started:
            earlier.close()
        segmenter.set_memory(None)
        out = tmp_path / "out" / "app"
        started.append(Workspace(segmenter, *find_photos([str(folder)], out / "uploads", out), out))
        for video in started[-1].videos.all.values():
            video.read_times()
        return started[-1]

    yield start
    started[-1].close()


def show(workspace: Workspace, clip: Clip, frame: int, index: int = 0) -> None:
    """Show an object in a frame of the video, or in a photo."""
    workspace.show(f"clip/{frame:06d}.jpg", clip.masks[frame, index], NOVEL_CLASSES[clip.labels[index]].name)


def tracked(workspace: Workspace, until: Callable[[], bool] = lambda: False) -> Any:
    """Find the tracks in the video, and wait for them."""
    video = workspace.videos.all["clip"]
    workspace.track(video, 1)
    deadline = time.monotonic() + 60
    while workspace.tracking.video is not None:
        if until():
            workspace.tracking.stop()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return workspace.tracking.tracks(video)


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mpg", "mp4v")])
def test_any_frame_is_the_one_that_reading_the_whole_file_gives(name: str, codec: str, tmp_path: Path) -> None:
    bits = np.arange(3 * NEAR)[:, None] >> np.arange(8).repeat(8) & 1  # each frame shows its number in rows
    frames = np.broadcast_to(255 * bits[:, :, None, None], (3 * NEAR, 64, 64, 3)).astype(np.uint8)
    write_video(tmp_path / name, frames, 25, codec)
    video = Video(tmp_path / name, name, "a")
    video.read_times()

    def number(pixels: NDArray[np.uint8]) -> int:
        return int(((pixels[4::8, 32, 0] > 127) << np.arange(8)).sum())

    order = list(range(3 * NEAR))
    random.Random(0).shuffle(order)
    assert [number(video.read(frame)) for frame in order] == order
    with pytest.raises(UserError, match="cannot be decoded"):
        video.read(len(order))


def test_a_frame_is_searched_when_it_is_looked_at_and_a_photo_once_something_is_said_about_it(
    start: Start, clip: Clip
) -> None:
    workspace = start()
    show(workspace, clip, 0)
    workspace.search.open("clip/000003.jpg")
    settle(workspace)
    assert workspace.items("clip/000003.jpg")
    assert list(workspace.photos) == ["photo.png", "clip/000000.jpg"]
    assert workspace.search.progress().photos == 2
    workspace.right("clip/000003.jpg", workspace.items("clip/000003.jpg")[0])
    assert list(workspace.photos) == ["photo.png", "clip/000000.jpg", "clip/000003.jpg"]
    for name in ("clip/000000.jpg.jpg", "clip/3.jpg", "other/000000.jpg", "clip.avi"):
        with pytest.raises(UserError, match="there is no photo"):
            workspace.items(name)


def test_what_is_said_about_a_frame_is_there_after_a_start_with_a_renamed_video_and_in_the_export(
    start: Start, clip: Clip, folder: Path, tmp_path: Path
) -> None:
    workspace = start()
    show(workspace, clip, 5)
    workspace.review("clip/000002.jpg")
    (folder / "clip.avi").rename(folder / "renamed.avi")
    again = start()
    assert {"renamed/000005.jpg", "renamed/000002.jpg"} <= set(again.photos)
    assert [item.confirmed for item in again.items("renamed/000005.jpg")] == [True]
    assert again.is_reviewed("renamed/000002.jpg")
    settle(again)
    export(again, tmp_path / "results")
    images = json.loads((tmp_path / "results" / "images.json").read_text())["images"]
    (shown,) = (one for one in images if one["file_name"] == "renamed/000005.jpg")
    assert (shown["video"], shown["seconds"]) == ("renamed.avi", 0.5)
    assert len(load_memory(tmp_path / "results" / "references.memory")) == 1


def test_a_video_that_may_not_be_read_keeps_no_other_photo_from_a_step(
    start: Start, clip: Clip, monkeypatch: Patch
) -> None:
    workspace = start()
    show(workspace, clip, 2)
    denied = Mock(side_effect=UserError("permission denied"))
    monkeypatch.setattr("no_time_to_train_extras.app.video_frames.identity", denied)
    for running in (workspace, start()):
        running.show("photo.png", clip.masks[0, 0, ::2, ::2], "thing")
        assert [item.label for item in running.items("photo.png") if item.confirmed] == ["thing"]
        running.undo()


def test_what_is_said_about_a_frame_stays_with_its_own_of_two_copies_of_a_video(
    start: Start, clip: Clip, folder: Path
) -> None:
    shutil.copy(folder / "clip.avi", folder / "other.avi")
    workspace = start()
    workspace.show("other/000000.jpg", clip.masks[0, 0], "thing")
    for running in (workspace, start()):
        assert list(running.photos) == ["photo.png", "other/000000.jpg"]
        assert [item.confirmed for item in running.items("other/000000.jpg")] == [True]
        show(running, clip, 0, 1)
        assert set(running.photos) == {"photo.png", "clip/000000.jpg", "other/000000.jpg"}
        assert [item.confirmed for item in running.items("clip/000000.jpg")] == [True]
        running.undo()


def test_tracks_begin_at_the_thresholds_of_the_page(start: Start, clip: Clip) -> None:
    workspace = start()
    show(workspace, clip, 0)
    assert tracked(workspace).rows
    scores = [item.score for item in workspace.items("clip/000003.jpg") if not item.confirmed]
    workspace.set_threshold(workspace.classes[0], 1.0)
    assert max(scores, default=0) < 1
    assert tracked(workspace).rows == {}


def test_tracks_that_were_stopped_go_on_after_a_start_and_stay_until_others_are_found(
    start: Start, clip: Clip, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("no_time_to_train_extras.video.track_run.FRAMES_AT_ONCE", 1)
    workspace = start()
    with pytest.raises(UserError, match="show an object first"):
        tracked(workspace)
    show(workspace, clip, 0)
    assert tracked(workspace, until=lambda: workspace.tracking.progress[0] >= 2) is None
    (unfinished,) = (tmp_path / "out" / "tracks" / "clip").iterdir()
    assert journal_folder(unfinished / "results.json").exists()
    workspace = start()
    tracks = tracked(workspace)
    assert workspace.tracking._run.done_before >= 1
    assert tracks.folder == unfinished
    assert {row["label"] for row in tracks.rows.values()} == {NOVEL_CLASSES[clip.labels[0]].name}
    assert all(0 <= row["first"] <= row["last"] < FRAMES for row in tracks.rows.values())
    workspace = start()
    assert workspace.tracking.tracks(workspace.videos.all["clip"]).rows == tracks.rows
    assert same_memory(workspace.tracking.tracks(workspace.videos.all["clip"]).memory, workspace.segmenter.memory)
    show(workspace, clip, 3)
    others = tracked(workspace).folder
    assert list(unfinished.parent.iterdir()) == [others] != [unfinished]


def test_a_broken_video_and_one_that_changes_are_named_in_one_line(start: Start, clip: Clip, folder: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"no video")
    workspace = start()
    assert "broken.mp4 cannot be read" in workspace.videos.all["broken"].problem
    show(workspace, clip, 0)
    write_video(folder / "clip.avi", clip.frames[::-1, ..., ::-1], RATE)
    assert tracked(workspace) is None
    assert workspace.tracking.problems["clip"] == "video clip.avi has changed: start the app again"
    with pytest.raises(UserError, match=r"video clip\.avi has changed"):
        workspace.opened.pixels("clip/000004.jpg")


def test_tracks_of_a_video_that_was_replaced_are_not_shown_over_the_new_one(
    start: Start, clip: Clip, folder: Path, tmp_path: Path
) -> None:
    workspace = start()
    show(workspace, clip, 0)
    video, thumbnails = workspace.videos.all["clip"], Thumbnails(tmp_path / "thumbnails", workspace.photos)
    name = f"clip/{next(iter(tracked(workspace).masks)):06d}.jpg"
    video.path.touch()

    def shown() -> tuple[bool, bool, str]:
        scene = scene_video(workspace, thumbnails, name)
        assert scene is not None
        return bool(scene["outlines"]), scene["found"], scene["problem"]

    assert shown() == (True, True, "")
    write_video(folder / "clip.avi", clip.frames[::-1, ..., ::-1], RATE)
    assert shown() == (False, False, "video clip.avi has changed: start the app again")


def test_a_video_that_was_cut_off_says_so(start: Start, folder: Path, tmp_path: Path) -> None:
    path = folder / "clip.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    workspace = start()
    (video,) = workspace.videos.all.values()
    scene = scene_video(workspace, Thumbnails(tmp_path / "thumbnails", workspace.photos), video.frame_name(0))
    assert scene is not None
    assert re.match(r"video clip\.avi ends after \d+ of the \d+ frames that its file states", scene["problem"])


def test_an_app_that_cannot_reach_itself_says_so_in_one_line(start: Start, tmp_path: Path, monkeypatch: Patch) -> None:
    pytest.importorskip("gradio", reason="the app's extra is not installed")
    from no_time_to_train_extras.app.page import serve

    real = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **more: Any) -> Any:
        if host == "localhost":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *rest, **more)

    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, "")  # which the app sets
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(UserError, match=r"cannot start: .*service not known; it must reach itself as localhost"):
        serve(start(), tmp_path / "results", tmp_path / "out" / "app", host="0.0.0.0", browser=False, block=False)


def test_neither_a_proxy_nor_paths_of_the_environment_change_what_the_app_serves(
    start: Start, tmp_path: Path, monkeypatch: Patch
) -> None:
    pytest.importorskip("gradio", reason="the app's extra is not installed")
    from no_time_to_train_extras.app.page import serve

    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    workspace = start()
    page = serve(workspace, tmp_path / "results", tmp_path / "out" / "app", browser=False, block=False)
    assert page.allowed_paths == []
    page.close()
    workspace.close()


def test_a_port_that_another_program_took_meanwhile_is_one_line(
    start: Start, tmp_path: Path, monkeypatch: Patch
) -> None:
    pytest.importorskip("gradio", reason="the app's extra is not installed")
    from no_time_to_train_extras.app.page import serve

    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, "")
    workspace = start()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match="cannot start: its port is in use: choose another --port"):
            serve(workspace, tmp_path / "results", tmp_path / "out" / "app", port=port, browser=False, block=False)
