"""``test``: run one stage of the method with Lightning's command line over the typed configuration."""

import logging
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
import yaml
from jsonargparse import set_parsing_settings
from jsonargparse.typing import NonNegativeInt
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from no_time_to_train.commands.parser import OneLineParser
from no_time_to_train.lightning_module import NoTimeToTrain, ProgressBar
from no_time_to_train.pipeline.run_record import recorded
from no_time_to_train.pipeline.stage import RunCfg

#: What a configuration may name to be imported: Lightning's classes and ours. A stranger's file runs nothing else.
IMPORTABLE = ["lightning", "pytorch_lightning", "no_time_to_train"]


class StageParser(OneLineParser, LightningArgumentParser):
    """Lightning's parser, with complaints of one line."""


class StageCLI(LightningCLI):
    """``test`` runs one stage; the options below it are a run's own, beside the configuration."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"test": {"model", "dataloaders", "datamodule", "verbose", "weights_only"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out_path", type=str | None, help="memory to write (fill_memory, postprocess_memory)")
        parser.add_argument("--export_result", type=str | None, help="COCO results to write (test)")
        parser.add_argument("--seed", type=int | None, help="seeds everything; recorded in metrics.json")
        parser.add_argument("--n_shot", type=int | None, help="sets memory_bank_cfg.length and memory_length")
        parser.add_argument(
            "--coco_semantic_split",
            type=int | None,
            help="sets both class_splits to coco_semantic_split_K, and scores by mIoU",
        )
        parser.add_argument(
            "--on_bad_image",
            type=Literal["stop", "skip"],
            default="stop",
            help="what to do with a target image that cannot be read",
        )
        parser.add_argument("--max_bad", type=NonNegativeInt | None, help="stop after all if more images are skipped")

    def _parse_ckpt_path(self) -> None:
        """Nothing: a memory bank holds no hyper-parameters of the model."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        model = config.model.init_args
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

    def test(self, model: LightningModule, ckpt_path: str | None = None) -> None:
        assert isinstance(model, NoTimeToTrain)
        config = self.config[self.subcommand]
        loggers = self.trainer.loggers
        labels = {key: config[key] for key in ("seed", "n_shot", "coco_semantic_split")}
        run = RunCfg(
            ckpt_path=ckpt_path,
            out_path=config.out_path,
            export_result=config.export_result,
            save_dir=str((loggers and loggers[0].save_dir) or self.trainer.default_root_dir),
            cache_dir=model.cache_dir,
            precision=str(self.trainer.precision),
            on_bad_image=config.on_bad_image,
            max_bad=config.max_bad,
            labels={key: value for key, value in labels.items() if value is not None},
        )
        with self.recorded(model, run) if self.trainer.is_global_zero else nullcontext():
            model.prepare(run)
            try:
                self.trainer.test(model, verbose=False)
            except BaseException:  # an interrupt, too
                if self.trainer.is_global_zero:
                    model.print_resume_hint()
                raise

    def recorded(self, model: NoTimeToTrain, run: RunCfg) -> AbstractContextManager[None]:
        """Record the stage in the ``run.json`` of the folder that it writes to."""
        output = run.export_result if model.test_mode == "test" else run.out_path
        target = model.dataset_cfgs.test
        filling, testing = model.test_mode == "fill_memory", model.test_mode == "test"
        files = {
            "sam2": model.model_cfg.sam2_ckpt_path if testing else None,
            "encoder": model.model_cfg.encoder_ckpt_path if model.test_mode != "postprocess_memory" else None,
            "memory": run.ckpt_path,
        }
        name = model.model_cfg.dataset_name or target.class_split or Path(target.json_file).stem or None
        config = self._parser(self.subcommand).dump(self.config[self.subcommand])
        return recorded(
            Path(output).parent if output else Path(run.save_dir),
            model.test_mode,
            files,
            references=model.dataset_cfgs.fill_memory.memory_pkl if filling else None,
            protocol=target.protocol,
            labels={"dataset_name": name, **run.labels},
            devices=[self.trainer.num_nodes, self.trainer.num_devices, device_name(self.trainer)],
            config=yaml.safe_load(config),
        )


def device_name(trainer: Trainer) -> str:
    """What the stage runs on: the GPU's name, or "cpu"."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def run(argv: list[str]) -> None:
    """Run a stage of the method: fill_memory, postprocess_memory, vis_memory or test."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning, of torch's pytrees
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=IMPORTABLE)
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
