"""What can be checked without Docker: the compose file's commands, and what the Dockerfile takes from the clone."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from no_time_to_train.commands import build_parser, split_command

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("given", [None, *re.findall(r'APP="(.*?)"', PAGE)])
def test_compose_starts_the_app_with_the_default_and_with_what_the_page_gives(given: str | None) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    app = compose["services"]["app"]
    line = re.sub(r"\$\{APP:-(.*?)\}", lambda found: found[1] if given is None else given, app["command"])
    name, arguments = split_command(shlex.split(line))
    options = build_parser(name).parse_command(arguments)
    assert app["ports"] == [f"127.0.0.1:{options['port']}:{options['port']}"]
    assert options["images"] == ([] if given is None else ["photos"])
    assert any(volume.startswith("./photos:/work/photos") for volume in app["volumes"])


def test_commands_of_the_page_that_run_in_a_container_parse() -> None:
    lines = re.findall(r"^    (?:ntt|docker compose run --rm app) (.*)$", PAGE, flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        name, arguments = split_command(shlex.split(line))
        build_parser(name).parse_command(arguments)


def test_the_cpu_image_takes_the_locks_versions_and_only_torch_without_hashes(tmp_path: Path) -> None:
    command = re.search(r"sed --regexp-extended '.*?' requirements\.lock", DOCKERFILE)
    assert command
    lines = subprocess.run(shlex.split(command[0]), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    names = re.compile(r"^[\w.-]+==[^\\\n]*?(?= ?\\?$)", re.MULTILINE)
    assert names.findall(lines) == names.findall(lock)
    without = re.findall(r"^([\w.-]+)==[^\\\n]*$", lines, re.MULTILINE)
    assert set(without) == {"torch", "torchvision"}


def test_the_image_is_built_with_the_uv_of_make() -> None:
    (pinned,) = set(re.findall(r"uv==([\d.]+)", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert set(re.findall(r"astral-sh/uv:([\d.]+)", DOCKERFILE)) == {pinned}
