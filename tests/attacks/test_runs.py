"""Runs under attack: configurations that name URLs and pipes, and journals and caches that someone has changed."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, SequentialSampler

from no_time_to_train import lightning_items
from no_time_to_train.cli import main
from no_time_to_train.data.memory_files import save_memory
from no_time_to_train.errors import UserError
from no_time_to_train.lightning_items import ItemLoader, build_trainer
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.pipeline.entries import checksum
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.processes import FIRST
from no_time_to_train.pipeline.proposal_cache import ABANDONED, ProposalCache, _to_bytes
from no_time_to_train.pipeline.run_record import record_stage
from tests.attacks.test_cases import cases_in
from tests.conftest import Capture, Patch, Refusal
from tests.web import serving

CONFIG = "model:\n  class_path: no_time_to_train.lightning_module.NoTimeToTrain\n  init_args:\n    test_mode: test\n"


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """The address of a server on this machine, and the paths that it was asked for."""
    seen: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.path)
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"max_epochs: 3\n")

    with serving(answer) as address:
        yield address, seen


#: Where a configuration can name another file -> the configuration.
PLACES = {
    case["case"]: case["names"].replace("CONFIG", CONFIG) for case in cases_in("configurations") if "names" in case
}
#: Where a configuration can name code -> the configuration. Each would create a file.
CODE = {case["case"]: case["runs"] for case in cases_in("configurations") if "runs" in case}
OPTIONS = ("--config", "--model", "--model.model_cfg", "--trainer", "--trainer.logger", "--ckpt_path", "--n_shot")


@pytest.mark.parametrize("form", ["URL/a.yaml", "simplecache::URL/a.yaml", "zip://a.yaml::URL/a.zip"])
def test_configurations_ask_no_server(
    requests: tuple[str, list[str]], tmp_path: Path, refusal: Refusal, form: str
) -> None:
    address, seen = requests
    name = form.replace("URL", address)
    for place, text in PLACES.items():
        (tmp_path / f"{place}.yaml").write_text(text.replace("NAME", f'"{name}"'))
        refusal("test", "--config", str(tmp_path / f"{place}.yaml"))
    (tmp_path / "sound.yaml").write_text(CONFIG)
    for option in OPTIONS:
        refusal("test", "--config", str(tmp_path / "sound.yaml"), option, name)
    assert not seen


@pytest.mark.parametrize("name", ['reference://{"a": 1}', "memory://a.yaml", "file:///etc/passwd", "/dev/zero", "pipe"])
def test_configurations_read_only_files(tmp_path: Path, refusal: Refusal, monkeypatch: Patch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for place, text in PLACES.items():
        Path(f"{place}.yaml").write_text(text.replace("NAME", f"'{name}'"))
        refusal("test", "--config", f"{place}.yaml")


def test_an_included_pipe_and_a_file_that_includes_itself_are_refused(tmp_path: Path, refusal: Refusal) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "outer.yaml").write_text(f"{CONFIG}trainer: inner.yaml\n")
    (tmp_path / "inner.yaml").write_text("logger: pipe\n")
    assert "pipe is a pipe" in refusal("test", "--config", str(tmp_path / "outer.yaml"))
    (tmp_path / "self.yaml").write_text(f"config: self.yaml\n{CONFIG}")
    assert "includes itself" in refusal("test", "--config", str(tmp_path / "self.yaml"))


@pytest.mark.parametrize("content", CODE.values(), ids=CODE.keys())
def test_a_configuration_imports_only_lightning_and_this_package(
    content: str, refusal: Refusal, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\nfrom pytorch_lightning.loggers import CSVLogger as Evil\n"
    )
    (tmp_path / "config.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    ours = Path(__file__).parents[2] / "configs" / "custom_sam2l.yaml"
    refusal("test", "--config", ours, "--config", tmp_path / "config.yaml")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """The command line of a stage without networks, which writes ``out/prototypes.ckpt``."""
    made_with = {"encoder": "dinov2_nano", "img_size": 336, "context_ratio": 0.0}
    shots = torch.randn(2, 192), torch.tensor([0, 0]), torch.ones(2)
    bank = MemoryBank([Category(1, "a")], *shots, made_with=made_with)
    save_memory(bank, tmp_path / "memory.ckpt")
    (tmp_path / "config.yaml").write_text(CONFIG)
    return [
        *("test", "--config", str(tmp_path / "config.yaml"), "--model.test_mode", "postprocess_memory"),
        *("--model.model_cfg.encoder_cfg.name", "dinov2_nano", "--model.model_cfg.encoder_cfg.img_size", "336"),
        *("--trainer.accelerator", "cpu", "--trainer.logger.class_path", "pytorch_lightning.loggers.CSVLogger"),
        *("--trainer.logger.save_dir", str(tmp_path / "out"), "--ckpt_path", str(tmp_path / "memory.ckpt")),
        *("--out_path", str(tmp_path / "out" / "prototypes.ckpt")),
    ]


@pytest.mark.parametrize("option", ["limit_test_batches=2", "limit_test_batches=0.5", "fast_dev_run=true"])
def test_options_that_leave_items_out_are_refused(
    run: list[str], tmp_path: Path, refusal: Refusal, option: str
) -> None:
    assert "leaves out items" in refusal(*run, f"--trainer.{option}")
    assert not (tmp_path / "out").exists()


def test_a_journal_that_is_removed_while_the_run_lasts_is_an_error_and_the_next_run_finishes(
    run: list[str], tmp_path: Path, refusal: Refusal, capsys: Capture
) -> None:
    add = Journal.add

    def add_and_remove(self: Journal, *item: Any) -> None:
        add(self, *item)
        shutil.rmtree(self.folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "add", add_and_remove)
        line = refusal(*run)
    assert "lacks 1 of 1 memories (number 1)" in line
    assert "run the same command again" in line.lower()
    assert not (tmp_path / "out" / "prototypes.ckpt").exists()
    main(run)
    assert "postprocess_memory DataLoader 0: 100%" in capsys.readouterr().out, "this package's progress bar"
    main([*run, "--trainer.enable_progress_bar", "false"])
    assert "%" not in capsys.readouterr().out
    assert (tmp_path / "out" / "prototypes.ckpt").exists()


def test_a_second_run_that_is_refused_leaves_the_record_and_the_logs_of_the_first(
    run: list[str], tmp_path: Path, refusal: Refusal
) -> None:
    out = tmp_path / "out"
    journal = Journal(out / "prototypes.ckpt")
    journal.join(journal.start({"of": "the first"}))
    with record_stage(out, "postprocess_memory", {}, of="the first"):
        record = (out / "run.json").read_bytes()
        assert "another run is writing" in refusal(*run)
        assert (out / "run.json").read_bytes() == record
        journal.add(0, {})
        journal.close()
        assert "holds 1 finished items of a run with another" in refusal(*run)
        assert (out / "run.json").read_bytes() == record
    assert sorted(path.name for path in out.iterdir()) == [".prototypes.ckpt.run", "run.json"]


@pytest.mark.parametrize("content", ["[]", '{"test": 1}', "not JSON"])
def test_a_damaged_record_of_a_run_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json is not"), record_stage(tmp_path, "evaluate", {}):
        pass


class TestJournal:
    """The journal's folder."""

    def test_a_folder_that_somebody_removes_as_the_run_begins_is_said_to_be_gone(self, tmp_path: Path) -> None:
        attempt = (journal := Journal(tmp_path / "results.json")).start({})
        shutil.rmtree(journal.folder)
        with pytest.raises(UserError, match=r"results\.json\.run is gone: somebody has removed it"):
            journal.join(attempt)

    def test_other_files_in_the_folder_are_ignored(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "results.json")
        journal.join(journal.start({}))
        for index in range(2):
            journal.add(index, {"item": index})
        for name in ("x.item", "-.item", ".nfs00001", f"{'9' * 200}.item"):
            (journal.folder / name).write_text("0 ffff {}\n")
        (journal.folder / "7.item").mkdir()
        os.mkfifo(journal.folder / "8.item")
        os.mkfifo(journal.folder / "8.failure")
        journal.close()
        journal.join(journal.start({}))
        assert journal.failure is None
        assert [record["item"] for record in journal.records(2)] == [0, 1]
        journal.remove()
        assert not journal.folder.exists()

    @pytest.mark.parametrize("name", ["", "lock", "work.json"])
    @pytest.mark.parametrize("kind", ["file", "folder", "pipe", "link", "broken link"])
    def test_something_else_in_its_place_is_refused(self, tmp_path: Path, name: str, kind: str) -> None:
        folder, elsewhere = tmp_path / ".results.json.run", tmp_path / "elsewhere"
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        is_ours = "folder" if path == folder else "file"
        if kind == is_ours:
            return
        if kind == "link":
            elsewhere.mkdir() if is_ours == "folder" else elsewhere.write_text("{}")
        {"file": path.touch, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}.get(
            kind, lambda: path.symlink_to(elsewhere)
        )()
        with pytest.raises(UserError, match="is in the way"):
            Journal(tmp_path / "results.json").start({})
        if kind == "link" and is_ours == "file":
            assert elsewhere.read_text() == "{}"


class TestCache:
    """The cache's folder."""

    def forged(self, folder: Path, **changes: torch.Tensor) -> ProposalCache:
        """A cache with one entry, ``key``, with a checksum that fits and other content than a run writes."""
        import safetensors.torch

        cache = ProposalCache(folder, {})
        masks = Masks.pack(np.ones((1, 10, 10), bool))
        proposals = DescribedProposals(torch.ones(1), torch.zeros(1, 4).long(), torch.ones(1, 8), masks.__getitem__)
        tensors = {**safetensors.torch.load(_to_bytes(proposals, 10, 10)), **changes}
        body = safetensors.torch.save(tensors)
        folder.mkdir(exist_ok=True)
        (folder / "key.proposals").write_bytes(checksum("key", body) + body)
        return cache

    @pytest.mark.parametrize("kind", ["folder", "pipe"])
    def test_what_is_no_file_is_no_entry(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "key.proposals"
        path.mkdir() if kind == "folder" else os.mkfifo(path)
        assert ProposalCache(tmp_path, {}).read("key") is None

    def test_a_forged_entry_that_is_no_entry_is_none(self, tmp_path: Path) -> None:
        cache = self.forged(tmp_path)
        assert cache.read("key") is not None
        for changes in (
            {"boxes": torch.zeros(2, 4)},
            {"size": torch.zeros(3)},
            {"vectors": torch.ones(5, 8)},
            {"masks": torch.full((3,), 255, dtype=torch.uint8)},
        ):
            self.forged(tmp_path, **changes)
            assert cache.read("key") is None
        body = b"no safetensors"
        (tmp_path / "key.proposals").write_bytes(checksum("key", body) + body)
        assert cache.read("key") is None

    def test_a_forged_mask_is_refused_before_it_is_decoded(self, tmp_path: Path) -> None:
        text = torch.frombuffer(bytearray(b"hhhhhhhh1 "), dtype=torch.uint8)
        entry = self.forged(tmp_path, masks=text).read("key")
        with pytest.raises(UserError, match="the cache holds a mask that no run wrote"):
            entry.proposals.upsampled_masks(torch.tensor([0]))

    def test_temporary_files_of_killed_runs_are_removed_and_those_of_others_are_not(self, tmp_path: Path) -> None:
        old, new = tmp_path / ".a.proposals.x7_k2q9z.tmp", tmp_path / ".b.proposals.x7_k2q9z.tmp"
        for path in (old, new):
            path.touch()
        os.utime(old, (time.time() - ABANDONED - 10,) * 2)
        ProposalCache(tmp_path, {}).remove_leftovers()
        assert list(tmp_path.iterdir()) == [new]


class Slow(Dataset[Any]):
    """Items that are their indices; the later one of a pair is there first, and the last one never is."""

    def __init__(self, last: Event | None = None) -> None:
        self.last = last

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> int:
        time.sleep(0.01 * (index % 2 == 0))
        if self.last and index == 8:
            self.last.wait()
        return index


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_items_come_in_their_order_from_any_number_of_threads(threads: int) -> None:
    loader = ItemLoader(nullcontext, Slow(), SequentialSampler(Slow()), threads, at_once=2)
    assert list(loader) == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]


def load_what_never_comes() -> None:
    """Load items of which the last one never comes."""
    lightning_items.LOADING_TIMEOUT = 1
    loaded = []
    try:
        for batch in ItemLoader(nullcontext, Slow(Event()), SequentialSampler(Slow()), threads=2):
            loaded += batch
    except UserError as error:
        print(loaded, error)


def test_a_disk_that_does_not_answer_ends_the_run_with_what_to_do() -> None:
    code = "from tests.attacks.test_runs import load_what_never_comes; load_what_never_comes()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.startswith("[0, 1, 2, 3, 4, 5, 6, 7] no image was loaded for 1 seconds: does the disk")
    assert not ended.stderr


def test_images_as_integers_give_the_same_floats() -> None:
    from no_time_to_train.method.target_image import as_float

    values = np.arange(256, dtype=np.uint8)
    assert np.array_equal(as_float(torch.from_numpy(values)).numpy(), values.astype(np.float32) / np.float32(255))


@pytest.fixture
def launched(monkeypatch: Patch) -> dict[str, str]:
    """An environment that commands may change."""
    environment = {key: value for key, value in os.environ.items() if key != FIRST}
    monkeypatch.setattr(os, "environ", environment)
    return environment


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "j", "SLURM_STEP_ID": "0"},
        {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "j", "SLURM_STEP_ID": "0", "SLURM_NODEID": "x", "SLURM_LOCALID": "0"},
        {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "nowhere", "JSM_NAMESPACE_LOCAL_RANK": "0", "JSM_NAMESPACE_SIZE": "1"},
    ],
)
def test_variables_of_a_cluster_that_do_not_go_together_are_named(
    variables: dict[str, str], launched: dict[str, str]
) -> None:
    launched.update(variables)
    with pytest.raises(UserError, match=rf"variables of a cluster do not go together: .*; unset {min(variables)}, "):
        build_trainer(2, 1, "cpu")


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_a_command_that_is_no_part_of_a_run_speaks_whatever_a_script_has_set(
    name: str, launched: dict[str, str], refusal: Refusal
) -> None:
    launched[name] = "1"
    assert "nowhere.memory" in refusal("memory", "show", "nowhere.memory")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        *(
            (name, "abc", f"{name}=abc in the environment is no number")
            for name in ("LOCAL_RANK", "MASTER_PORT", "RANK")
        ),
        ("NODE_RANK", "", "NODE_RANK= in the environment is no number"),
        ("TORCHELASTIC_RUN_ID", "x", "RANK= in the environment is no number: unset it, and TORCHELASTIC_RUN_ID"),
        ("SLURM_NTASKS", "2", "SLURM has begun one process of 2: write srun before the command"),
    ],
)
def test_what_a_script_has_set_instead_of_a_launcher_is_said_before_anything_is_loaded(
    name: str, value: str, reason: str, launched: dict[str, str], refusal: Refusal
) -> None:
    launched[name] = value
    for command in ("segment --images . --devices 2", "test --config custom_sam2l"):
        assert reason in refusal(*command.split())
        launched[name] = value  # as the next process finds it
