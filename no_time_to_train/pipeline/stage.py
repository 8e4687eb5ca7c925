"""What the three stages have in common.

A stage's constructor reads and checks all that the stage depends on, so that a mistake costs seconds. Several processes
(ranks) may share a stage: each turns items into records, which the journal keeps, and the first makes the output of all
records. Nothing here knows of Lightning.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from no_time_to_train.config import ModelCfg
from no_time_to_train.errors import UserError
from no_time_to_train.files import sha256
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.build import build_dinov2


@dataclass
class RunCfg:
    """What one run reads and writes, beside its configuration.

    Attributes:
        ckpt_path: memory bank to read (stages 2 and 3).
        out_path: memory bank to write (stages 1 and 2).
        export_result: COCO results to write (stage 3); None: ``results.json`` in ``save_dir``.
        save_dir: folder of the run.
        cache_dir: folder of the proposal cache (stage 3); None: no cache.
        precision: the trainer's, in which the networks run.
        on_bad_image: what to do with a target image that cannot be read.
        max_bad: how many of these may be skipped; None: any number.
        labels: recorded in ``metrics.json`` as they are, such as the seed.
    """

    ckpt_path: str | None = None
    out_path: str | None = None
    export_result: str | None = None
    save_dir: str = "."
    cache_dir: str | None = None
    precision: str = "32-true"
    on_bad_image: Literal["stop", "skip"] = "stop"
    max_bad: int | None = None
    labels: dict[str, Any] = field(default_factory=dict)


class Stage(ABC):
    """One of the method's three stages.

    Attributes:
        unit: what the items are, for the progress bar.
        dataset: the items, as a torch data set or a list.
        output: the file or folder that the stage is for.
        metrics: what the stage measured, by name; filled by :meth:`finish`.
    """

    unit: str
    dataset: Any
    output: Path

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def build(self) -> Segmenter | None:
        """Build the networks, on the CPU."""
        return None

    @abstractmethod
    def work(self) -> dict[str, Any]:
        """What the records depend on, as JSON values: settings, and files by their content."""

    @abstractmethod
    def step(self, item: Any, segmenter: Segmenter | None) -> dict[str, Any]:
        """Work on one item of the data set; return what the output needs of it, as JSON values."""

    def end(self) -> None:
        """The last of this process's items is done."""
        return None

    @abstractmethod
    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        """Make the output of the records of all items, in their order; return what to tell the user."""


def required(value: str | None, option: str, what: str) -> Path:
    """The path that an option gives; a UserError where it is missing."""
    if not value:
        raise UserError(f"{option} is missing: {what}")
    return Path(value)


def encoder_settings(cfg: ModelCfg) -> dict[str, Any]:
    """What a memory's vectors depend on and every stage knows."""
    return {"encoder": cfg.encoder_cfg.name, "img_size": cfg.encoder_cfg.img_size}


def content(path: str | Path) -> str | None:
    """The SHA-256 of a file; None where it cannot be read, of which whoever opens it will complain."""
    try:
        return sha256(path)
    except OSError:
        return None


def build_encoder(cfg: ModelCfg) -> Encoder:
    encoder = cfg.encoder_cfg
    return Encoder(build_dinov2(encoder.name, encoder.img_size, encoder.patch_size, cfg.encoder_ckpt_path))
