"""The LightningModule: runs one stage of the method on the trainer's devices."""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from no_time_to_train.config import DataLoadCfgs, DatasetCfgs, ModelCfg, TestMode
from no_time_to_train.errors import UserError
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.devices import notice_slow_bfloat16, store_weights
from no_time_to_train.overlap import Worker
from no_time_to_train.pipeline.find_instances_stage import FindInstancesStage
from no_time_to_train.pipeline.find_negatives_stage import FindNegativesStage
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.memory_stages import (
    FillMemoryNegStage,
    FillMemoryStage,
    PostprocessMemoryNegStage,
    PostprocessMemoryStage,
    VisMemoryStage,
)
from no_time_to_train.pipeline.processes import end_with_parent
from no_time_to_train.pipeline.stage import RunCfg, Stage

#: The stages by the name of their test mode.
STAGES: dict[str, type[Stage]] = {
    "fill_memory": FillMemoryStage,
    "postprocess_memory": PostprocessMemoryStage,
    "vis_memory": VisMemoryStage,
    "test": FindInstancesStage,
    "test_support": FindNegativesStage,
    "fill_memory_neg": FillMemoryNegStage,
    "postprocess_memory_neg": PostprocessMemoryNegStage,
}

#: Seconds without an item after which a run ends, because the disk with the images does not answer, or a process that
#: loads them has been killed unnoticed (Lightning removes torch's handler where one process runs several stages).
LOADING_TIMEOUT = 120


class NoTimeToTrain(pl.LightningModule):
    """One stage of the method, run by ``Trainer.test`` on any number of devices and nodes.

    Call :meth:`prepare` and :meth:`build`, then ``Trainer.test``, which calls :meth:`setup`, :meth:`test_dataloader`,
    :meth:`test_step` for each item, and :meth:`on_test_end`. Every process (rank) runs all of them. The stage says what
    happens to an item; the journal keeps the items' records, so that a killed run can be resumed.

    Args:
        test_mode: The stage.
        model_cfg: The networks and the method's numbers.
        dataset_cfgs: The references and the targets.
        data_load_cfgs: How images are loaded.
        cache_dir: Folder of the proposal cache of the test stage. Default: no cache.
        compile: Translate both image encoders with ``torch.compile``, which makes them faster and changes the last
            digits of the results.
        compile_decoder: Translate SAM 2's mask decoder, too. For GPUs: on a CPU it takes minutes and gains little.
    """

    def __init__(
        self,
        test_mode: TestMode,
        model_cfg: ModelCfg,
        dataset_cfgs: DatasetCfgs,
        data_load_cfgs: DataLoadCfgs | None = None,
        cache_dir: str | None = None,
        compile: bool = False,
        compile_decoder: bool = False,
    ) -> None:
        super().__init__()
        self.test_mode = test_mode
        self.model_cfg = model_cfg
        self.dataset_cfgs = dataset_cfgs
        self.data_load_cfgs = data_load_cfgs or DataLoadCfgs()
        self.cache_dir = cache_dir
        self.compile_encoders, self.compile_decoder = compile, compile_decoder
        self.segmenter: Segmenter | None = None
        self.attempt = ""
        self.done: list[int] = []
        self.worker: Worker[None] | None = None

    def prepare(self, run: RunCfg, first: bool = True) -> None:
        """Read and check the stage's inputs; on the first rank, start an attempt of the run.

        Nothing is written before, so that a run that is refused leaves no trace in another run's folder.

        Args:
            run: What this run reads and writes.
            first: Whether this is the first rank.
        """
        run = replace(run, compile=self.compile_encoders, compile_decoder=self.compile_decoder)
        self.stage = STAGES[self.test_mode](self.model_cfg, self.dataset_cfgs, run)
        self.journal = Journal(self.stage.output)
        if first:
            self.attempt = self.journal.start(self.depends_on())

    def build(self) -> None:
        """Build the stage's networks."""
        self.segmenter = self.stage.build()
        if self.segmenter is not None:
            store_weights(self.stage.run.precision, self.segmenter)
        if self.compile_encoders and self.segmenter is not None:
            self.segmenter.compile_encoders()
        if self.compile_decoder and self.segmenter is not None:
            self.segmenter.compile_decoder()

    def setup(self, stage: str) -> None:
        """Join the attempt that the first rank has started.

        Args:
            stage: Lightning's own name for what the trainer does: always "test".
        """
        if self.trainer.is_global_zero:
            self.stage.remove_leftovers()
        self.journal.join(self.trainer.strategy.broadcast(self.attempt))
        done = self.journal.done(len(self.stage.dataset)) if self.trainer.is_global_zero else []
        self.done = self.trainer.strategy.broadcast(done)  # before any rank adds an item
        self.worker = Worker()
        if self.stage.networks and self.stage.run.precision.startswith("bf16") and self.trainer.is_global_zero:
            notice_slow_bfloat16(self.trainer.strategy.root_device)
        if self.done and self.trainer.is_global_zero:
            print(f"resuming: {self._progress(len(self.done))}", flush=True)

    def depends_on(self) -> dict[str, Any]:
        """What the records depend on: the stage, how its networks run, and its inputs."""
        return {
            "test_mode": self.test_mode,
            "precision": self.stage.run.precision,
            "compile": self.compile_encoders,
            **({"compile_decoder": True} if self.compile_decoder else {}),  # only then, so that older runs resume
            **self.stage.depends_on(),
        }

    def test_dataloader(self) -> DataLoader[Any]:
        """The items that this rank has to process, one at a time, because images differ in size."""
        ranks, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = RankSampler(self.stage.dataset, ranks, rank, self.journal, set(self.done))
        self.indices = sampler.indices
        workers = min(self.data_load_cfgs.workers, len(sampler), os.cpu_count() or 1)
        return ItemLoader(self._reported_failures, self.stage.dataset, sampler, workers)

    def on_before_batch_transfer(self, batch: bytes, dataloader_idx: int) -> Any:
        """The item that :func:`packed` packed.

        Args:
            batch: The item in bytes.
            dataloader_idx: Always 0.
        """
        return pickle.loads(batch)

    def test_step(self, item: Any, batch_idx: int) -> None:
        """Process one item. A thread adds its record to the journal while the networks work on the next one.

        A failure stops all ranks, see :class:`RankSampler`. That of the thread is reported with the next item.

        Args:
            item: An item of the stage's data set.
            batch_idx: Its place among this rank's items.
        """
        if not self.indices:  # a placeholder, see RankSampler
            return
        assert self.worker is not None
        with self._reported_failures():
            work = self.stage.step(item, self.segmenter)
            self.worker.start(partial(self._add_record, self.indices[batch_idx], work))

    def _add_record(self, index: int, work: dict[str, Any] | Callable[[], dict[str, Any]]) -> None:
        """Add what ``Stage.step`` returned to the journal."""
        self.journal.add(index, work() if callable(work) else work)

    def on_test_end(self) -> None:
        """Wait for the last item and for all ranks, then make the output on the first one."""
        assert self.worker is not None
        with self._reported_failures():
            self.worker.finish()
            self.stage.end()
        self.trainer.strategy.barrier()  # no rank can fail any more
        failure = self.journal.failure
        self.trainer.strategy.barrier()  # all ranks have read it, so the first one may remove the journal
        if failure is not None:
            raise UserError(failure)
        if self.trainer.is_global_zero:
            message = self.stage.finish(self.journal.records(len(self.stage.dataset), self.stage.unit))
            for logger in self.loggers:
                logger.log_metrics(self.stage.metrics)
            self.journal.remove()
            print(message, flush=True)

    @contextmanager
    def _reported_failures(self) -> Iterator[None]:
        """Report a failure of the block to all ranks instead of raising it, because they would wait for this one."""
        try:
            yield
        except (UserError, MemoryError, OSError, RuntimeError) as error:
            reason = reason_of(error)
            if reason is None:
                raise
            self.journal.report_failure(reason)

    def print_resume_hint(self) -> None:
        """After a failure, say how many items are done, and close the journal. Only the first rank calls this."""
        if self.worker is not None:
            self.worker.close()
        if not self.journal.holds_lock:
            return
        if done := len(self.journal.items):
            print(f"{self._progress(done)}; run the same command again to resume", flush=True)
        self.journal.close()

    def _progress(self, done: int) -> str:
        return f"{done} of {len(self.stage.dataset)} {self.stage.unit} are done"


class RankSampler(DistributedSampler[int]):
    """Gives each rank its share of the items that are not done, and stops early once a rank has failed.

    Lightning leaves a ``DistributedSampler`` in place. The base class repeats items until all ranks have equally many;
    this one gives each item to one rank only. A rank without items would be skipped by Lightning while the others wait
    for it at the end; it therefore gets the data set's first item as a placeholder, which ``test_step`` ignores.

    Args:
        dataset: The items.
        num_replicas: The number of ranks.
        rank: This rank.
        journal: The journal, which knows whether a rank has failed.
        done: The items that earlier attempts have finished.

    Attributes:
        indices: The items of this rank, in ascending order; empty where it has none.
    """

    def __init__(self, dataset: Any, num_replicas: int, rank: int, journal: Journal, done: set[int]) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.indices = [index for index in range(len(dataset)) if index not in done][rank::num_replicas]
        self.journal = journal

    def __len__(self) -> int:
        return len(self.indices) or 1

    def __iter__(self) -> Iterator[int]:
        for index in self.indices or [0]:
            if self.journal.failure is not None:
                return
            yield index


class ItemLoader(DataLoader[Any]):
    """Loads items one at a time, in processes of its own.

    Items travel to this process through pipes, as bytes. Tensors would travel through ``/dev/shm``, which is small in
    containers (64 MB with Docker), and a full one kills or stops the processes.

    Args:
        failures: Makes the context in which items are loaded; it reports failures to all ranks.
        dataset: The items.
        sampler: The items of this rank.
        workers: Number of processes; 0 loads the items in this one.
    """

    def __init__(
        self, failures: Callable[[], AbstractContextManager[None]], dataset: Any, sampler: RankSampler, workers: int
    ) -> None:
        timeout = LOADING_TIMEOUT if workers else 0
        super().__init__(
            dataset,
            sampler=sampler,
            num_workers=workers,
            collate_fn=packed,
            timeout=timeout,
            worker_init_fn=end_with_parent,
        )
        self.failures = failures

    def __iter__(self) -> Iterator[bytes]:  # type: ignore[override]  # torch declares its own iterator's class
        with self.failures():
            yield from super().__iter__()


def packed(batch: list[Any]) -> bytes:
    """The item of a batch of one as bytes, see :class:`ItemLoader`."""
    (item,) = batch
    return pickle.dumps(item, protocol=5)


def reason_of(error: Exception) -> str | None:
    """Why a run must stop, in one line for the user; None for an error of this program.

    Args:
        error: What loading or processing an item has raised.
    """
    text = " ".join(str(error).split())
    if isinstance(error, UserError | torch.OutOfMemoryError):
        return text
    fewer = "use fewer --model.data_load_cfgs.workers (0 loads images in the main process)"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return f"the memory is too small: {text or 'an allocation failed'}; {fewer}"
    if "DataLoader timed out" in text:
        return f"no image was loaded for {LOADING_TIMEOUT} seconds: does the disk with the images answer? Or {fewer}"
    if "DataLoader worker" in text:
        return f"a process that loads images was killed, perhaps because the memory is too small: {fewer} ({text})"
    if isinstance(error, OSError):
        return f"the operating system refuses: {text} (if it concerns memory or processes, {fewer})"
    return None


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
