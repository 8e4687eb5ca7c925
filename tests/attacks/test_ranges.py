"""Numbers outside their range: one line with the option or key, the range and the value, before anything is loaded."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from no_time_to_train.benchmarks.own_data_set import BenchmarkOptions
from no_time_to_train.commands import COMMANDS, function_of
from no_time_to_train.commands.options import NetworkOptions
from no_time_to_train.config import (
    DataLoadCfgs,
    EncoderCfg,
    MemoryBankCfg,
    ReferenceDatasetCfg,
    RunOptions,
    StageSettings,
    TargetDatasetCfg,
    VisualizationCfg,
    configuration_keys,
)
from no_time_to_train.errors import UserError
from no_time_to_train.method.settings import Settings
from no_time_to_train.pipeline.stage import RunCfg
from no_time_to_train.ranges import range_of

CONFIG = str(Path(__file__).parents[2] / "configs" / "custom_sam2l.yaml")

#: A command with what it cannot do without -> options, values, and the range that the message states.
COMMAND_LINES: dict[str, list[tuple[str, str, str]]] = {
    "segment --references . --images . --out nowhere": [
        ("--threshold", "1.5 nan", "0 to 1"),
        ("--class-score", "boat=-1 boat=inf", "0 to 1"),
        ("--every", "0 1.5", "1 or more"),
        ("--max-pixels", "-1", "1 or more"),
        ("--context-ratio", "nan -0.1", "0 to 100"),
        ("--points-per-side", "0 100000", "1 to 256"),
    ],
    "results filter .": [
        ("--threshold", "2", "0 to 1"),
        ("--class-score", "boat=nan", "0 to 1"),
        ("--max-pixels", "0", "1 or more"),
    ],
    "benchmark refs.json targets.json --out nowhere": [
        ("--n-shot", "0", "1 or more"),
        ("--seed", "-1", "0 to 4294967295"),
        ("--points-per-side", "-3", "1 to 256"),
    ],
    "demo --out nowhere": [("--n-shot", "0", "1 or more"), ("--images", "0", "1 or more")],
    "sample --n-shot 1 --out refs.json": [
        ("--n-shot", "0 many", "1 or more"),
        ("--seed", "4294967296", "0 to 4294967295"),
    ],
    "evaluate --gt gt.json --results results.json": [("--semantic-threshold", "-0.5", "0 to 1")],
    f"test --config {CONFIG}": [
        ("--n_shot", "0", "1 or more"),
        ("--seed", "-1", "0 to 4294967295"),
        ("--coco_semantic_split", "5", "1 to 4"),
        ("--max_bad", "-1", "0 or more"),
    ],
}

#: A key of the configuration -> values in YAML outside its range, and the range.
KEYS: dict[str, tuple[list[str], str]] = {
    "model_cfg.sam2_infer_cfgs.points_per_side": (["0", "257", "1e3", "true", "abc", "[8]"], "1 to 256"),
    "model_cfg.sam2_infer_cfgs.testing_point_bs": (["0"], "1 or more"),
    "model_cfg.sam2_infer_cfgs.iou_thr": (["-0.1", ".nan", "nan", ".inf"], "0 to 1"),
    "model_cfg.sam2_infer_cfgs.nms_thr": (["1.01"], "0 to 1"),
    "model_cfg.sam2_infer_cfgs.num_out_instance": (["-5", "0"], "1 or more"),
    "model_cfg.sam2_infer_cfgs.kmeans_k": (["0"], "1 or more"),
    "model_cfg.sam2_infer_cfgs.n_pca_components": (["0"], "1 or more"),
    "model_cfg.sam2_infer_cfgs.cls_num_per_mask": (["0", "-2"], "-1, or 1 or more"),
    "model_cfg.encoder_cfg.img_size": (["0", "140000"], "1 to 4096"),
    "model_cfg.encoder_cfg.patch_size": (["0"], "1 or more"),
    "model_cfg.encoder_cfg.debias": (["-1"], "0 or more"),
    "model_cfg.memory_bank_cfg.length": (["0"], "1 or more"),
    "model_cfg.memory_bank_cfg.category_num": (["0"], "1 or more"),
    "model_cfg.test.vis_thr": (["-1", "1.5"], "0 to 1"),
    "dataset_cfgs.fill_memory.memory_length": (["0"], "1 or more"),
    "dataset_cfgs.fill_memory.context_ratio": (["-1", ".nan", "1e9"], "0 to 100"),
    "dataset_cfgs.fill_memory.image_size": (["0"], "1 or more"),
    "dataset_cfgs.test.semantic_threshold": (["2"], "0 to 1"),
    "dataset_cfgs.test.image_size": (["-1"], "1 or more"),
    "data_load_cfgs.workers": (["-1"], "0 or more"),
}
VALUES = [(key, value) for key, (values, _) in KEYS.items() for value in values]


Refusal = Callable[..., str]


@pytest.mark.parametrize(
    ("command", "option", "value", "allowed"),
    [
        (command, option, value, allowed)
        for command, cases in COMMAND_LINES.items()
        for option, values, allowed in cases
        for value in values.split()
    ],
)
def test_an_option_outside_its_range_is_refused(
    command: str, option: str, value: str, allowed: str, refusal: Refusal
) -> None:
    name, _, number = value.rpartition("=")
    line = refusal(*command.split(), f"{option}={value}")
    named = f"{option} {name}".strip()
    assert line.startswith(f"error: {named} must be a ")
    assert f"number ({allowed}), not " in line
    assert number in line


CHOICES = {
    "test_mode": ("tst", "one of fill_memory, "),
    "compile": ("maybe", "true or false"),
    "model_cfg.sam2_infer_cfgs.with_negative_refs": ("3", "true or false"),
    "model_cfg.sam2_infer_cfgs.merging": ("softly", "one of soft, diffusion, overlap, hard"),
    "dataset_cfgs.test.protocol": ("cocoo", "one of coco, "),
}
OUTSIDE = [(key, value, f"number ({KEYS[key][1]}), not ") for key, value in VALUES]


@pytest.mark.parametrize(("key", "value", "allowed"), [*OUTSIDE, *((key, *choice) for key, choice in CHOICES.items())])
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


def test_keys_given_as_yaml_on_the_command_line_are_checked_as_well(refusal: Refusal) -> None:
    line = refusal("test", "--config", CONFIG, "--model.model_cfg", "{sam2_infer_cfgs: {iou_thr: 7}}")
    assert "sam2_infer_cfgs.iou_thr must be a number (0 to 1), not 7" in line


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Settings, "points_per_side", 0),
        (Settings, "points_per_side", "32"),
        (Settings, "points_per_side", None),
        (Settings, "points_per_batch", 0),
        (Settings, "pred_iou_thresh", float("nan")),
        (Settings, "box_nms_thresh", -1),
        (Settings, "max_instances", 2.5),
        (Settings, "classes_per_mask", 0),
        (Settings, "merge_exponent", float("inf")),
        (StageSettings, "kmeans_k", 0),
        (EncoderCfg, "img_size", 500),
        (MemoryBankCfg, "length", 0),
        (VisualizationCfg, "vis_thr", 2),
        (ReferenceDatasetCfg, "context_ratio", float("nan")),
        (TargetDatasetCfg, "semantic_threshold", -1),
        (DataLoadCfgs, "workers", True),
    ],
)
def test_the_python_api_has_the_same_ranges(kind: type[Any], field: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^{field} must be a .*number .*, not "):
        kind(**{field: value})


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
    assert {key for key, hint in leaves(configuration_keys()) if range_of(hint)} >= KEYS.keys()


def test_sizes_that_do_not_fit_each_other_are_one_line(refusal: Refusal) -> None:
    line = refusal("test", "--config", CONFIG, "--model.model_cfg.encoder_cfg.img_size", "500")
    assert line.startswith("error: img_size must be a whole number of patches")


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true", "64", "transformer-engine", "half"])
def test_a_precision_that_the_networks_cannot_run_in_is_refused(
    precision: str, tmp_path: Path, refusal: Refusal
) -> None:
    end = f"precision {precision} is not supported: choose one of 32-true, 16-mixed, bf16-mixed"
    line = refusal("test", "--config", CONFIG, f"--trainer.precision={precision}")
    assert line == f"error: --trainer.{end}"
    path = tmp_path / "config.yaml"
    path.write_text(f"trainer: {{precision: {precision}}}")
    assert refusal("test", "--config", path) == f"error: configuration {path}: trainer.{end}"
    with pytest.raises(UserError, match=end):
        RunCfg(precision=precision)
