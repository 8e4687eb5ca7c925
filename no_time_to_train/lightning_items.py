"""The items of a run on the trainer's devices: which process takes which, and what ends them together."""

import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from tqdm import tqdm

from no_time_to_train.errors import UserError, first_of, memory_problem
from no_time_to_train.overlap import Worker, load_ahead
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.processes import PERIOD, join_run, watch

#: Seconds without an item after which a run ends, because the disk with the images does not answer.
LOADING_TIMEOUT = 120


class ItemsModule(pl.LightningModule):
    """A run over items, such as images, on any number of devices and nodes, by ``Trainer.test``.

    Every process (rank) works on its share. The journal keeps what each item gave, so that a killed run can be resumed,
    and a failure of one rank ends them all.

    Attributes:
        attempt: The name of this execution of the run, which the first rank has started.
    """

    journal: Journal

    def __init__(self) -> None:
        super().__init__()
        self.attempt = ""
        self.worker: Worker[None] | None = None

    def work_next(self, work: Callable[[], None]) -> None:
        """Do something in the worker's thread while the networks work on the next item."""
        assert self.worker is not None
        self.worker.start(work)

    def items_done(self, count: int) -> list[int]:
        """Of ``count`` items, those that earlier attempts have finished. All ranks ask before any of them adds one."""
        done = filter(self.is_current, self.journal.done(count) if self.trainer.is_global_zero else [])
        return self.trainer.strategy.broadcast(list(done))

    def is_current(self, index: int) -> bool:
        """Whether the record of an item that is done still holds."""
        return True

    def share_of(self, items: Any, done: Collection[int]) -> "RankSampler":
        """This rank's share of the items that are not done."""
        return RankSampler(items, self.trainer.world_size, self.trainer.global_rank, self.journal, set(done))

    def finish(self) -> None:
        """Called on the first rank after all have ended without a failure."""
        return None

    def on_test_end(self) -> None:
        """Wait for the last item and for all ranks, then make the output on the first one."""
        assert self.worker is not None
        with self.reported_failures():
            self.worker.finish()
        self.trainer.strategy.barrier()  # no rank can fail any more
        failure = self.journal.failure
        self.trainer.strategy.barrier()  # all ranks have read it, so the first one may remove the journal
        if failure is not None:
            raise UserError(failure)
        if self.trainer.is_global_zero:
            self.finish()

    @contextmanager
    def reported_failures(self) -> Iterator[None]:
        """Report a failure of the block to all ranks instead of raising it, because they would wait for this one."""
        try:
            yield
        except (UserError, MemoryError, OSError, RuntimeError) as error:
            reason = reason_of(error)
            if reason is None:
                raise
            self.journal.report_failure(reason)


def build_trainer(devices: int, num_nodes: int, device: str | None) -> pl.Trainer:
    """A trainer of several processes, one for each device; others than the first print nothing.

    Args:
        device: Their kind, such as ``cuda`` or ``cpu``; None takes GPUs if there are any.
    """
    if device is not None and ":" in device:
        raise UserError(f"--device {device} is one device: name the kind alone, such as cuda, with --devices")
    quiet_lightning()
    join_run()
    with refused_trainers(f"--devices {devices}"):
        trainer = pl.Trainer(
            accelerator={None: "auto", "cuda": "gpu"}.get(device, device or "auto"),
            strategy="ddp",
            devices=devices,
            num_nodes=num_nodes,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    if not trainer.is_global_zero:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # open as long as the process
    return trainer


class CommandItems(ItemsModule):
    """Items of a command. The first rank has started their run and has its journal, before the others hear of it."""

    def __init__(self, journal: Journal | None) -> None:
        super().__init__()
        self.of_first = journal

    def setup(self, stage: str) -> None:
        """Join the run that the first rank has started."""
        started = ("", "") if self.of_first is None else (str(self.of_first.output), self.of_first.attempt)
        output, attempt = self.trainer.strategy.broadcast(started)
        if self.of_first is None:
            self.journal = Journal(Path(output))
            self.journal.join(attempt)
        else:
            self.journal = self.of_first
        self.worker = Worker()


class NumberedImages(CommandItems):
    """Images that are known by their numbers; ``work`` returns the record of one, as JSON values."""

    def __init__(self, journal: Journal | None, count: int, work: Callable[[int], dict[str, Any]]) -> None:
        super().__init__(journal)
        self.images: Any = range(count)
        self.work, self.left = work, tqdm(disable=True)

    def test_dataloader(self) -> DataLoader[int]:
        """The images of this rank that no run before has finished."""
        ranks, sampler = self.trainer.world_size, self.share_of(self.images, self.items_done(len(self.images)))
        self.left = tqdm(desc=f"on {ranks} devices", total=len(sampler.indices), unit=f" of {ranks} images")
        return DataLoader(self.images, sampler=sampler, collate_fn=lambda numbers: numbers[0])

    def test_step(self, index: int, batch_idx: int) -> None:
        """Work on an image, unless it is the placeholder of :class:`RankSampler`."""
        if self.left.total:
            with self.reported_failures():
                self.journal.add(index, self.work(index))
            self.left.update()


def share_numbered(
    trainer: pl.Trainer, count: int, work: Callable[[int], dict[str, Any]], journal: Journal | None
) -> None:
    """Work on images that are known by their numbers, each on one of the devices; see :class:`NumberedImages`."""
    module = NumberedImages(journal, count, work)
    try:
        run_items(trainer, module)
    finally:
        module.left.close()  # what is said next begins a line


def run_items(trainer: pl.Trainer, module: ItemsModule) -> None:
    """Run all items on the trainer's devices. Ctrl-C raises KeyboardInterrupt, and SIGTERM one with that text."""
    strategy: Any = trainer.strategy
    first: Any = getattr(strategy, "cluster_environment", None)
    slurm = trainer._accelerator_connector.cluster_environment
    if isinstance(slurm, SLURMEnvironment):  # at SIGUSR1 it would begin the job again, with a checkpoint right here
        slurm.auto_requeue = False
    where = ""
    if trainer.num_nodes == 1 and not getattr(first, "creates_processes_externally", True):
        os.environ["MASTER_ADDR"] = "127.0.0.1"  # a script around this command may have set these for others
        for name in ("MASTER_PORT", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.pop(name, None)
    elif trainer.num_nodes > 1 and trainer.local_rank == 0:
        try:
            socket.getaddrinfo(first.main_address, None)  # torch would ask again and again, for half an hour
        except (OSError, UnicodeError) as error:
            advice = "set it to the name or the number of the first machine"
            raise UserError(f"MASTER_ADDR={first.main_address} in the environment: {error}; {advice}") from error
        where = f" of {trainer.num_nodes} machines at {first.main_address}:{first.main_port} (MASTER_ADDR, MASTER_PORT)"
        minutes = f"{strategy._timeout.total_seconds() / 60:.0f} minutes"
        print(f"waiting up to {minutes} for the processes{where}", file=sys.stderr, flush=True)
    try:
        with watch(strategy.launcher):
            trainer.test(module, verbose=False)
    except torch.distributed.DistError as error:
        raise UserError(f"the processes{where} did not find each other: {str(error).splitlines()[0]}") from error
    except SystemExit as error:  # what Lightning makes of Ctrl-C, and of SIGTERM
        raise KeyboardInterrupt(*["SIGTERM"] * trainer.received_sigterm) from error
    except RuntimeError as error:
        if "onnection" in str(error):  # one to a killed process breaks some milliseconds before that is noticed
            time.sleep(PERIOD)
        if not trainer.received_sigterm:  # at which the other processes have ended
            raise
    if trainer.received_sigterm:  # during the last item, where Lightning does not look
        raise KeyboardInterrupt("SIGTERM")


@contextmanager
def refused_trainers(option: str) -> Iterator[None]:
    """Say in one line why Lightning refuses a trainer."""
    try:
        yield
    except (MisconfigurationException, LookupError, OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        text = " ".join(str(error).split())
        cluster = sorted(name for name in os.environ if name.startswith(("SLURM_", "LSB_", "JSM_", "TORCHELASTIC_")))
        if cluster and (isinstance(error, LookupError | OSError) or "invalid literal" in text):
            why = f"{error!r}; unset {first_of(cluster)}, or set all that this cluster's jobs have"
            raise UserError(f"the environment's variables of a cluster do not go together: {why}") from error
        if "backend found" in text or "can not run on your system" in text:
            text = "this machine has no such device, or torch does not see it: choose cpu"
        raise UserError(f"{option}: {text}") from error


def quiet_lightning() -> None:
    """Leave out what Lightning says about any run."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's use of torch's pytrees


class RankSampler(DistributedSampler[int]):
    """Gives each rank its share of the items that are not done, and stops early once a rank has failed.

    Lightning leaves a ``DistributedSampler`` in place. The base class repeats items until all ranks have equally many;
    this one gives each item to one rank only. A rank without items would be skipped by Lightning while the others wait
    for it at the end; it therefore gets the data set's first item as a placeholder, which ``test_step`` ignores.

    Args:
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
    """Loads items in threads, a few of them ahead. Reading, decoding and resizing images release the GIL.

    Processes would be forked beside the threads of the run, and could wait for a lock of one of them for ever.

    Args:
        failures: Makes the context in which items are loaded; it reports failures to all ranks.
        threads: Their number; 0 loads the items in the main thread.
        at_once: Items of a batch, which is a list.
    """

    def __init__(
        self,
        failures: Callable[[], AbstractContextManager[None]],
        dataset: Any,
        sampler: RankSampler,
        threads: int,
        at_once: int = 1,
    ) -> None:
        super().__init__(dataset, at_once, sampler=sampler)
        self.failures, self.threads = failures, threads

    def __iter__(self) -> Iterator[list[Any]]:  # type: ignore[override]  # torch declares its own iterator's class
        batches: Any = self.batch_sampler
        with self.failures():
            if self.threads:
                yield from load_ahead(self._load, batches, self.threads, 2 * self.threads, LOADING_TIMEOUT)
            else:
                yield from map(self._load, batches)

    def _load(self, indices: list[int]) -> list[Any]:
        return [self.dataset[index] for index in indices]


def reason_of(error: Exception) -> str | None:
    """Why a run must stop, in one line for the user; None for an error of this program.

    Args:
        error: What loading or processing an item has raised.
    """
    text = " ".join(str(error).split())
    if isinstance(error, UserError | torch.OutOfMemoryError):
        return text
    fewer = "use fewer --model.data_load_cfgs.workers (0 loads images in the main thread)"
    if problem := memory_problem(error, fewer):
        return problem
    if isinstance(error, OSError):
        return f"the operating system refuses: {text} (if it concerns memory or threads, {fewer})"
    return None
