"""``no-time-to-train`` without the seconds that importing torch takes: a server forks a prepared process per command.

Run with a socket's path and a command line, this file is the client: it has the command run in its own folder, with its
own environment and output, and ends with the command's exit status. Tests of the scripts, which call many commands, use
it. ``DIE_AFTER`` in the environment kills the command after so many seconds, ``INTERRUPT_AFTER`` presses Ctrl-C;
``LARGEST_FILE`` simulates a disk that is full after so many bytes. ``MODULES`` is a file for the names of the modules
that the command has imported; the server imports them, and the next such command starts at once. The command
``MODULE:FUNCTION`` calls a function with the words that follow.
"""

import array
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

#: What commands import only once they run.
PRELOADED = (
    "stage_cli",
    "benchmarks.prepare.steps",
    "benchmarks.report.pages",
    "demo.run_demo",
    "networks.box_prompts",
    "pipeline.boxes_to_masks",
    "pipeline.segment_images",
)


def serve(path: str, *prepare: str) -> None:
    """Import what commands need, then run them one at a time as they arrive.

    Args:
        prepare: A function as MODULE:FUNCTION, and its arguments. It is called first.
    """
    from no_time_to_train.cli import main

    for module in PRELOADED:
        import_module(f"no_time_to_train.{module}")
    if prepare:
        function_of(prepare[0])(*prepare[1:])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                request, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_SPACE(3 * 4))
                descriptors = array.array("i", ancillary[0][2])
                child = os.fork()
                if child == 0:
                    run(json.loads(request), descriptors, main)
                for descriptor in descriptors:
                    os.close(descriptor)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF
                if modules := json.loads(request)["environment"].get("MODULES"):
                    for name in Path(modules).read_text().split():
                        with contextlib.suppress(Exception):
                            import_module(name)
                connection.send(bytes([status]))


def run(request: dict, descriptors: array.array, main) -> None:
    """In the child: take the client's place and run its command."""
    status = 1
    try:
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[1], 2)
        os.fchdir(descriptors[2])
        os.environ.clear()
        os.environ.update(request["environment"])
        if "DIE_AFTER" in os.environ:  # the alarm is not handled: the kernel ends the process like SIGKILL
            signal.setitimer(signal.ITIMER_REAL, float(os.environ["DIE_AFTER"]))
        if "INTERRUPT_AFTER" in os.environ:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
            signal.setitimer(signal.ITIMER_REAL, float(os.environ["INTERRUPT_AFTER"]))
        if "LARGEST_FILE" in os.environ:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LARGEST_FILE"]),) * 2)
        arguments = request["arguments"]
        sys.argv = ["no-time-to-train", *arguments]
        tempfile.tempdir = None  # the next file asks TMPDIR again
        if arguments and ":" in arguments[0]:
            function_of(arguments[0])(*arguments[1:])
        else:
            main(arguments)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        if "MODULES" in os.environ:
            Path(os.environ["MODULES"]).write_text("\n".join(name for name in sys.modules if "__" not in name))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def function_of(name: str) -> Callable[..., object]:
    """The function that ``MODULE:FUNCTION`` names."""
    module, function = name.split(":")
    return getattr(import_module(module), function)


@contextlib.contextmanager
def zygote(folder: Path, *prepare: str) -> Iterator[str]:
    """Start a server; the command line to call instead of ``no-time-to-train``.

    Args:
        prepare: As of :func:`serve`.
    """
    path = folder / "socket"
    command = [sys.executable, "-m", "tests.zygote", "serve", str(path), *prepare]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield f"{sys.executable} -S {Path(__file__)} {path}"
        finally:
            server.kill()


def call(
    path: str | Path,
    arguments: list[str],
    folder: str | Path = ".",
    environment: Mapping[str, str] = os.environ,
    output: Sequence[int] = (1, 2),
) -> int:
    """The client: have the server run a command; its exit status.

    Args:
        folder: Where it runs.
        output: The descriptors of its output and of its errors.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(600)
        connection.connect(str(path))
        place = os.open(folder, os.O_RDONLY)
        request = json.dumps({"arguments": arguments, "environment": dict(environment)})
        socket.send_fds(connection, [request.encode()], [*output, place])
        os.close(place)
        return connection.recv(1)[0]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        sys.exit(call(sys.argv[1], sys.argv[2:]))
