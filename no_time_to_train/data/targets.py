"""Target images from any source: files, folders, globs, videos, and the images of a COCO file."""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.coco import ImageId, read_coco, stated_size
from no_time_to_train.data.images import as_rgb, describe_unreadable, is_image, is_picture
from no_time_to_train.data.names import clean_characters, clean_name, unique_names, unique_stems
from no_time_to_train.data.reference_forms.class_folders import MASK
from no_time_to_train.data.reference_forms.image_files import ImageFiles
from no_time_to_train.data.videos import open_video, what_lacks
from no_time_to_train.errors import UserError, UserNotice, first_of, plural
from no_time_to_train.files import SYSTEM_FOLDERS, has_results, matching_files, real_path

#: Endings of the files that count as videos.
VIDEO_ENDINGS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}
VIDEO_ENDINGS |= {".mts", ".m2ts", ".ts", ".3gp", ".flv", ".ogv"}

#: What is said of images whose names have no ending.
UNNAMED = "left out, because the name has no ending such as .jpg"


@dataclass(frozen=True)
class TargetImage:
    """An image in which instances are to be found.

    Attributes:
        name: A relative path that no other target of the run has.
        stem: What the files that are written for it are called, without a suffix: a relative path that no other target
            of the run has.
        read: Returns its pixels, uint8 [H, W, 3] RGB; raises a UserError where they cannot be read.
        path: The image's file; None for a frame of a video.
        image_id: Its id in the COCO file that lists it; None where no such file was given.
        video: The name of the video that it is a frame of; None for an image.
        seconds: When the frame is shown, from the beginning of the video; None for an image.
    """

    name: str
    stem: str
    read: Callable[[], NDArray[np.uint8]]
    path: Path | None = None
    image_id: ImageId | None = None
    video: str | None = None
    seconds: float | None = None


class Repeated(Iterable[TargetImage]):
    """Target images that are found again each time that they are gone through.

    Args:
        begin: Returns them from the first one.
    """

    def __init__(self, begin: Callable[[], Iterator[TargetImage]]) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[TargetImage]:
        return self.begin()


@dataclass(frozen=True)
class Targets:
    """The target images of a run.

    Attributes:
        images: The images, and the frames of videos, in the order of the arguments, by path within each.
        count: The number of images. Videos count with the number of frames that their files state.
        description: What they are, such as "3 images and 1 video".
        category_ids: The category ids of a COCO file, by class name, in the order of the file.
        videos: The name and the stem of each video, as of a target image.
    """

    images: Iterable[TargetImage]
    count: int
    description: str
    category_ids: dict[str, int] = field(default_factory=dict)
    videos: dict[Path, tuple[str, str]] = field(default_factory=dict)


def find_targets(
    arguments: Sequence[str], every: int, out: Path | None = None, image_dir: Path | None = None
) -> Targets:
    """Find the target images.

    Files that are images by their ending, but cannot be read here, are named in a :class:`UserNotice`.

    Args:
        arguments: Folders (with their subfolders), globs, images and videos; or one COCO file, annotated or not.
        every: Of a video, the frames whose number is divisible by this; 0 for none.
        out: Files in this folder are not targets, because an earlier run wrote them.
        image_dir: The folder of the images of a COCO file; None looks for them near the file.
    """
    if len(arguments) == 1 and arguments[0].lower().endswith(".json"):
        return _listed_targets(Path(arguments[0]), image_dir)
    if image_dir is not None:
        raise UserError("--image-dir is the folder of the images that a COCO file lists: give it alone to --images")
    places: dict[str, tuple[Path, str]] = {}  # relative and absolute paths of a file are one image
    for argument in arguments:
        for path, name in _matching_files(argument):
            if out is None or not real_path(path).is_relative_to(real_path(out)):
                places.setdefault(os.path.abspath(path), (path, name))  # noqa: PTH100 (a link is an image of its own)
    found = dict(places.values())
    if not found:
        raise UserError(f"--images {' '.join(arguments)}: all that is there is in {out}: give other photos")
    paths = sorted(found)
    names = dict(zip(paths, unique_names([clean_characters(found[path]) for path in paths]), strict=True))
    images = {path: name for path, name in names.items() if not is_video(path)}
    videos = {path: name for path, name in names.items() if is_video(path)}
    folders = {str(parent) for name in images.values() for parent in PurePosixPath(name).parents}
    stems = dict(zip(videos, unique_stems(list(videos.values()), taken=folders), strict=True))
    stems |= zip(images, unique_stems(list(images.values()), folders=list(stems.values())), strict=True)
    frames = {path: _frame_count(path, max(every, 1)) for path in videos}
    if not images and not any(frames.values()):
        open_video(next(iter(videos)))

    def all_targets() -> Iterator[TargetImage]:
        for path in found:
            if path in images:
                yield TargetImage(names[path], stems[path], partial(as_rgb, path), path)
            elif every:
                yield from _video(path, names[path], stems[path], every)

    kinds = [plural(len(images), "image")] if images else []
    if videos:
        kinds.append(plural(len(videos), "video") + (f", one frame in {every}" if every > 1 else ""))
    count = len(images) + sum(max(count, 1) for count in frames.values())
    named = {path: (name, stems[path]) for path, name in videos.items()}
    return Targets(Repeated(all_targets), count, " and ".join(kinds), videos=named)


def is_video(path: Path) -> bool:
    """Whether a path is a video by its ending, and not a hidden file."""
    return path.suffix.lower() in VIDEO_ENDINGS and not path.name.startswith(".")


def _matching_files(argument: str) -> list[tuple[Path, str]]:
    """The images and videos that an argument stands for, each with its name: its path in the argument's folder."""
    path = Path(argument)
    if path.is_dir():
        inside = sorted(_files_in(path, argument))
        files = _images_and_videos(inside, argument, "the folder and its subfolders hold no image and no video")
        return [(file, file.relative_to(path).as_posix()) for file in files]
    if path.is_file():
        files = _images_and_videos([path], argument, f"not an image or a video by its ending {path.suffix!r}")
        return [(path, path.name)]
    matching = matching_files(argument)
    _notice_left([str(one) for one in matching if one.is_dir() and "**" not in argument], argument)
    files = _images_and_videos(matching, argument, "there is no such file or folder")
    return [(file, file.name) for file in files]


def _images_and_videos(paths: Iterable[Path], argument: str, otherwise: str) -> list[Path]:
    """The images and videos among some paths; a UserError where there are none. What cannot be read counts, too."""
    files = [path for path in paths if not path.is_dir()]
    found = [path for path in files if is_image(path) or is_video(path)]
    unreadable = describe_unreadable(files)
    if not found:
        raise UserError(f"--images {argument}: {unreadable or otherwise}")
    known, stems = set(found), {path.stem for path in found}
    masks = [path for path in found if path.stem.lower().endswith(MASK) and path.stem[: -len(MASK)] in stems]
    others = [path for path in files if path not in known and not describe_unreadable([path])]
    unnamed = [path for path in others if not path.name.startswith(".") and is_picture(path)]
    for paths, what in ((masks, "named like a mask of another and searched, too"), (unnamed, UNNAMED)):
        if paths:
            names = first_of([path.name for path in paths])
            unreadable += f"{'; ' * bool(unreadable)}{plural(len(paths), 'image')} {what}: {names}"
    if unreadable:
        warnings.warn(f"--images {argument}: {unreadable}", UserNotice, stacklevel=2)
    return found


def _files_in(folder: Path, argument: str) -> Iterator[Path]:
    """The files in a folder and its subfolders, without hidden ones. Links and folders of results are named only."""
    left: list[str] = []
    for parent, subfolders, names in os.walk(folder, onerror=lambda e: left.append(f"{e.filename} ({e.strerror})")):
        if Path(parent) != folder and has_results(Path(parent)):
            left.append(f"{parent} (results)")
            subfolders.clear()
            continue
        subfolders[:] = [name for name in subfolders if not name.startswith(SYSTEM_FOLDERS)]
        left.extend(f"{path} (a link)" for path in map(Path(parent).joinpath, subfolders) if path.is_symlink())
        yield from (Path(parent, name) for name in names if not name.startswith("."))
    _notice_left(left, argument)


def _notice_left(folders: list[str], argument: str) -> None:
    """Say which folders were not searched, where there are any."""
    if folders:
        what = f"{plural(len(folders), 'folder')} left out: {first_of(folders)}; give those that you want, too"
        warnings.warn(f"--images {argument}: {what}", UserNotice, stacklevel=3)


def _frame_count(path: Path, every: int) -> int:
    """The number of frames of a video that will be read, as its file states; 0 where it cannot be read."""
    try:
        video = open_video(path)
    except UserError:  # reported with its frame
        return 0
    return max(math.ceil(video.get(cv2.CAP_PROP_FRAME_COUNT) / every), 1)


def _video(path: Path, name: str, stem: str, every: int) -> Iterator[TargetImage]:
    """The targets of a video: its frames, named by their numbers. Those that cannot be decoded raise when read."""

    def unreadable(number: int, reason: str) -> TargetImage:
        return TargetImage(f"{stem}/{number:06d}.jpg", f"{stem}/{number:06d}", partial(_fail, reason), video=name)

    try:
        video = open_video(path)
    except UserError as error:
        yield unreadable(0, str(error))
        return
    number = 0
    while video.grab():
        if number % every == 0:
            seconds = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            decoded, frame = video.retrieve()
            if decoded:
                read = partial(as_rgb, frame[..., ::-1])  # from BGR
                frame_stem = f"{stem}/{number:06d}"
                yield TargetImage(f"{frame_stem}.jpg", frame_stem, read, video=name, seconds=round(seconds, 3))
            else:
                yield unreadable(number, f"video {path}: frame {number} cannot be decoded")
        number += 1
    if reason := what_lacks(path, video, number):
        yield unreadable(number, f"video {path} {reason}")


def _fail(reason: str) -> NoReturn:
    raise UserError(reason)


def _listed_targets(json_file: Path, image_dir: Path | None) -> Targets:
    """The images that a COCO file lists. Those that are missing raise when they are read."""
    coco = read_coco(json_file)
    if not coco.imgs:
        raise UserError(f"{json_file} lists no images")
    entries = list(coco.imgs.values())
    names = unique_names([clean_name(entry["file_name"]) for entry in entries])
    files = ImageFiles(image_dir or json_file.parent, [entry["file_name"] for entry in entries])
    images, missing = [], []
    for name, stem, entry in zip(names, unique_stems(names), entries, strict=True):
        try:
            path = files.find(entry["file_name"])
        except UserError as error:
            missing.append(str(error))
            images.append(TargetImage(name, stem, partial(_fail, str(error)), None, entry["id"]))
        else:
            images.append(TargetImage(name, stem, partial(_read_listed, path, entry), path, entry["id"]))
    if len(missing) == len(images):
        raise UserError(f"{missing[0]}, or name the folder of the images with --image-dir")
    ids = {category["name"]: int(category["id"]) for category in coco.dataset.get("categories", [])}
    return Targets(images, len(images), f"{plural(len(images), 'image')} of a COCO file", ids)


def _read_listed(path: Path, entry: dict[str, Any]) -> NDArray[np.uint8]:
    """The pixels of an image that a COCO file lists, turned so that they have the size that it states."""
    if not {"height", "width"} <= entry.keys():
        return as_rgb(path)
    image = as_rgb(path, (entry["height"], entry["width"]))
    stated_size(path, entry, *image.shape[:2])
    return image
