"""Every mistake ends in one line that names the file, id or key, exit status 2, no traceback and no partial output."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.test_cases import cases_in
from tests.conftest import DATA, Arguments, Checkpoints, Refusal, stage_arguments

FILL = "--model.init_args.dataset_cfgs.fill_memory."


@pytest.fixture
def fill(tmp_path: Path, nano_checkpoints: Checkpoints) -> list[str]:
    """The command line of ``fill_memory``."""
    return [*stage_arguments("fill_memory", nano_checkpoints, tmp_path), "--out_path", str(tmp_path / "memory.ckpt")]


@pytest.mark.parametrize("case", cases_in("reference_sets"))
def test_a_wrong_entry_of_a_reference_set_is_named(
    case: dict[str, Any], fill: list[str], refusal: Refusal, tmp_path: Path
) -> None:
    (tmp_path / "refs.json").write_text(json.dumps({"3": [case["entry"]]}))
    options = (f"{FILL}memory_pkl", tmp_path / "refs.json", f"{FILL}cat_names", "disc", "--n_shot", "1")
    assert case["refused"] in refusal(*fill, *options)


def test_a_reference_with_an_empty_mask_is_named(fill: list[str], refusal: Refusal, tmp_path: Path) -> None:
    data = json.loads((DATA / "references.json").read_text())
    data["annotations"][0]["segmentation"] = [[1, 1, 1, 1, 1, 1]]
    (tmp_path / "references.json").write_text(json.dumps(data))
    assert "annotation 1 of image 101" in refusal(*fill, f"{FILL}json_file", tmp_path / "references.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lightning_logs", "references.json", "run.json"]


def test_a_pickle_that_would_run_code_is_refused_and_is_not_run(
    fill: list[str], refusal: Refusal, tmp_path: Path
) -> None:
    class Exploit:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "refs.pkl").write_bytes(pickle.dumps({3: [Exploit()]}))
    assert "plain data only" in refusal(*fill, f"{FILL}memory_pkl", tmp_path / "refs.pkl")
    assert not (tmp_path / "ran").exists()


def test_a_memory_that_does_not_fit_is_refused_and_the_difference_is_named(
    arguments: Arguments, refusal: Refusal, memory: Path, nano_checkpoints: Checkpoints, tmp_path: Path
) -> None:
    names = ("--model.init_args.dataset_cfgs.test.cat_names", "star,leaf")
    encoder = ("--model.init_args.model_cfg.encoder_cfg.name", "dinov2_base")
    assert "not post-processed" in refusal(*arguments(tmp_path, memory=memory.with_name("memory.ckpt")))
    assert "only the memory has 'disc' (id 3)" in refusal(*arguments(tmp_path, *names))
    assert "encoder 'dinov2_nano', this run has 'dinov2_base'" in refusal(*arguments(tmp_path, *encoder))
    for path in (nano_checkpoints[0], Path("nowhere.ckpt")):
        assert str(path) in refusal(*arguments(tmp_path, memory=path))
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
