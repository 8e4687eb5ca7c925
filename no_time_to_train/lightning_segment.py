"""``segment`` on several devices: the processes share the images, and the first one writes the files."""

import math
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from no_time_to_train.api.image_proposals import ImageProposals
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.targets import TargetImage, Targets
from no_time_to_train.errors import UserError
from no_time_to_train.lightning_items import ItemsModule, quiet_lightning, run_items
from no_time_to_train.overlap import Worker, read_ahead
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.processes import join_run
from no_time_to_train.pipeline.segment_images import propose_new, record_of

#: An image and its pixels, uint8 [H, W, 3] RGB.
Item = tuple[TargetImage, NDArray[np.uint8]]


def build_trainer(devices: int, num_nodes: int, device: str | None) -> pl.Trainer:
    """A trainer of several processes, one for each device; others than the first print nothing.

    Args:
        device: Their kind, such as ``cuda`` or ``cpu``; None takes GPUs if there are any.
    """
    if device is not None and ":" in device:
        raise UserError(f"--device {device} is one device: name the kind alone, such as cuda, with --devices")
    quiet_lightning()
    join_run()
    try:
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
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"--devices {devices}: {' '.join(str(error).split())}") from error
    if not trainer.is_global_zero:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # open as long as the process
    return trainer


def share_images(
    trainer: pl.Trainer, segmenter: ReferenceSegmenter, targets: Targets, journal: Journal | None = None
) -> None:
    """Find the instances of all images, each on one of the devices, and add them to the journal.

    Args:
        journal: The journal of the run, which the first process has started and the others hear of.
    """
    run_items(trainer, SegmentModule(segmenter, targets, journal))


class SegmentModule(ItemsModule):
    """The images of ``segment``, of which each rank takes one in so many, in their order."""

    def __init__(self, segmenter: ReferenceSegmenter, targets: Targets, journal: Journal | None) -> None:
        super().__init__()
        self.finder, self.targets, self.of_first = segmenter, targets, journal

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

    def test_dataloader(self) -> DataLoader[Item]:
        """The images of this rank."""
        ranks, rank = self.trainer.world_size, self.trainer.global_rank
        mine: Any = islice(self.targets.images, rank, None, ranks)
        count = math.ceil((self.targets.count - rank) / ranks)
        shown = tqdm(mine, f"segment on {ranks} devices", count, unit=f" of {ranks} images")
        at_once = self.finder.segmenter.images.count
        return DataLoader(Images(shown, self.journal, at_once), at_once, collate_fn=lambda items: items)

    def transfer_batch_to_device(self, batch: list[Item], device: Any, dataloader_idx: int) -> list[Item]:
        """Leave the images where they are: the segmenter moves what it needs."""
        return batch

    def test_step(self, items: list[Item], batch_idx: int) -> None:
        """Find the instances of those images that the journal does not have."""
        with self.reported_failures():
            for *_, key, record, proposals in propose_new(self.finder, items, self.journal, len(items)):
                if record is None and proposals is not None:
                    self.work_next(partial(self._add_record, key, proposals))

    def _add_record(self, key: str, proposals: ImageProposals) -> None:
        self.journal.add(key, record_of(self.finder, proposals))


class Images(IterableDataset[Item]):
    """Reads images, without those that cannot be read, until a rank has failed. The first process names those later."""

    def __init__(self, targets: Any, journal: Journal, ahead: int) -> None:
        self.targets, self.journal, self.ahead = targets, journal, ahead

    def __iter__(self) -> Iterator[Item]:
        return read_ahead(self._read(), self.ahead)

    def _read(self) -> Iterator[Item]:
        for target in self.targets:
            if self.journal.failure is not None:
                return
            try:
                yield target, target.read()
            except UserError:
                continue
