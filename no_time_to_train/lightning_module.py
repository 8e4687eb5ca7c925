"""The LightningModule: the stages' items on the trainer's devices."""

from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from no_time_to_train.config import DataLoadCfgs, DatasetCfgs, ModelCfg
from no_time_to_train.errors import UserError
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.stage import RunCfg
from no_time_to_train.pipeline.stages import STAGES

T = TypeVar("T")


class NoTimeToTrain(pl.LightningModule):
    """One stage of the method, run by ``Trainer.test`` on any number of devices and nodes.

    Args:
        test_mode: the stage.
        model_cfg: networks and numbers.
        dataset_cfgs: the references and the targets.
        data_load_cfgs: how images are loaded.
        cache_dir: folder of the proposal cache of the test stage; None: no cache.
        compile: have ``torch.compile`` make the two image encoders faster; changes the last digits of the results.
    """

    def __init__(
        self,
        test_mode: Literal["fill_memory", "postprocess_memory", "vis_memory", "test"],
        model_cfg: ModelCfg,
        dataset_cfgs: DatasetCfgs,
        data_load_cfgs: DataLoadCfgs | None = None,
        cache_dir: str | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.test_mode = test_mode
        self.model_cfg = model_cfg
        self.dataset_cfgs = dataset_cfgs
        self.data_load_cfgs = data_load_cfgs or DataLoadCfgs()
        self.cache_dir = cache_dir
        self.compile_encoders = compile
        self.segmenter: Segmenter | None = None

    def prepare(self, run: RunCfg) -> None:
        """Read, check and build all that the stage needs; call it before ``Trainer.test``.

        Raises:
            UserError: anything is missing or does not fit.
        """
        self.stage = STAGES[self.test_mode](self.model_cfg, self.dataset_cfgs, run)
        self.segmenter = self.stage.build()
        if self.compile_encoders and self.segmenter is not None:
            self.segmenter.compile_encoders()
        self.journal = Journal(self.stage.output)

    def setup(self, stage: str) -> None:
        """Open the journal, which knows what earlier attempts at this run have finished."""
        attempt, problem = 0, None
        if self.trainer.is_global_zero:
            settings = {"precision": str(self.trainer.precision), "compile": self.compile_encoders}
            try:
                attempt = self.journal.open({"test_mode": self.test_mode, **settings, **self.stage.depends_on()})
            except UserError as error:
                problem = str(error)
        attempt, problem = self.trainer.strategy.broadcast((attempt, problem))
        if problem is not None:
            raise UserError(problem)
        self.journal.begin(attempt, self.trainer.global_rank)
        if self.journal.done and self.trainer.is_global_zero:
            print(f"going on: {self.progress(self.journal.done)}", flush=True)

    def print_resume_hint(self) -> None:
        """After a failure of a run that this process leads: say what is done, or leave no journal where nothing is."""
        if not self.journal.is_open:
            return
        done = self.journal.finished()
        if done:
            print(f"{self.progress(done)}; the same command goes on from there", flush=True)
            self.journal.close()
        else:
            self.journal.remove()

    def progress(self, done: set[int]) -> str:
        return f"{len(done)} of {len(self.stage.dataset)} {self.stage.unit} are done"

    def test_dataloader(self) -> DataLoader[Any]:
        sampler = RankSampler(self.stage.dataset, self.trainer.world_size, self.trainer.global_rank, self.journal)
        self.own = sampler.own
        workers = min(self.data_load_cfgs.workers, len(sampler))
        return DataLoader(self.stage.dataset, sampler=sampler, num_workers=workers, collate_fn=only)

    def test_step(self, item: Any, batch_idx: int) -> None:
        if not self.own:  # another rank's item, or one that is done: see RankSampler
            return
        try:
            self.journal.add(self.own[batch_idx], self.stage.step(item, self.segmenter))
        except (UserError, torch.OutOfMemoryError) as error:
            self.journal.report_failure(" ".join(str(error).split()))

    def on_test_end(self) -> None:
        self.stage.end()
        self.trainer.strategy.barrier()
        failure = self.journal.failure
        self.trainer.strategy.barrier()
        if failure is not None:
            raise UserError(failure)
        if self.trainer.is_global_zero:
            message = self.stage.finish(self.journal.records())
            for logger in self.loggers:
                logger.log_metrics(self.stage.metrics)
            self.journal.remove()
            print(message, flush=True)


class RankSampler(DistributedSampler[int]):
    """Deals the indices that are not done to the ranks in turn, none of them twice; ends early once a rank has failed.

    A rank that gets none is given the first of all, for it to leave alone: Lightning skips a rank without items
    altogether, and the others would wait for it.

    Attributes:
        own: this rank's indices.
    """

    def __init__(self, dataset: Any, num_replicas: int, rank: int, journal: Journal) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.own = [index for index in range(len(dataset)) if index not in journal.done][rank::num_replicas]
        self.journal = journal

    def __len__(self) -> int:
        return len(self.own) or 1

    def __iter__(self) -> Iterator[int]:
        for index in self.own or [0]:
            if self.journal.failure is not None:
                return
            yield index


def only(batch: list[T]) -> T:
    """The item of a batch of one: images differ in size, so the networks take them one by one."""
    (item,) = batch
    return item


class ProgressBar(TQDMProgressBar):
    """Items a second and time left, over all devices."""

    @property
    def module(self) -> NoTimeToTrain:
        module = self.trainer.lightning_module
        assert isinstance(module, NoTimeToTrain)
        return module

    @property
    def test_description(self) -> str:
        return self.module.test_mode

    def init_test_tqdm(self) -> Tqdm:
        bar = super().init_test_tqdm()
        bar.unit = f" {self.module.stage.unit}"
        if self.trainer.world_size > 1:
            bar.unit_scale = self.trainer.world_size
        return bar
