"""Numbers outside their range: one line with the option or key, the range and the value, before anything is loaded."""

from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from no_time_to_train import UserError, config
from no_time_to_train.benchmarks.own_data_set import BenchmarkOptions
from no_time_to_train.commands import COMMANDS, function_of
from no_time_to_train.commands.options import NetworkOptions
from no_time_to_train.config import RunOptions, configuration_keys
from no_time_to_train.pipeline.stage import RunCfg
from no_time_to_train.ranges import range_of
from tests.attacks.test_cases import cases_in
from tests.conftest import Refusal

CONFIG = str(Path(__file__).parents[2] / "configs" / "custom_sam2l.yaml")


#: Options of commands and keys of the configuration with values outside their ranges or choices, of keys in YAML.
OPTIONS = [(case, value) for case in cases_in("ranges_of_options") for value in case["values"]]
KEYS = cases_in("ranges_of_keys")


@pytest.mark.parametrize(("case", "value"), OPTIONS, ids=[f"{case['option']}={value}" for case, value in OPTIONS])
def test_an_option_outside_its_range_is_refused(case: dict[str, Any], value: str, refusal: Refusal) -> None:
    name, _, number = value.rpartition("=")
    line = refusal(*case["command"].format(config=CONFIG).split(), f"{case['option']}={value}")
    named = f"{case['option']} {name}".strip()
    assert line.startswith(f"error: {named} must be a ")
    assert f"number ({case['range']}), not " in line
    assert number in line


@pytest.mark.parametrize(
    ("key", "value", "allowed"), [(case["key"], value, case["says"]) for case in KEYS for value in case["values"]]
)
def test_a_key_outside_its_range_or_choices_is_refused_in_a_file_and_on_the_command_line(
    key: str, value: str, allowed: str, tmp_path: Path, refusal: Refusal
) -> None:
    path, content = tmp_path / "config.yaml", value
    for part in reversed(["model", "init_args", *key.split(".")]):
        content = f"{{{part}: {content}}}"
    path.write_text(content)
    options = [f"--model.{key}", f"--model.init_args.{key}"]
    lines = {option: refusal("test", "--config", CONFIG, option, value) for option in options}
    lines[f"configuration {path}: {key}"] = refusal("test", "--config", path)
    for place, line in lines.items():
        assert line.startswith(f"error: {place} must be ")
        assert allowed in line


def test_a_number_of_more_than_64_bits_is_refused_as_such(refusal: Refusal) -> None:
    line = refusal("segment", "--images", ".", "--out", "nowhere", "--max-pixels", 2**63)
    assert line == f"error: --max-pixels must be a whole number (1 or more), not {2**63}: it has more than 64 bits"


def test_keys_given_as_yaml_on_the_command_line_are_checked_as_well(refusal: Refusal) -> None:
    line = refusal("test", "--config", CONFIG, "--model.model_cfg", "{sam2_infer_cfgs: {iou_thr: 7}}")
    assert "sam2_infer_cfgs.iou_thr must be a number (0 to 1), not 7" in line


#: All dataclasses of the configuration, and the numbers of each.
KINDS = [one for one in vars(config).values() if is_dataclass(one) and isinstance(one, type)]
NUMBERS = [
    (kind, *one) for kind in KINDS for one in get_type_hints(kind, include_extras=True).items() if range_of(one[1])
]


@pytest.mark.parametrize(("kind", "name", "hint"), NUMBERS)
def test_the_python_api_has_the_same_ranges(kind: type[Any], name: str, hint: Any) -> None:
    number, allowed = range_of(hint)
    outside: list[Any] = [allowed.least - 3, float("nan"), float("inf"), str(allowed.least), True]
    outside += [allowed.least + 0.5] if number is int else []
    outside += [] if allowed.most is None else [allowed.most + 1]
    for value in outside if type(None) in get_args(hint) else [*outside, None]:
        with pytest.raises(UserError, match=f"^{name} must be a .*number .*, not "):
            kind(**{name: value})


def leaves(keys: dict[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The keys of a configuration with dots, each with its type hint."""
    for name, below in keys.items():
        if isinstance(below, dict):
            yield from leaves(below, (*parents, name))
        else:
            yield ".".join([*parents, name]), below


def test_every_number_has_a_range() -> None:
    numbers = dict(leaves(configuration_keys()))
    shared = (NetworkOptions, BenchmarkOptions, RunOptions)
    for function in (*map(function_of, COMMANDS), *shared):
        numbers |= {
            f"{function.__name__} {name}": hint for name, hint in get_type_hints(function, include_extras=True).items()
        }
    without = {name for name, hint in numbers.items() if not range_of(hint) and {int, float} & {hint, *get_args(hint)}}
    # accepted from the authors' commands, and without effect
    assert without == {"boxes_to_masks batch_size", "boxes_to_masks max_boxes_per_image"}
    assert {key for key, hint in leaves(configuration_keys()) if range_of(hint)} >= {
        case["key"] for case in KEYS if "number" in case["says"]
    }


def test_sizes_that_do_not_fit_each_other_are_one_line(refusal: Refusal) -> None:
    line = refusal("test", "--config", CONFIG, "--model.model_cfg.encoder_cfg.img_size", "500")
    assert line.startswith("error: img_size must be a whole number of patches")


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true", "64", "transformer-engine", "half"])
def test_a_precision_that_networks_cannot_run_in_is_refused(precision: str, tmp_path: Path, refusal: Refusal) -> None:
    end = f"precision {precision} is not supported: choose one of 32-true, 16-mixed, bf16-mixed"
    line = refusal("test", "--config", CONFIG, f"--trainer.precision={precision}")
    assert line == f"error: --trainer.{end}"
    path = tmp_path / "config.yaml"
    path.write_text(f"trainer: {{precision: {precision}}}")
    assert refusal("test", "--config", path) == f"error: configuration {path}: trainer.{end}"
    with pytest.raises(UserError, match=end):
        RunCfg(precision=precision)
