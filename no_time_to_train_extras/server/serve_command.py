"""``serve``: the method for other programs, over HTTP."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from no_time_to_train.commands.options import NetworkOptions, ReferenceOptions
from no_time_to_train.errors import UserError
from no_time_to_train.files import check_memories
from no_time_to_train.ranges import Fraction, Positive
from no_time_to_train_extras.server.addresses import Port, check_address, is_loopback, plain_host, url_of

if TYPE_CHECKING:
    from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
    from no_time_to_train.data.reference_forms import Reference
    from no_time_to_train.method.memory_bank import MemoryBank

#: The variable of the environment with the token.
TOKEN = "NO_TIME_TO_TRAIN_TOKEN"

#: The most images that wait, and the megabytes of a request, where nobody says otherwise.
QUEUE, MEGABYTES = 64, 64


def serve(
    *,
    references: ReferenceOptions,
    memory: Sequence[Path] = (),
    threshold: Fraction = 0.5,
    host: str = "127.0.0.1",
    port: Port = 8000,
    token: str | None = None,
    no_token: bool = False,
    queue: Positive = QUEUE,
    max_megabytes: Positive = MEGABYTES,
    max_pixels: Positive = 50_000_000,
    networks: NetworkOptions,
) -> None:
    """Answer other programs over HTTP: images in, COCO out (docs/server.md).

    Args:
        references: References of the objects.
        memory: Memory of an earlier run. May be given several times: a request names the memory, or takes them all.
        threshold: The lowest score of an object, from 0 to 1, where a request names none.
        host: Address to listen on. All others than this computer's own need a token or --no-token.
        port: Port to listen on.
        token: What requests must send. Others on this computer can read it here: NO_TIME_TO_TRAIN_TOKEN in the
            environment is safer.
        no_token: Answer everybody who reaches --host.
        queue: The most images that wait at any time. Further requests are told to come again later.
        max_megabytes: The largest request, in megabytes.
        max_pixels: The largest image, in pixels.
        networks: The networks and their settings.

    Examples:
        no-time-to-train serve --memory boats.memory
        no-time-to-train serve --references refs/ --preset fast --port 9000
    """
    host = plain_host(host)
    token = check_token(host, token, no_token)
    if not (memory or references.references or references.reference):
        raise UserError("nothing to look for: give --memory, --references FOLDER, or --reference LABEL:IMAGE:box=...")
    references.parse()
    check_memories(memory)
    names = memory_names(memory)
    networks.check()
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise UserError("the server needs FastAPI: pip install 'no-time-to-train[serve]'")
    check_address(host, port)

    from no_time_to_train.data.images import allow_pixels

    allow_pixels(max_pixels)
    examples, _ = references.read(memory)

    import uvicorn

    from no_time_to_train_extras.server.compute_queue import ComputeQueue
    from no_time_to_train_extras.server.http_api import build_api
    from no_time_to_train_extras.server.request_guard import Metrics, RequestGuard
    from no_time_to_train_extras.server.request_parts import guard_clients
    from no_time_to_train_extras.server.service import Service

    segmenter = networks.build()
    memories = read_memories(segmenter, names, examples)
    metrics = Metrics()
    computing = ComputeQueue(queue)
    api = build_api(Service(segmenter, memories, threshold, computing), metrics)
    guard = RequestGuard(api, host, token, max_megabytes * 10**6, metrics)
    print(f"memories: {', '.join(memories)}; open {url_of(host, port)} to see what it answers", flush=True)
    guard_clients()
    uvicorn.run(guard, host=host, port=port, log_level="warning", lifespan="off")  # else a second Ctrl-C prints it
    computing.thread.shutdown(wait=False, cancel_futures=True)


def check_token(host: str, token: str | None, no_token: bool) -> str | None:
    """The token that requests need; None where nobody is asked."""
    given = os.environ.pop(TOKEN, "").strip() if token is None else token  # files of secrets end with a new line
    if given and no_token:
        raise UserError(f"--no-token contradicts --token or {TOKEN}: leave one of them out")
    if not (given or no_token or is_loopback(host)):
        raise UserError(f"--host {host} lets other computers in: set {TOKEN}, or give --no-token for everybody")
    if token:
        sys.argv = [word.replace(token, "TOKEN") for word in sys.argv]
    return given or None


def memory_names(paths: Sequence[Path]) -> dict[str, Path]:
    """The memories by the names that requests call them: their files' names without endings."""
    names = {path.stem: path for path in paths}
    if len(names) < len(paths) or "all" in names:
        raise UserError("memories have the names of their files: give each another name, and none of them all")
    return names


def read_memories(
    segmenter: "ReferenceSegmenter", paths: dict[str, Path], examples: "Sequence[Reference]"
) -> "dict[str, MemoryBank]":
    """The memories by name: first all classes and references together, then each file, where there are several."""
    banks: dict[str, MemoryBank | None] = {}
    for name, path in paths.items():
        segmenter.set_memory(None)
        segmenter.load_memory(path)
        banks[name] = segmenter.memory
    segmenter.set_memory(None)
    for path in paths.values():
        segmenter.load_memory(path)
    segmenter.add_references(examples)
    if examples or len(banks) > 1:
        banks = {"all" if banks else "references": segmenter.memory, **banks}
    return {name: bank for name, bank in banks.items() if bank is not None}
