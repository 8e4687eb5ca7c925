"""Target images wherever they are: files, folders, globs, videos, and the images of a COCO file."""

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray
from pycocotools.coco import COCO

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.images import as_rgb, is_image
from no_time_to_train.data.reference_forms.reference import find_image
from no_time_to_train.errors import UserError

VIDEO_ENDINGS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}


@dataclass(frozen=True)
class TargetImage:
    """An image to look through.

    Attributes:
        name: a relative path that no other target has.
        read: gives its pixels, uint8 [H, W, 3]; raises a UserError where it cannot be read.
        path: the image's file; None for a frame of a video.
        image_id: in the COCO file that lists it; None: it is in none.
    """

    name: str
    read: Callable[[], NDArray[np.uint8]]
    path: Path | None = None
    image_id: int | None = None


@dataclass(frozen=True)
class Targets:
    """What one or more arguments of ``--images`` stand for.

    Attributes:
        images: the images, and the frames of videos, in the order of their names.
        count: how many; of a video's frames, as many as its file claims.
        form: what they are, in words.
        category_ids: of a COCO file, its classes' ids by name.
    """

    images: Iterator[TargetImage]
    count: int
    form: str
    category_ids: dict[str, int] = field(default_factory=dict)


def find_targets(arguments: list[str], every: int, out: Path | None = None) -> Targets:
    """Find the target images.

    Args:
        arguments: folders (with all their folders), globs, images, videos, or a COCO file with or without annotations.
        every: of a video, each frame whose number this divides.
        out: folder whose files are no targets: what an earlier run wrote.

    Raises:
        UserError: nothing is there, or a file is neither image, video nor COCO file.
    """
    if len(arguments) == 1 and arguments[0].lower().endswith(".json"):
        coco = read_coco(arguments[0])
        listed = _listed(coco, Path(arguments[0]))
        ids = {category["name"]: int(category["id"]) for category in coco.dataset.get("categories", [])}
        return Targets(iter(listed), len(listed), f"{len(listed)} images of a COCO file", ids)
    found: dict[Path, str] = {}  # path -> name
    for argument in arguments:
        for path, name in _files(argument):
            if out is None or not path.resolve().is_relative_to(out.resolve()):
                found.setdefault(path, name)
    names: set[str] = set()
    for path, name in found.items():
        number = 2
        while found[path] in names:
            found[path] = str(Path(name).with_stem(f"{Path(name).stem}_{number}"))
            number += 1
        names.add(found[path])
    videos = {path: _frames(path, every) for path in found if is_video(path)}
    images = (
        target
        for path, name in found.items()
        for target in (_video(path, name, every) if path in videos else [_image(path, name)])
    )
    count = len(found) - len(videos) + sum(videos.values())
    kinds = [f"{len(found) - len(videos)} images"] if len(found) > len(videos) else []
    kinds += (
        [f"{len(videos)} videos, every {every}th frame" if every > 1 else f"{len(videos)} videos"] if videos else []
    )
    return Targets(images, count, " and ".join(kinds))


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_ENDINGS and not path.name.startswith(".")


def _files(argument: str) -> list[tuple[Path, str]]:
    """The images and videos that an argument stands for, each with its name."""
    path = Path(argument)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and (is_image(file) or is_video(file))]
        if not files:
            raise UserError(f"--images {argument}: the folder and its folders hold no image and no video")
        return [(file, file.relative_to(path).as_posix()) for file in files]
    if path.is_file():
        if not (is_image(path) or is_video(path)):
            raise UserError(f"--images {argument}: that is no image or video by its ending ({path.suffix or 'none'})")
        return [(path, path.name)]
    files = [Path(file) for file in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207 (absolute patterns)
    files = [file for file in files if file.is_file() and (is_image(file) or is_video(file))]
    if not files:
        raise UserError(f"--images {argument}: there is no such file or folder")
    return [(file, file.name) for file in files]


def _image(path: Path, name: str) -> TargetImage:
    return TargetImage(name, lambda: as_rgb(path), path)


def _listed(coco: COCO, json_file: Path) -> list[TargetImage]:
    """The images that a COCO file lists."""
    if not coco.imgs:
        raise UserError(f"{json_file} lists no images")
    targets = []
    for entry in coco.imgs.values():
        path = find_image(entry["file_name"], json_file.parent)
        stated = (entry["height"], entry["width"]) if "height" in entry and "width" in entry else None
        name = Path(entry["file_name"].replace("\\", "/"))
        name = Path(*(part for part in name.parts if part not in ("..", name.anchor)))
        targets.append(TargetImage(name.as_posix(), _reader(path, stated), path, entry["id"]))
    return targets


def _reader(path: Path, stated: tuple[int, int] | None) -> Callable[[], NDArray[np.uint8]]:
    def read() -> NDArray[np.uint8]:
        image = as_rgb(path, stated)
        if stated is not None and stated != image.shape[:2]:
            height, width = image.shape[:2]
            raise UserError(f"image {path} is {width}x{height}, the COCO file says {stated[1]}x{stated[0]}")
        return image

    return read


def _frames(path: Path, every: int) -> int:
    """How many frames of a video will be read, as its file claims."""
    try:
        total = sv.VideoInfo.from_video_path(str(path)).total_frames
    except Exception as error:  # supervision raises plain Exception
        raise UserError(
            f"video {path} cannot be read: it is broken, or in a format that OpenCV does not know"
        ) from error
    return max(-(-(total or 0) // every), 1)


def _video(path: Path, name: str, every: int) -> Iterator[TargetImage]:
    """The frames of a video, named by their number."""
    stem = Path(name).with_suffix("").as_posix()
    frame = None
    for index, frame in enumerate(sv.get_video_frames_generator(str(path), stride=every)):
        pixels = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        yield TargetImage(f"{stem}/{index * every:06d}.jpg", lambda pixels=pixels: pixels)  # type: ignore[misc]
    if frame is None:
        reason = f"video {path} cannot be read: it has no frame that can be decoded"
        yield TargetImage(f"{stem}/000000.jpg", _failing(reason))


def _failing(reason: str) -> Callable[[], NDArray[np.uint8]]:
    def read() -> NDArray[np.uint8]:
        raise UserError(reason)

    return read
