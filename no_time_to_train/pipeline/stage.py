"""What the stages have in common.

A stage reads and checks all its inputs when it is created, so that a mistake is found within seconds. Several processes
(ranks) share a stage: each turns items into records, which the journal keeps, and the first process makes the output
from all records. Nothing here depends on Lightning.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse.typing import register_type

from no_time_to_train.config import ClassNames, DatasetCfgs, ModelCfg, RunOptions, check_precision
from no_time_to_train.data.memory_files import weights_of
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import check_replaceable, real_path, remove_leftovers
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.build import build_encoder

register_type(
    ClassNames,
    lambda names: names if isinstance(names, str) else list(names),  # it is asked about names in one text, too
    ClassNames.parse,
    type_check=lambda value, _: isinstance(value, ClassNames),
)

#: What a step gives: the record of an item, or a function that returns it.
Work = dict[str, Any] | Callable[[], dict[str, Any]]


@dataclass
class RunCfg(RunOptions):
    """What one run reads and writes, besides its configuration.

    Attributes:
        cache_dir: Folder of the proposal cache (stage 3); None means no cache.
        precision: The trainer's precision, in which the networks run.
        compile_decoder: Whether it translates SAM 2's mask decoder.
        labels: Recorded in ``metrics.json`` as they are, such as the seed.
    """

    save_dir: str = "."
    cache_dir: str | None = None
    precision: str = "32-true"
    compile: bool = False
    compile_decoder: bool = False
    labels: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_precision("precision", self.precision)


class Stage(ABC):
    """One stage of the method.

    Attributes:
        unit: What the items are, for the progress bar.
        networks: The networks that the stage builds, a value of ``config.NETWORKS``.
        dataset: The items, as a torch data set or a list.
        output: The file or folder that the stage writes.
        kind: What the output is: one of ``files.KINDS``, or None where it is a folder.
        others: The kinds of other files that the stage writes; set by :meth:`read_inputs`.
        metrics: What the stage measured, by name; set by :meth:`finish`.
        record: What ``run.json`` records of the finished run, as JSON values; set by :meth:`finish`.
    """

    unit: str
    networks: Collection[str] = ()
    dataset: Any
    output: Path
    kind: str | None = "a memory"

    def __init__(self, model_cfg: ModelCfg, dataset_cfgs: DatasetCfgs, run: RunCfg) -> None:
        self.model_cfg, self.dataset_cfgs, self.run = model_cfg, dataset_cfgs, run
        self.metrics: dict[str, float] = {}
        self.record: dict[str, Any] = {}
        model_cfg.check_networks(self.networks)
        self.others: dict[Path, str] = {}
        self.read_inputs()
        inputs = {real_path(one) for one in self.inputs()}
        for path, kind in (self.others if self.kind is None else {self.output: self.kind, **self.others}).items():
            if real_path(path) in inputs:
                raise UserError(f"{path} is read by this run, which would replace it: write to another path")
            check_replaceable(path, kind)

    @abstractmethod
    def read_inputs(self) -> None:
        """Read and check everything that the stage depends on; set ``dataset`` and ``output``."""

    def inputs(self) -> list[str]:
        """The files and folders that the configuration names as data."""
        sets = [vars(one) for one in vars(self.dataset_cfgs).values()]
        return [value for one in sets for value in one.values() if isinstance(value, str)]

    def build(self) -> Segmenter | None:
        """Build the networks that the stage needs, on the CPU."""
        return None

    @abstractmethod
    def depends_on(self) -> dict[str, Any]:
        """What the records depend on, as JSON values: settings, and files by their content."""

    def about(self) -> dict[str, Any]:
        """What ``run.json`` records of the inputs, besides files and configuration, as JSON values."""
        return {}

    def remove_leftovers(self) -> None:
        """Remove the temporary files of killed attempts. The first process calls this before any process writes."""
        for path in (self.output, *self.others):
            remove_leftovers(path)

    def steps(self, items: Iterable[Any], segmenter: Segmenter | None) -> Iterator[Work]:
        """Process items, of which the networks may look at several at once; here, there is nothing to do with them.

        Returns:
            Of each item its record, as JSON values, which is what :meth:`finish` needs of it. Or a function that
            returns the record without a network: it runs in a thread while the networks work on the next item. Those
            functions run one at a time, in the order of the items.
        """
        return ({} for _ in items)

    @abstractmethod
    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        """Make the output from the records of all items, in their order, and return a message for the user.

        Only the first process calls this, after all have ended.
        """

    @property
    def rescales(self) -> bool:
        """Whether the annotations of images of another size than the file states are rescaled."""
        return self.run.size_mismatch == "rescale"

    def say_rescaled(self, count: int) -> list[str]:
        """Lines for the user about the images whose annotations were rescaled."""
        if not self.rescales:
            return []
        return [f"{plural(count, 'image')} had another size than the annotation file states: rescaled"]

    def check_category_num(self, categories: list[Category], where: str) -> None:
        """Check that there are as many classes as the configuration says, where it says that."""
        number = self.model_cfg.memory_bank_cfg.category_num
        if number not in (None, len(categories)):
            found = plural(len(categories), "class")
            raise UserError(f"memory_bank_cfg.category_num is {number}, but {where} has {found}")

    def encoder_settings(self) -> dict[str, Any]:
        """The settings that a memory's vectors depend on and that every stage knows."""
        cfg = self.model_cfg.encoder_cfg
        weights = weights_of(self.model_cfg.encoder_checkpoint)
        return {"encoder": cfg.name, "img_size": cfg.input_size, **cfg.unusual, **weights}

    def build_encoder(self) -> Encoder:
        """Build the configured encoder, on the CPU."""
        cfg = self.model_cfg.encoder_cfg
        choices = cfg.debias, cfg.norm, cfg.keep_aspect
        return build_encoder(cfg.name, cfg.input_size, self.model_cfg.encoder_checkpoint, *choices)


def required(value: str | None, option: str, what: str) -> Path:
    """The path that an option gives; ``what`` says in the message what the option is for."""
    if not value:
        raise UserError(f"{option} is missing: {what}")
    return Path(value)
