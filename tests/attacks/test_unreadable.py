"""Files and folders that are there and may not be read: no reader takes them for broken, empty or missing ones."""

import ctypes
import errno
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from zipfile import ZipFile

import pytest

from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.data.videos import open_video
from no_time_to_train.errors import UserError
from no_time_to_train.files import matching_files
from no_time_to_train.networks.checkpoints import read_checkpoint
from no_time_to_train.networks.download import fetch_file
from no_time_to_train.pipeline.replace_folder import RESULTS, check_output
from tests.conftest import Patch
from tests.stand_in import StandIn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it takes the right to read all files from root")

Close = Callable[[Path], Path]


@pytest.fixture
def close() -> Iterator[Close]:
    """Takes away the right to read a file or folder, also that of root."""
    system, header, rights = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert system.capget(header, rights) == 0
    effective, closed = rights[0], []

    def take(path: Path) -> Path:
        closed.append(path)
        path.chmod(0)
        return path

    rights[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert system.capset(header, rights) == 0
    yield take
    rights[0] = effective
    system.capset(header, rights)
    for path in closed:
        path.chmod(0o700)


@pytest.mark.parametrize("folder", ["masks", "yolo/labels"])
def test_results_with_a_folder_that_may_not_be_read_are_not_replaced(folder: str, tmp_path: Path, close: Close) -> None:
    for name in (*RESULTS, f"{folder}/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    closed = close(tmp_path / folder)
    with pytest.raises(UserError, match=f"^{re.escape(str(closed))} cannot be read: Permission denied"):
        check_output(tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.memory", load_memory),
        ("dinov2.pth", read_checkpoint),
        ("clip.mp4", open_video),
        ("references/", find_references),
        ("references/cup/", lambda path: find_references(path.parent)),
        ("photo.png", read_rgb),
        ("photos/", lambda path: matching_files(f"{path}/*.png")),
        ("archive.zip", lambda path: fetch_file("http://localhost/", path, lambda _: None, "an archive")),
    ],
)
def test_the_reason_of_the_system_is_said(name: str, read: Callable[[Path], Any], tmp_path: Path, close: Close) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises((UserError, OSError), match="Permission denied") as refused:
        read(close(path))
    assert name.rstrip("/") in str(refused.value)
    assert not re.search("broken|delete|truncated|holds no", str(refused.value))


def test_a_memory_on_a_bad_disk_is_not_called_damaged(tmp_path: Path, monkeypatch: Patch) -> None:
    save_memory(StandIn().memory, tmp_path / "a.memory")
    monkeypatch.setattr(ZipFile, "read", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(UserError, match=r"a\.memory cannot be read: Input/output error$"):
        load_memory(tmp_path / "a.memory")


def test_an_image_that_is_not_found_may_be_in_a_folder_that_may_not_be_read(tmp_path: Path, close: Close) -> None:
    for name in ("labels", "private"):
        (tmp_path / name).mkdir()
    (tmp_path / "labels/1.xml").write_text(
        "<annotation><filename>1.png</filename><object><name>cup</name><bndbox><xmin>2</xmin><ymin>2</ymin>"
        "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    close(tmp_path / "private")
    with pytest.raises(UserError, match=r"was not found.* \(not searched, as they cannot be read: .*/private\)"):
        find_references(tmp_path / "labels")
