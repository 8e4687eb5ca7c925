"""Seconds and peak memory of a piece of work, and the machine that it ran on. Memory is measured on Linux only."""

import ctypes
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
Other = TypeVar("Other")


@dataclass
class Measured(Generic[T]):
    """A piece of work that was done.

    Attributes:
        result: What it returned.
        seconds: How long it took.
        peak: The largest number of bytes that it needed in addition to those that were in use before.
    """

    result: T
    seconds: float
    peak: int


def measure(work: Callable[[], T], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> Measured[T]:
    """Do a piece of work once, and measure it.

    Args:
        work: A function without arguments.
        device: The device that it computes on. Its memory is measured: the GPU's, or that of this process.
        clock: Returns seconds. ``time.process_time`` counts those of the processor, whatever else runs on the machine.

    Returns:
        The function's result and what it took.
    """
    before = memory_in_use(device)
    start = clock()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = clock() - start
    return Measured(result, seconds, peak_memory(device) - before)


def measure_both(
    plain: Callable[[], T],
    ours: Callable[[], Other],
    device: torch.device,
    repeats: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Measured[T], Measured[Other]]:
    """Measure two implementations in turn, several times, and keep the fastest run of each.

    Other programs on the machine disturb the fastest run least.

    Args:
        plain: The first implementation.
        ours: The second implementation.
        device: See :func:`measure`.
        repeats: How many times each is measured.
        clock: See :func:`measure`.

    Returns:
        The fastest run of each.
    """
    rounds = [(measure(plain, device, clock), measure(ours, device, clock)) for _ in range(repeats)]
    seconds = attrgetter("seconds")
    return min((one for one, _ in rounds), key=seconds), min((other for _, other in rounds), key=seconds)


def memory_in_use(device: torch.device) -> int:
    """The bytes that are in use now. :func:`peak_memory` then counts from here."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system, or the work would reuse it unmeasured
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak of the process
    return process_status("VmRSS")


def peak_memory(device: torch.device) -> int:
    """The largest number of bytes in use since the last call of :func:`memory_in_use`."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else process_status("VmHWM")


def process_status(name: str, process: int | str = "self") -> int:
    """A size from Linux's ``/proc/PROCESS/status`` in bytes.

    Args:
        name: The name of the entry, such as ``VmRSS``.
        process: The id of the process.

    Raises:
        KeyError: There is no such entry, which is so for a process that has ended.
        OSError: There is no such process.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def machine(device: torch.device) -> str:
    """The GPU, the processor, and the versions of torch and Python in one line."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    cores = f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    gpu = f"{torch.cuda.get_device_name(device)}; " if device.type == "cuda" else ""
    return f"{gpu}{cores}; torch {torch.__version__}, Python {platform.python_version()}"
