"""One thread that computes for many requests, and refuses what it cannot hold."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

T = TypeVar("T")


class ComputeQueue:
    """Runs jobs in a thread of its own, in the order in which they come.

    Args:
        capacity: The most images that wait or are computed at any time.

    Attributes:
        waiting: The images that wait or are computed.
        images: The images that were done.
        seconds: Those that an image took, averaged over the latest ones.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.waiting, self.images, self.seconds = capacity, 0, 0, 1.0
        self.thread, self.lock = ThreadPoolExecutor(1, "compute"), Lock()

    def submit(self, images: int, job: Callable[[], T]) -> Future[T]:
        """Let a job with a number of images wait for its turn.

        Raises:
            HTTPException: 429, with the seconds after which there may be room; 413 where there never is.
        """
        if images > self.capacity:
            raise HTTPException(413, f"{images} images in one request: this server takes at most {self.capacity}")
        with self.lock:
            if self.waiting + images > self.capacity:
                seconds = math.ceil(self.seconds * (self.waiting + images - self.capacity))
                raise HTTPException(429, "too many images are waiting: try again later", {"retry-after": str(seconds)})
            self.waiting += images
        future = self.thread.submit(self._run, images, job)
        future.add_done_callback(lambda _: self._leave(images))
        return future

    def _run(self, images: int, job: Callable[[], T]) -> T:
        begin = time.monotonic()
        result = job()
        self.images += images
        self.seconds += 0.2 * ((time.monotonic() - begin) / images - self.seconds)
        return result

    def _leave(self, images: int) -> None:
        """A job was done, or given up before its turn."""
        with self.lock:
            self.waiting -= images

    async def answer(self, request: Request, images: int, job: Callable[[], T]) -> T:
        """The result of a job, which is given up if the client leaves before its turn."""
        result = asyncio.wrap_future(self.submit(images, job))
        left = asyncio.ensure_future(_leaves(request))
        either: list[asyncio.Future[Any]] = [result, left]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if not result.done():
            result.cancel()
            raise HTTPException(499, "the client has left")
        if result.cancelled():
            raise HTTPException(503, "the server ends")
        return result.result()


async def _leaves(request: Request) -> None:
    """Wait until the client of a request that was read has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
