"""The frames of a video, a folder of images, a camera or a stream, each with the time when it was taken."""

import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import as_rgb, is_image
from no_time_to_train.data.names import clean_characters
from no_time_to_train.data.targets import find_targets, is_video
from no_time_to_train.data.videos import open_video
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.file_hashes import sha256
from no_time_to_train_extras.video.live import LiveFrames, is_live, without_password

#: Seconds between two looks at a folder that fills.
PERIOD = 0.2


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        number: Its number in the video, from 0. Frames that are left out are counted, too.
        seconds: When it was taken, from the beginning of the video. Each frame is later than the one before.
        image: uint8 [H, W, 3] RGB, upright.
    """

    number: int
    seconds: float
    image: NDArray[np.uint8]


class Frames:
    """The frames of one video, which can be iterated over once.

    Args:
        source: A video, a folder of images, which are frames in the order of their names, the number of a camera, or
            the address of a stream.
        every: One frame in this many is used.
        fps: Frames per second of a folder's images, and of a video that states no times.
        watch: Wait for further images in the folder.
        most: Only frames from the first so many seconds; None takes all.
        out: Files in this folder are not frames.

    Attributes:
        name: What the video is called in files.
        live: Whether the frames come as they are taken, so that the same ones never come again.
        rate: Frames per second, about.
        count: The number of frames as the file states it; None where it is not known.
        untimed: Whether the file is a video that states no times.
        skipped: One line for each frame that could not be read.
        lost: What to say where a watched folder went away, which ends the video.
    """

    def __init__(
        self,
        source: str,
        every: int = 1,
        fps: float = 25.0,
        watch: bool = False,
        most: float | None = None,
        out: Path | None = None,
    ) -> None:
        self.source, self.shown = source, without_password(source)
        self.path, self.every, self.most, self.watch = Path(source), every, most, watch
        self.skipped: list[str] = []
        self.lost = ""
        self.camera = LiveFrames(source, every) if is_live(source) else None
        self.live = watch or self.camera is not None
        self.untimed = False
        stem = self.shown if "://" in source else self.path.stem
        self.name = clean_characters(re.sub(r"[^\w.-]+", "_", f"camera_{stem}" if stem.isdecimal() else stem))
        self.rate = fps / every
        self.count: int | None = None
        if self.camera is not None:
            self.rate = self.camera.rate / every
        elif not watch:
            targets = find_targets([source], every, out)
            if self.path.is_dir() and "video" in targets.description:
                raise UserError(f"--images {source}: {targets.description}; give one video, or a folder of its frames")
            self.targets, self.count = targets.images, targets.count
            if is_video(self.path):
                stated = open_video(self.path).get(cv2.CAP_PROP_FPS)
                self.untimed = _states_no_rate(self.path)
                self.rate = (stated if 0.01 <= stated <= 240 and not self.untimed else fps) / every
            elif not self.path.is_dir():
                raise UserError(f"--images {source} is one image: give a video, or a folder with its frames as images")
            else:
                self._check_order()
                self.targets, self.count = islice(self.targets, 0, None, every), -(-self.count // every)

    def __iter__(self) -> Iterator[Frame]:
        last, size, told = -1 / self.rate, None, False
        for number, seconds, image in self._until_lost() if self.watch else self.camera or self._read():
            if seconds is None or seconds <= last:
                seconds = last + 1 / self.rate
            if self.most is not None and seconds >= self.most:
                return
            size = size or image.shape
            if image.shape != size and not told:
                what, told = f"frame {number} has another size than the first one", True
                warnings.warn(f"{self.shown}: {what}: objects are linked by their places in pixels", UserNotice, 2)
            yield Frame(number, last := float(seconds), image)
        if self.camera is not None:
            print(f"{self.shown} ended, or its connection broke, after {max(last, 0.0):.0f} s", file=sys.stderr)

    @property
    def dropped(self) -> int:
        """How many frames of a camera or a stream came and went while the networks worked."""
        return 0 if self.camera is None else self.camera.dropped

    def close(self) -> None:
        """Free the camera or the stream."""
        if self.camera is not None:
            self.camera.close()

    def _check_order(self) -> None:
        """Say where the order of the names is not that of the numbers in them."""
        names = [file.name for file in sorted(filter(is_image, self.path.iterdir()))]
        by_number = sorted(names, key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(20), name))
        for name, other in zip(names, by_number, strict=True):
            if name != other:
                text = f"frames are in the order of their names, in which {name} comes before {other}"
                warnings.warn(f"--images {self.source}: {text}: begin the numbers with zeros", UserNotice, stacklevel=2)
                return

    def identity(self) -> dict[str, Any]:
        """What tells the video and the choice of its frames from others, as JSON values."""
        files = sorted(filter(is_image, self.path.iterdir())) if self.path.is_dir() else []
        content = [[file.name, sha256(file) if file.is_file() else None] for file in files] or sha256(self.path)
        return {"video": content, "every": self.every, "frames per second": self.rate}

    def _read(self) -> Iterator[tuple[int, float | None, NDArray[np.uint8]]]:
        """The frames of a file or a folder."""
        for index, target in enumerate(self.targets):
            number = self.every * index if target.video is None else int(target.stem.rpartition("/")[2])
            try:
                timed = target.video is not None and not self.untimed
                yield number, target.seconds if timed else index / self.rate, target.read()
            except UserError as error:
                self.skipped.append(str(error))

    def _until_lost(self) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        """The images that come into a folder, until it goes away."""
        try:
            yield from self._watched()
        except OSError as error:
            self.lost = f"--watch ended, because {self.source} went away: {error.strerror}"

    def _watched(self) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        """The images that come into a folder, once they do not grow any more. They wait on the disk: none is lost."""
        start, number = time.monotonic(), 0
        states: dict[Path, tuple[int, int]] = {}
        read: dict[Path, tuple[int, int]] = {}
        broken: dict[Path, str] = {}
        while self.most is None or time.monotonic() - start < self.most:
            before, states = states, {}
            for file in filter(is_image, self.path.iterdir()):
                with suppress(FileNotFoundError):
                    states[file] = file.stat().st_mtime_ns, file.stat().st_size
            ready = [file for file, state in states.items() if before.get(file) == state != read.get(file)]
            for file in sorted(ready, key=lambda file: (states[file], file.name)):
                read[file] = states[file]  # a broken one is read again once it changes
                if said := broken.pop(file, ""):  # it has changed: it was not complete
                    self.skipped.remove(said)
                try:
                    image = as_rgb(file)
                except UserError as error:
                    next(self.path.iterdir(), None)  # an OSError where the whole folder went away
                    broken[file] = str(error)
                    self.skipped.append(broken[file])
                    continue
                if number % self.every == 0:
                    yield number, time.monotonic() - start, image
                number += 1
            time.sleep(PERIOD)


def _states_no_rate(path: Path) -> bool:
    """Whether a file is an AVI that states no frames per second; FFmpeg and OpenCV say 25 then."""
    with path.open("rb") as file:
        head = file.read(4096)
    period, rate = head.find(b"avih") + 8, head.find(b"vids") + 24  # of the file, and of its first video
    return head[8:12] == b"AVI " and not any(head[period : period + 4] + head[rate : rate + 4])
