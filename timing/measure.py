"""Seconds and peak memory of a piece of work, and the machine that it ran on."""

import ctypes
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


@dataclass
class Measured(Generic[T]):
    """What a piece of work gave, the seconds it took, and the bytes that it needed at most on top of those in use."""

    result: T
    seconds: float
    peak: int


def measure(work: Callable[[], T], device: torch.device) -> Measured[T]:
    """Do a piece of work once. Memory is the GPU's, or the process's (Linux only)."""
    before = memory_in_use(device)
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return Measured(result, seconds, peak_memory(device) - before)


def side_by_side(
    plain: Callable[[], T], ours: Callable[[], T], device: torch.device, repeats: int = 1
) -> tuple[Measured[T], Measured[T]]:
    """Do both in turn, several times: the fastest of each, so that what else the machine does disturbs least."""
    rounds = [(measure(plain, device), measure(ours, device)) for _ in range(repeats)]
    first, second = (min(one, key=lambda measured: measured.seconds) for one in zip(*rounds, strict=True))
    return first, second


def memory_in_use(device: torch.device) -> int:
    """Bytes in use now; the peak is counted anew from here."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or the next piece of work would use it unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the process starts from here
    return process_status("VmRSS")


def peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else process_status("VmHWM")


def process_status(name: str) -> int:
    """A size of this process in bytes, by its name in Linux's ``/proc/self/status``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def machine(device: torch.device) -> str:
    """The processor and the GPU by name, and what runs on them."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    cores = f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    gpu = f"{torch.cuda.get_device_name(device)}; " if device.type == "cuda" else ""
    return f"{gpu}{cores}; torch {torch.__version__}, Python {platform.python_version()}"
