"""Hashes of large files: computed once, remembered in the user's cache folder, and again once a file changes."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from no_time_to_train import ReferenceSegmenter, file_hashes
from no_time_to_train.file_hashes import sha256
from no_time_to_train.networks.pretrained import build_pretrained
from no_time_to_train.pipeline import proposal_cache
from no_time_to_train.pipeline.proposal_cache import hash_networks, hash_tensors
from tests.conftest import Checkpoints, Patch

Sha256 = Callable[[], str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The file of the hashes. Files of any size are remembered, also where they were written just now."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "LARGE", 1)
    monkeypatch.setattr(file_hashes, "SETTLED", -(10**9))
    return tmp_path / "cache" / "no-time-to-train" / "hashes.json"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "weights.pt").write_bytes(b"abc")
    return tmp_path / "weights.pt"


def hash_in_a_new_run(file: Path) -> str:
    file_hashes._sha256.cache_clear()
    return sha256(file)


def remembers(file: Path, place: Path) -> bool:
    """Whether the hash of a file comes from the file of hashes: a wrong one there then does, too."""
    right = hash_in_a_new_run(file)
    assert right == hashlib.sha256(file.read_bytes()).hexdigest()
    if place.exists():
        place.write_text(place.read_text().replace(right, "0" * 64))
    return hash_in_a_new_run(file) == "0" * 64


def test_a_later_run_does_not_read_the_file_again(file: Path, place: Path) -> None:
    assert remembers(file, place)


def test_a_file_that_is_changed_in_place_or_replaced_is_read_again(file: Path, tmp_path: Path) -> None:
    hash_in_a_new_run(file)
    for content in (b"abd", b"abe"):
        (tmp_path / "other").write_bytes(content)
        if content == b"abd":
            shutil.copyfile(tmp_path / "other", file)
        else:
            (tmp_path / "other").replace(file)
        assert hash_in_a_new_run(file) == hashlib.sha256(content).hexdigest()


def test_a_file_that_was_written_a_moment_ago_is_not_remembered(file: Path, place: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED", 60 * 10**9)
    assert not remembers(file, place)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"NAME": 1}', '{"NAME": ["x"]}'])
def test_a_broken_file_of_hashes_is_replaced(file: Path, place: Path, content: str) -> None:
    place.parent.mkdir(parents=True)
    place.write_text(content.replace("NAME", f"{file} "))
    assert remembers(file, place)


def test_a_cache_folder_that_cannot_be_written_changes_nothing(file: Path, place: Path) -> None:
    place.parent.parent.write_text("this is no folder")
    assert hash_in_a_new_run(file) == hashlib.sha256(b"abc").hexdigest()


def test_the_hash_of_networks_is_remembered_until_they_are_built_in_another_way(
    nano_checkpoints: Checkpoints, monkeypatch: Patch
) -> None:
    hashed: list[int] = []

    def counted(tensors: dict[str, torch.Tensor]) -> str:
        hashed.append(sum(one.numel() for one in tensors.values()))
        return hash_tensors(tensors)

    def hash_built(precision: str = "float32", debias: int = 0) -> tuple[dict[str, str], int]:
        """The hashes, and how many values were hashed."""
        built = ReferenceSegmenter.from_pretrained(*nano_checkpoints, device="cpu", precision=precision, debias=debias)
        hashed.clear()
        return hash_networks(built.segmenter), sum(hashed)

    monkeypatch.setattr(proposal_cache, "hash_tensors", counted)
    first, values = hash_built()
    again, fewer = hash_built()
    assert again == first
    assert fewer < values / 4
    for other in ({"precision": "bfloat16"}, {"debias": 2}):
        assert hash_built(**other)[0]["encoder"] != first["encoder"]
    changed, *_ = build_pretrained(*nano_checkpoints, device="cpu")
    changed.encoder.vit.norm.bias += 1
    assert hash_networks(changed)["encoder"] != first["encoder"]
    assert hash_networks(changed)["proposer"] == first["proposer"]
