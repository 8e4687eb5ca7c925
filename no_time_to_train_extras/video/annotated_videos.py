"""Videos of what was found in the frames of a video."""

import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import open_image
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.data.videos import capture
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.files import atomic_write

#: Frames per second of the videos, at least and at most.
SLOWEST, FASTEST = 0.01, 240.0


class AnnotatedVideos:
    """Writes ``video/STEM.mp4`` per video: the overlays of the frames that were searched, at the video's speed."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "video"
        self.frames: dict[str, list[tuple[float, Path]]] = {}

    def add(self, frame: TargetImage, overlay: Path) -> None:
        """Add a frame and the picture that stands for it in the video."""
        assert frame.seconds is not None
        stem = frame.stem.rpartition("/")[0]
        self.frames.setdefault(stem, []).append((frame.seconds, overlay))

    def finish(self) -> None:
        """Write the videos."""
        if not self.frames:
            warnings.warn("--format video writes none: no frame of a video was searched", UserNotice, stacklevel=2)
        for stem, frames in self.frames.items():
            _write_video(self.folder / f"{stem}.mp4", frames)


def _write_video(path: Path, frames: list[tuple[float, Path]]) -> None:
    """Write pictures, each with its time in seconds, as an MP4 file. All are scaled to the size of the first one."""
    seconds = frames[-1][0] - frames[0][0]
    rate = (len(frames) - 1) / seconds if seconds > 0 else 1.0
    rate = min(max(rate, SLOWEST), FASTEST)  # broken files state any time
    size = open_image(frames[0][1]).size
    video = Mp4File(rate, size, f"{path} cannot be written: this OpenCV writes no MPEG-4 videos")
    for _, picture in frames:
        pixels = np.asarray(open_image(picture))[..., ::-1]  # in BGR
        if pixels.shape[1::-1] != size:  # the writer leaves it out without a word
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        video.add(pixels)
    video.save(path)


class Mp4File:
    """An MP4 file, which takes its place once it is complete.

    Args:
        rate: Frames per second.
        size: Width and height of all frames in pixels.
        refusal: What the UserError says where OpenCV cannot write such files.
    """

    def __init__(self, rate: float, size: tuple[int, int], refusal: str) -> None:
        self.folder = TemporaryDirectory(ignore_cleanup_errors=True)
        self.temporary = Path(self.folder.name) / "video.mp4"
        self.frames = 0
        self.writer = cv2.VideoWriter(str(self.temporary), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not self.writer.isOpened():
            raise UserError(refusal)

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame, uint8 [H, W, 3] BGR."""
        self.writer.write(frame)
        self.frames += 1

    def save(self, path: Path) -> None:
        """Write the file to its place."""
        self.writer.release()
        if capture(str(self.temporary)).get(cv2.CAP_PROP_FRAME_COUNT) != self.frames:  # OpenCV reports no full disk
            raise UserError(f"{path} cannot be written: is {gettempdir()} full? TMPDIR names another place")
        with atomic_write(path) as file, self.temporary.open("rb") as source:
            shutil.copyfileobj(source, file)
        self.folder.cleanup()
