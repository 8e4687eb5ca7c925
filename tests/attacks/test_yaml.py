"""Configurations that grow when they are read."""

import re
from pathlib import Path

import pytest

from tests.conftest import Checkpoints, Patch, Refusal, stage_arguments

CONFIG = Path(__file__).parents[2] / "configs" / "custom_sam2l.yaml"

ATTACKS = {
    "a billion laughs": (
        "a: &a [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        r"it has an alias, \*a",
    ),
    "merged keys": ("a: &a {x: 1}\ntrainer:\n  <<: *a\n", r"it has an alias, \*a"),
    "nested 10,000 times": ("x: " + "[" * 10_000 + "]" * 10_000, "it is nested more than 100 times"),
    "a number in hexadecimal": ("x: 0x" + "f" * 5000, "the number '0xf.*f' has more than 100 characters"),
    "a number of 5,000 digits": ("x: " + "9" * 5000, "the number '9.*9' has more than 100 characters"),
    "a sexagesimal number": ("x: 1" + ":59" * 20_000, "the number '1.*59' has more than 100 characters"),
    "a tag of Python": ("x: !!python/name:os.system", "python/name"),
}


@pytest.mark.parametrize("option", ["--config", "--trainer", "--model"])
@pytest.mark.parametrize(("content", "message"), ATTACKS.values(), ids=ATTACKS)
def test_a_configuration_that_grows_is_refused_wherever_it_is_named(
    option: str, content: str, message: str, tmp_path: Path, refusal: Refusal
) -> None:
    path = tmp_path / "attack.yaml"
    path.write_text(content)
    error = refusal("test", "--config", CONFIG, option, path)
    assert str(path) in error
    assert re.search(message, error)


@pytest.mark.parametrize("option", ["--model.data_load_cfgs.workers", "--trainer.devices"])
def test_a_number_without_an_end_is_refused_as_an_option(option: str, refusal: Refusal) -> None:
    assert "has more than 100 characters" in refusal("test", option, "0x" + "f" * 5000)


def test_a_slurm_script_of_several_tasks_is_one_line(
    nano_checkpoints: Checkpoints, tmp_path: Path, refusal: Refusal, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    arguments = stage_arguments("fill_memory", nano_checkpoints, tmp_path)
    assert "--ntasks-per-node=4" in refusal(*arguments, "--out_path", tmp_path / "memory")


def test_all_classes_of_lvis_are_within_the_limits(
    nano_checkpoints: Checkpoints, tmp_path: Path, refusal: Refusal
) -> None:
    arguments = stage_arguments("fill_memory", nano_checkpoints, tmp_path)
    names = f"[{', '.join(f'class {number}' for number in range(1203))}]"
    error = refusal(*arguments, "--model.dataset_cfgs.fill_memory.cat_names", names, "--out_path", tmp_path / "memory")
    assert "has no class 'class " in error
