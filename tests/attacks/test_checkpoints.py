"""Files that are no checkpoints, or dishonest ones: each is refused in one line that names the file."""

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import nn

from no_time_to_train.data.images import open_image
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.errors import UserError
from no_time_to_train.networks.checkpoints import load_strictly, read_checkpoint, recognize
from no_time_to_train.networks.registry import SAM2_NAMES, Network
from tests.attacks.tensors import HOSTILE
from tests.conftest import Patch
from tests.prepare.sites import tar_of, zip_of


def saved(content: Any, zipped: bool = True) -> bytes:
    """The bytes that ``torch.save`` writes."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def safetensors(header: Any, data: bytes = bytes(24), length: int | None = None) -> bytes:
    """A file in the safetensors format with a header of any content, which may state another length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def more_values_than_stored() -> bytes:
    """A file whose pickle states that four stored numbers are 50 million."""
    whole, many = saved({"weight": torch.arange(4.0)}), (50_000_000).to_bytes(4, "little")
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as honest, zipfile.ZipFile(file, "w") as lie:
        for name in honest.namelist():
            content = honest.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"K\x04t", b"J" + many + b"t").replace(b"K\x04\x85", b"J" + many + b"\x85")
            lie.writestr(name, content)
    return file.getvalue()


def saved_in_every_form(weights: dict[str, torch.Tensor]) -> list[bytes]:
    return [saved(weights), saved(weights, zipped=False), save_safetensors(weights)]


WEIGHTS = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
LOOP: dict[str, Any] = {}
LOOP["model"] = LOOP

FILES: dict[str, bytes] = {
    "nothing": b"",
    "text": b"# weights\nweight: 1\n",
    "half of a file": saved(WEIGHTS)[:700],
    "half of an old file": saved(WEIGHTS, zipped=False)[:300],
    "half of a safetensors file": save_safetensors(WEIGHTS)[:-5],
    "a zip archive of something else": zip_of({"readme": b"hello"}),
    "a zip archive of a broken pickle": zip_of({"x/data.pkl": b"\x80\x02X", "x/version": b"3"}),
    "a tar archive": tar_of({"weights": b"hello"}),
    "more values than are stored": more_values_than_stored(),
    "a list": saved([torch.ones(2, 2)]),
    "a number": saved(5),
    "a tensor": saved(torch.ones(2, 2)),
    "model is a list": saved({"model": [torch.ones(2, 2)]}),
    "model is itself": saved(LOOP),
    "nested too deeply": saved({"model": {"model": WEIGHTS}}),
    "numbers as keys": saved({5: torch.ones(2, 2), "weight": torch.ones(2, 2)}),
    "numbers as values": saved({"weight": 5, "bias": torch.zeros(2)}),
    "weights as lists": saved({"weight": [[1.0, 1.0], [1.0, 1.0]], "bias": [0.0, 0.0]}),
    "integers": saved({**WEIGHTS, "weight": torch.ones(2, 2, dtype=torch.int64)}),
    **{f"weights {kind}": saved({**WEIGHTS, "weight": HOSTILE[kind](torch.ones(2, 2))}) for kind in HOSTILE},
    "no dimensions": saved({"image_encoder.trunk.patch_embed.proj.weight": torch.ones(())}),
    "no dimensions, of DINOv2": saved({"patch_embed.proj.weight": torch.ones(()), "blocks.0.ls1.gamma": torch.ones(1)}),
    "no dimensions, of SAM": saved({"image_encoder.pos_embed": torch.ones(())}),
    "a name with a line break": saved({"a\nb": torch.ones(2, 2)}),
    "a header that is too long": safetensors({"weight": entry([2, 2], 0, 16)}, length=2**40),
    "a header that is too short": safetensors({"weight": entry([2, 2], 0, 16)}, length=9),
    "a header that is a list": safetensors(b"{[]}"),
    "a header of deep nesting": safetensors(b'{"a":' * 100_000),
    "a shape that lies": safetensors({"weight": entry([2**31, 2**31], 0, 16), "bias": entry([2], 16, 24)}),
    "a negative shape": safetensors({"weight": entry([-2, -2], 0, 16), "bias": entry([2], 16, 24)}),
    "places outside the file": safetensors({"weight": entry([2, 2], 0, 16), "bias": entry([2], 10**9, 10**9 + 8)}),
    "an unknown kind of number": safetensors({"weight": entry([2, 2], 0, 16, "F7"), "bias": entry([2], 16, 24)}),
}


def test_the_honest_files_are_read(tmp_path: Path) -> None:
    for number, content in enumerate(saved_in_every_form(WEIGHTS)):
        (tmp_path / f"{number}.pt").write_bytes(content)
        layer = nn.Linear(2, 2)
        load_strictly(layer, read_checkpoint(tmp_path / f"{number}.pt"), tmp_path / f"{number}.pt")
        assert torch.equal(layer.weight, torch.ones(2, 2))


@pytest.mark.parametrize("read", [load_memory, read_checkpoint, open_image], ids=["memory", "checkpoint", "image"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)")])
def test_a_file_for_which_the_memory_is_too_small_is_not_called_damaged(
    read: Callable[[Path], object], error: Exception, tmp_path: Path, monkeypatch: Patch
) -> None:
    (path := tmp_path / "a.pt").write_bytes(saved(WEIGHTS))
    for reader in ("torch.load", "PIL.Image.open"):
        monkeypatch.setattr(reader, Mock(side_effect=error))
    with pytest.raises(UserError, match=r"a\.pt cannot be read: the memory is too small: .*; end other programs"):
        read(path)


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: load_strictly(nn.Linear(2, 2), read_checkpoint(path), path),
        lambda: recognize(Network(None, path), SAM2_NAMES),
    )
    for attempt in attempts:
        with pytest.raises(UserError, match=re.escape(str(path))) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)  # torch's advice, to run the code in it


@pytest.mark.parametrize("read", [load_memory, read_checkpoint], ids=["memory", "checkpoint"])
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_checkpoints_run_no_code(read: Callable[[Path], Any], save: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    save({"format": Exploit(), "model": Exploit()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()
