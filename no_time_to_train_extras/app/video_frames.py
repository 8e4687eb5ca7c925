"""The videos of the app: their frames are decoded when they are asked for."""

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock, Thread

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import as_rgb
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.data.videos import open_video, what_lacks
from no_time_to_train.errors import UserError, one_line
from no_time_to_train.file_hashes import FileState, state_of
from no_time_to_train_extras.app.search import Photo, identity

#: Frames that are decoded one after the other rather than looked for in the file.
NEAR = 30

#: Frames that were only looked at, of which it stays in memory what was found there.
LOOKED_AT = 64


class Video:
    """A video.

    Attributes:
        name: What it is called on the page.
        stem: The folder in the names of its frames.
        times: When each frame is shown, in seconds, as far as the file was read.
        content: What the file is known by; empty before it was looked at.
        complete: Whether all of it was read.
        problem: What is wrong with the file.
        lacks: What to say where it ends too early; empty where it is whole.
    """

    def __init__(self, path: Path, name: str, stem: str) -> None:
        self.path, self.name, self.stem = path, name, stem
        self.times: list[float] = []
        self.complete, self.problem, self.lacks, self.content = False, "", "", ""
        self._early: list[tuple[int, Photo]] = []  # frames that were asked for before their times were known
        self._lock, self._steady = Lock(), True
        self._capture: cv2.VideoCapture | None = None
        self._next = 0
        self._state: FileState | None = None
        self._changed = False

    @property
    def changed(self) -> str:
        """That the file is another one than the one that was read, in one line; empty where it is the same, or gone."""
        with suppress(OSError, UserError):
            if self.content and not self._changed and (state := state_of(self.path)) != self._state:
                self._state, self._changed = state, identity(self.path, self.name) != self.content
        return f"video {self.name} has changed: start the app again" if self._changed else ""

    def read_times(self) -> None:
        """Read the file once from the beginning to the end."""
        try:
            self.content = identity(self.path, self.name)
            video = open_video(self.path)
            while video.grab():
                seconds = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
                self._steady = self._steady and (not self.times or seconds > self.times[-1])
                self.times.append(seconds)
            self.problem = "" if self.times else f"video {self.name}: no frame can be decoded"
            self.lacks = what_lacks(self.path, video, len(self.times))
        except Exception as error:  # whatever its decoder raises: it fails alone
            self.problem = one_line(error)
        for number, photo in self._early:
            if number < len(self.times):
                photo.target = replace(photo.target, seconds=round(self.times[number], 3))
        self.complete = True

    def frame_name(self, number: int) -> str:
        """The name of a frame, as ``segment`` calls it."""
        return f"{self.stem}/{number:06d}.jpg"

    def frame(self, number: int) -> Photo:
        """A frame as a photo: it is known by the content of the video and its number."""
        name = self.frame_name(number)
        seconds = round(self.times[number], 3) if number < len(self.times) else None
        pixels, stem = partial(self.read, number), name.removesuffix(".jpg")
        target = TargetImage(name, stem, pixels, video=self.name, seconds=seconds)
        photo = Photo(target, lambda: f"{identity(self.path, self.name)} {number}")
        if seconds is None:
            self._early.append((number, photo))
        return photo

    def read(self, number: int) -> NDArray[np.uint8]:
        """The pixels of a frame, uint8 [H, W, 3] RGB, upright."""
        if self.changed:  # the file that is open may be the one before
            raise UserError(self.changed)
        with self._lock:
            if self._capture is None or not self._next - 1 <= number < self._next + NEAR:
                self._capture, self._next = self._open_at(number)
            while self._next <= number and self._capture.grab():
                self._next += 1
            decoded, pixels = self._capture.retrieve() if self._next > number else (False, None)
        if not decoded or pixels is None:
            raise UserError(f"video {self.name}: frame {number} cannot be decoded")
        return as_rgb(pixels[..., ::-1])  # from BGR

    def _open_at(self, number: int) -> tuple[cv2.VideoCapture, int]:
        """The file opened at a frame, and the number of the next one; at the beginning where the frame is not found."""
        if number >= NEAR and number < len(self.times) and self._steady:
            video = open_video(self.path)
            video.set(cv2.CAP_PROP_POS_FRAMES, number)
            if video.grab() and video.get(cv2.CAP_PROP_POS_MSEC) / 1000 == self.times[number]:  # some formats miss it
                return video, number + 1
        return open_video(self.path), 0


class Videos:
    """The videos of the app.

    Args:
        found: The name and the stem of each, by path.
    """

    def __init__(self, found: Mapping[Path, tuple[str, str]]) -> None:
        self.all = {stem: Video(path, name, stem) for path, (name, stem) in found.items()}
        self.look_up = lru_cache(LOOKED_AT)(self._look_up)

    def start(self) -> None:
        """Read the videos in the background."""
        Thread(target=self._read_times, name="videos", daemon=True).start()

    def _read_times(self) -> None:
        for video in self.all.values():
            video.read_times()

    @property
    def changes(self) -> int:
        """Differs wherever more is known of the videos."""
        return sum(len(video.times) // 100 + video.complete for video in self.all.values())

    def of(self, name: str | None) -> tuple[Video, int] | None:
        """The video and the number of a frame; None for any other name."""
        found = re.fullmatch(r"(.+)/(\d{6,9})\.jpg", name or "")
        video = self.all.get(found[1]) if found else None
        if found is None or video is None or video.frame_name(int(found[2])) != name:
            return None
        return video, int(found[2])

    def _look_up(self, name: str) -> Photo:
        """The photo that a frame is."""
        if (found := self.of(name)) is None:
            raise UserError(f"there is no photo {name!r}")
        return found[0].frame(found[1])

    def known(self, contents: Iterable[str], names: Collection[str]) -> list[Photo]:
        """Those of the contents that are frames of the videos: of copies of a video, those with the names, or one."""
        found: dict[str, list[Photo]] = {}
        wanted = {content for content in contents if content.count(" ") == 2}
        for video in self.all.values():
            size = video.path.stat().st_size if video.path.exists() else -1
            numbers = {int(one.split()[2]) for one in wanted if int(one.split()[0]) == size}
            for photo in (self.look_up(video.frame_name(number)) for number in sorted(numbers)):
                with suppress(UserError):  # a file that may not be read now
                    if (content := photo.identify()) in wanted:
                        photo.content = content
                        found.setdefault(content, []).append(photo)
        named = {content: [one for one in copies if one.target.name in names] for content, copies in found.items()}
        return [photo for content, copies in found.items() for photo in named[content] or copies[:1]]
