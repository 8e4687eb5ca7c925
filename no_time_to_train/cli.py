"""The command line: ``no-time-to-train COMMAND`` and the paper's ``python run_lightning.py test``."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn

from jsonargparse import ArgumentParser

from no_time_to_train.coco import read_coco, select_categories
from no_time_to_train.errors import UserError
from no_time_to_train.references import coco_to_references, sample_references, write_references


class OneLineParser(ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(" ".join(message.split()))


def test(argv: list[str]) -> None:
    """Run a stage of the method: fill_memory, postprocess_memory or test."""
    from pytorch_lightning import LightningModule, seed_everything
    from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

    from no_time_to_train.lightning_module import NoTimeToTrain, ProgressBar
    from no_time_to_train.stages import RunCfg

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
                "--coco_semantic_split", type=int | None, help="sets both class_splits to coco_semantic_split_K"
            )
            parser.add_argument(
                "--on_bad_image",
                type=Literal["stop", "skip"],
                default="stop",
                help="what to do with a target image that cannot be read",
            )

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
            if config.seed is not None:
                seed_everything(config.seed, verbose=False)

        def test(self, model: LightningModule, ckpt_path: str | None = None) -> None:
            assert isinstance(model, NoTimeToTrain)
            config = self.config[self.subcommand]
            loggers = self.trainer.loggers
            labels = {key: config[key] for key in ("seed", "n_shot", "coco_semantic_split")}
            model.prepare(
                RunCfg(
                    ckpt_path=ckpt_path,
                    out_path=config.out_path,
                    export_result=config.export_result,
                    save_dir=str((loggers and loggers[0].save_dir) or self.trainer.default_root_dir),
                    on_bad_image=config.on_bad_image,
                    labels={key: value for key, value in labels.items() if value is not None},
                )
            )
            self.trainer.test(model, verbose=False)

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning, of torch's pytrees
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
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


def sample_references_command(argv: list[str]) -> None:
    """Draw a reference set of N shots a class, the paper's for the same seed."""
    parser = OneLineParser(prog="no-time-to-train sample-references", description=sample_references_command.__doc__)
    parser.add_argument(
        "--dataset", type=str | None, help="class split, such as few_shot_classes; default: all classes"
    )
    parser.add_argument(
        "--cat-names", type=str | None, help="classes by name, separated by commas, instead of --dataset"
    )
    parser.add_argument("--n-shot", type=int, required=True, help="instances a class")
    parser.add_argument("--seed", type=int, default=33)
    parser.add_argument("--out-path", type=str, required=True, help="reference set to write: .json or .pkl")
    parser.add_argument(
        "--json-file", type=str, default="data/coco/annotations/instances_train2017.json", help="COCO annotations"
    )
    parser.add_argument("--skip-impossible", action="store_true", help="leave out annotations with isimpossible 1")
    parser.add_argument("--fill-up", action="store_true", help="LVIS: repeat references where a class has too few")
    parser.add_argument("--plot", action="store_true", help="draw the references beside --out-path")
    parser.add_argument("--img-dir", type=str, default="data/coco/train2017", help="images for --plot")
    args = parser.parse_args(argv)
    coco = read_coco(args.json_file)
    categories = select_categories(coco, args.json_file, args.dataset, args.cat_names)
    references = sample_references(
        coco, categories, args.n_shot, args.seed, fill_up=args.fill_up, skip_impossible=args.skip_impossible
    )
    write_references(references, args.out_path)
    print(f"{len(references)} classes, {args.n_shot} references each: {args.out_path}")
    if args.plot:
        from no_time_to_train.datasets import ReferenceDataset
        from no_time_to_train.drawing import save_picture
        from no_time_to_train.memory_pictures import TILE, reference_sheet

        path = Path(args.out_path).with_suffix(".png")
        shots = ReferenceDataset(coco, args.img_dir, categories, references, size=TILE, context_ratio=0.2)
        save_picture(reference_sheet(shots, categories), path)
        print(f"picture: {path}")


def coco_to_references_command(argv: list[str]) -> None:
    """Take the first N annotations of every class of a COCO file as its reference set, one entry an instance."""
    parser = OneLineParser(prog="no-time-to-train coco-to-references", description=coco_to_references_command.__doc__)
    parser.add_argument("json_file", type=str, help="COCO annotations with the references")
    parser.add_argument("out_path", type=str, help="reference set to write: .json or .pkl")
    parser.add_argument("n_shot", type=int | None, nargs="?", help="instances a class; default: all")
    args = parser.parse_args(argv)
    references = coco_to_references(read_coco(args.json_file), args.n_shot)
    write_references(references, args.out_path)
    print(f"{len(references)} classes, {sum(map(len, references.values()))} references: {args.out_path}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "test": test,
    "sample-references": sample_references_command,
    "coco-to-references": coco_to_references_command,
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: no-time-to-train COMMAND ... (COMMAND --help says more)", "", *lines])


def main(argv: list[str] | None = None) -> None:
    """Run a command; bad input ends in one line on stderr and exit status 2."""
    command, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
        return
    try:
        if command not in COMMANDS:
            raise UserError(f"there is no command {command!r}; choose one of {', '.join(COMMANDS)}")
        COMMANDS[command](rest)
    except UserError as error:
        if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0:  # one line, whatever the processes
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
