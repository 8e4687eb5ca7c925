"""Runs a stage of the method from its configuration, which Lightning's parser turns into typed objects."""

import re
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import torch
import yaml
from jsonargparse import get_loader, set_dumper, set_loader, set_parsing_settings
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from no_time_to_train.config import OUR_NAMES, PUBLISHED_NAMES, RunOptions, renamed
from no_time_to_train.errors import UserError
from no_time_to_train.lightning_items import quiet_lightning, reason_of, refused_trainers, run_items
from no_time_to_train.lightning_module import NoTimeToTrain, ProgressBar
from no_time_to_train.pipeline.processes import join_run
from no_time_to_train.pipeline.run_record import record_refused, record_stage
from no_time_to_train.pipeline.stage import RunCfg
from no_time_to_train.yaml_files import DUMPER, parse_yaml, read_yaml

#: Packages whose classes a configuration may name. A configuration from elsewhere can import nothing else.
IMPORTABLE = ["lightning", "pytorch_lightning", "no_time_to_train"]

load_yaml = get_loader("yaml")


def load_checked_yaml(text: str) -> Any:
    """What jsonargparse reads YAML with, by :func:`parse_yaml`; the paper's names of numbers become ours."""
    return renamed(parse_yaml(text, load_yaml), OUR_NAMES)


set_loader("yaml", load_checked_yaml, exceptions=(yaml.YAMLError,))
set_dumper("yaml", lambda content: yaml.dump(content, Dumper=DUMPER, allow_unicode=True, sort_keys=False))


class StageParser(LightningArgumentParser):
    """Lightning's parser, which reports a mistake as a :class:`UserError` of one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        # Of a value that does not fit: its key, the reasons, and the value. What follows is the whole configuration.
        innermost = r'.*Parser key "([^"]+)": (.*?) Given value type: .*? Given value: (.*?)(?: - .*)?'
        if found := re.fullmatch(innermost, message := " ".join(message.split())):
            reasons = [one.strip() for one in found[2].split("- ") if not re.match("Expected a|Not a|Does not|$", one)]
            whole = "; ".join((f"configuration: {found[1]} cannot be {found[3][:100]}", *reasons))
            message = next((one for one in reasons if one.startswith("configuration: ")), whole)
        raise UserError(message)

    def dump(self, *arguments: Any, **options: Any) -> str:
        """A configuration as YAML, in which numbers have the names that the paper's configurations have."""
        text: str = super().dump(*arguments, **options)
        return re.sub(rf"\b({'|'.join(PUBLISHED_NAMES)}):", lambda found: f"{PUBLISHED_NAMES[found[1]]}:", text)


class StageCLI(LightningCLI):
    """Runs one stage. It adds the options of a run to those of the configuration."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"test": {"model", "dataloaders", "datamodule", "verbose", "weights_only"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        hints = get_type_hints(RunOptions, include_extras=True)
        for option in fields(RunOptions):
            if option.name != "ckpt_path":  # Lightning has it
                parser.add_argument(f"--{option.name}", type=hints[option.name], default=option.default)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: a memory holds no hyperparameters of the model."""

    def before_instantiate_classes(self) -> None:
        """Apply the options that set several keys of the configuration at once, and what jsonargparse misreads."""
        config = self.config[self.subcommand]
        model = config.model.init_args
        sections = re.compile(r"trainer|.*model_cfg\.(\w+_cfgs?|test)|.*dataset_cfgs\.\w+")
        if empty := [key for key, value in config.items() if value is None and sections.fullmatch(key)]:
            raise UserError(f"configuration: {empty[0]} is null: leave it out, or give it keys")
        for key, value in list(model.items()):
            if value == "None":  # null on the command line
                model[key] = None
        if config.n_shot is not None:
            model.model_cfg.memory_bank_cfg.length = config.n_shot
            model.dataset_cfgs.fill_memory.memory_length = config.n_shot
        if config.coco_semantic_split is not None:
            split = f"coco_semantic_split_{config.coco_semantic_split}"
            model.dataset_cfgs.fill_memory.class_split = split
            model.dataset_cfgs.test.class_split = split
            model.dataset_cfgs.test.protocol, model.dataset_cfgs.test.name = "semantic", None
        if config.seed is not None:
            seed_everything(config.seed, verbose=False)

    def instantiate_classes(self) -> None:
        """Create the objects that the configuration describes."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError, TypeError, ImportError, RuntimeError) as error:
            cause: BaseException = error
            while (below := cause.__cause__ or cause.__context__) is not None:  # jsonargparse repeats all values
                cause = below
            if isinstance(cause, UserError):  # a part of the configuration refused its values
                raise cause from None
            raise UserError(f"configuration: {' '.join(str(cause).split())}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer."""
        options = self.config[self.subcommand].trainer
        if options.enable_progress_bar is False:
            self.trainer_defaults["callbacks"] = []
        for name in ("devices", "num_nodes"):
            if re.fullmatch(r"\d{4,}", str(options[name])):  # Lightning would make a list of them, or wait for them
                raise UserError(f"--trainer.{name} {options[name]} is more than 999")
        with refused_trainers("--trainer"):
            trainer = super().instantiate_trainer(**kwargs)
        if getattr(trainer.strategy.launcher, "_start_method", None) == "spawn":
            raise UserError(f"--trainer.strategy {options.strategy} is not supported: choose ddp")
        places = [trainer.default_root_dir, *(one.save_dir for one in trainer.loggers)]
        if address := next((one for one in places if "://" in str(one)), None):  # Lightning would ask for it
            raise UserError(f"--trainer: {address} is an address: give a folder of this machine")
        limit = trainer.limit_test_batches
        if isinstance(limit, int) or limit != 1:  # 1 is one item, 1.0 is all of them
            raise UserError(
                f"--trainer.limit_test_batches {limit} (or fast_dev_run) leaves out items, which results must not: "
                "to try a few images, list only those in the annotation file"
            )
        return trainer

    def test(self, model: LightningModule, ckpt_path: str | None = None) -> None:
        """Run the stage that the configuration names, and record it in ``run.json``.

        Args:
            model: The LightningModule, with its configuration.
            ckpt_path: The memory to read.
        """
        assert isinstance(model, NoTimeToTrain)
        config = self.config[self.subcommand]
        loggers = self.trainer.loggers
        labels = {key: config[key] for key in ("seed", "n_shot", "coco_semantic_split")}
        run = RunCfg(
            **{option.name: config[option.name] for option in fields(RunOptions)} | {"ckpt_path": ckpt_path},
            save_dir=str((loggers and loggers[0].save_dir) or self.trainer.default_root_dir),
            cache_dir=model.cache_dir,
            precision=str(self.trainer.precision),
            labels={key: value for key, value in labels.items() if value is not None},
        )
        first = self.trainer.is_global_zero
        try:
            model.prepare(run, first)
        except UserError as error:
            if first:
                self._record_refused(model, run, error)
            raise
        try:
            with self._record(model, run) if first else nullcontext({}) as record:
                model.build()
                run_items(self.trainer, model)
                record.update(model.stage.record)
        except BaseException as error:
            if first:
                model.print_resume_hint()
            if isinstance(error, Exception) and (reason := reason_of(error)) is not None:
                raise UserError(reason) from error
            raise

    def _record(self, model: NoTimeToTrain, run: RunCfg) -> AbstractContextManager[dict[str, Any]]:
        """Record the stage in the ``run.json`` of the folder that its output goes to."""
        target, networks = model.dataset_cfgs.test, model.stage.networks
        files = {
            "sam2": str(model.model_cfg.sam2_checkpoint) if "sam2" in networks else None,
            "encoder": str(model.model_cfg.encoder_checkpoint) if "encoder" in networks else None,
            "memory": run.ckpt_path,
        }
        return record_stage(
            model.stage.output.parent,
            model.test_mode,
            files,
            **model.stage.about(),
            protocol=target.protocol,
            devices=[self.trainer.num_nodes, self.trainer.num_devices, device_name(self.trainer)],
            **self._named(model, run),
        )

    def _record_refused(self, model: NoTimeToTrain, run: RunCfg, error: UserError) -> None:
        """Record in ``run.json`` that the stage's inputs were refused, so that a report names the failed run."""
        with suppress(UserError):  # the first error is the one to report
            record_refused(run.folder(model.test_mode, run.save_dir), model.test_mode, error, **self._named(model, run))

    def _named(self, model: NoTimeToTrain, run: RunCfg) -> dict[str, Any]:
        """What a report lists a run by, and its configuration."""
        target = model.dataset_cfgs.test
        name = model.model_cfg.dataset_name or target.class_split or Path(target.json_file).stem or None
        config = self._parser(self.subcommand).dump(self.config[self.subcommand])
        return {"labels": {"dataset_name": name, **run.labels}, "config": parse_yaml(config)}


def device_name(trainer: Trainer) -> str:
    """The device that a stage runs on: the accelerator's name where it has one, or its kind, such as "cpu"."""
    device = trainer.strategy.root_device
    name_of = getattr(torch.get_device_module(device), "get_device_name", None)
    return name_of(device) if name_of else device.type


def check_named_files(value: Any, folder: Path, seen: set[Path]) -> None:
    """Check the files that a configuration names, because jsonargparse includes a file in the place of any value.

    Args:
        value: The configuration, or a part of it.
        folder: The folder of its file, which relative paths refer to.
        seen: The YAML files that include this one.
    """
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            check_named_files(part, folder, seen)
        return
    path = folder / Path(value if isinstance(value, str) else "")
    with suppress(OSError, ValueError):  # too long for a path, or with a byte 0
        if path.is_fifo():
            raise UserError(f"configuration: {value} is a pipe, not a file")
        if path.suffix in (".yaml", ".yml") and path.is_file():
            if path in seen:
                raise UserError(f"configuration {path} includes itself")
            check_named_files(read_yaml(path), path.parent, {*seen, path})


def run_stage(argv: list[str]) -> None:
    """Run a stage of the method.

    Args:
        argv: The options of a run as :class:`RunOptions` spells them, and those of the configuration.
    """
    join_run()
    number = re.compile(r"(--model\.(?:init_args\.)?model_cfg\.sam2_infer_cfgs\.)(\w+)")
    argv = [number.sub(lambda found: found[1] + OUR_NAMES.get(found[2], found[2]), word, count=1) for word in argv]
    for word in argv:
        value = word.partition("=")[2] if word.startswith("--") else word
        with suppress(yaml.YAMLError):  # jsonargparse reports it
            check_named_files(load_checked_yaml(value), Path(), set())
    quiet_lightning()
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=IMPORTABLE,
        config_read_mode_fsspec_enabled=False,  # Lightning enables it: a configuration could then name a URL to fetch
        config_read_mode_urls_enabled=False,
    )
    StageCLI(
        NoTimeToTrain,
        subclass_mode_model=True,
        save_config_callback=None,
        seed_everything_default=False,
        trainer_defaults={"callbacks": [ProgressBar()], "enable_checkpointing": False},
        parser_class=StageParser,
        auto_configure_optimizers=False,
        args=["test", *argv],
    )
