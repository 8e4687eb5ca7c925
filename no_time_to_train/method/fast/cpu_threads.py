"""Independent pieces of work on the cores of a CPU, one thread for each.

An operation on a map of a few megabytes gains little from a second thread, which it has to wait for. Whole pieces of
work gain nearly as much as there are threads.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

S = TypeVar("S")
T = TypeVar("T")


def map_on_threads(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Apply a function that computes on the CPU to items, as many at a time as torch has threads.

    Each call computes on one thread, in the caller's modes (inference, autocast). The results are in the items' order.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(item) for item in items]
    inference = torch.is_inference_mode_enabled()
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def in_the_callers_modes(item: S) -> T:
        with torch.inference_mode(inference), torch.autocast("cpu", dtype, enabled=autocast):
            return work(item)

    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(in_the_callers_modes, items))
    finally:
        torch.set_num_threads(threads)  # threads that start later take the last number that was set anywhere
