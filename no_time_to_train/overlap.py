"""Threads that work on one image while the networks work on another: one follows them, and others read ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class Worker(Generic[T]):
    """Does one job at a time in a thread of its own, in the order in which they are started.

    No more than one job exists at a time, so two images at most are in memory: the job's and the caller's next one.
    Leaving the context waits for the job.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1)
        self.job: Future[T] | None = None

    def __enter__(self) -> "Worker[T]":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, job: Callable[[], T]) -> None:
        """Finish the earlier job, then start this one and return at once.

        Args:
            job: A function without arguments. What it raises is raised by the next call of :meth:`start` or
                :meth:`finish`.
        """
        self.finish()
        self.job = self.thread.submit(job)

    def finish(self) -> T | None:
        """Wait for the job that was started last.

        Returns:
            What it returned; None where no job was started since the last call.
        """
        job, self.job = self.job, None
        return None if job is None else job.result()

    def close(self) -> None:
        """Wait for the job, whatever it does, and end the thread."""
        self.thread.shutdown()


def follow(items: Iterable[S], work: Callable[[S], T]) -> Iterator[T]:
    """Work on each item while the next one is made.

    Args:
        items: Made in the caller's thread.
        work: Runs in a thread of its own, on an item, which is freed afterwards.

    Returns:
        What ``work`` returned for each item, which is never None, in their order. While one is handed out, no thread
        runs. An error of the items is raised after the result of the item before.
    """
    with Worker[T]() as worker:
        try:
            for item in items:
                if (result := worker.finish()) is not None:
                    yield result
                worker.start(partial(work, item))
                del item  # freed as soon as the work on it ends, while the next one is made
        except Exception:
            if (result := worker.finish()) is not None:
                yield result
            raise
        if (result := worker.finish()) is not None:
            yield result


def read_ahead(items: Iterable[T], ahead: int = 1) -> Iterator[T]:
    """Take items from an iterable in a thread of its own, some more than were asked for.

    Args:
        items: The items, none of which is None.
        ahead: How many more.

    Returns:
        The same items. What the iterable raises is raised in the place of its item.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1) as reader:
        reading = deque(reader.submit(next, iterator, None) for _ in range(ahead))
        while (read := reading.popleft().result()) is not None:
            reading.append(reader.submit(next, iterator, None))
            yield read


def load_ahead(load: Callable[[S], T], keys: Iterable[S], threads: int, patience: float) -> Iterator[T]:
    """Load what keys name in threads, two more for each thread than were asked for.

    Args:
        load: Runs in one of the threads.
        patience: Seconds to wait for one.

    Returns:
        What ``load`` returned for each key, in their order. What it raises is raised in the place of its key.

    Raises:
        multiprocessing.TimeoutError: One was not loaded in time. Its thread does not keep the process from ending.
    """
    rest = iter(keys)
    with ThreadPool(threads) as pool:
        loading = deque(pool.apply_async(load, [key]) for key in islice(rest, 2 * threads))
        try:
            while loading:
                loaded = loading.popleft().get(patience)
                loading.extend(pool.apply_async(load, [key]) for key in islice(rest, 1))
                yield loaded
        finally:
            for job in loading:
                job.wait(1)  # a thread that is at work in a library as Python ends could crash it
