"""Cameras and streams: the newest frame counts, and those that the networks are too slow for are dropped."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

from no_time_to_train.errors import UserError

if TYPE_CHECKING:
    import cv2
    import numpy as np
    from numpy.typing import NDArray

#: What FFmpeg may use for a stream: no files, and no playlists, which name other servers. RTSP's pictures come by TCP,
#: because packets that UDP loses leave gaps in them.
ALLOWED = (
    "protocol_whitelist;rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https"
    "|format_whitelist;rtsp,sdp,rtp,mpjpeg,mjpeg,mpegts,flv,mov,matroska,h264,hevc,mpegvideo"
    "|rtsp_flags;prefer_tcp"
)

#: The addresses of streams begin with one of these.
SCHEMES = ("rtsp", "rtsps", "http", "https", "udp", "tcp", "rtp")

#: How long a stream may take to open, and to give its next frame, in milliseconds.
PATIENCE = 15_000


def is_live(address: str) -> bool:
    """Whether an argument is the number of a camera or the address of a stream; a UserError for other addresses."""
    scheme = re.match(r"([A-Za-z][\w+.-]*)://", address)
    if scheme and scheme[1].lower() not in SCHEMES:
        raise UserError(f"{without_password(address)}: a stream's address begins with {'://, '.join(SCHEMES)}://")
    return bool(scheme) or (address.isdecimal() and not Path(address).exists())


def without_password(address: str) -> str:
    """The address of a stream without the name and the password in it, and any values but numbers of two digits."""
    return re.sub(r"(?<=://)[^/]*@|(?<==)(?!\d\d?(?:[&;_.#]|$))[^&;#]+", "", address)


class LiveFrames:
    """The frames of a camera or a stream, as they come: number, seconds since the first one, uint8 [H, W, 3] RGB.

    A thread reads all frames, so that none is old when it is asked for.

    Args:
        address: The number of a camera, or the address of a stream.
        every: One frame in this many is used.

    Attributes:
        dropped: How many of the frames to use came and went while the networks worked.
        rate: Frames per second, as the camera or the stream states; 25 where it states none.
    """

    def __init__(self, address: str, every: int) -> None:
        import cv2

        self.every, self.dropped = every, 0
        self.video = _open(address)
        rate = self.video.get(cv2.CAP_PROP_FPS)  # some streams state 90000
        self.rate = rate if 1 <= rate <= 240 else 25.0
        self.newest: Queue[tuple[int, float, NDArray[np.uint8]] | None] = Queue(1)
        self.stopped = Event()
        self.thread = Thread(target=self._read, daemon=True)
        self.thread.start()

    def __iter__(self) -> "Iterator[tuple[int, float, NDArray[np.uint8]]]":
        while (frame := self.newest.get()) is not None:
            yield frame

    def close(self) -> None:
        """Stop reading."""
        self.stopped.set()
        self.thread.join(1)
        if not self.thread.is_alive():  # else it waits for a frame, and ends soon
            self.video.release()

    def _read(self) -> None:
        """Read until the stream ends, then wait until the newest frame is taken, and put None."""
        import cv2

        with suppress(cv2.error, MemoryError):  # of a camera that was unplugged in the middle of a frame
            self._keep_newest()
        while not self.stopped.is_set() and self.newest.full():
            time.sleep(0.01)
        if not self.stopped.is_set():
            self.newest.put(None)

    def _keep_newest(self) -> None:
        """Keep the newest frame in the queue until the stream ends."""
        start = 0.0
        for number in count():
            asked = time.monotonic()
            if self.stopped.is_set() or not self.video.grab():
                break
            now = time.monotonic()
            if now - asked >= PATIENCE / 1000:  # a silent stream: what FFmpeg still had of it comes now, one by one
                break
            start = start or now
            decoded, frame = self.video.retrieve() if number % self.every == 0 else (False, None)
            if decoded and frame is not None:
                with suppress(Empty):
                    self.newest.get_nowait()
                    self.dropped += 1
                self.newest.put((number, now - start, frame[..., ::-1].copy()))


def _open(address: str) -> "cv2.VideoCapture":
    """Open a camera or a stream."""
    import cv2

    from no_time_to_train.data.images import check_pixels
    from no_time_to_train.data.videos import capture

    # OpenCV would print ten lines about a camera that is not there.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, PATIENCE, cv2.CAP_PROP_READ_TIMEOUT_MSEC, PATIENCE]
    if address.isdecimal():
        what, advice = f"camera {address}", "is it connected, and does nothing else use it?"
        video = cv2.VideoCapture(min(int(address), 2**31 - 1))
    else:
        what, advice = without_password(address), "does it run there, and are the name and the password right?"
        video = capture(address, ALLOWED, limits)
    if not video.isOpened():
        raise UserError(f"{what} cannot be opened: {advice}")
    pixels = video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT)
    check_pixels(f"(a frame of {what})", int(pixels))
    return video
