"""Names of targets and classes that are equal on some systems, are no text, or too long; targets that are no images."""

import json
import os
import socket
from fnmatch import fnmatchcase
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.data import targets
from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.names import clean_name, unique_names, unique_stems
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.data.targets import find_targets
from no_time_to_train.data.videos import open_video
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train_extras.video.annotated_videos import AnnotatedVideos
from tests.conftest import Patch, gallery_data
from tests.stand_in import ALL_FORMATS, StandIn, files_of, run, write_video

LONG = "ü" * 125 + ".png"  # 254 bytes

#: Names of files, as bytes, in one folder.
AWKWARD = [
    b"bytes\xff\xfe.png", LONG.encode(), b"new\nline.png", b"esc\x1b[31m.png", b"quote'\"<b>&.png", b"per%41cent.png",
    b"hash#q?x.png", b"a b.png", b"photo.png", b"photo.jpg", b"Photo.png", "e\u0301.png".encode(), "\xe9.png".encode(),
    b"images/photo.png", b"images_/photo.png", b"back\\slash.png", b"-dash.png", b"photo.png.png",
]  # fmt: skip


def put(folder: Path, name: bytes, size: tuple[int, int] = (40, 30)) -> None:
    path = os.fsencode(folder) + b"/" + name
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 (bytes)
    Image.new("RGB", size, (len(name), 90, 30)).save(Path(os.fsdecode(path)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["photo.jpg", "photo.png", "a/photo.jpg"], ["photo", "photo_2", "a/photo"]),
        (["photo.jpg", "Photo.png", "PHOTO_2.png"], ["photo", "Photo_3", "PHOTO_2"]),
        (["\xe9.jpg", "e\u0301.jpg"], ["\xe9", "e\u0301_2"]),
        (["photo.png", "photo.png/a.jpg"], ["photo_2", "photo.png/a"]),  # masks/photo.png is a file or a folder
        (["a.001.png", "a.002.png"], ["a.001", "a.002"]),
        (["x.png"] * 3, ["x", "x_2", "x_3"]),
    ],
)
def test_stems_differ_on_every_system(names: list[str], expected: list[str]) -> None:
    assert unique_stems(names) == expected


def test_names_differ_from_each_other_and_from_folders() -> None:
    assert unique_names(["a.png", "A.png", "a.png/b.png"]) == ["a_2.png", "A_3.png", "a.png/b.png"]
    assert len(set(unique_names(["photo.jpg"] * 3000))) == 3000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a\n\x1b\udcff.png", "a%0A%1B%FF.png"),
        (LONG, f"{'ü' * 93}~????????.png"),
        ("/".join([*["d" * 150] * 8, "photo.png"]), "????????/photo.png"),
        ("a\0b.png", "a%00b.png"),
        ("a\uffff.png", "a%EF%BF%BF.png"),  # XML cannot hold it
    ],
)
def test_names_are_text_that_every_system_can_write(name: str, expected: str) -> None:
    cleaned = clean_name(name)
    assert fnmatchcase(cleaned, expected)  # ? is a digit of the hash
    assert max(len(part.encode()) for part in cleaned.split("/")) <= 200


def test_images_with_awkward_names_get_all_their_files(tmp_path: Path) -> None:
    for name in AWKWARD:
        put(tmp_path / "photos", name)
    out = tmp_path / "out"
    assert run(out, tmp_path / "photos", formats=ALL_FORMATS).images == len(AWKWARD)
    images = json.loads((out / "images.json").read_text(encoding="utf-8"))["images"]
    stems = {image["stem"] for image in images}
    assert len({stem.casefold() for stem in stems}) == len(AWKWARD)
    for stem in stems:
        for name in (f"masks/{stem}.png", f"overlays/{stem}.jpg", f"thumbnails/{stem}.jpg", f"labelme/{stem}.json"):
            assert (out / name).is_file(), name
        labels = out / f"labelme/{stem}.json"
        assert (labels.parent / json.loads(labels.read_text())["imagePath"]).is_file()
    found = [path for path in (out / "yolo/images").rglob("*") if path.is_file()]
    looked_for = {Path("/labels/".join(str(path).rsplit("/images/", 1))).with_suffix(".txt") for path in found}
    assert len(looked_for) == len(AWKWARD), "where ultralytics looks for the labels of each image"
    assert all(path.is_file() for path in looked_for)
    assert all((out / "cvat-coco/images/default" / image["file_name"]).is_file() for image in images)
    assert all((out / image["path"]).is_file() for image in images)
    shown = gallery_data(out / "index.html")["images"]
    links = [image[key] for image in shown for key in ("thumbnail", "preview", "overlay")]
    assert all((out / unquote(link)).is_file() for link in links)
    assert not [link for link in links if set(link) & set(" #?\"'<>\n\\")]

    before = files_of(out)
    main(["filter", str(out), "--score", "0.5"])
    assert files_of(out) == before


def test_names_do_not_depend_on_images_that_are_skipped(tmp_path: Path) -> None:
    for name in AWKWARD:
        put(tmp_path / "photos", name)
    stems = {target.path: target.stem for target in find_targets([str(tmp_path / "photos")], 1).images}
    run(tmp_path / "out", tmp_path / "photos")
    (tmp_path / "photos/Photo.png").write_bytes(b"")
    summary = run(tmp_path / "out", tmp_path / "photos", overwrite=True)
    assert len(summary.skipped) == 1
    for image in json.loads((tmp_path / "out/images.json").read_text(encoding="utf-8"))["images"]:
        assert stems[Path(os.path.normpath(tmp_path / "out" / image["path"]))] == image["stem"]


def test_what_is_no_image_is_skipped_and_reported(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    put(photos, b"a.png")
    (photos / "zero.png").touch()
    (photos / "gone.png").symlink_to("nowhere.png")
    (photos / "loop.png").symlink_to("loop.png")
    (photos / "parent").symlink_to("..")
    os.mkfifo(photos / "pipe.png")
    os.mkfifo(photos / "pipe.mp4")
    (photos / "broken.mp4").write_bytes(b"broken")
    summary = run(tmp_path / "out", photos)
    assert summary.images == 1
    skipped = {word for line in summary.skipped for word in line.split() if word.startswith(str(photos))}
    assert {Path(word.rstrip(":")).name for word in skipped} == {
        "zero.png", "gone.png", "loop.png", "pipe.png", "pipe.mp4", "broken.mp4",
    }  # fmt: skip


def test_a_picture_wider_than_jpeg_allows_is_drawn_smaller(tmp_path: Path) -> None:
    put(tmp_path / "photos", b"wide.png", (70_000, 16))
    assert run(tmp_path / "out", tmp_path / "photos").images == 1
    with Image.open(tmp_path / "out/overlays/wide.jpg") as overlay, Image.open(tmp_path / "out/masks/wide.png") as mask:
        assert overlay.size == (65_500, 15)
        assert mask.size == (70_000, 16)


@pytest.mark.parametrize(("ending", "said"), [("mkv", 0), ("mp4", 1)])
def test_sound_that_is_longer_than_the_pictures_is_no_cut_off_video(
    ending: str, said: int, tmp_path: Path, monkeypatch: Patch
) -> None:
    def with_sound(path: Path) -> Mock:
        """What OpenCV says of a file that states its duration only, which is that of the sound."""
        video = open_video(path)

        def get(key: int) -> float:
            return video.get(key) + (3 if key == cv2.CAP_PROP_FRAME_COUNT else 0)

        return Mock(get=get, grab=video.grab, retrieve=video.retrieve)

    write_video(tmp_path / "clip.avi", [np.full((30, 40, 3), 9 * index, np.uint8) for index in range(20)])
    path = (tmp_path / "clip.avi").rename(tmp_path / f"clip.{ending}")
    monkeypatch.setattr(targets, "open_video", with_sound)
    assert len(list(find_targets([str(path)], 1).images)) == 20 + said


def test_the_frames_that_a_cut_off_video_lacks_are_reported(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    path = tmp_path / "videos/clip.avi"
    write_video(path, list(np.random.default_rng(0).integers(0, 255, (30, 30, 40, 3), np.uint8)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = list(find_targets([str(path)], 1).images)
    assert 5 < len(frames) < 25
    with pytest.raises(UserError, match=rf"clip\.avi ends after {len(frames) - 1} of the 30 frames"):
        frames[-1].read()
    assert run(tmp_path / "out", tmp_path / "videos").skipped


@pytest.mark.parametrize(
    "name",
    [b"file:clip.avi", b"per%20cent.avi", b"image%03d.avi", b"http:/clip.avi", b"bytes\xff.avi", b"new\nline.avi"],
)
def test_a_video_of_any_name_is_read(name: bytes, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(os.fsdecode(name)).parent.mkdir(exist_ok=True)
    write_video(tmp_path / "clip.avi", [np.zeros((30, 40, 3), np.uint8)] * 3)
    (tmp_path / "clip.avi").rename(os.fsdecode(name))
    (target, *_) = targets = list(find_targets(["."], 1).images)
    assert target.read().shape == (30, 40, 3)
    assert len(targets) == 3


def test_a_video_that_names_other_files_is_not_read(tmp_path: Path) -> None:
    write_video(tmp_path / "private.avi", [np.zeros((30, 40, 3), np.uint8)])
    playlist = tmp_path / "list.mp4"
    playlist.write_text("ffconcat version 1.0\nfile private.avi\n")
    with pytest.raises(UserError, match=r"list\.mp4 cannot be read: it is broken, or OpenCV does not know its format"):
        find_targets([str(playlist)], 1)


def test_of_a_broken_video_only_the_error_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clip.mp4").write_bytes(bytes(1000))
    with pytest.raises(UserError, match=r"clip\.mp4 cannot be read: it is broken"):
        find_targets([str(tmp_path / "clip.mp4")], 1)
    assert capfd.readouterr() == ("", "")


def test_a_video_asks_no_server(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        folder = Path(f"http:/127.0.0.1:{server.getsockname()[1]}")
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(b"broken")
        with pytest.raises(UserError, match=r"clip\.mp4 cannot be read"):
            find_targets(["."], 1)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_video_with_frames_of_too_many_pixels_is_skipped(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    write_video(tmp_path / "large.avi", [np.zeros((30, 40, 3), np.uint8)])
    put(tmp_path, b"a.png", (20, 20))
    (broken,) = [one for one in find_targets([str(tmp_path)], 1).images if one.video]
    with pytest.raises(UserError, match=r"a frame of .*large\.avi\) may be a decompression bomb: it has 1200 pixels"):
        broken.read()


def test_frames_of_another_size_are_kept_in_the_video(tmp_path: Path) -> None:
    videos = AnnotatedVideos(tmp_path)
    sizes = [(40, 30), (60, 30), (40, 50)]
    videos.frames["clip"] = [(float(index), _picture(tmp_path, size)) for index, size in enumerate(sizes)]
    videos.finish()
    written = cv2.VideoCapture(str(tmp_path / "video/clip.mp4"))
    assert sum(1 for _ in iter(written.grab, False)) == 3


def _picture(folder: Path, size: tuple[int, int]) -> Path:
    path = folder / f"{size[0]}x{size[1]}.jpg"
    Image.new("RGB", size).save(path)
    return path


def cut_out(folder: bytes) -> None:
    """A class folder with a cut-out."""
    os.mkdir(folder)  # noqa: PTH102 (bytes)
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[5:15, 5:15] = 255
    Image.fromarray(pixels).save(Path(os.fsdecode(folder)) / "a.png")


def test_spaces_around_the_name_of_a_class_folder_are_ignored(tmp_path: Path) -> None:
    cut_out(os.fsencode(tmp_path) + b"/boat ")
    cut_out(os.fsencode(tmp_path) + b"/boat")
    cut_out(os.fsencode(tmp_path) + b"/ cup")
    with pytest.warns(UserNotice, match="spaces around the names of classes are ignored: ' cup', 'boat '"):
        found = find_references(tmp_path)
    assert sorted(reference.label for reference in found.references) == ["boat", "boat", "cup"]


@pytest.mark.parametrize("name", [b"bo\xffat", b"bo\nat", b"bo\x1b[2Jat", b"\t"])
def test_a_class_folder_whose_name_no_file_can_hold_is_refused(name: bytes, tmp_path: Path) -> None:
    cut_out(os.fsencode(tmp_path) + b"/" + name)
    with pytest.raises(UserError, match="the name of a class") as error:
        find_references(tmp_path)
    str(error.value).encode()  # it can be printed
    assert len(str(error.value).splitlines()) == 1


def test_a_memory_at_a_path_that_is_not_utf_8_is_read_back(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/m\xff.memory"))
    save_memory(StandIn().memory, path)
    assert torch.equal(load_memory(path).vectors, StandIn().memory.vectors)
