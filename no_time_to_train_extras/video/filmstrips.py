"""Pictures of tracks: a video with all objects in steady colors, and a filmstrip of each object."""

from io import BytesIO
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.visual.drawing import (
    INSTANCE_COLORS,
    PALETTE,
    Picture,
    draw_instances,
    draw_outlines,
    outlines,
    save_picture,
)
from no_time_to_train_extras.video.annotated_videos import Mp4File
from no_time_to_train_extras.video.track_frames import TrackedFrame

#: The most pictures of a filmstrip, and the side of each in pixels.
PICTURES, SIDE = 8, 112

#: The side of a picture, relative to the longer side of the object's box.
AROUND = 1.3


def color_of(track: int) -> int:
    """The index in ``PALETTE`` of a track's color."""
    return (track - 1) % INSTANCE_COLORS


def draw_tracks(frame: TrackedFrame) -> Picture:
    """Draw the objects of a frame, each in its own color, with its class and its number."""
    found, tracks = frame.instances, frame.track_ids.tolist()
    labels = [f"{label} {track}" for label, track in zip(found.labels, tracks, strict=True)]
    colors = np.array([color_of(track) for track in tracks], np.int64)
    return draw_instances(found.image, found.detections.masks, colors, labels, numbers=tracks)


class Filmstrips:
    """Keeps a few pictures of each track, evenly over its frames, in a table of a database.

    Each time there are too many of a track, every second one goes, and only every second frame adds one from then on.
    """

    def __init__(self, database: Connection) -> None:
        self.database = database
        database.execute("CREATE TABLE pictures (track, number, jpeg)")
        self.seen: dict[int, tuple[int, int]] = {}  # frames of the track so far, and of how many one is kept

    def add(self, frame: TrackedFrame) -> None:
        """Add the objects of a frame."""
        for index, track in enumerate(frame.track_ids.tolist()):
            number, step = self.seen.get(track, (0, 1))
            if number % step == 0:
                if number == PICTURES * step:
                    step *= 2
                    self.database.execute("DELETE FROM pictures WHERE track = ? AND number % ?", (track, step))
                if number % step == 0:
                    jpeg = BytesIO()
                    Image.fromarray(_picture(frame, index)).save(jpeg, "JPEG", quality=88)
                    self.database.execute("INSERT INTO pictures VALUES (?, ?, ?)", (track, number, jpeg.getvalue()))
            self.seen[track] = number + 1, step

    def save(self, track: int, path: Path) -> None:
        """Write the filmstrip of a track."""
        rows = self.database.execute("SELECT jpeg FROM pictures WHERE track = ? ORDER BY number", (track,))
        save_picture(np.hstack([np.asarray(Image.open(BytesIO(jpeg))) for (jpeg,) in rows]), path)


def _picture(frame: TrackedFrame, index: int) -> Picture:
    """The surroundings of an object with its outline: uint8 [SIDE, SIDE, 3]."""
    crop, top, left = frame.instances.detections.masks.crop(index)
    side = max(round(AROUND * max(crop.shape)), 8)
    first = np.array([left + crop.shape[1] // 2 - side // 2, top + crop.shape[0] // 2 - side // 2])
    size = np.array(frame.instances.image.shape[1::-1])
    first = first.clip(0, (size - side).clip(0))  # near an edge, the object is not in the middle
    columns, rows = (np.arange(side) + first[:, None]).clip(max=size[:, None] - 1)
    picture = cv2.resize(frame.instances.image[rows][:, columns], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    picture = np.ascontiguousarray(picture, np.uint8)
    contours = [((one + np.array([left, top]) - first) * SIDE / side).astype(np.int32) for one in outlines(crop)]
    draw_outlines(picture, contours, PALETTE.by_idx(color_of(int(frame.track_ids[index]))).as_rgb(), line=2)
    return picture


class VideoFile:
    """Writes pictures to an MP4 file as they come, at a steady rate: each is shown until the time of the next one.

    Args:
        rate: Frames per second of the file.
    """

    def __init__(self, rate: float) -> None:
        self.rate = min(max(rate, 1.0), 60.0)
        self.video: Mp4File | None = None
        self.size, self.written = (0, 0), 0
        self.last: NDArray[Any] = np.zeros((0, 0, 3), np.uint8)

    def add(self, picture: Picture, seconds: float) -> None:
        """Add a picture, which is scaled to the size of the first one; ``seconds`` says from when on it is shown."""
        if self.video is None:
            self.size = picture.shape[1], picture.shape[0]
            refusal = "this OpenCV writes no MPEG-4 videos: leave --format video out"
            self.video = Mp4File(self.rate, self.size, refusal)
        earlier, self.last = self.last, cv2.resize(picture[..., ::-1], self.size)  # in BGR
        due = round(seconds * self.rate) + 1
        for shown in [earlier] * (due - 1 - self.written if self.written else 0) + [self.last] * (self.written < due):
            self.video.add(shown)
            self.written += 1

    def save(self, path: Path) -> None:
        """Write the file, if there is a picture in it."""
        if self.video is not None:
            self.video.save(path)
