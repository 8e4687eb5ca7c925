"""Malformed memory files: each is refused in one line that names the file."""

import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from no_time_to_train.data.memory_files import check_fits, join_memories, load_memory
from no_time_to_train.data.reference_image import decode_picture, encode_picture
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.method.memory_bank import Category, MemoryBank
from tests.attacks.tensors import HOSTILE
from tests.attacks.test_cases import cases_in, edit
from tests.conftest import Patch, Refusal

Content = dict[str, Any]
Change = Callable[[Content], object]


def valid() -> Content:
    """The content of a memory file of two classes with two shots each."""
    bank = MemoryBank.empty([Category(3, "disc"), Category(7, "star")], dim=4)
    picture = encode_picture(torch.rand(3, 8, 8), torch.ones(1, 8, 8))
    for shot in range(4):
        bank.add(shot // 2, torch.rand(4), torch.tensor(1.0), {"img_id": shot, "ann_ids": [shot]}, picture.clone())
    bank.made_with = {"encoder": "dinov2_small", "img_size": 518, "context_ratio": 0.2}
    bank.postprocess()
    file = io.BytesIO()
    save_to(bank, file)
    return dict(torch.load(file, weights_only=True))


def save_to(bank: MemoryBank, file: io.BytesIO) -> None:
    """What ``save_memory`` writes, in memory."""
    categories = [vars(category) for category in bank.categories]
    torch.save({**vars(bank), "format": "no-time-to-train memory bank 2", "categories": categories}, file)
    file.seek(0)


def put(*place: Any) -> Change:
    """A change that puts the last argument at the place that the others name."""
    *keys, last, value = place

    def change(content: Content) -> None:
        part: Any = content
        for key in keys:
            part = part[key]
        part[last] = value

    return change


def png(width: int, height: int, kind: int = 6) -> torch.Tensor:
    """The beginning and the end of a PNG file that states a size and a kind of pixels."""
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return torch.tensor(list(header + bytes([8, kind, 0, 0, 0]) + bytes(20) + b"IEND" + bytes(4)), dtype=torch.uint8)


def bomb() -> list[Any]:
    """A list of lists, whose text would have a million million parts."""
    grown: list[Any] = []
    for _ in range(40):
        grown = [grown, grown]
    return grown


def change_tensor(content: Content, name: str, kind: str) -> None:
    content[name] = HOSTILE[kind](content[name])


REFUSED: dict[str, tuple[Change, str]] = {
    **{
        f"{name} {kind}": (partial(change_tensor, name=name, kind=kind), "its ")
        for name in ("vectors", "prototypes", "weights", "class_index")
        for kind in HOSTILE
    },
    **{case["case"]: (partial(edit, case=case), case["refused"]) for case in cases_in("memory")},
    "an id that is a bomb": (put("categories", 0, "id", bomb()), "not an integer of 64 bits"),
    "a name that is a bomb": (put("categories", 0, "name", bomb()), "not printable text"),
    "a name of a million letters": (put("categories", 0, "name", "x" * 10**6), "printable text of 200 characters"),
    "a NaN": (put("vectors", torch.full((4, 4), float("nan"))), "its vectors are not all finite"),
    "a mean that is infinite": (put("vectors", torch.full((4, 4), 3e38)), "not all finite and below 1e+09"),
    "an infinite prototype": (put("prototypes", torch.full((2, 4), float("inf"))), "its prototypes are not all finite"),
    "a weight of zero": (put("weights", torch.zeros(4)), "its weights are not all positive"),
    "a class index too large": (put("class_index", torch.tensor([0, 0, 1, 2])), "its class_index"),
    "made_with with a tensor": (put("made_with", "encoder", torch.zeros(2)), "its made_with"),
    "a source too few": (lambda content: content["sources"].pop(), "3 sources"),
    "sources that are a dict": (put("sources", {0: None}), "sources"),
    "a picture that is cut off": (put("crops", 0, png(8, 8)[:-9]), "picture 0"),
    "a picture of floats": (put("crops", 0, torch.zeros(99)), "picture 0"),
    "a picture that is no PNG file": (put("crops", 0, torch.zeros(99, dtype=torch.uint8)), "picture 0"),
    "a picture of 10 gigapixels": (put("crops", 0, png(100_000, 100_000)), "picture 0"),
    "a picture without a mask": (put("crops", 0, png(8, 8, kind=2)), "picture 0"),
    "a picture larger than the file": (put("crops", 0, torch.zeros(1, dtype=torch.uint8).expand(2**40)), "picture 0"),
    "pictures that are a tensor": (put("crops", torch.zeros(4)), "crops"),
}


@pytest.mark.parametrize(("change", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_a_malformed_memory_is_refused(change: Change, complaint: str, tmp_path: Path) -> None:
    content = valid()
    change(content)
    path = tmp_path / "bad.memory"
    torch.save(content, path)
    with pytest.raises(UserError) as caught:
        load_memory(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def old(**changes: Any) -> Content:
    """A memory of version 0.1, changed."""
    return {
        "format": "no-time-to-train memory bank 1",
        "categories": [{"id": 3, "name": "disc"}],
        "vectors": torch.rand(1, 2, 4),
        "weights": torch.ones(1, 2),
        "references": {3: [{"img_id": 1, "ann_ids": [10]}]},
        **changes,
    }


OLD: dict[str, Content] = {
    "an id that is a path": old(categories=[{"id": "../x", "name": "disc"}]),
    "an id that cannot be hashed": old(categories=[{"id": [1], "name": "disc"}]),
    "vectors larger than the file": old(vectors=torch.zeros(1).expand(1, 2**20, 2**20)),
    **{f"weights {kind}": old(weights=change(torch.ones(1, 2))) for kind, change in HOSTILE.items()},
    "weights that are a list": old(weights=[[1.0, 1.0]]),
    "references as a list": old(references=[1]),
    "references that are a number": old(references={3: 5}),
    "crops that are a text": old(crops={3: "x"}),
}


@pytest.mark.parametrize("content", OLD.values(), ids=OLD.keys())
def test_a_malformed_memory_of_version_0_1_is_refused(content: Content, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "bad.memory")
    with pytest.raises(UserError, match=r"bad\.memory is damaged"):
        load_memory(tmp_path / "bad.memory")


def test_a_compressed_memory_is_refused(tmp_path: Path) -> None:
    """torch writes archives without compression, so that no file needs more memory than its size."""
    torch.save(valid(), tmp_path / "plain.memory")
    with (
        zipfile.ZipFile(tmp_path / "plain.memory") as plain,
        zipfile.ZipFile(tmp_path / "bomb.memory", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    with pytest.raises(UserError, match=r"bomb\.memory cannot be read"):
        load_memory(tmp_path / "bomb.memory")


def test_a_memory_on_a_disk_that_maps_no_files_is_not_called_truncated(tmp_path: Path, monkeypatch: Patch) -> None:
    torch.save(valid(), tmp_path / "a.memory")
    refused = RuntimeError("unable to mmap 9 bytes from file <a.memory>: No such device (19)")
    monkeypatch.setattr(torch, "load", Mock(side_effect=refused))
    with pytest.raises(UserError, match=r"a\.memory cannot be read: its disk maps no files into memory"):
        load_memory(tmp_path / "a.memory")


def test_a_memory_with_a_key_of_tuples_whose_hash_takes_ages_is_refused(tmp_path: Path) -> None:
    pairs = b"".join(bytes([ord("h"), level, ord("h"), level, 0x86, ord("q"), level + 1]) for level in range(60))
    with zipfile.ZipFile(tmp_path / "bomb.memory", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02K\x01\x85q\0" + pairs + b"}h\x3cK\x01s.")
        archive.writestr("archive/version", "3\n")
    with pytest.raises(UserError, match=r"bomb\.memory cannot be read"):
        load_memory(tmp_path / "bomb.memory")


def test_a_damaged_picture_in_a_memory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="picture of a reference in the memory is damaged"):
        decode_picture(png(8, 8))


def test_a_memory_that_says_not_what_it_was_made_with_is_not_drawn(tmp_path: Path, refusal: Refusal) -> None:
    torch.save({**valid(), "made_with": {}}, tmp_path / "old.memory")
    shown = ("memory", "show", tmp_path / "old.memory", "--pictures", tmp_path / "pictures")
    assert "old.memory does not record the encoder" in refusal(*shown)


def test_reading_a_memory_keeps_no_part_of_the_file_open(tmp_path: Path) -> None:
    """The tensors are copies: a file that changes later cannot change or crash a run."""
    torch.save(valid(), tmp_path / "m.memory")
    bank = load_memory(tmp_path / "m.memory")
    before = bank.vectors.clone()
    with (tmp_path / "m.memory").open("r+b") as file:
        file.truncate(0)
    assert torch.equal(bank.vectors, before)
    assert decode_picture(bank.crops[0])[0].shape == (3, 8, 8)


def bank_of(content: Content, path: Path) -> MemoryBank:
    torch.save(content, path)
    return load_memory(path)


def test_a_memory_of_another_width_than_its_encoder_states_is_not_used(tmp_path: Path) -> None:
    bank = bank_of(valid(), tmp_path / "m.memory")
    with pytest.raises(UserError, match=r"m\.memory holds vectors of 4 numbers, dinov2_small gives 384"):
        check_fits(bank, tmp_path / "m.memory", {"encoder": "dinov2_small"}, [])


def test_memories_of_different_widths_are_not_joined(tmp_path: Path) -> None:
    content = valid()
    content.update(vectors=torch.rand(4, 5), prototypes=None)
    banks = [(tmp_path / name, bank_of(made, tmp_path / name)) for name, made in (("a", valid()), ("b", content))]
    with pytest.raises(UserError, match="b holds vectors of another width than"):
        join_memories(banks)


def test_a_memory_that_is_joined_with_itself_has_each_reference_twice_and_a_notice_says_so(tmp_path: Path) -> None:
    bank = bank_of(valid(), tmp_path / "m.memory")
    with pytest.warns(UserNotice, match="4 references given more than once"):
        assert join_memories([(tmp_path / "m.memory", bank)] * 2).counts.tolist() == [4, 4]


def test_a_class_that_has_another_id_in_the_memory_than_in_the_run_is_named_with_both(tmp_path: Path) -> None:
    bank = bank_of({**valid(), "vectors": torch.rand(4, 384), "prototypes": None}, tmp_path / "m.memory")
    with pytest.raises(UserError, match=r"m\.memory has 'disc' with the id 3, this run with 1: give "):
        check_fits(bank, tmp_path / "m.memory", {"encoder": "dinov2_small"}, [Category(1, "disc"), Category(7, "star")])


def test_a_memory_with_its_classes_in_another_order_is_not_used(tmp_path: Path) -> None:
    content = valid()
    content.update(vectors=torch.rand(4, 384), prototypes=None, categories=content["categories"][::-1])
    bank = bank_of(content, tmp_path / "m.memory")
    with pytest.raises(UserError, match=r"m\.memory holds the classes in another order"):
        check_fits(bank, tmp_path / "m.memory", {"encoder": "dinov2_small"}, bank.categories[::-1])
