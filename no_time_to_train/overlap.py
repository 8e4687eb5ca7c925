"""Threads that work on one image while the networks work on another: one follows them, and others read ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice, repeat
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Generic, TypeVar

from no_time_to_train.errors import UserError

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


def load_ahead(
    load: Callable[[S], T], keys: Iterable[S], threads: int, ahead: int, patience: float | None = None
) -> Iterator[T]:
    """Load what keys name in threads.

    Args:
        load: Runs in one of the threads.
        ahead: How many more are loaded than were asked for.
        patience: Seconds after which a disk that does not answer is a UserError. None waits for any time.

    Returns:
        What ``load`` returned for each key, in their order. What it raises is raised in the place of its key.
    """
    jobs: SimpleQueue[tuple[Future[T], S] | None] = SimpleQueue()
    loading: deque[Future[T]] = deque()
    rest = iter(keys)

    def work() -> None:
        for future, key in iter(jobs.get, None):
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(load(key))
                except BaseException as error:
                    future.set_exception(error)
            del future  # with what was loaded

    def submit(count: int) -> None:
        for key in islice(rest, count):
            loading.append(Future())
            jobs.put((loading[-1], key))

    try:
        for _ in range(threads):
            Thread(target=work, daemon=True).start()  # a daemon: the process ends, whatever a disk makes it wait for
        submit(ahead)
        while loading:
            first, start = loading.popleft(), monotonic()
            while not wait([first], 1).done:  # in short waits: a signal that another thread gets does not end one
                if patience is not None and monotonic() >= start + patience:
                    raise UserError(f"no image was loaded for {patience} seconds: does the disk answer?")
            submit(1)
            yield first.result()
    finally:
        for future in loading:
            future.cancel()
        for _ in range(threads):
            jobs.put(None)
        wait(loading, 1)  # a thread that is at work in a library as Python ends could crash it


def read_ahead(items: Iterable[T], ahead: int = 1) -> Iterator[T]:
    """Take items from an iterable in a thread of its own, some more than were asked for.

    Args:
        items: The items, none of which is None.
        ahead: How many more.

    Returns:
        The same items. What the iterable raises is raised in the place of its item.
    """
    iterator = iter(items)
    read = load_ahead(lambda _: next(iterator, None), repeat(None), 1, ahead)
    while (item := next(read)) is not None:
        yield item
