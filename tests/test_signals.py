"""Signals that end commands: their status and line, and what they leave behind."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from no_time_to_train import cli
from no_time_to_train.pipeline import processes
from tests.conftest import Capture, Patch

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP] if os.name != "nt" else [signal.SIGINT]


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:  # the tests may run under nohup, or in the background of a script, which ignores Ctrl-C
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ends_with(monkeypatch: Patch, work: Callable[[], None]) -> int:
    """The status of a command that does some work, in a process where nobody else has set handlers."""
    monkeypatch.setattr(cli, "run", lambda _: work())
    monkeypatch.delenv(processes.FIRST, raising=False)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with pytest.raises(SystemExit) as ended:
        cli.main(["segment"])
    return int(str(ended.value.code))


def receive(number: int) -> None:
    assert signal.getsignal(number) != signal.SIG_DFL, "it would end the tests"
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_with_one_line_and_the_status_of_that_signal(
    number: signal.Signals, monkeypatch: Patch, capsys: Capture
) -> None:
    assert ends_with(monkeypatch, lambda: receive(number)) == 128 + number
    name = "" if number == signal.SIGINT else f" by {number.name}"
    assert capsys.readouterr().err.splitlines()[-1] == f"interrupted{name}"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
def test_a_command_that_nohup_started_outlives_its_terminal(monkeypatch: Patch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(cli, "run", lambda _: os.kill(os.getpid(), signal.SIGHUP))
    cli.main(["segment"])


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_arrives_in_a_destructor_is_not_lost(number: signal.Signals, monkeypatch: Patch) -> None:
    class Busy:
        def __del__(self) -> None:
            receive(number)

    def work() -> None:
        Busy()
        for _ in range(500):
            time.sleep(0.01)

    start = time.monotonic()
    assert ends_with(monkeypatch, work) == 128 + number
    assert time.monotonic() - start < 4


@pytest.mark.skipif(sys.platform != "linux", reason="waits in a lock of Linux")
def test_a_signal_ends_a_run_that_waits_in_a_library_for_its_other_processes() -> None:
    code = """
        import ctypes, os, signal, threading, types
        from no_time_to_train.pipeline import processes
        processes.PATIENCE = 0.2
        signal.signal(signal.SIGTERM, processes.interrupt)
        with processes.watch(types.SimpleNamespace(procs=[])):
            threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
            lock = ctypes.create_string_buffer(64)
            for _ in range(2):
                ctypes.CDLL(None).pthread_mutex_lock(lock)
    """
    ended = subprocess.run([sys.executable, "-c", dedent(code)], timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (143, "\ninterrupted by SIGTERM; the same command resumes\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process could handle")
def test_a_signal_ends_a_command_whose_reader_has_stopped_reading() -> None:
    code = """
        import os, signal, threading
        from no_time_to_train import cli
        def work(_):
            threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM]).start()
            while True:
                print("x" * 1000)
        cli.run = work
        cli.main(["segment"])
    """
    environment = {name: value for name, value in os.environ.items() if name != processes.FIRST}
    command = [sys.executable, "-c", dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.wait(60) == 143


def test_a_process_of_a_run_ends_with_the_first_one_even_before_it_has_imported_torch(monkeypatch: Patch) -> None:
    joined = Mock()
    monkeypatch.setattr(processes, "join_run", joined)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv(processes.FIRST, raising=False)
    processes.begin_command(["segment", "--devices", "2"])
    assert not joined.called, "another launcher sees to the end of its processes"
    monkeypatch.setenv(processes.FIRST, str(os.getppid()))
    processes.begin_command(["segment", "--devices", "2"])
    assert joined.called


def test_the_temporary_folder_of_the_app_goes_with_a_signal_at_any_moment(tmp_path: Path, monkeypatch: Patch) -> None:
    page = pytest.importorskip("no_time_to_train_extras.app.page")
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "GuardedApp", interrupt)

    class Page(SimpleNamespace):
        def __init__(self, *_: Any) -> None:
            super().__init__(endpoints=Mock(), queue=Mock(), build=lambda: self)

    monkeypatch.setattr(page, "Page", Page)
    with suppress(KeyboardInterrupt):
        page.serve(Mock(), tmp_path / "out", tmp_path / "app")
    gc.collect()  # as the end of the process would
    assert not list(tmp_path.glob("no-time-to-train-*"))
