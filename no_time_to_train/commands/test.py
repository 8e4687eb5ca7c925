"""``test``: run one stage of the method, as the paper's commands do."""

import shlex
import warnings
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from no_time_to_train.commands.authors_config import translate
from no_time_to_train.config import RUN_OPTIONS, check_precision, configuration_keys
from no_time_to_train.errors import UserError, UserNotice, suggest
from no_time_to_train.files import read_yaml
from no_time_to_train.method.settings import check_prototype
from no_time_to_train.ranges import check_number, parse_number, range_of

#: The stages of the method, in their order.
STAGES = ("fill_memory", "postprocess_memory", "test")

#: Options besides ``--model...`` and ``--trainer...``: those of a run, and Lightning's.
OPTIONS = (*RUN_OPTIONS, "config", "ckpt_path", "print_config", "optimizer", "lr_scheduler")


def test(argv: list[str]) -> None:
    """Run one stage of the method: fill_memory, postprocess_memory, vis_memory or test.

    With negative references: also test_support, fill_memory_neg and postprocess_memory_neg (docs/authors_code.md).

    usage: no-time-to-train test --config FILE [--model.test_mode MODE] [OPTION VALUE ...]

    The three stages, one after the other:

      no-time-to-train test --config configs/custom_sam2l.yaml --model.test_mode fill_memory --out_path memory.ckpt
      no-time-to-train test --config configs/custom_sam2l.yaml --model.test_mode postprocess_memory \\
        --ckpt_path memory.ckpt --out_path memory_postprocessed.ckpt --trainer.devices 1
      no-time-to-train test --config configs/custom_sam2l.yaml --model.test_mode test \\
        --ckpt_path memory_postprocessed.ckpt --export_result results.json

    options of a run:
      --config FILE              Configuration; may be given several times, and later files override earlier ones.
                                 The authors' files are read as they are (docs/authors_code.md).
      --ckpt_path FILE           Memory to read (all but fill_memory).
      --out_path FILE            Memory to write (fill_memory..., postprocess_memory...), or folder (vis_memory).
      --export_result FILE       COCO results to write (test). Default: results.json in the logger's folder.
      --out_neg_json FILE        Annotations of negative references: test_support writes, fill_memory_neg reads them.
      --out_neg_pkl FILE         Their reference set, JSON or pickle, likewise.
      --out_support_res FILE     COCO results to write, JSON (test_support). Default: none.
      --n_shot N                 Sets memory_bank_cfg.length and memory_length.
      --coco_semantic_split K    Sets both class splits to fold K of COCO-20i, and the protocol to semantic.
      --seed N                   Seeds everything; recorded in metrics.json.
      --on_bad_image stop|skip   What to do with a target image that cannot be read. Default: stop.
      --max_bad N                Stop if more than N images are skipped.
      --size_mismatch stop|rescale
                                 What to do with an image of another size than the annotation file states: stop (or with
                                 --on_bad_image skip, skip it), or rescale its annotations. Default: stop.

    configuration:
      --model.KEY VALUE          Any key of docs/configuration.md, also written --model.init_args.KEY VALUE.
      --trainer.KEY VALUE        Any option of Lightning's Trainer, such as --trainer.devices 4.
      --print_config             Print the whole configuration and exit.
    """
    if "-h" in argv or "--help" in argv:
        import inspect

        print(inspect.getdoc(test))
        return
    argv = [with_underscores(word) for word in argv]
    check_arguments(argv)
    argv = translate_configurations(argv)
    from no_time_to_train.commands.stage_cli import run_stage

    run_stage(argv)


def run_stages(folder: Path, stages: Sequence[str] = STAGES, options: Sequence[str] = ()) -> None:
    """Run several stages with the configuration ``folder/config.yaml``, and print their commands.

    Args:
        folder: Folder of the run; memories and results go there.
        stages: The stages to run, in this order.
        options: Further options, for every stage.
    """
    memory, prototypes = str(folder / "memory.ckpt"), str(folder / "memory_postprocessed.ckpt")
    paths = {
        "fill_memory": ["--out_path", memory],
        "postprocess_memory": ["--ckpt_path", memory, "--out_path", prototypes],
        "test": ["--ckpt_path", prototypes],
    }
    for stage in stages:
        arguments = ["--config", str(folder / "config.yaml"), "--model.test_mode", stage, *paths[stage], *options]
        print(f"\n$ no-time-to-train test {shlex.join(arguments)}", flush=True)
        test(arguments)


def with_underscores(word: str) -> str:
    """An option of a run that is written with dashes, such as ``--on-bad-image``, with underscores."""
    option, equals, value = word.partition("=")
    name = option.removeprefix("--").replace("-", "_")
    return f"--{name}{equals}{value}" if option.startswith("--") and name in OPTIONS else word


def check_arguments(argv: list[str]) -> None:
    """Check what can be checked in a moment: options, configuration files, keys, numbers, and the memory to read.

    Args:
        argv: The arguments after ``no-time-to-train test``.
    """
    options = [argument.partition("=")[0] for argument in argv if argument.startswith("--")]
    for option in options:
        name, *keys = option.removeprefix("--").split(".")
        if name == "model":
            check_keys(keys[1:] if keys[:1] == ["init_args"] else keys, configuration_keys(), option)
        elif name != "trainer" and (keys or name not in OPTIONS):
            known = [f"--{known}" for known in OPTIONS]
            raise UserError(f"no-time-to-train test: there is no option {option}{suggest(option, known)}")
    for option, value in option_values(argv):
        check_value(option, value)
    configs = values(argv, "--config")
    if not configs and not any(option.startswith("--model") for option in options):
        raise UserError("--config is missing: give a configuration such as configs/custom_sam2l.yaml (see test --help)")
    for config in configs:
        content, _ = translate(read_configuration(Path(config)), f"configuration {config}")
        model = content.get("model")
        if isinstance(model, dict) and isinstance(model.get("init_args"), dict):
            check_nested(model["init_args"], configuration_keys(), [], f"configuration {config}")
        trainer = content.get("trainer")
        if isinstance(trainer, dict):
            check_precision(f"configuration {config}: trainer.precision", trainer.get("precision"))
    for memory in values(argv, "--ckpt_path"):
        if not Path(memory).is_file():
            raise UserError(f"memory not found: {memory}; fill_memory writes it, and postprocess_memory the next one")


def read_configuration(path: Path) -> dict[str, Any]:
    """The content of a configuration file; empty where it is not a dict, which jsonargparse reports."""
    content = read_yaml(path)
    return content if isinstance(content, dict) else {}


def translate_configurations(argv: list[str]) -> list[str]:
    """Put the translated content in the place of each configuration of the authors' code.

    One :class:`UserNotice` names all their keys that have no meaning here.

    Args:
        argv: The arguments after ``no-time-to-train test``, checked.

    Returns:
        The arguments, with YAML instead of the path of a translated file, which jsonargparse reads as well.
    """
    ignored: list[str] = []

    def translated(config: str) -> str:
        content = read_configuration(Path(config))
        ours, without_meaning = translate(content, f"configuration {config}")
        ignored.extend(without_meaning)
        return config if ours == content else yaml.safe_dump(ours, sort_keys=False)

    words: list[str] = []
    for word in argv:
        if words and words[-1] == "--config":
            words.append(translated(word))
        elif word.startswith("--config="):
            words.append(f"--config={translated(word.removeprefix('--config='))}")
        else:
            words.append(word)
    if ignored:
        keys = ", ".join(dict.fromkeys(ignored))
        warnings.warn(f"these keys of the authors' code have no meaning here: {keys}", UserNotice, stacklevel=3)
    return words


def option_values(argv: list[str]) -> list[tuple[str, str]]:
    """The options of a command line with their values, given as ``--option VALUE`` or ``--option=VALUE``."""
    following = [(option, value) for option, value in pairwise(argv) if option.startswith("--") and "=" not in option]
    return following + [(option, value) for option, _, value in (one.partition("=") for one in argv) if value]


def check_value(option: str, text: str) -> None:
    """Check the value of an option whose name is known: a number, or several keys as YAML."""
    name, *keys = option.removeprefix("--").split(".")
    known: Any = RUN_OPTIONS.get(name)
    if name == "model":
        known = configuration_keys()
        for key in keys[1:] if keys[:1] == ["init_args"] else keys:
            known = known.get(key) if isinstance(known, dict) else None
    if keys[-1:] == ["prototype"]:
        check_prototype(text)
    if isinstance(known, dict):
        with suppress(yaml.YAMLError):  # else the path of a file
            content = yaml.safe_load(text)
            if isinstance(content, dict):
                check_nested(content, known, [], option)
    elif option == "--trainer.precision" and text != "null":
        check_precision(option, text)
    elif range_of(known) and text not in ("null", "None"):
        parse_number(option, text, known)


def check_nested(content: dict[str, Any], known: dict[str, Any], parents: list[str], where: str) -> None:
    """Check the keys and the numbers of a dict and of the dicts in it."""
    for key, value in content.items():
        name = f"{where}: {'.'.join([*parents, str(key)])}"
        check_keys([str(key)], known, name)
        below = known.get(key)
        if key == "prototype":
            check_prototype(value)
        if isinstance(below, dict):
            if isinstance(value, dict):
                check_nested(value, below, [*parents, str(key)], where)
        elif isinstance(value, str) and range_of(below):
            parse_number(name, value, below)
        else:
            check_number(name, value, below)


def check_keys(keys: list[str], known: dict[str, Any], where: str) -> None:
    """Check that a path of keys exists; jsonargparse accepts a shortened path only where it says so itself."""
    for key in keys:
        if key in ("class_path", "init_args", "help") or not isinstance(known, dict):
            return
        if key not in known:
            raise UserError(f"{where}: there is no key {key!r}{suggest(key, known)}")
        known = known[key]


def values(argv: list[str], option: str) -> list[str]:
    """The values that a command line gives to an option."""
    return [value for name, value in option_values(argv) if name == option]
