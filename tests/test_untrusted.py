"""Untrusted files cannot run code. Each test contains a harmless exploit, which creates a file if it runs."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.errors import UserError
from no_time_to_train.networks.checkpoints import read_checkpoint

ROOT = Path(__file__).parent.parent


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """The file that an exploit creates if it runs."""
    return tmp_path / "ran"


@pytest.fixture
def exploit(ran: Path) -> Any:
    """An object whose unpickling runs code."""

    class Exploit:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    return Exploit()


@pytest.mark.parametrize("read", [load_memory, read_checkpoint], ids=["memory", "checkpoint"])
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_checkpoint_runs_no_code(
    read: Callable[[Path], Any], save: Callable[[Any, Path], Any], exploit: Any, ran: Path, tmp_path: Path
) -> None:
    save({"format": exploit, "model": exploit}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "evil.ckpt")
    assert not ran.exists()


CONFIGS = {
    "model": "model: {class_path: evil.Evil}",
    "logger": "trainer: {logger: {class_path: evil.Evil}}",
    "callback": "trainer: {callbacks: [{class_path: evil.Evil}]}",
    "strategy": "trainer: {strategy: {class_path: evil.Evil}}",
    "function": "trainer: {logger: {class_path: os.system, init_args: {command: touch ran}}}",
    "yaml tag": "trainer: !!python/object/apply:os.system ['touch ran']",
    "value of a key": "model: {class_path: no_time_to_train.lightning_module.NoTimeToTrain, init_args: "
    "{model_cfg: {class_path: evil.Evil}}}",
}


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_configuration_imports_only_lightning_and_this_package(
    content: str, refusal: Callable[..., str], ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\nfrom pytorch_lightning.loggers import CSVLogger as Evil\n"
    )
    (tmp_path / "config.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    refusal("test", "--config", ROOT / "configs" / "custom_sam2l.yaml", "--config", tmp_path / "config.yaml")
    assert not ran.exists()
