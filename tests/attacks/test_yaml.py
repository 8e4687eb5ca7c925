"""Configurations that grow when they are read."""

import re
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import yaml
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Trainer

from no_time_to_train.cli import main
from no_time_to_train.errors import UserError
from tests.conftest import Capture, Checkpoints, Patch, Refusal, stage_arguments

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
    "a key twice": ("x: {a: 1, b: 2, a: 3}", "it has the key 'a' twice"),
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


@pytest.mark.parametrize("value", ["2024-13-45", "0x_", "!!int x", "!!timestamp x"])
@pytest.mark.parametrize("option", ["--model.model_cfg.dataset_name", "--trainer.devices", "--ckpt_path"])
def test_a_value_that_is_not_of_its_type_in_yaml_is_one_line(option: str, value: str, refusal: Refusal) -> None:
    assert refusal("test", "--config", CONFIG, option, value)


@pytest.mark.parametrize("value", ["-1", "4294967296", "1.5", "x"])
def test_a_seed_out_of_range_is_one_line(value: str, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "seed.yaml").write_text(f"seed_everything: {value}")
    line = refusal("test", "--config", CONFIG, "--config", tmp_path / "seed.yaml")
    assert "seed_everything must be a whole number (0 to 4294967295)" in line


@pytest.mark.parametrize("value", ["[1, 2]", "{a: 1}", "7", "2024-01-01", ".nan", "true"])
@pytest.mark.parametrize(
    "place",
    [
        "test, model_cfg: {encoder_cfg: {name: VALUE}}",
        "test, model_cfg: {encoder_ckpt_path: VALUE, dataset_name: VALUE}",
        "test, model_cfg: {sam2_cfg_file: VALUE}",
        "test, model_cfg: {sam2_ckpt_path: VALUE}",
        "fill_memory, dataset_cfgs: {fill_memory: {class_split: VALUE}}",
    ],
)
def test_a_name_that_is_no_text_is_one_line(place: str, value: str, tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "name.yaml"
    path.write_text(f"model: {{init_args: {{test_mode: {place.replace('VALUE', value)}}}}}")
    assert refusal("test", "--config", CONFIG, "--config", path, "--out_path", tmp_path / "memory")


WRONG_TYPES = {
    "model: {init_args: {dataset_cfgs: {test: {cat_names: [no, boat]}}}}": (
        r"dataset_cfgs\.test\.cat_names cannot be \[False, 'boat'\]; Not of type ClassNames: not a list of texts$"
    ),
    "trainer: {logger: os.system}": r"trainer\.logger cannot be os\.system.*Importing 'os\.system' is not allowed",
    "trainer: null": "trainer is null: leave it out",
    "model: {init_args: {model_cfg: {sam2_infer_cfgs: null}}}": r"model_cfg\.sam2_infer_cfgs is null: leave it out",
}


@pytest.mark.parametrize(("content", "message"), WRONG_TYPES.items())
def test_a_value_of_a_wrong_type_is_named_without_the_whole_configuration(
    content: str, message: str, tmp_path: Path, nano_checkpoints: Checkpoints, refusal: Refusal
) -> None:
    (tmp_path / "wrong.yaml").write_text(content)
    line = refusal(*stage_arguments("fill_memory", nano_checkpoints, tmp_path), "--config", tmp_path / "wrong.yaml")
    assert re.search(message, line)
    assert len(line) < 400


def test_a_tilde_in_a_configuration_is_the_home_folder(tmp_path: Path, monkeypatch: Patch, refusal: Refusal) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = tmp_path / "tilde.yaml"
    path.write_text("model: {init_args: {test_mode: fill_memory, model_cfg: {encoder_ckpt_path: ~/no.pth}}}")
    line = refusal("test", "--config", CONFIG, "--config", path, "--out_path", tmp_path / "memory")
    assert f"checkpoint not found: {tmp_path / 'no.pth'}" in line


@pytest.mark.parametrize("key", ["model.model_cfg.proposals", "trainer.callbacks"])
def test_a_list_without_an_end_is_refused(key: str, tmp_path: Path, refusal: Refusal) -> None:
    """jsonargparse takes a minute for 3,000 entries."""
    content = f"[{'a, ' * 3000}]"
    for part in reversed(key.split(".")):
        content = f"{{{part}: {content}}}"
    (tmp_path / "long.yaml").write_text(content)
    error = refusal("test", "--config", CONFIG, "--config", tmp_path / "long.yaml")
    assert f"{key.removeprefix('model.')} has 3000 entries, more than 100" in error


def test_a_configuration_may_be_in_utf_16(nano_checkpoints: Checkpoints, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "utf16.yaml").write_text("model: {init_args: {data_load_cfgs: {workers: 7}}}", "utf-16")
    arguments = stage_arguments("fill_memory", nano_checkpoints, tmp_path)
    main([*arguments, "--config", str(tmp_path / "utf16.yaml"), "--print_config"])
    assert "workers: 7" in capsys.readouterr().out


@pytest.mark.parametrize("names", ["boat,bird", "[boat, bird]"])
def test_a_printed_configuration_has_the_names_of_the_classes_as_they_were_given(
    names: str, tmp_path: Path, capsys: Capture
) -> None:
    key = "model: {init_args: {test_mode: test, dataset_cfgs: {test: {cat_names: %s}}}}"
    (tmp_path / "names.yaml").write_text(key % (names if names.startswith("[") else f"'{names}'"))
    main(["test", "--config", str(CONFIG), "--config", str(tmp_path / "names.yaml"), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["dataset_cfgs"]["test"]["cat_names"]
    assert printed == yaml.safe_load(names)


def test_a_notice_names_an_option_that_a_later_file_overrides(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "workers.yaml").write_text("model: {init_args: {data_load_cfgs: {workers: 7}}}")
    options = ["--model.data_load_cfgs.workers", "3", "--trainer.devices", "1"]
    files = ["--config", str(CONFIG), "--config", str(tmp_path / "workers.yaml"), "--print_config"]
    main(["test", *options, *files])
    assert "overrides --model.data_load_cfgs.workers: give options after the files" in capsys.readouterr().err
    main(["test", *files, *options])
    printed = capsys.readouterr()
    assert "workers: 3" in printed.out
    assert "overrides" not in printed.err


@pytest.mark.parametrize("key", ["logger.save_dir", "default_root_dir"])
def test_results_do_not_go_to_an_address_which_would_be_asked(
    key: str, nano_checkpoints: Checkpoints, tmp_path: Path, refusal: Refusal
) -> None:
    arguments = stage_arguments("fill_memory", nano_checkpoints, tmp_path)
    error = refusal(*arguments, f"--trainer.{key}", "http://127.0.0.1:9/x", "--out_path", tmp_path / "memory")
    assert "http://127.0.0.1:9/x is an address: give a folder" in error


def test_a_signal_of_slurm_does_not_begin_the_job_again(
    nano_checkpoints: Checkpoints, tmp_path: Path, monkeypatch: Patch
) -> None:
    run = create_autospec(Trainer.test, side_effect=UserError("begun"))
    monkeypatch.setattr(Trainer, "test", run)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    with pytest.raises(SystemExit):
        main([*stage_arguments("fill_memory", nano_checkpoints, tmp_path), "--out_path", str(tmp_path / "memory")])
    environment = run.call_args[0][0]._accelerator_connector.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue


def test_several_tasks_of_slurm_for_one_device_are_one_line(
    nano_checkpoints: Checkpoints, tmp_path: Path, refusal: Refusal, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    arguments = stage_arguments("fill_memory", nano_checkpoints, tmp_path)
    assert "--ntasks-per-node=4" in refusal(*arguments, "--out_path", tmp_path / "memory")


def test_all_classes_of_lvis_are_within_the_limits(
    nano_checkpoints: Checkpoints, tmp_path: Path, refusal: Refusal
) -> None:
    arguments = stage_arguments("fill_memory", nano_checkpoints, tmp_path)
    names = f"[{', '.join(f'class {number}' for number in range(1203))}]"
    error = refusal(*arguments, "--model.dataset_cfgs.fill_memory.cat_names", names, "--out_path", tmp_path / "memory")
    assert "has no class 'class " in error
