"""The command lines of ``cases/commands.jsonl``: each is refused in one line, with no file left behind.

A case may say that its refusal comes ``before`` slow imports, or after ``networks`` were built, which needs an extra
(``needs``), and what it ``leaves``.
"""

import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from tqdm.utils import envwrap

from no_time_to_train import cli
from no_time_to_train.commands import build_parser
from no_time_to_train.data.memory_files import save_memory
from no_time_to_train.errors import UserNotice
from no_time_to_train.networks.registry import default_checkpoint
from tests.attacks.test_cases import cases_in, says
from tests.conftest import DATA, Patch, Photo, Refusal, stage_arguments
from tests.stand_in import StandIn, write_video
from tests.test_architecture import SLOW, modules_after_command

CASES = [pytest.param(case, id=case["command"]) for case in cases_in("commands")]
#: What a case says that it comes before -> what is not imported then.
BEFORE = {"anything slow": set(SLOW), "torch": {"torch"}}


@pytest.fixture(scope="module")
def place(photo: Photo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands run, with what they name."""
    place = tmp_path_factory.mktemp("place")
    for name in ("empty", "b", "refs/boat"):
        (place / name).mkdir(parents=True)
    for path in (photo.path, photo.mask_path, DATA / "references.json", DATA / "targets.json"):
        shutil.copy(path, place)
    (place / "images").symlink_to(DATA / "images")
    Image.new("L", (7, 5), 255).save(place / "other.png")
    cut_out = np.zeros((40, 40, 4), np.uint8)
    cut_out[10:30, 10:30] = 255
    Image.fromarray(cut_out).save(place / "refs/boat/1.png")
    write_video(place / "clip.avi", [cut_out[..., :3]] * 3)
    save_memory(StandIn().memory, place / "m.memory")
    for name in ("a.memory", "b/a.memory"):
        (place / name).write_bytes(b"PK\x05\x06" + bytes(18))  # an archive without files
    (place / "a.txt").touch()
    return place


def words_of(case: dict[str, Any], place: Path) -> list[str]:
    """The command line of a case; ``FILL`` begins the first stage with the nano networks."""
    networks = default_checkpoint("sam2_nano"), default_checkpoint("dinov2_nano")
    fill = [*stage_arguments("fill_memory", networks, place), "--out_path", "memory.ckpt"]
    first, *rest = case["command"].split()
    return [*fill, *rest] if first == "FILL" else [first, *rest]


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_refused_and_leaves_nothing(
    case: dict[str, Any], place: Path, refusal: Refusal, monkeypatch: Patch
) -> None:
    if "needs" in case:
        pytest.importorskip(case["needs"])
    for name in ("LABEL_STUDIO_API_KEY", "NO_TIME_TO_TRAIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(place)
    if "networks" not in case:
        monkeypatch.delattr("no_time_to_train.commands.options.NetworkChoice.build")
        monkeypatch.setitem(sys.modules, "no_time_to_train.api.reference_segmenter", None)  # cannot be imported then
    before = sorted(place.rglob("*"))
    assert says(case["refused"], refusal(*words_of(case, place)))
    left = [path for path in sorted(place.rglob("*")) if path not in before]
    assert [str(path.relative_to(place)) for path in left] == case.get("leaves", [])
    for path in left[::-1]:
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("case", [one for one in CASES if "before" in one.values[0]])
def test_a_mistake_in_options_and_paths_is_found_before_slow_imports(case: dict[str, Any], place: Path) -> None:
    assert not modules_after_command(case["command"], 2, place) & BEFORE[case["before"]]


def test_of_an_option_that_is_given_twice_the_last_counts_with_a_notice() -> None:
    with pytest.warns(UserNotice, match="--to is given twice: the last one counts"):
        values = build_parser("convert").parse_command(["labels", "--to", "coco", "--to", "yolo", "--out", "new"])
    assert values["to"] == "yolo"


def test_a_variable_that_a_library_refuses_is_named(monkeypatch: Patch, refusal: Refusal) -> None:
    monkeypatch.setenv("TQDM_MININTERVAL", "abc")
    monkeypatch.setattr(cli, "run", lambda argv: envwrap("TQDM_")(lambda mininterval=0.1: None)())  # as tqdm begins
    assert "TQDM_MININTERVAL=abc in the environment: could not convert" in refusal("demo")


def test_a_tilde_of_a_user_without_a_home_is_one_line(monkeypatch: Patch, refusal: Refusal) -> None:
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    assert "~ stands for no folder" in refusal("memory", "show", "~/a.memory")
