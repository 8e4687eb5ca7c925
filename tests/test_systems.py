"""Systems other than Linux, as far as Linux can show it: what Windows lacks is not used, open files are not removed."""

import ast
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import filelock
import pytest

from no_time_to_train.cli import LastingOutput, main
from no_time_to_train.data.names import clean_characters
from no_time_to_train.files import relative_path
from no_time_to_train.networks import download
from no_time_to_train.pipeline import journal, processes, replace_folder
from tests.conftest import Capture, Patch, Photo
from tests.test_architecture import ALL_MODULES

#: Modules of the standard library that Windows lacks.
NOT_ON_WINDOWS = {
    "crypt", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog",
    "termios", "tty",
}  # fmt: skip

#: The names of ``os`` and ``signal`` that the packages use. Windows has all but ``set_blocking``, which Python 3.12
#: brings there and which is not called there; check a new one before you add it.
OS_NAMES = {
    "O_RDONLY", "O_WRONLY", "PathLike", "SIGINT", "SIGTERM", "SIG_DFL", "SEEK_END", "Signals", "W_OK", "_exit",
    "access", "close", "cpu_count", "devnull", "dup2", "environ", "fsencode", "fstat", "fsync", "getpid", "getppid",
    "getsignal", "link", "name", "open", "path", "sep", "set_blocking", "set_wakeup_fd", "signal", "umask", "utime",
    "walk",
}  # fmt: skip


@pytest.mark.parametrize("name", ALL_MODULES)
def test_a_module_uses_nothing_that_windows_lacks(name: str) -> None:
    imported, used = set(), set()
    tree = ast.parse(ALL_MODULES[name].read_text(encoding="utf-8"))
    optional = [part for node in tree.body if isinstance(node, ast.Try) for part in node.body]  # except ImportError
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in optional:
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
            used |= {alias.name for alias in node.names} if node.module == "os" else set()
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("os", "signal"):
            used.add(node.attr)
    assert not imported & NOT_ON_WINDOWS
    assert used <= OS_NAMES


@pytest.mark.parametrize("name", ALL_MODULES)
def test_a_module_says_in_which_encoding_text_is(name: str) -> None:
    for node in ast.walk(ast.parse(ALL_MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            texts = {"read_text": 0, "write_text": 1}.get(node.func.attr)
            assert texts is None or node.keywords or len(node.args) > texts, f"line {node.lineno}: Windows has another"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("folder/a:b.jpg", "folder/a%3Ab.jpg"),
        ("what?.jpg", "what%3F.jpg"),
        ("ends. /photo.", "ends%2E%20/photo%2E"),
        ("aux/Con.jpg", "%61%75%78/%43%6F%6E.jpg"),
        ("console/com.jpg", "console/com.jpg"),
    ],
)
def test_names_written_on_windows_are_no_device_and_no_stream(name: str, written: str, monkeypatch: Patch) -> None:
    assert clean_characters(name) == name, "other systems have no such names"
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", "nt")
        assert clean_characters(name) == written


def test_a_path_on_another_drive_of_windows_stays_absolute(tmp_path: Path, monkeypatch: Patch) -> None:
    assert relative_path(tmp_path / "photos" / "a.jpg", tmp_path / "out") == "../photos/a.jpg"
    on_another_drive = Mock(side_effect=ValueError("path is on mount 'D:', start on mount 'C:'"))
    monkeypatch.setattr(os.path, "relpath", on_another_drive)
    assert relative_path(tmp_path / "a.jpg", tmp_path / "out") == (tmp_path / "a.jpg").as_posix()


def test_a_process_of_a_run_stays_where_windows_began_it_through_a_launcher(monkeypatch: Patch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(processes, "end_with_parent", lambda: None)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(processes.FIRST, str(os.getppid() + 1))
    processes.join_run()
    assert ended == [1], "elsewhere, another parent means that the first process has ended"
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", "nt")
        processes.join_run()
    assert ended == [1]


@pytest.mark.parametrize(("system", "replaced"), [("nt", False), ("posix", True)])
def test_consoles_of_windows_get_text_not_bytes(system: str, replaced: bool, monkeypatch: Patch) -> None:
    console = SimpleNamespace(isatty=lambda: True, encoding="utf-8", flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "__stdout__", console)
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", system)
        LastingOutput.replace("stdout")
    assert (sys.stdout is not console) == replaced


def test_all_processes_learn_why_a_run_stops_whatever_a_file_is_called(tmp_path: Path) -> None:
    run = journal.Journal(tmp_path / "results.json")
    run.join(run.start({}))
    run.report_failure("f\u00fcr \udce9.jpg is damaged")
    assert run.failure == "f\u00fcr \\udce9.jpg is damaged"
    run.close()


@pytest.fixture
def like_windows(monkeypatch: Patch) -> None:
    """Open files can be neither removed nor moved, nor their folders; there are no symbolic links and no fcntl."""

    def refusing(name: str) -> None:
        real = getattr(os, name)

        def change(*paths: Any, **options: Any) -> Any:
            for descriptor in Path("/proc/self/fd").iterdir():
                opened = os.path.realpath(descriptor)
                for path in map(os.path.abspath, paths):
                    if opened == path or opened.startswith(f"{path}/"):
                        raise PermissionError(13, "The process cannot access the file", path)
            return real(*paths, **options)

        monkeypatch.setattr(os, name, change)

    for name in ("unlink", "remove", "rmdir", "rename", "replace"):
        refusing(name)
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    monkeypatch.setattr(os, "symlink", Mock(side_effect=OSError(1314, "no privilege")))
    for module in (download, journal, replace_folder):
        monkeypatch.setattr(module, "FileLock", filelock.SoftFileLock)


@pytest.mark.skipif(sys.platform != "linux" or sys.version_info < (3, 11), reason="replaces what only these call")
def test_segment_runs_where_open_files_stay_and_links_do_not_exist(
    like_windows: None, photo: Photo, tmp_path: Path, capsys: Capture
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    shutil.copyfile(photo.path, photos / "photo.png")
    given = ["--nano", "--points-per-side", "8", "--device", "cpu", "--score", "0", "--out", str(out)]
    given += ["--reference", f"thing:{photo.path}:mask={photo.mask_path}", "--images", str(photos)]
    main(["segment", *given, "--format", "labelme", "yolo", "cvat-coco"])
    main(["segment", *given, "--overwrite", "--save-memory", str(tmp_path / "thing.memory")])
    main(["filter", str(out), "--score", "0.1"])
    assert "1 image" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out", "thing.memory"}, "nothing is left behind"
    assert not [path for path in out.rglob(".*")]
