"""Target images from any source: files, folders, globs, videos, and the images of a COCO file."""

import glob
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import check_size
from no_time_to_train.data.images import as_rgb, is_image
from no_time_to_train.data.reference_forms.reference import find_image
from no_time_to_train.errors import UserError

#: Endings of the files that count as videos.
VIDEO_ENDINGS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}


@dataclass(frozen=True)
class TargetImage:
    """An image in which instances are to be found.

    Attributes:
        name: A relative path that no other target of the run has.
        read: Returns its pixels, uint8 [H, W, 3] RGB; raises a UserError where they cannot be read.
        path: The image's file; None for a frame of a video.
        image_id: Its id in the COCO file that lists it; None where no such file was given.
    """

    name: str
    read: Callable[[], NDArray[np.uint8]]
    path: Path | None = None
    image_id: int | None = None


@dataclass(frozen=True)
class Targets:
    """The target images of a run.

    Attributes:
        images: The images, and the frames of videos, in the order of the arguments, by path within each.
        count: The number of images. Videos count with the number of frames that their files state.
        description: What they are, such as "3 images and 1 videos".
        category_ids: The category ids of a COCO file, by class name.
    """

    images: Iterator[TargetImage]
    count: int
    description: str
    category_ids: dict[str, int] = field(default_factory=dict)


def find_targets(arguments: Sequence[str], every: int, out: Path | None = None) -> Targets:
    """Find the target images.

    Args:
        arguments: Folders (searched with their subfolders), globs, images and videos; or one COCO file, with or
            without annotations.
        every: Of a video, the frames whose number is divisible by this.
        out: Files in this folder are not targets, because an earlier run wrote them.

    Raises:
        UserError: Nothing is found, or a file is neither an image, a video nor a COCO file.
    """
    if len(arguments) == 1 and arguments[0].lower().endswith(".json"):
        return _listed_targets(Path(arguments[0]))
    found: dict[Path, str] = {}
    for argument in arguments:
        for path, name in _matching_files(argument):
            if out is None or not path.resolve().is_relative_to(out.resolve()):
                found.setdefault(path, name)
    paths = _unique_names(found)
    frames = {path: _frame_count(path, every) for path in found if is_video(path)}
    images = (
        target
        for name, path in paths.items()
        for target in (_video(path, name, every) if path in frames else [_image(path, name)])
    )
    image_count = len(found) - len(frames)
    kinds = [f"{image_count} images"] if image_count else []
    if frames:
        kinds.append(f"{len(frames)} videos" + (f", every {every}th frame" if every > 1 else ""))
    return Targets(images, image_count + sum(frames.values()), " and ".join(kinds))


def is_video(path: Path) -> bool:
    """Whether a path is a video by its ending, and not a hidden file."""
    return path.suffix.lower() in VIDEO_ENDINGS and not path.name.startswith(".")


def _matching_files(argument: str) -> list[tuple[Path, str]]:
    """The images and videos that an argument stands for, each with its name: its path in the argument's folder."""
    path = Path(argument)
    if path.is_dir():
        files = _images_and_videos(sorted(path.rglob("*")))
        if not files:
            raise UserError(f"--images {argument}: the folder and its subfolders hold no image and no video")
        return [(file, file.relative_to(path).as_posix()) for file in files]
    if path.is_file():
        files = _images_and_videos([path])
        if not files:
            raise UserError(f"--images {argument}: not an image or a video by its ending {path.suffix!r}")
        return [(path, path.name)]
    files = _images_and_videos(map(Path, sorted(glob.glob(argument, recursive=True))))  # noqa: PTH207 (absolute patterns)
    if not files:
        raise UserError(f"--images {argument}: there is no such file or folder")
    return [(file, file.name) for file in files]


def _images_and_videos(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file() and (is_image(path) or is_video(path))]


def _unique_names(found: dict[Path, str]) -> dict[str, Path]:
    """The files by names that differ: a second ``photo.jpg`` becomes ``photo_2.jpg``."""
    paths: dict[str, Path] = {}
    for path, name in found.items():
        unique, number = name, 1
        while unique in paths:
            number += 1
            unique = Path(name).with_stem(f"{Path(name).stem}_{number}").as_posix()
        paths[unique] = path
    return paths


def _image(path: Path, name: str) -> TargetImage:
    """The target of an image file."""
    return TargetImage(name, partial(as_rgb, path), path)


def _frame_count(path: Path, every: int) -> int:
    """The number of frames of a video that will be read, as its file states."""
    try:
        total = sv.VideoInfo.from_video_path(str(path)).total_frames
    except Exception as error:  # supervision raises plain Exception
        raise UserError(f"video {path} cannot be read: it is broken, or OpenCV does not know its format") from error
    return max(math.ceil((total or 0) / every), 1)


def _video(path: Path, name: str, every: int) -> Iterator[TargetImage]:
    """The targets of a video: its frames, named by their numbers."""
    stem = Path(name).with_suffix("").as_posix()
    index = -1
    for index, frame in enumerate(sv.get_video_frames_generator(str(path), stride=every)):
        yield TargetImage(f"{stem}/{index * every:06d}.jpg", partial(as_rgb, frame[..., ::-1]))  # from BGR
    if index < 0:
        reason = f"video {path} cannot be read: no frame can be decoded"
        yield TargetImage(f"{stem}/000000.jpg", partial(_fail, reason))


def _fail(reason: str) -> NoReturn:
    raise UserError(reason)


def _listed_targets(json_file: Path) -> Targets:
    """The images that a COCO file lists."""
    coco = read_coco(json_file)
    if not coco.imgs:
        raise UserError(f"{json_file} lists no images")
    images = [_listed_image(entry, json_file.parent) for entry in coco.imgs.values()]
    ids = {category["name"]: int(category["id"]) for category in coco.dataset.get("categories", [])}
    return Targets(iter(images), len(images), f"{len(images)} images of a COCO file", ids)


def _listed_image(entry: dict[str, Any], folder: Path) -> TargetImage:
    """The target of an image that a COCO file in ``folder`` lists."""
    path = find_image(entry["file_name"], folder)
    name = Path(entry["file_name"].replace("\\", "/"))
    name = Path(*(part for part in name.parts if part not in ("..", name.anchor)))
    return TargetImage(name.as_posix(), partial(_read_listed, path, entry), path, entry["id"])


def _read_listed(path: Path, entry: dict[str, Any]) -> NDArray[np.uint8]:
    """The pixels of an image that a COCO file lists, turned so that they have the size that it states."""
    if not {"height", "width"} <= entry.keys():
        return as_rgb(path)
    image = as_rgb(path, (entry["height"], entry["width"]))
    check_size(path, entry, *image.shape[:2])
    return image
