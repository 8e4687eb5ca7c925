"""The processes of one run, one for each device, which end together."""

import _thread
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import socketpair
from typing import Any

from no_time_to_train.errors import UserError

#: The environment variable in which the first process tells the others its number.
FIRST = "NO_TIME_TO_TRAIN_FIRST_PROCESS"

#: The numbers that launchers give processes and their runs.
NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "SLURM_PROCID", "MASTER_PORT")

#: The numbers of Linux's prctl(PR_SET_PDEATHSIG) and of SIGKILL, which Windows lacks.
PARENT_DEATH_SIGNAL, KILL = 1, 9

#: What Unix calls the signals that end processes.
SIGNALS = {6: "SIGABRT", 7: "SIGBUS", KILL: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}

#: Seconds between two looks for processes that were started, and those in which a signal ends what the run does.
PERIOD, PATIENCE = 0.5, 4.0


def begin_command(words: list[str]) -> None:
    """Look at what a launcher has set, before libraries do: this process may be one of several of a run."""
    shared = words[:1] in (["test"], ["benchmark"]) or any("--devices" in one or "--num-nodes" in one for one in words)
    if not shared and FIRST not in os.environ:  # a script around this command has set them
        for name in NUMBERS:
            os.environ.pop(name, None)
        catch_signals()  # Lightning handles those of the other commands
        return
    absent = "" if "TORCHELASTIC_RUN_ID" in os.environ else "0"
    for name in NUMBERS:
        value = os.environ.get(name, absent if name in NUMBERS[:3] else "0")
        if not value.isdecimal():
            os.environ[name] = "0"
            advice = "unset it, and TORCHELASTIC_RUN_ID, which torchrun sets with it" if not absent else "unset it"
            raise UserError(f"{name}={value} in the environment is no number: {advice}")
    launched = {"SLURM_STEP_ID", "TORCHELASTIC_RUN_ID"} & os.environ.keys()  # the first of which srun sets
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if not launched and tasks not in ("0", "1") and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        raise UserError(f"SLURM has begun one process of {tasks}: write srun before the command, or --ntasks 1")
    if shared and FIRST in os.environ:  # before torch is imported, which takes seconds
        join_run()


def catch_signals() -> None:
    """Let signals that end a process raise KeyboardInterrupt, as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):  # which Windows lacks
        number = getattr(signal, name, None) if threading.current_thread() is threading.main_thread() else None
        if number and signal.getsignal(number) == signal.SIG_DFL:  # not under nohup
            signal.signal(number, interrupt)


def interrupt(number: int, _: object) -> None:
    """Handle a signal as Python handles Ctrl-C, with its name as the error's text."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def signal_of(error: BaseException | None) -> int:
    """The number of the signal that an interrupt comes from; 0 for another error."""
    return getattr(signal, str(error) or "SIGINT", signal.SIGINT) if isinstance(error, KeyboardInterrupt) else 0


def keep_interrupts(lost: "sys.UnraisableHookArgs") -> None:
    """Let a Ctrl-C that hits a destructor, where Python prints and forgets it, come again a moment later."""
    if number := signal_of(lost.exc_value):
        threading.Timer(0.1, _thread.interrupt_main, [number]).start()
    else:
        sys.__unraisablehook__(lost)


def is_first_process() -> bool:
    """Whether this process prints messages and writes files, where several run the same command."""
    numbers = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in numbers)


def end_with_parent() -> None:
    """Have this process killed when the one that started it ends. Other systems than Linux wait until it notices."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, KILL)


def join_run() -> None:
    """Begin as the first process of a run, or as another one, which ends with the first."""
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        os.environ[FIRST] = str(os.getpid())
    elif FIRST in os.environ:  # else another launcher started it, which sees to its end
        end_with_parent()
        # Has it ended already? On Windows, the parent of an environment's Python is the launcher that began it.
        if os.name != "nt" and os.getppid() != int(os.environ[FIRST]):
            os._exit(1)


@contextmanager
def watch(launcher: Any) -> Iterator[None]:
    """End the run at once where a signal has ended one of its processes: the others would wait for it.

    Lightning looks at them every 5 s, and would kill this process, too, before it has said why. Where a signal comes
    while this process waits for others, in which Python cannot handle it, the run ends, too.

    Args:
        launcher: Lightning's, whose ``procs`` are the other processes; None where there are none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over, (received, sending) = threading.Event(), socketpair()
    for end in (received, sending):
        end.setblocking(False)
    before = signal.set_wakeup_fd(sending.fileno())

    def wait(number: int, process: Any) -> None:
        if (code := process.wait()) < 0:
            name = SIGNALS.get(-code, f"signal {-code}")
            print(f"\nerror: process {number} of the run was ended by {name}", file=sys.stderr, flush=True)
            os._exit(1)  # the others end with this one, see end_with_parent

    def look() -> None:
        waiting = 0
        while not over.wait(PERIOD):
            for process in getattr(launcher, "procs", [])[waiting:]:
                waiting += 1
                threading.Thread(target=wait, args=(waiting + 1, process), daemon=True).start()
            with suppress(BlockingIOError):
                number = received.recv(1)[0]
                if number in (signal.SIGINT, signal.SIGTERM) and not over.wait(PATIENCE):
                    name = signal.Signals(number).name
                    print(f"\ninterrupted by {name}; the same command resumes", file=sys.stderr, flush=True)
                    os._exit(128 + number)

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
