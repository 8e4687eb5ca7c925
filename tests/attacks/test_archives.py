"""Archives that are malicious or broken: refused, and nothing is written elsewhere."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from no_time_to_train.benchmarks.prepare import archives
from no_time_to_train.benchmarks.prepare.archives import unpack
from no_time_to_train.errors import UserError
from tests.conftest import Patch
from tests.prepare.sites import files_in, tar_of, zip_of


def evil_zip(name: str, kind: int = 0o100000) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("good.txt", b"good")
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o644) << 16
        archive.writestr(info, b"/etc/passwd")
    return buffer.getvalue()


def evil_tar(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("good.txt"))
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return buffer.getvalue()


def corrupt_zip() -> bytes:
    """An archive with a changed byte in the content of its file."""
    content = bytearray(zip_of({"a.txt": bytes(range(256)) * 9}))
    content[60] ^= 0xFF
    return bytes(content)


def encrypted_zip() -> bytes:
    """An archive whose file has the mark of one with a password."""
    content = bytearray(zip_of({"a.txt": bytes(99)}))
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


OUTSIDE, LINK = "would be written outside", "is a link or a device"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        *(
            (evil_zip(n), OUTSIDE)
            for n in ("../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:/evil", "way_out/evil")
        ),
        *((evil_tar(name), OUTSIDE) for name in ("../evil", "/tmp/evil", "way_out/evil")),
        *((evil_zip("special", kind), LINK) for kind in (0o120000, 0o020000)),
        *((evil_tar("special", kind), LINK) for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE)),
        (evil_tar("link", tarfile.SYMTYPE, "/etc/passwd"), LINK),
        (evil_tar("link", tarfile.LNKTYPE, "../site"), LINK),
        (zip_of({"good.txt": b"good" * 99})[:-30], "is broken"),
        (tar_of({"good.txt": b"good" * 999})[:900], "is broken"),
        (corrupt_zip(), "is broken"),
        (encrypted_zip(), "is encrypted"),
        (b"", "is broken"),
    ],
    ids=range(20),  # an archive holds the time of day, which would make different names in each process
)
def test_malicious_or_broken_archive_writes_no_file(tmp_path: Path, content: bytes, complaint: str) -> None:
    archive, folder, outside = tmp_path / "archive", tmp_path / "a/folder", tmp_path / "outside"
    archive.write_bytes(content)
    folder.mkdir(parents=True)
    outside.mkdir()
    (folder / "way_out").symlink_to(outside)
    before = files_in(tmp_path)
    with pytest.raises(UserError, match=complaint):
        unpack(archive, folder, lambda name: True)
    assert files_in(tmp_path) == before
    assert not Path("/tmp/evil").exists()


def test_full_disk_is_noticed_before_unpacking(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"a.txt": b"1234"}))
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 3}))
    with pytest.raises(UserError, match="has no room for 0 MB"):
        unpack(tmp_path / "x.tar", tmp_path / "out", lambda name: True)
    assert files_in(tmp_path / "out") == set()


def test_archive_without_the_needed_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"other/a.txt": b"1234"}))
    with pytest.raises(UserError, match=r"x\.tar has other/a\.txt, and none of the files that are needed"):
        unpack(tmp_path / "x.tar", tmp_path / "out", lambda name: name.startswith("set/"))


FILES = {f"set/{number}.txt": random.Random(number).randbytes(99) * 3 for number in range(3)}


def zipped(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return file.getvalue()


#: The same files in every kind of archive that Python opens.
ARCHIVES = [
    zipped(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
]
ARCHIVES += [pack(tar_of(FILES)) for pack in (bytes, gzip.compress, bz2.compress, lzma.compress)]


def test_every_kind_of_archive_is_unpacked(tmp_path: Path) -> None:
    for number, content in enumerate(ARCHIVES):
        (tmp_path / "archive").write_bytes(content)
        unpack(tmp_path / "archive", tmp_path / str(number), lambda name: True)
        assert files_in(tmp_path / str(number)) == set(FILES)
