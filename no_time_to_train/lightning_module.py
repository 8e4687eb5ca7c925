"""The LightningModule: runs one stage of the method on the trainer's devices."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from torch.utils.data import DataLoader

from no_time_to_train.config import DataLoadCfgs, DatasetCfgs, ModelCfg, TestMode
from no_time_to_train.file_hashes import state_of
from no_time_to_train.lightning_items import ItemLoader, ItemsModule
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


class NoTimeToTrain(ItemsModule):
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
        compile: Translate both image encoders with ``torch.compile`` (docs/speed.md).
        compile_decoder: Translate SAM 2's mask decoder, too. For GPUs.
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
        self.done: list[int] = []

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
        self.done = self.items_done(len(self.stage.dataset))
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
        """The items that this rank has to process, as many at once as the networks take."""
        sampler = self.share_of(self.stage.dataset, self.done)
        self.indices = sampler.indices
        threads = min(self.data_load_cfgs.workers, len(sampler), os.cpu_count() or 1)
        self.at_once = 1 if self.segmenter is None else self.segmenter.images.count
        return ItemLoader(self.reported_failures, self.stage.dataset, sampler, threads, self.at_once)

    def test_step(self, items: list[Any], batch_idx: int) -> None:
        """Process items. A thread adds the record of one to the journal while the networks work on the next one.

        A failure stops all ranks, see :class:`RankSampler`. That of the thread is reported with the next item.

        Args:
            items: Items of the stage's data set.
            batch_idx: The place of the batch among this rank's batches.
        """
        if not self.indices:  # a placeholder, see RankSampler
            return
        indices = self.indices[batch_idx * self.at_once :]
        with self.reported_failures():
            for index, work in zip(indices, self.stage.steps(items, self.segmenter), strict=False):
                self.work_next(partial(self._add_record, index, work))

    def _add_record(self, index: int, work: dict[str, Any] | Callable[[], dict[str, Any]]) -> None:
        """Add what ``Stage.step`` returned to the journal."""
        record = work() if callable(work) else work
        self.journal.add(index, {**record, "image": self._state_of_image(index)})

    def _state_of_image(self, index: int) -> list[int] | None:
        """What changes with the image of an item: its size in bytes, and when it was changed in ns."""
        with suppress(AttributeError, OSError):  # an item that is no image, or one that is gone
            return list(state_of(self.stage.dataset.path(index))[1:3])  # not its disk: that may be another node's
        return None

    def is_current(self, index: int) -> bool:
        """Whether an image is the one that its record was made from."""
        record = self.journal.get(index) or {}
        return record.get("image") in (None, self._state_of_image(index))

    def finish(self) -> None:
        """Make the output from the records of all ranks."""
        message = self.stage.finish(self.journal.records(len(self.stage.dataset), self.stage.unit))
        for logger in self.loggers:
            logger.log_metrics(self.stage.metrics)
        self.journal.remove()
        print(message, flush=True)

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
        several = f" of {self.module.at_once}" * (self.module.at_once > 1)
        bar.unit = f"{several} {self.module.stage.unit}"
        if self.trainer.world_size > 1:
            bar.unit_scale = self.trainer.world_size
        return bar
