"""``serve label-studio``: a machine learning backend for Label Studio."""

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from no_time_to_train.commands.options import NetworkOptions
from no_time_to_train.errors import UserError
from no_time_to_train.files import check_memories
from no_time_to_train.ranges import Fraction
from no_time_to_train_extras.app.app_command import check_access, lock_folder
from no_time_to_train_extras.server.addresses import Port, check_address, plain_host

#: The variable of the environment with the token of Label Studio's API; Label Studio's own tools use this name.
TOKEN = "LABEL_STUDIO_API_KEY"


def label_studio(
    *,
    url: str,
    out: Path = Path("label_studio"),
    memory: Sequence[Path] = (),
    threshold: Fraction = 0.5,
    networks: NetworkOptions,
    host: str = "127.0.0.1",
    port: Port = 9090,
    auth: str | None = None,
    no_auth: bool = False,
) -> None:
    """Pre-annotate the tasks of Label Studio: each object that you annotate there is found in your other tasks.

    The token of Label Studio's API is in LABEL_STUDIO_API_KEY in the environment. See docs/label_studio.md.

    Args:
        url: Address of Label Studio, such as http://localhost:8080. Images are fetched from there and nowhere else.
        out: Folder of what was learned in each project. The same folder resumes.
        memory: Memory with classes to begin with, of segment --save-memory. May be given several times.
        threshold: The lowest score of a predicted region, from 0 to 1.
        networks: The networks and their settings.
        host: Address to listen on. All others than this computer's own need --auth or --no-auth.
        port: Port to listen on.
        auth: USER, and the password that Label Studio sends: from NO_TIME_TO_TRAIN_PASSWORD in the environment, or
            typed where the command is started. Others on this computer can read that of USER:PASSWORD.
        no_auth: Let everybody who reaches --host ask for predictions.

    Examples:
        no-time-to-train serve label-studio --url http://localhost:8080
        no-time-to-train serve label-studio --url http://localhost:8080 --nano
    """
    host = plain_host(host)
    login = check_access(host, auth, no_auth)
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # one that is no number is an error
    except ValueError as error:
        raise UserError(f"--url {url} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--url {url} is no address: it begins with http:// or https://")
    token = os.environ.get(TOKEN, "").strip()  # files of secrets end with a new line
    if not token:
        raise UserError(f"{TOKEN} is not set: copy the token of Account & Settings in Label Studio")
    if networks.prompts is None:
        networks = replace(networks, prompts="grid")
    if networks.prompts != "grid":
        raise UserError("--prompts guided cannot be used here: proposals are kept, and the references change")
    check_memories(memory)
    networks.check()
    if missing := [name for name in ("fastapi", "httpx", "uvicorn") if find_spec(name) is None]:
        raise UserError(f"serve label-studio needs more packages: pip install {' '.join(missing)}")

    check_address(host, port)
    lock = lock_folder(out, out, "")

    from no_time_to_train_extras.label_studio_backend.backend import Backend, serve
    from no_time_to_train_extras.label_studio_backend.studio import LabelStudio

    studio = LabelStudio(url, token)
    studio.check()
    segmenter = networks.build()
    for path in memory:
        segmenter.load_memory(path)
    serve(Backend(segmenter, studio, out, threshold), host, port, login)
    lock.release()
