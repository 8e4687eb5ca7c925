"""``test``: run one stage of the method, as the paper's commands do."""

import ast
import warnings
from contextlib import suppress
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import yaml

from no_time_to_train.commands.authors_config import translate
from no_time_to_train.commands.parser import split_options
from no_time_to_train.config import (
    AREA_WEIGHTED,
    NETWORKS,
    ClassNames,
    EncoderCfg,
    ModelCfg,
    RunOptions,
    check_precision,
    configuration_keys,
)
from no_time_to_train.data.class_splits import check_split
from no_time_to_train.errors import UserError, UserNotice, suggest
from no_time_to_train.files import check_files, find_configuration
from no_time_to_train.method.settings import check_prototype
from no_time_to_train.pipeline.processes import is_first_process
from no_time_to_train.pipeline.run_record import record_refused
from no_time_to_train.ranges import Seed, check_number, check_value
from no_time_to_train.yaml_files import parse_yaml, read_yaml

#: The most entries of a list, except names of classes: jsonargparse reads all of them again for each.
LONGEST_LIST = 100


def test(*, words: list[str], config: Path | None = None, run: RunOptions) -> None:  # noqa: PT028  # a command
    """Run one stage of the method: fill_memory, postprocess_memory, vis_memory or test.

    With negative references: also test_support, fill_memory_neg and postprocess_memory_neg (docs/authors_code.md).

    Besides the options below, a stage takes
      --model.KEY VALUE     any key of docs/configuration.md, also written --model.init_args.KEY VALUE
      --trainer.KEY VALUE   any option of Lightning's Trainer, such as --trainer.devices 4
      --print_config        to print the whole configuration and exit

    Args:
        words: The command line.
        config: Configuration; may be given several times, and later files override earlier ones. Those that come with
            this package are found by their names, such as coco_10shot, custom or best. The authors' files are read as
            they are (docs/authors_code.md).
        run: The options of a run.

    Examples:
        no-time-to-train test --config my.yaml --model.test_mode fill_memory --out_path m.ckpt
        no-time-to-train test --config my.yaml --model.test_mode postprocess_memory --ckpt_path m.ckpt --out_path p.ckpt
        no-time-to-train test --config my.yaml --model.test_mode test --ckpt_path p.ckpt --export_result results.json
    """
    options = [name_and_value(part) for part in split_options(words)]
    options = [(name, find_configuration(value) if name == "--config" and value else value) for name, value in options]
    for name, value in options:
        check_configuration(name, value)
    if config is None and not any(name.startswith("--model") for name, _ in options):
        raise UserError("--config is missing: give a configuration such as configs/custom_sam2l.yaml (see test --help)")
    words, given = translate_configurations(options)
    if run.ckpt_path is not None and not Path(run.ckpt_path).is_file():
        raise UserError(f"memory not found: {run.ckpt_path} is no file; fill_memory and postprocess_memory write one")
    if not any(name.startswith("--print_config") or name.endswith(".help") for name, _ in options):
        check_stage(run, given)
    from no_time_to_train.light_imports import import_light

    import_light("pytorch_lightning")
    from no_time_to_train.stage_cli import run_stage

    run_stage(words)


def name_and_value(part: list[str]) -> tuple[str, str | None]:
    """An option and its value.

    Args:
        part: The option and the words after it.
    """
    name, equals, value = part[0].partition("=")
    given = [value] * bool(equals) + part[1:]
    if len(given) > 1:
        raise UserError(f"unrecognized arguments: {' '.join(given[1:])} (see no-time-to-train test --help)")
    return name, given[0] if given else None


def check_configuration(option: str, text: str | None) -> None:
    """Check the keys and the value of ``--model.KEY VALUE`` or ``--trainer.KEY VALUE`` without slow imports.

    Args:
        option: The option, which has another name where it is one of a run.
        text: Its value, in YAML.
    """
    name, *keys = option.removeprefix("--").split(".")
    value: Any = None
    with suppress(yaml.YAMLError):  # else the path of a file, or a mistake that jsonargparse reports
        value = parse_yaml(text or "")
    if name == "trainer" and keys and keys[0] not in (options := trainer_options()):
        raise UserError(f"{option}: Lightning's Trainer has no option {keys[0]!r}{suggest(keys[0], options)}")
    if option == "--trainer.precision":
        check_precision(option, value)
    if name == "model" and text != "None":  # as jsonargparse prints null
        known: Any = configuration_keys()
        for key in keys[1:] if keys[:1] == ["init_args"] else keys:
            known = key_of(known, key, option)
        check_part(option, value, known)


def trainer_options() -> list[str]:
    """The options of Lightning's Trainer, read from its source because importing it takes seconds."""
    package = find_spec("pytorch_lightning")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).with_name("trainer") / "trainer.py"
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return [argument.arg for argument in node.args.kwonlyargs]
    return []


def check_content(content: dict[str, Any], where: str) -> None:
    """Check what a configuration file holds, as messages name it: its keys, numbers and choices."""
    check_part(where, content.get("model"), configuration_keys())
    trainer = content.get("trainer")
    if isinstance(trainer, dict):
        check_part(f"{where}trainer", trainer, dict.fromkeys(trainer))
        check_precision(f"{where}trainer.precision", trainer.get("precision"))


def in_home(content: Any) -> Any:
    """What a configuration holds, with the home folder for ``~/``, as shells take it in options."""
    if isinstance(content, dict):
        return {key: in_home(value) for key, value in content.items()}
    return str(Path(content).expanduser()) if isinstance(content, str) and content.startswith("~/") else content


def check_part(name: str, value: Any, known: Any) -> None:
    """Check a value of the configuration, and all values in it.

    Args:
        name: What the value is called, for the message.
        known: The keys that may be in it, or its type hint (see ``configuration_keys``).
    """
    if not isinstance(known, dict):
        if isinstance(value, list) and len(value) > LONGEST_LIST and ClassNames not in get_args(known):
            raise UserError(f"{name} has {len(value)} entries, more than {LONGEST_LIST}")
        check_value(name, value, known)
        if name.endswith(".prototype"):
            check_prototype(value, AREA_WEIGHTED)
    elif isinstance(value, dict):
        for key, below in value.items():
            if key == "init_args":
                check_part(name, below, known)
            else:
                inner = f"{name}{'' if name.endswith(' ') else '.'}{key}"
                check_part(inner, below, key_of(known, str(key), inner))


def key_of(known: Any, key: str, name: str) -> Any:
    """What is known of a key, which must exist; None where nothing is.

    Args:
        known: The keys beside it.
        name: What the key is called, for the message.
    """
    if not isinstance(known, dict) or key in ("class_path", "init_args", "help"):
        return None
    if key not in known:
        raise UserError(f"{name}: there is no key {key!r}{suggest(key, known)}")
    return known[key]


def translate_configurations(options: list[tuple[str, str | None]]) -> tuple[list[str], dict[str, Any]]:
    """The command line again, where the content of a configuration of the authors' code is translated; all are checked.

    One :class:`UserNotice` names all their keys that have no meaning here, another one the options without effect.

    Returns:
        The command line, and all values that it and the files give by their keys, such as ``model.test_mode``.
    """
    words, ignored, given, said = [], [], dict[str, Any](), dict[str, tuple[str, Any]]()

    def add(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, below in value.items():
                add(key if name == "init_args" else f"{key}.{name}", below)
        else:
            given[key] = value

    for name, value in options:
        if name == "--config" and value is not None:
            content, where = read_yaml(value), f"configuration {value}"
            if not isinstance(content, dict):
                raise UserError(f"{where} has no keys: write it like configs/custom_sam2l.yaml")
            ours, without_meaning = translate(in_home(content), where)
            check_content(ours, f"{where}: ")
            ignored += without_meaning
            for key in ("model", "trainer", "config", "seed_everything"):
                add(key, ours.get(key))
            if ours != content or Path(value).read_bytes()[:1] >= b"\xfe":  # jsonargparse reads no UTF-16
                value = yaml.safe_dump(ours, sort_keys=False)
        elif value is not None:
            with suppress(yaml.YAMLError):
                key, read = name.removeprefix("--").replace(".init_args", ""), parse_yaml(value)
                add(key, read)
                said[key] = name, read
        words.append(name if value is None else f"{name}={value}")
    if ignored:
        keys = ", ".join(dict.fromkeys(ignored))
        warnings.warn(f"these keys of the authors' code have no meaning here: {keys}", UserNotice, stacklevel=3)
    if lost := [name for key, (name, read) in said.items() if given.get(key, read) != read]:
        text = f"a configuration that comes later overrides {', '.join(lost)}: give options after the files"
        warnings.warn(text, UserNotice, stacklevel=3)
    return words, given


def parts_of(keys: dict[str, Any], name: str) -> list[str]:
    """The keys below a key that hold further keys."""
    parts = {f"{name}.{key}": below for key, below in keys.items() if isinstance(below, dict)}
    return [*parts, *(one for key, below in parts.items() for one in parts_of(below, key))]


def check_stage(run: RunOptions, given: dict[str, Any]) -> None:
    """Check the networks and the files of a stage as the stage does itself, but before torch is imported.

    Args:
        given: All values that are given, by their keys.
    """
    parts = {
        "config",
        "model",
        "trainer",
        "trainer.logger",
        "trainer.callbacks",
        *parts_of(configuration_keys(), "model"),
    }
    if not isinstance(seed := given.get("seed_everything"), bool):
        check_number("seed_everything", seed, Seed | None)
    if any(isinstance(given.get(name), str) for name in parts):
        return  # a file in the place of a part

    def part(kind: Any, name: str) -> Any:
        values = {one.name: given.get(f"{name}.{one.name}") for one in fields(kind)}
        texts = {one.name for one in fields(kind) if one.type in (str, str | None)}  # whose type jsonargparse checks
        return kind(**{key: str(one) if key in texts else one for key, one in values.items() if one is not None})

    mode, model = str(given.get("model.test_mode")), "model.model_cfg"
    data = f"model.dataset_cfgs.{mode}"
    try:
        networks = replace(part(ModelCfg, model), encoder_cfg=part(EncoderCfg, f"{model}.encoder_cfg"))
        networks.check_networks(NETWORKS.get(mode, ()))
        check_split(str(given.get(f"{data}.class_split") or ""))
        annotations = [given.get(f"{data}.{key}") for key in ("json_file", "memory_pkl")]
        check_files(*(Path(str(file)) for file in annotations if file))
    except UserError as error:
        if is_first_process():
            name = given.get(f"{model}.dataset_name") or given.get("model.dataset_cfgs.test.class_split")
            labels = {"dataset_name": name and str(name), "n_shot": run.n_shot, "seed": run.seed}
            folder = run.folder(mode, str(given.get("trainer.logger.save_dir", ".")))
            with suppress(UserError):  # the first error is the one to report
                record_refused(folder, mode, error, labels=labels)
        raise
