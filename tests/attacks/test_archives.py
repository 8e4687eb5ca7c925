"""Archives that are changed at random are unpacked or refused."""

import bz2
import gzip
import io
import lzma
import random
import zipfile
from pathlib import Path

import pytest

from no_time_to_train.benchmarks.prepare.archives import unpack
from no_time_to_train.errors import UserError
from tests.prepare.sites import files_in, tar_of

FILES = {f"set/{number}.txt": random.Random(number).randbytes(99) * 3 for number in range(3)}


def zipped(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return file.getvalue()


#: The same files in every kind of archive that Python opens.
ARCHIVES: dict[str, bytes] = {
    "zip": zipped(zipfile.ZIP_STORED),
    "zip, deflate": zipped(zipfile.ZIP_DEFLATED),
    "zip, bzip2": zipped(zipfile.ZIP_BZIP2),
    "zip, lzma": zipped(zipfile.ZIP_LZMA),
    "tar": tar_of(FILES),
    "tar.gz": gzip.compress(tar_of(FILES), mtime=0),
    "tar.bz2": bz2.compress(tar_of(FILES)),
    "tar.xz": lzma.compress(tar_of(FILES)),
}


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_archives_that_are_changed_at_random_are_unpacked_or_refused(content: bytes, tmp_path: Path) -> None:
    rng, archive, unpacked, refused = random.Random(0), tmp_path / "archive", 0, 0
    for case in range(60):
        data = bytearray(content)
        for _ in range(case and rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        archive.write_bytes(data[: rng.randrange(len(data))] if case and rng.random() < 0.2 else data)
        try:
            unpack(archive, tmp_path / "out" / str(case), lambda name: True)
            unpacked += 1
        except UserError as error:
            assert str(archive) in str(error)  # noqa: PT017 (any case may be refused)
            refused += 1
    print(f"{unpacked} archives unpacked, {refused} refused")
    assert {path.parts[0] for path in map(Path, files_in(tmp_path))} <= {"archive", "out"}
    assert files_in(tmp_path / "out" / "0") == set(FILES)
    assert unpacked > 0
    assert refused > 5
