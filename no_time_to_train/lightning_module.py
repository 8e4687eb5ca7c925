"""The LightningModule: the stages' items on the trainer's devices."""

from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from no_time_to_train.config import DataLoadCfgs, DatasetCfgs, ModelCfg
from no_time_to_train.errors import UserError
from no_time_to_train.segmenter import Segmenter
from no_time_to_train.stages import STAGES, Parts, RunCfg

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
        self.parts = Parts(self.stage.output)

    def test_dataloader(self) -> DataLoader[Any]:
        sampler = RankSampler(self.stage.dataset, self.trainer.world_size, self.trainer.global_rank, self.parts)
        workers = min(self.data_load_cfgs.workers, len(sampler))
        return DataLoader(self.stage.dataset, sampler=sampler, num_workers=workers, collate_fn=only)

    def on_test_start(self) -> None:
        if self.trainer.is_global_zero:
            self.parts.create()
        self.trainer.strategy.barrier()
        if not self.parts.folder.is_dir():
            raise UserError(
                f"{self.parts.folder} is not seen by rank {self.global_rank}: all nodes must share that disk"
            )
        self.stage.begin(self.parts.path(self.global_rank))

    def test_step(self, item: Any, batch_idx: int) -> None:
        if self.global_rank >= len(self.stage.dataset):  # another rank's item: see RankSampler
            return
        try:
            self.stage.step(item, self.segmenter)
        except UserError as error:
            self.parts.report_failure(str(error))

    def on_test_end(self) -> None:
        self.stage.end(self.parts.path(self.global_rank))
        self.trainer.strategy.barrier()
        failure = self.parts.failure
        self.trainer.strategy.barrier()
        if failure is None and self.trainer.is_global_zero:
            message = self.stage.finish([self.parts.path(rank) for rank in range(self.trainer.world_size)])
            for logger in self.loggers:
                logger.log_metrics(self.stage.metrics)
            print(message, flush=True)
        if self.trainer.is_global_zero:
            self.parts.remove()
        if failure is not None:
            raise UserError(failure)


class RankSampler(DistributedSampler[int]):
    """Deals a data set's indices to the ranks in turn, none of them twice, and ends early once a rank has failed.

    A rank that gets none is given the first, for it to leave alone: Lightning skips a rank without items altogether,
    and the others would wait for it.
    """

    def __init__(self, dataset: Any, num_replicas: int, rank: int, parts: Parts) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.indices = range(rank, len(dataset), num_replicas) or range(1)
        self.parts = parts

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        for index in self.indices:
            if self.parts.failure is not None:
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
