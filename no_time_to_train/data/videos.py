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

# FFmpeg prints nothing itself: its lines do not name the file. OpenCV reads this before it opens the first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a video. A UserError says where it is broken, or has frames of more pixels than an image may have."""
    if not path.is_file():  # opening a pipe would wait forever
        raise UserError(f"video {path} cannot be read: it is not a file")
    descriptor = None
    try:
        name = str(path.absolute())  # a relative one may look like the address of a server
        if name.encode(errors="replace") != os.fsencode(name):
            descriptor = os.open(path, os.O_RDONLY)
            name = f"/dev/fd/{descriptor}"  # OpenCV crashes where a name is not UTF-8
        video = capture(name)
    except OSError as error:
        raise UserError(f"video {path} cannot be read: {error.strerror}") from error
    finally:
        if descriptor is not None:
            os.close(descriptor)
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
