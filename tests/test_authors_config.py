"""Configurations of the authors' code are read as they are: in their shape, with each of their keys."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from no_time_to_train import cli
from no_time_to_train.commands.authors_config import is_known, protocol_of, translate
from no_time_to_train.config import ModelCfg
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.networks.registry import default_checkpoint
from tests.conftest import DATA, Capture, Patch

#: Keys without meaning, each with the value that changes nothing.
WITHOUT_MEANING = {
    "model_cfg.memory_bank_cfg.enable": True,
    "dataset_cfgs.fill_memory.norm_img": False,
    "dataset_cfgs.test.norm_img": False,
    "dataset_cfgs.support.norm_img": False,
    "dataset_cfgs.test.with_query_points": False,
    "dataset_cfgs.test.n_points_per_edge": 32,
}


def their_config() -> dict[str, Any]:
    return yaml.safe_load((DATA / "authors_config.yaml").read_text())


def with_key(key: str, value: Any, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """A configuration in their shape with one more key of ``model.init_args``."""
    config = config or their_config()
    *parents, last = key.split(".")
    holder = config["model"]["init_args"]
    for parent in parents:
        holder = holder.setdefault(parent, {})
    holder[last] = value
    return config


Printed = tuple[dict[str, Any], list[str]]
Print = Callable[..., Printed]


@pytest.fixture
def print_config(tmp_path: Path, capsys: Capture) -> Print:
    """A function that runs ``test --config FILE --print_config`` and returns what it prints, and the notices."""

    def run(config: dict[str, Any], *options: str, equals: bool = False) -> Printed:
        path = tmp_path / "theirs.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        given = [f"--config={path}"] if equals else ["--config", str(path)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(SystemExit) as ended:
                cli.run(["test", *given, *options, "--print_config"])
        assert ended.value.code in (None, 0)
        notices = [str(one.message) for one in caught if issubclass(one.category, UserNotice)]
        return yaml.safe_load(capsys.readouterr().out), notices

    return run


@pytest.mark.parametrize("equals", [False, True])
def test_their_configuration_is_read_as_it_is_and_one_note_names_what_has_no_meaning(
    print_config: Print, equals: bool
) -> None:
    config = their_config()
    for key, value in WITHOUT_MEANING.items():
        with_key(key, value, config)
    printed, notices = print_config(config, equals=equals)
    model, trainer = printed["model"], printed["trainer"]
    assert model["class_path"] == "no_time_to_train.lightning_module.NoTimeToTrain"
    stage = model["init_args"]
    assert stage["model_cfg"]["encoder_ckpt_path"] == "./checkpoints/dinov2/dinov2_vitl14_pretrain.pth"
    theirs = their_config()["model"]["init_args"]
    for part in ("sam2_infer_cfgs", "encoder_cfg", "memory_bank_cfg"):
        assert theirs["model_cfg"][part].items() <= stage["model_cfg"][part].items()
    for part, given in theirs["dataset_cfgs"].items():
        assert {key: given[key] for key in given if key != "name"}.items() <= stage["dataset_cfgs"][part].items()
    assert stage["dataset_cfgs"]["test"]["protocol"] == "coco"
    assert printed["seed_everything"] == 42
    assert (trainer["benchmark"], trainer["precision"]) == (True, 32)
    (notice,) = notices
    for key in [*(key for key in WITHOUT_MEANING if not is_known(key)), "trainer.callbacks TQDMProgressBar"]:
        assert key in notice


def test_options_of_their_commands_apply_and_without_a_context_ratio_their_default_counts(print_config: Print) -> None:
    config = their_config()
    config["model"]["init_args"]["dataset_cfgs"]["fill_memory"].pop("context_ratio", None)
    options = ["--model.init_args.model_cfg.memory_bank_cfg.length", "30", "--trainer.logger.save_dir", "elsewhere"]
    options += ["--model.init_args.dataset_cfgs.fill_memory.memory_length", "30"]
    printed, _ = print_config(config, *options)
    model, fill_memory = (printed["model"]["init_args"][part] for part in ("model_cfg", "dataset_cfgs"))
    assert model["memory_bank_cfg"]["length"] == fill_memory["fill_memory"]["memory_length"] == 30
    assert fill_memory["fill_memory"]["context_ratio"] == 0.1
    assert printed["trainer"]["logger"]["init_args"]["save_dir"] == "elsewhere"


@pytest.mark.parametrize("class_path", ["dev_hongyi.pl_wrapper.sam2matcher_pl.Sam2MatcherLightningModel", "evil.Evil"])
def test_their_class_is_not_imported(print_config: Print, class_path: str, tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = their_config()
    config["model"]["class_path"] = class_path
    printed, _ = print_config(config)
    assert printed["model"]["class_path"] == "no_time_to_train.lightning_module.NoTimeToTrain"
    assert class_path.partition(".")[0] not in sys.modules


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        *((key, True, key) for key in WITHOUT_MEANING if key.endswith(("norm_img", "with_query_points"))),
        ("model_cfg.memory_bank_cfg.enable", False, "model_cfg.memory_bank_cfg.enable"),
        *(("model_cfg.name", name, f": {name}; ") for name in ("matcher", "matching_baseline")),
        ("model_cfg.matcher_cfg", {"num_centers": 8}, ": matcher; "),
        ("model_cfg.sam2_amg_cfg", {"points_per_side": 64}, ": matching_baseline; "),
        *((key, {"a": 1}, ": a model that is trained; ") for key in ("model_cfg.train_cfg", "train_cfg")),
        ("dataset_cfgs.train", {"name": "coco"}, ": a model that is trained; "),
    ],
)
def test_what_would_change_results_and_other_models_are_an_error_that_names_them(
    key: str, value: Any, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(with_key(key, value)))
    with pytest.raises(UserError) as error:
        cli.run(["test", "--config", str(path), "--print_config"])
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert named in str(error.value)


#: Names of data sets by the protocol that they mean.
NAMES = {
    "coco": ["coco", "few_shot_classes", "cdfsod_DIOR"],
    "lvis": ["lvis", "lvis_minival_rare"],
    "voc": ["pascal_voc", "pascal_voc_split_2"],
    "semantic": ["coco_semantic_split_3"],
    None: ["my_custom_dataset"],
}


@pytest.mark.parametrize("protocol", ["semantic", None])
def test_a_name_of_a_data_set_gives_the_protocol(print_config: Print, protocol: str | None) -> None:
    assert {one: {protocol_of(name) for name in names} for one, names in NAMES.items()} == {one: {one} for one in NAMES}
    (name,) = NAMES[protocol]
    config = with_key("dataset_cfgs.test.name", name)
    config = with_key("dataset_cfgs.fill_memory.name", name, config)
    printed, (notice,) = print_config(config)
    assert printed["model"]["init_args"]["dataset_cfgs"]["test"]["protocol"] == (protocol or "coco")
    assert (f"dataset_cfgs.test.name {name}" in notice) == (protocol is None)
    given, _ = print_config(config, "--model.dataset_cfgs.test.protocol", "voc")
    assert given["model"]["init_args"]["dataset_cfgs"]["test"]["protocol"] == "voc"


def test_other_callbacks_and_several_loggers_stay() -> None:
    config = their_config()
    config["trainer"]["callbacks"].append({"class_path": "pytorch_lightning.callbacks.DeviceStatsMonitor"})
    config["trainer"]["logger"] *= 2
    translated, ignored = translate(config, "configuration")
    assert ignored == ["trainer.callbacks TQDMProgressBar"]
    (callback,) = translated["trainer"]["callbacks"]
    assert callback["class_path"].endswith("DeviceStatsMonitor")
    assert len(translated["trainer"]["logger"]) == 2


def test_a_configuration_of_this_package_is_not_changed() -> None:
    for path in sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        assert translate(content, str(path)) == (content, [])
    content = {"model": {"class_path": "evil.Evil", "init_args": {"dataset_cfgs": {"test": {"name": "voc"}}}}}
    assert translate(content, "configuration") == (content, [])


def test_dinov2_is_found_in_the_folder_of_the_authors(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    ours, theirs = (Path("checkpoints", *folder, "dinov2_vitl14_pretrain.pth") for folder in ((), ("dinov2",)))
    assert ModelCfg().encoder_checkpoint == ours
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    assert default_checkpoint("dinov2_large") == ModelCfg().encoder_checkpoint == theirs
    ours.touch()
    assert default_checkpoint("dinov2_large") == ours
