"""Videos: opened as the file alone, whatever it is called, and whatever it names."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2

from no_time_to_train.data.images import check_pixels
from no_time_to_train.errors import UserError

#: What FFmpeg may use: files, and formats that hold videos. It knows playlists, too, which name files and servers.
ALLOWED = "protocol_whitelist;file|format_whitelist;mov,avi,matroska,asf,mpeg,mpegts,mpegvideo,m4v,ogg,flv"

#: The environment variable that OpenCV takes FFmpeg's options from.
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"

#: The share of frames by which the number in a video's file may be wrong, and the endings of files that count frames:
#: the others state a duration, which sound may lengthen.
UNCERTAIN, COUNTED = 0.02, {".mp4", ".m4v", ".mov", ".avi"}

# FFmpeg prints nothing itself: its lines do not name the file. OpenCV reads this before it opens the first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a video. A UserError says where it is broken, or has frames of more pixels than an image may have."""
    if not path.is_file():  # opening a pipe would wait forever
        raise UserError(f"video {path} cannot be read: it is not a file")
    try:
        with path.open("rb") as file:  # OpenCV does not say why it cannot
            name = str(path.absolute())  # a relative one may look like the address of a server
            if name.encode(errors="replace") != os.fsencode(name):
                name = f"/dev/fd/{file.fileno()}"  # OpenCV crashes where a name is not UTF-8
            video = capture(name)
    except OSError as error:
        raise UserError(f"video {path} cannot be read: {error.strerror}") from error
    if not video.isOpened():
        raise UserError(f"video {path} cannot be read: it is broken, or OpenCV does not know its format")
    pixels = video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT)
    check_pixels(f"(a frame of {path})", int(pixels))
    return video


def capture(name: str, allowed: str = ALLOWED, limits: Sequence[int] = ()) -> cv2.VideoCapture:
    """Have FFmpeg open a name, with what it may use, and OpenCV's names and values of limits one after the other."""
    earlier, level = os.environ.get(OPTIONS), cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ[OPTIONS] = allowed
    try:
        return cv2.VideoCapture(name, cv2.CAP_FFMPEG, limits)
    finally:
        cv2.utils.logging.setLogLevel(level)
        del os.environ[OPTIONS]
        if earlier is not None:
            os.environ[OPTIONS] = earlier


def what_lacks(path: Path, video: cv2.VideoCapture, number: int) -> str:
    """What to say of a video with another number of frames than its file states; empty where it is whole."""
    if not number:
        return "has no frame that can be decoded: it is broken, or OpenCV has no decoder for it, as for AV1"
    stated = video.get(cv2.CAP_PROP_FRAME_COUNT)
    extra = 1 if path.suffix.lower() in COUNTED else max(video.get(cv2.CAP_PROP_FPS), 1)
    if number >= (1 - UNCERTAIN) * stated - extra:
        return ""
    why = "it is broken or cut off, or was trimmed without encoding it again"
    return f"ends after {number} of the {stated:.0f} frames that its file states: {why}"
