"""The LightningModule: runs one stage of the method on the trainer's devices."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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

    Call :meth:`prepare`, then ``Trainer.test``, which calls :meth:`setup`, :meth:`test_dataloader`, :meth:`test_step`
    for each item, and :meth:`on_test_end`. Every process (rank) runs all of them. The stage says what happens to an
    item; the journal keeps the items' records, so that a killed run can be resumed.

    Args:
        test_mode: The stage.
        model_cfg: The networks and the method's numbers.
        dataset_cfgs: The references and the targets.
        data_load_cfgs: How images are loaded.
        cache_dir: Folder of the proposal cache of the test stage. Default: no cache.
        compile: Translate both image encoders with ``torch.compile``, which makes them faster and changes the last
            digits of the results.
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
        """Read and check the stage's inputs and build its networks. Call this before ``Trainer.test``.

        Args:
            run: What this run reads and writes.

        Raises:
            UserError: An input is missing or does not fit.
        """
        run = replace(run, compile=self.compile_encoders)
        self.stage = STAGES[self.test_mode](self.model_cfg, self.dataset_cfgs, run)
        self.segmenter = self.stage.build()
        if self.compile_encoders and self.segmenter is not None:
            self.segmenter.compile_encoders()
        self.journal = Journal(self.stage.output)

    def setup(self, stage: str) -> None:
        """Start an attempt of the run on the first rank, and join it on every rank.

        Args:
            stage: Lightning's own name for what the trainer does: always "test".

        Raises:
            UserError: See ``Journal.start_attempt`` and ``Journal.join_attempt``.
        """
        attempt, problem = 0, None
        if self.trainer.is_global_zero:
            try:
                attempt = self.journal.start_attempt(self.depends_on())
                self.stage.remove_leftovers()
            except UserError as error:
                problem = str(error)
        attempt, problem = self.trainer.strategy.broadcast((attempt, problem))
        if problem is not None:
            raise UserError(problem)
        self.journal.join_attempt(attempt, self.trainer.global_rank)
        if self.journal.done and self.trainer.is_global_zero:
            print(f"resuming: {self._progress(self.journal.done)}", flush=True)

    def depends_on(self) -> dict[str, Any]:
        """What the records depend on: the stage, how its networks run, and its inputs."""
        return {
            "test_mode": self.test_mode,
            "precision": str(self.trainer.precision),
            "compile": self.compile_encoders,
            **self.stage.depends_on(),
        }

    def test_dataloader(self) -> DataLoader[Any]:
        """The items that this rank has to process, one at a time, because images differ in size."""
        sampler = RankSampler(self.stage.dataset, self.trainer.world_size, self.trainer.global_rank, self.journal)
        self.indices = sampler.indices
        workers = min(self.data_load_cfgs.workers, len(sampler), os.cpu_count() or 1)
        return DataLoader(self.stage.dataset, sampler=sampler, num_workers=workers, collate_fn=single_item)

    def test_step(self, item: Any, batch_idx: int) -> None:
        """Process one item and add its record to the journal. A failure stops all ranks, see :class:`RankSampler`.

        Args:
            item: An item of the stage's data set.
            batch_idx: Its place among this rank's items.
        """
        if not self.indices:  # a placeholder, see RankSampler
            return
        with self._reported_failures():
            self.journal.add(self.indices[batch_idx], self.stage.step(item, self.segmenter))

    def on_test_end(self) -> None:
        """Wait for all ranks, then make the output on the first one.

        Raises:
            UserError: A rank has failed, or the output cannot be written.
        """
        with self._reported_failures():
            self.stage.end()
        self.trainer.strategy.barrier()  # no rank can fail any more
        failure = self.journal.failure
        self.trainer.strategy.barrier()  # all ranks have read it, so the first one may remove the journal
        if failure is not None:
            raise UserError(failure)
        if self.trainer.is_global_zero:
            message = self.stage.finish(self.journal.records())
            for logger in self.loggers:
                logger.log_metrics(self.stage.metrics)
            self.journal.remove()
            print(message, flush=True)

    @contextmanager
    def _reported_failures(self) -> Iterator[None]:
        """Report a failure of the block to all ranks instead of raising it, because they would wait for this one."""
        try:
            yield
        except (UserError, torch.OutOfMemoryError) as error:
            self.journal.report_failure(" ".join(str(error).split()))

    def print_resume_hint(self) -> None:
        """After a failure, say how many items are done, and close the journal. Only the first rank calls this."""
        if not self.journal.holds_lock:
            return
        if done := self.journal.finished():
            print(f"{self._progress(done)}; run the same command again to resume", flush=True)
        self.journal.close()

    def _progress(self, done: set[int]) -> str:
        return f"{len(done)} of {len(self.stage.dataset)} {self.stage.unit} are done"


class RankSampler(DistributedSampler[int]):
    """Gives each rank its share of the items that are not done, and stops early once a rank has failed.

    Lightning leaves a ``DistributedSampler`` in place. The base class repeats items until all ranks have equally many;
    this one gives each item to one rank only. A rank without items would be skipped by Lightning while the others wait
    for it at the end; it therefore gets the data set's first item as a placeholder, which ``test_step`` ignores.

    Args:
        dataset: The items.
        num_replicas: The number of ranks.
        rank: This rank.
        journal: The journal, which knows the items that are done and whether a rank has failed.

    Attributes:
        indices: The items of this rank, in ascending order; empty where it has none.
    """

    def __init__(self, dataset: Any, num_replicas: int, rank: int, journal: Journal) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.indices = [index for index in range(len(dataset)) if index not in journal.done][rank::num_replicas]
        self.journal = journal

    def __len__(self) -> int:
        return len(self.indices) or 1

    def __iter__(self) -> Iterator[int]:
        for index in self.indices or [0]:
            if self.journal.failure is not None:
                return
            yield index


def single_item(batch: list[T]) -> T:
    """The item of a batch of one, in place of a batch."""
    (item,) = batch
    return item


class ProgressBar(TQDMProgressBar):
    """A progress bar that shows the items per second and the time left, over all devices."""

    @property
    def module(self) -> NoTimeToTrain:
        """The LightningModule that the trainer runs."""
        module = self.trainer.lightning_module
        assert isinstance(module, NoTimeToTrain)
        return module

    @property
    def test_description(self) -> str:
        """The text before the bar."""
        return self.module.test_mode

    def init_test_tqdm(self) -> Tqdm:
        """The bar, whose unit is that of the stage's items."""
        bar = super().init_test_tqdm()
        bar.unit = f" {self.module.stage.unit}"
        if self.trainer.world_size > 1:
            bar.unit_scale = self.trainer.world_size
        return bar
