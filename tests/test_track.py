"""``track``: every object of a video once, with its identity, in files that others read, and from live pictures."""

import json
import shutil
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from no_time_to_train import Instances, Settings, UserError
from no_time_to_train.cli import main
from no_time_to_train.commands.options import NetworkOptions
from no_time_to_train.data.memory_files import save_memory
from no_time_to_train.demo.scenes import NOVEL_CLASSES
from no_time_to_train.errors import UserNotice
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.pipeline.replace_folder import OF_TRACKS, foreign_files
from no_time_to_train_extras.video import live, track_files, track_run
from no_time_to_train_extras.video.annotated_videos import Mp4File
from no_time_to_train_extras.video.frames import Frame, Frames
from no_time_to_train_extras.video.live import LiveFrames
from no_time_to_train_extras.video.moving_scenes import draw_clip
from no_time_to_train_extras.video.track_frames import track_frames, tracker_settings
from no_time_to_train_extras.video.tracker import Tracker
from tests.attacks.test_cases import edit
from tests.conftest import Capture, Patch, Refusal, nano_segmenter, read_table, write_picture
from tests.stand_in import StandIn, files_of
from tests.web import free_port, serving

#: The colors of the objects in the clip, and their classes.
COLORS = {(230, 20, 20): 0, (20, 160, 20): 0, (20, 20, 230): 1}

FRAMES, HEIGHT, WIDTH, RATE = 24, 96, 128, 10

#: When the moving cup is hidden, and when it has been seen for long enough again.
HIDDEN, BACK = range(9, 15), 17


def places(time: int) -> list[tuple[int, int] | None]:
    """The first row and column of each object of 20 pixels at a time; None while it is hidden.

    A cup moves to the right and is hidden for a while, another one stays, and a coin comes in late and moves down.
    """
    moving = None if time in HIDDEN else (10, 4 + 4 * time)
    return [moving, (60, 20), (2 + 3 * (time - 4), 102) if time >= 4 else None]


def draw(time: int) -> NDArray[np.uint8]:
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for color, place in zip(COLORS, places(time), strict=True):
        if place is not None:
            image[place[0] : place[0] + 20, place[1] : place[1] + 20] = color
    return image


class ColorFinder(StandIn):
    """Stands in for the networks: finds the objects by their colors, and describes them by these."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.segmenter.proposer.size = 32
        self.segmenter.settings = Settings(tiles=2)  # whoever carries masks leaves it to `propose` to find them

    @property
    def classes(self) -> list[str]:
        return [category.name for category in self.memory.categories]

    def load_memory(self, path: Path) -> None:
        pass

    def add_references(self, references: list[Any]) -> None:
        pass

    def renumber(self, ids: dict[str, int]) -> None:
        pass

    def classify(self, image: NDArray[np.uint8], threshold: object) -> Instances:
        far = [np.abs(image.astype(int) - color).max(axis=2) for color in COLORS]
        found = [(mask, color) for mask, color in zip(np.array(far) < 60, COLORS, strict=True) if mask.sum() > 100]
        masks = Masks.pack(np.array([mask for mask, _ in found], bool).reshape(-1, *image.shape[:2]))
        vectors = torch.tensor([color for _, color in found]).float().view(-1, 3) - 100
        classes = torch.tensor([COLORS[color] for _, color in found], dtype=torch.int64)
        detections = Detections(masks, masks.boxes, torch.full((len(found),), 0.75), classes, vectors=vectors)
        return Instances(image, self.memory.categories, detections)


@pytest.fixture(autouse=True)
def finder(monkeypatch: Patch) -> ColorFinder:
    """What the command builds instead of networks."""
    stand_in = ColorFinder()
    monkeypatch.setattr(NetworkOptions, "build", lambda *_, **__: stand_in)
    return stand_in


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the memory ``m.memory``, and the clip as ``clip.avi`` and as the images in ``frames``."""
    folder = tmp_path_factory.mktemp("inputs")
    save_memory(StandIn().memory, folder / "m.memory")
    (folder / "frames").mkdir()
    video = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    for number in range(FRAMES):
        video.write(np.ascontiguousarray(draw(number)[..., ::-1]))
        Image.fromarray(draw(number)).save(folder / "frames" / f"{number:04d}.png")
    video.release()
    return folder


def track(inputs: Path, images: object, *options: object) -> None:
    memory = ["--memory", inputs / "m.memory", "--images", images, "--nano"]
    main(["track", *map(str, [*memory, *options])])


@pytest.fixture(scope="module")
def out(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the clip in all formats, with a line down the middle and a zone around the cup that stays."""
    folder = tmp_path_factory.mktemp("run") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NetworkOptions, "build", lambda *_, **__: ColorFinder())
        places = ["--line", "64,0,64,96", "--zone", "10,50,60,50,60,90,10,90"]
        track(inputs, inputs / "clip.avi", "--out", folder, "--format", "video", "mots", "youtube-vis", *places)
    return folder


def test_an_object_that_was_hidden_is_counted_once(out: Path) -> None:
    counts = {row["class"]: (row["objects"], row["most_at_once"]) for row in read_table(out / "counts.csv")}
    assert counts == {"cup": ("2", "2"), "coin": ("1", "1")}
    tracks = read_table(out / "tracks.csv")
    assert [row["class"] for row in tracks] == ["cup", "cup", "coin"]
    assert {row["last_seconds"] for row in tracks} == {"2.3"}
    assert {row["mean_score"] for row in tracks} == {"0.75"}


def test_pycocotools_reads_masks_with_the_identity_of_each_object(out: Path) -> None:
    results = COCO(out / "images.json").loadRes(str(out / "results.json"))
    columns: dict[int, set[int]] = {}
    for image in results.loadImgs(results.getImgIds()):
        for one in results.imgToAnns[image["id"]]:
            number = next(n for n, place in enumerate(places(image["frame_id"])) if covers(one["segmentation"], place))
            columns.setdefault(one["track_id"], set()).add(number)
        assert image["seconds"] == pytest.approx(image["frame_id"] / RATE)
    assert sorted(map(sorted, columns.values())) == [[0], [1], [2]]


def covers(encoded: dict[str, Any], place: tuple[int, int] | None) -> bool:
    """Whether a mask is the object at a place, up to what JPEG does to its outline."""
    truth = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    if place is not None:
        truth[place[0] : place[0] + 20, place[1] : place[1] + 20] = 1
    return rle.iou([encoded], [rle.encode(truth)], [False])[0, 0] > 0.8


def read_mots(out: Path) -> list[tuple[int, dict[str, Any]]]:
    """The frame and the mask of each line of the MOTS text."""
    lines = [line.split(" ") for line in (out / "mots/clip.txt").read_text().splitlines()]
    return [(int(frame), {"size": [int(h), int(w)], "counts": counts.encode()}) for frame, _, _, h, w, counts in lines]


def test_mots_text_has_the_size_and_the_mask_of_each_object_in_each_frame(out: Path) -> None:
    masks = read_mots(out)
    assert len(masks) == len(json.loads((out / "results.json").read_text()))
    for frame, encoded in masks:
        assert any(covers(encoded, place) for place in places(frame))


def test_mots_masks_share_no_pixel(inputs: Path, tmp_path: Path, finder: ColorFinder) -> None:
    found = finder.classify

    def twice_as_large(image: NDArray[np.uint8], threshold: object) -> Instances:
        instances = found(image, threshold)
        instances.detections.masks = Masks.pack(
            np.array([cv2.dilate(mask.astype(np.uint8), np.ones((61, 61))) for mask in instances.masks], bool)
        )
        return instances

    finder.classify = twice_as_large  # type: ignore[method-assign]
    track(inputs, inputs / "clip.avi", "--out", tmp_path / "out", "--format", "mots")
    masks = [[one for number, one in read_mots(tmp_path / "out") if number == frame] for frame in range(FRAMES)]
    assert max(map(len, masks)) > 1
    for of_frame in filter(None, masks):
        assert rle.decode(of_frame).sum(axis=2).max() == 1


def test_youtube_vis_has_the_masks_of_an_object_in_all_frames(out: Path) -> None:
    content = json.loads((out / "youtube_vis.json").read_text())
    (video,) = content["videos"]
    assert (video["length"], len(video["file_names"]), video["width"]) == (FRAMES, FRAMES, WIDTH)
    in_frame_8 = [one for one in content["annotations"] if one["segmentations"][8]]
    (moving,) = [one for one in in_frame_8 if covers(one["segmentations"][8], places(8)[0])]
    for name in ("segmentations", "bboxes", "areas"):
        assert [index for index in range(4, FRAMES) if moving[name][index] is None] == list(range(9, BACK))
    assert covers(moving["segmentations"][-1], places(FRAMES - 1)[0])


def test_an_object_crosses_a_line_while_it_is_hidden_and_another_stays_in_a_zone(out: Path) -> None:
    (crossing,) = read_table(out / "crossings.csv")
    keys = ("line", "class", "seconds", "direction")  # to the left of somebody who looks down the line
    assert [crossing[key] for key in keys] == ["1", "cup", f"{BACK / RATE}", "left"]
    (stay,) = read_table(out / "stays.csv")
    assert (stay["class"], stay["last_seconds"]) == ("cup", "2.3")
    assert stay["track"] != crossing["track"]
    cups = read_table(out / "counts.csv")[0]
    assert [cups[name] for name in ("line_1_to_the_left", "line_1_to_the_right", "zone_1")] == ["1", "0", "1"]


def test_the_annotated_video_has_the_speed_of_the_clip_and_steady_colors(out: Path) -> None:
    video = cv2.VideoCapture(str(out / "video/clip.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == RATE
    frames = [frame for read, frame in (video.read() for _ in range(FRAMES + 1)) if read]
    assert len(frames) == FRAMES
    edges = [frame[57:63, 24:36].mean(axis=(0, 1)) for frame in frames[5:]]  # the upper edge of the cup that stays
    assert np.ptp(edges, axis=0).max() < 10


def test_the_page_has_a_filmstrip_of_each_object(out: Path) -> None:
    page = (out / "index.html").read_text()
    for row in read_table(out / "tracks.csv"):
        assert f'src="tracks/{row["track"]}.jpg"' in page
        width, height = Image.open(out / "tracks" / f"{row['track']}.jpg").size
        assert width // height == min(int(row["frames"]), 8) or width // height >= 4


def test_every_file_is_known_as_one_of_results_and_every_known_name_is_written(out: Path) -> None:
    assert not list(foreign_files(out))
    assert all(list(out.glob(name)) for name in OF_TRACKS)


def test_results_filter_leaves_out_objects_of_low_scores_and_changes_nothing_else(
    out: Path, tmp_path: Path, capsys: Capture
) -> None:
    main(["results", "filter", str(out), "--threshold", "0.5", "--out", str(tmp_path / "all")])
    for path in sorted(path.relative_to(out) for path in out.rglob("*") if path.suffix not in (".mp4", ".memory", "")):
        assert (tmp_path / "all" / path).read_bytes() == (out / path).read_bytes(), path
    assert "(without the annotated video, which needs the frames)" in capsys.readouterr().out
    main(["results", "filter", str(tmp_path / "all"), "--class-score", "cup=0.8"])  # all have 0.75
    assert "1 object of 3: 1 coin" in capsys.readouterr().out
    assert [row["class"] for row in read_table(tmp_path / "all/tracks.csv")] == ["coin"]
    assert len(list((tmp_path / "all/tracks").iterdir())) == 1
    assert {one["category_id"] for one in json.loads((tmp_path / "all/results.json").read_text())} == {2}


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        *[("images.json", f"images/0/{key}", [1]) for key in ("id", "frame_id", "seconds", "height")],
        *[("results.json", f"0/{key}", None) for key in ("segmentation", "score", "bbox", "category_id")],
    ],
)
def test_damaged_tracks_are_not_filtered(
    name: str, place: str, value: object, out: Path, tmp_path: Path, refusal: Refusal
) -> None:
    shutil.copytree(out, tmp_path / "tracks", ignore=shutil.ignore_patterns("*.mp4", "*.jpg"))
    content = json.loads((out / name).read_text())
    edit(content, {"set": {place: value}})
    (tmp_path / "tracks" / name).write_text(json.dumps(content))
    assert str(tmp_path / "tracks") in refusal("filter", tmp_path / "tracks", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_of_frames_gives_what_the_video_gives(inputs: Path, out: Path, tmp_path: Path) -> None:
    track(inputs, inputs / "frames", "--fps", RATE, "--out", tmp_path / "out")
    assert read_table(tmp_path / "out/tracks.csv") == read_table(out / "tracks.csv")


def test_frames_whose_numbers_begin_without_zeros_are_said_to_be_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("frame1.png", "frame2.png", "frame10.png"):
        write_picture(draw(0), tmp_path / name)
    with pytest.warns(UserNotice, match=r"frame10\.png comes before frame2\.png: begin the numbers with zeros"):
        Frames(str(tmp_path))
    (tmp_path / "frame10.png").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserNotice)
        assert Frames(str(tmp_path)).count == 2


def test_frames_of_several_sizes_are_said(tmp_path: Path) -> None:
    for number in range(4):
        write_picture(draw(0)[: HEIGHT - number // 2], tmp_path / f"{number}.png")
    with pytest.warns(UserNotice, match="frame 2 has another size than the first one") as told:
        assert len(list(Frames(str(tmp_path)))) == 4
    assert len(told) == 1


def test_an_avi_that_states_no_rate_has_that_of_the_option(inputs: Path, tmp_path: Path) -> None:
    content = bytearray((inputs / "clip.avi").read_bytes())
    for place in (content.find(b"avih") + 8, content.find(b"vids") + 24):
        content[place : place + 4] = bytes(4)
    (tmp_path / "clip.avi").write_bytes(content)
    frames = Frames(str(tmp_path / "clip.avi"), every=2, fps=8)
    assert frames.rate == 4
    assert [frame.seconds for frame in frames][:4] == [0, 0.25, 0.5, 0.75]


def test_a_video_that_cannot_be_decoded_is_not_said_to_be_broken(inputs: Path, tmp_path: Path) -> None:
    content = (inputs / "clip.avi").read_bytes()
    (tmp_path / "clip.avi").write_bytes(content.replace(b"MJPG", b"FFV1"))
    frames = Frames(str(tmp_path / "clip.avi"))
    assert not list(frames)
    assert "or OpenCV has no decoder for it" in " ".join(frames.skipped)


def test_a_broken_image_moves_no_later_frame_in_time(tmp_path: Path) -> None:
    for number in range(5):
        write_picture(draw(0), tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"broken")
    frames = [(frame.number, frame.seconds) for frame in Frames(str(tmp_path), every=2, fps=10)]
    assert frames == [(0, 0.0), (2, 0.2), (4, 0.4)]
    (tmp_path / "2.png").write_bytes(b"broken")
    frames = [(frame.number, frame.seconds) for frame in Frames(str(tmp_path), every=2, fps=10)]
    assert frames == [(0, 0.0), (4, 0.4)]


def test_each_frame_is_a_line_of_json_on_standard_output(inputs: Path, capsys: Capture) -> None:
    track(inputs, inputs / "clip.avi", "--jsonl", "-", "--for", "1s", "--line", "900,0,900,90", "--line", "5,0,5,9")
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert f"900,0,900,90 lies outside of the {WIDTH}x{HEIGHT} picture" in printed.err
    assert "5,0,5,9" not in printed.err
    assert [line["frame"] for line in lines] == list(range(RATE))
    assert [line["seconds"] for line in lines] == pytest.approx([number / RATE for number in range(RATE)])
    (moving,) = [one for one in lines[8]["objects"] if covers(one["segmentation"], places(8)[0])]
    assert moving["class"] == "cup"
    assert moving["box"][:2] == pytest.approx(places(8)[0][::-1], abs=2)


@pytest.mark.parametrize(
    ("error", "options"),
    [(RuntimeError(), []), (KeyboardInterrupt(), []), (RuntimeError(), ["--propagate", "3"])],
    ids=["killed", "Ctrl-C", "killed while masks are carried"],
)
def test_a_run_that_was_stopped_resumes_and_gives_the_same_files(
    error: BaseException, options: list[str], inputs: Path, tmp_path: Path, finder: ColorFinder,
    monkeypatch: Patch,
) -> None:  # fmt: skip
    monkeypatch.setattr(track_run, "FRAMES_AT_ONCE", 4)
    monkeypatch.setattr("no_time_to_train_extras.video.propagation.Propagator", Still)
    options = ["--format", "mots", "youtube-vis", *options]
    track(inputs, inputs / "clip.avi", "--out", tmp_path / "whole", *options)
    whole, finder.seen = finder.seen, 0
    finder.error, finder.calls = error, whole * 3 // 4
    with pytest.raises((RuntimeError, SystemExit)):
        track(inputs, inputs / "clip.avi", "--out", tmp_path / "out", *options)
    finder.error, before = None, finder.seen
    track(inputs, inputs / "clip.avi", "--out", tmp_path / "out", *options)
    assert finder.seen - before < whole / 2
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["before a frame is done", "while results are written"])
def test_a_run_that_is_interrupted_with_nothing_to_resume_can_be_repeated(
    moment: str, inputs: Path, tmp_path: Path, finder: ColorFinder, monkeypatch: Patch
) -> None:
    with monkeypatch.context() as once:
        if moment == "before a frame is done":
            once.setattr(finder, "error", KeyboardInterrupt())
            once.setattr(finder, "calls", 1)
        else:
            once.setattr(track_run.TrackFiles, "finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(SystemExit):
            track(inputs, inputs / "clip.avi", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    track(inputs, inputs / "clip.avi", "--out", tmp_path / "out")


def test_a_run_does_not_resume_with_a_frame_that_was_replaced_by_one_of_the_same_size(
    inputs: Path, tmp_path: Path, finder: ColorFinder, monkeypatch: Patch, refusal: Refusal
) -> None:
    monkeypatch.setattr(track_run, "FRAMES_AT_ONCE", 2)
    for number in range(8):
        write_picture(draw(number), tmp_path / f"frames/{number}.bmp")
    finder.error, finder.calls = RuntimeError("killed"), 6
    with pytest.raises(RuntimeError):
        track(inputs, tmp_path / "frames", "--out", tmp_path / "out")
    finder.error = None
    Image.fromarray(draw(20)).save(tmp_path / "frames/1.bmp")
    command = ["--memory", inputs / "m.memory", "--images", tmp_path / "frames", "--out", tmp_path / "out", "--nano"]
    assert "of a run with another video" in refusal("track", *command)


def test_a_short_run_that_fails_at_its_last_file_is_repeated(inputs: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    full = Mock(side_effect=UserError("out/images.json cannot be written: No space left on device"))
    with monkeypatch.context() as patch:
        patch.setattr("no_time_to_train_extras.video.track_files._write_list", full)
        with pytest.raises(SystemExit):
            track(inputs, inputs / "clip.avi", "--out", tmp_path / "out", "--for", "1s")
    track(inputs, inputs / "clip.avi", "--out", tmp_path / "out", "--for", "1s")
    assert (tmp_path / "out/results.json").is_file()


def test_a_full_temporary_folder_ends_a_run_in_one_line(
    inputs: Path, tmp_path: Path, refusal: Refusal, monkeypatch: Patch
) -> None:
    tables = f"PRAGMA max_page_count = 16; {track_files.TABLES}"
    monkeypatch.setattr(track_files, "TABLES", tables)
    words = [
        "track",
        "--memory",
        inputs / "m.memory",
        "--images",
        inputs / "clip.avi",
        "--nano",
        "--out",
        tmp_path / "out",
    ]
    assert "database or disk is full; TMPDIR names another place" in refusal(*words)


def test_a_video_of_which_the_disk_takes_a_part_only_is_refused(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # Windows has none
    video, earlier = Mp4File(5.0, (64, 48), "this OpenCV writes no videos"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, earlier[1]))
    try:
        for number in range(9):
            video.add(np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8))
        with pytest.raises(UserError, match=r"v.mp4 cannot be written: is .* full\? TMPDIR"):
            video.save(tmp_path / "v.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
    assert not (tmp_path / "v.mp4").exists()


class Still:
    """Stands in for SAM 2's memory: nothing moves."""

    def __init__(self, segmenter: object) -> None:
        pass

    def start(self, image: torch.Tensor, masks: Masks, track_ids: NDArray[np.int64]) -> None:
        self.masks = masks

    def step(self, image: torch.Tensor) -> tuple[Masks, torch.Tensor]:
        return self.masks, torch.full((len(self.masks),), 0.5)


def test_masks_are_carried_between_the_frames_in_which_objects_are_looked_for(
    inputs: Path, tmp_path: Path, finder: ColorFinder, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("no_time_to_train_extras.video.propagation.Propagator", Still)
    track(inputs, inputs / "clip.avi", "--out", tmp_path / "out", "--propagate", 2)
    assert finder.seen == FRAMES / 2
    rows = read_table(tmp_path / "out/instances.csv")
    scores = {row["score"] for row in rows if int(row["image"][-10:-4]) % 2}
    assert scores == {"0.5"}  # the predicted IoU
    staying = [row for row in rows if abs(int(row["y1"]) - 60) < 3 and abs(int(row["x1"]) - 20) < 3]
    assert len({row["track"] for row in staying}) == 1
    assert len(staying) > FRAMES * 3 / 4


@pytest.mark.parametrize(("predicted_iou", "first"), [(0.5, 2), (0.3, 16)])
def test_a_carried_mask_counts_if_its_predicted_iou_is_large_enough(
    predicted_iou: float, first: int, inputs: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("no_time_to_train_extras.video.propagation.Propagator", Still)
    monkeypatch.setattr(Still, "step", lambda still, _: (still.masks, torch.full((len(still.masks),), predicted_iou)))
    track(inputs, inputs / "clip.avi", "--out", tmp_path / "out", "--propagate", 8)
    rows = read_table(tmp_path / "out/instances.csv")
    assert min(int(row["image"][-10:-4]) for row in rows) == first  # when it was seen for the third time


@pytest.mark.parametrize(("missed", "absent"), [({4, 5}, []), ({4, 5, 6}, [10, 11])], ids=["twice", "too often"])
def test_a_mask_is_carried_on_where_nothing_is_found_in_its_place_but_not_forever(
    missed: set[int], absent: list[int], inputs: Path, tmp_path: Path, finder: ColorFinder,
    monkeypatch: Patch,
) -> None:  # fmt: skip
    monkeypatch.setattr("no_time_to_train_extras.video.propagation.Propagator", Still)
    find = finder.classify

    def find_what_stays(image: NDArray[np.uint8], threshold: object) -> Instances:
        found = find(image, threshold)
        x, y = found.boxes[:, :2].T
        return found[(x < 30) & (y > 50) & (finder.seen not in missed)]

    finder.classify = find_what_stays  # type: ignore[method-assign]
    track(inputs, inputs / "clip.avi", "--out", tmp_path / "out", "--propagate", 2)
    rows = read_table(tmp_path / "out/instances.csv")
    assert {row["track"] for row in rows} == {"1"}
    seen = {int(row["image"][-10:-4]) for row in rows}
    assert sorted(set(range(min(seen), FRAMES)) - seen) == absent


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    path = shutil.which("ffmpeg")
    if path is None:
        path = pytest.importorskip("imageio_ffmpeg", reason="there is no ffmpeg").get_ffmpeg_exe()
    return path


def test_times_are_those_of_a_video_of_variable_frame_rate(inputs: Path, tmp_path: Path, ffmpeg: str) -> None:
    video = tmp_path / "variable.mp4"
    later = ["-vf", "setpts='if(lt(N,10),N,N+30)/10/TB'", "-fps_mode", "vfr"]
    subprocess.run([ffmpeg, "-v", "error", "-i", inputs / "clip.avi", *later, video], check=True)
    seconds = [frame.seconds for frame in Frames(str(video))]
    assert seconds == pytest.approx([(n if n < 10 else n + 30) / RATE for n in range(FRAMES)], abs=0.011)


def test_a_video_is_turned_as_its_metadata_say(inputs: Path, tmp_path: Path, ffmpeg: str) -> None:
    plain, turned = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    subprocess.run([ffmpeg, "-v", "error", "-i", inputs / "clip.avi", plain], check=True)
    turn = ["-i", plain, "-c", "copy", "-metadata:s:v:0", "rotate=90", turned]
    subprocess.run([ffmpeg, "-v", "error", *turn], check=True)
    image = next(iter(Frames(str(turned)))).image
    assert image.shape == (WIDTH, HEIGHT, 3)
    assert min(np.abs(np.rot90(image, turns).astype(int) - draw(0)).mean() for turns in (1, -1)) < 12


def test_what_a_broken_video_has_is_tracked_and_the_rest_is_said(inputs: Path, tmp_path: Path, capsys: Capture) -> None:
    content = (inputs / "clip.avi").read_bytes()
    (tmp_path / "broken.avi").write_bytes(content[: len(content) * 3 // 4])
    track(inputs, tmp_path / "broken.avi", "--out", tmp_path / "out")
    frames = len(json.loads((tmp_path / "out/images.json").read_text())["images"])
    assert FRAMES / 2 < frames < FRAMES
    assert (
        f"broken.avi ends after {frames} of the {FRAMES} frames that its file states: it is broken or"
        in capsys.readouterr().err
    )


@pytest.fixture
def stream(inputs: Path, ffmpeg: str) -> Iterator[str]:
    """The address of a server that sends the clip once, at its speed, to the first that asks."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/clip"
    encoder = ["-c:v", "mpeg1video", "-r", "30", "-q:v", "2", "-f", "mpegts", "-listen", "1", address]
    with subprocess.Popen([ffmpeg, "-v", "quiet", "-re", "-i", inputs / "clip.avi", *encoder]) as server:
        while server.poll() is None and is_free(port):
            time.sleep(0.05)
        yield address
        server.kill()


def is_free(port: int) -> bool:
    """Whether nothing listens on a port; asking for a connection would be the only one that is answered."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_of_a_stream_frames_are_dropped_while_the_networks_work_and_its_end_completes_the_results(
    stream: str, inputs: Path, tmp_path: Path, finder: ColorFinder, monkeypatch: Patch,
    capsys: Capture,
) -> None:  # fmt: skip
    propose = finder.propose
    monkeypatch.setattr(finder, "propose", lambda image: (time.sleep(0.15), propose(image))[1])
    track(inputs, stream.replace("//", "//user:secret@") + "?channel=1&token=secret", "--out", tmp_path / "out")
    printed = capsys.readouterr()
    assert " a second), " in printed.out
    assert " dropped, " in printed.out
    images = json.loads((tmp_path / "out/images.json").read_text())["images"]
    numbers, seconds = ([image[name] for image in images] for name in ("frame_id", "seconds"))
    assert 1 < len(images) < max(numbers)
    assert seconds == sorted(seconds)
    texts = [path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix in (".json", ".csv", ".html")]
    assert "secret" not in "".join([printed.out, printed.err, *texts])
    assert "channel" in images[0]["file_name"]


def test_ctrl_c_ends_a_stream_with_its_results(
    stream: str, inputs: Path, tmp_path: Path, finder: ColorFinder, capsys: Capture
) -> None:
    finder.error, finder.calls = KeyboardInterrupt(), 3
    track(inputs, stream, "--out", tmp_path / "out")
    assert len(json.loads((tmp_path / "out/images.json").read_text())["images"]) >= 2
    assert "index.html" in capsys.readouterr().out


def test_images_that_come_into_a_folder_are_tracked_in_time(inputs: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()

    def fill() -> None:
        for number in range(6):
            content = (inputs / "frames" / f"{number:04d}.png").read_bytes()
            (folder / f"{number}.png").write_bytes(content[: 100 + number])  # it is still being written
            time.sleep(0.05 if number else 0.8)  # which takes long for the first one
            (folder / f"{number}.png").write_bytes(content)

    filling = threading.Thread(target=fill)
    filling.start()
    track(inputs, folder, "--watch", "--for", "2s", "--out", tmp_path / "out")
    filling.join()
    printed = capsys.readouterr()
    assert printed.out.startswith("6 frames ")
    assert "skipped" not in printed.err
    seconds = [one["seconds"] for one in json.loads((tmp_path / "out/images.json").read_text())["images"]]
    assert seconds == sorted(seconds)


def test_a_live_run_that_is_interrupted_while_results_are_written_promises_nothing(
    inputs: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    shutil.copytree(inputs / "frames", tmp_path / "incoming")
    monkeypatch.setattr(track_run.TrackFiles, "finish", Mock(side_effect=KeyboardInterrupt("SIGTERM")))
    with pytest.raises(SystemExit) as ended:
        track(inputs, tmp_path / "incoming", "--watch", "--for", "1s", "--out", tmp_path / "out")
    assert ended.value.code == 143
    printed = capsys.readouterr().out
    assert printed.endswith("; its results are incomplete, and cannot be resumed\n")
    assert "object" not in printed, "nobody has counted them yet"


def test_a_watched_folder_that_goes_away_ends_the_run_with_its_results(
    inputs: Path, tmp_path: Path, finder: ColorFinder, monkeypatch: Patch, refusal: Refusal
) -> None:
    folder, propose, calls = shutil.copytree(inputs / "frames", tmp_path / "incoming"), finder.propose, count(1)

    def moving(image: NDArray[np.uint8]) -> Any:
        if next(calls) == 5:
            folder.rename(tmp_path / "elsewhere")
        return propose(image)

    monkeypatch.setattr(finder, "propose", moving)
    words = "--memory", inputs / "m.memory", "--images", folder, "--watch", "--out", tmp_path / "out", "--nano"
    assert refusal("track", *words) == f"error: --watch ended, because {folder} went away: No such file or directory"
    assert len(json.loads((tmp_path / "out/images.json").read_text())["images"]) == 5
    assert (tmp_path / "out/index.html").exists()


@pytest.mark.parametrize("error", [cv2.error("broken"), MemoryError()])
def test_a_camera_that_fails_within_a_frame_has_ended(monkeypatch: Patch, error: Exception) -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    video = Mock(get=Mock(return_value=25), retrieve=Mock(side_effect=[(True, image), error]))
    monkeypatch.setattr(live, "_open", lambda _: video)
    newest = LiveFrames("0", 1).newest
    assert newest.get(timeout=9) is not None
    assert newest.get(timeout=9) is None


def test_a_frame_that_comes_is_handed_out_before_the_next_one(finder: ColorFinder) -> None:
    asked: list[int] = []

    def frames() -> Iterator[Frame]:
        for number in range(3):
            asked.append(number)
            yield Frame(number, number / RATE, draw(number))

    thresholds, tracker = dict.fromkeys(finder.classes, 0.5), Tracker(tracker_settings(0))
    segmenter: Any = finder
    for tracked in track_frames(segmenter, frames(), thresholds, tracker, live=True):
        assert asked == [*range(tracked.number + 1)]
    assert asked == [0, 1, 2]


def test_a_camera_that_is_not_there_is_named(inputs: Path, refusal: Refusal) -> None:
    words = "--memory", inputs / "m.memory", "--images", "9", "--out", "y", "--nano"
    assert "camera 9 cannot be opened" in refusal("track", *words)


def test_a_playlist_on_a_server_is_no_stream(inputs: Path) -> None:
    content = f"#EXTM3U\n#EXTINF:1,\n{inputs / 'clip.avi'}\n#EXT-X-ENDLIST\n".encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(content)

    with serving(answer) as address, pytest.raises(UserError, match="cannot be opened"):
        LiveFrames(f"{address}/list.m3u8", 1)


def test_sam_2_encodes_each_frame_once_when_masks_are_carried(monkeypatch: Patch) -> None:
    clip = draw_clip(np.random.default_rng(777), NOVEL_CLASSES, frames=3)
    segmenter = nano_segmenter(4, prompts="guided")
    segmenter.add_reference("it", clip.frames[0], mask=clip.masks[0, 0])
    sam2, encoded = segmenter.segmenter.proposer.sam2, []
    encode = sam2.forward_image
    monkeypatch.setattr(sam2, "forward_image", lambda images: (encoded.append(images), encode(images))[1])
    frames = enumerate([np.zeros_like(clip.frames[0]), *clip.frames])
    found = list(segmenter.track(((number / 10, image) for number, image in frames), threshold=0.3, propagate=2))
    assert len(encoded) == len(found) == 4


def test_frames_of_python_whose_time_goes_back_are_refused() -> None:
    clip = draw_clip(np.random.default_rng(777), NOVEL_CLASSES, frames=1)
    segmenter = nano_segmenter(4, prompts="guided")
    segmenter.add_reference("it", clip.frames[0], mask=clip.masks[0, 0])
    frames = segmenter.track(((seconds, clip.frames[0]) for seconds in (0, 1, 0.5)), threshold=0.1)
    with pytest.raises(UserError, match=r"a frame of 0\.5 s comes after one of 1"):
        list(frames)


def test_python_gives_the_objects_of_each_frame_with_their_identities() -> None:
    clip = draw_clip(np.random.default_rng(777), NOVEL_CLASSES, frames=5)
    segmenter = nano_segmenter(prompts="guided")
    label = NOVEL_CLASSES[clip.labels[0]].name
    segmenter.add_reference(label, clip.frames[0], mask=clip.masks[0, 0])
    frames = list(segmenter.track(((number / 10, frame) for number, frame in enumerate(clip.frames)), threshold=0.3))
    assert [frame.seconds for frame in frames] == [0.0, 0.1, 0.2, 0.3, 0.4]
    last, truth = frames[-1], clip.masks[4, 0]
    assert len(last.instances) == len(last.track_ids) > 0
    best = np.array([(one.mask & truth).sum() / (one.mask | truth).sum() for one in last.instances])
    assert best.max() > 0.7
    assert last.track_ids[best.argmax()] in frames[-2].track_ids
