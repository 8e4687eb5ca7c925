"""What the three stages have in common.

A stage's constructor reads and checks all that the stage depends on, so that a mistake costs seconds. Several processes
(ranks) may share a stage: each leaves its part in a folder beside the output, and the first puts the parts together.
Nothing here knows of Lightning.
"""

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from no_time_to_train.config import ModelCfg
from no_time_to_train.encoder import Encoder
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write
from no_time_to_train.models import build_dinov2
from no_time_to_train.segmenter import Segmenter


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
        labels: recorded in ``metrics.json`` as they are, such as the seed.
    """

    ckpt_path: str | None = None
    out_path: str | None = None
    export_result: str | None = None
    save_dir: str = "."
    cache_dir: str | None = None
    precision: str = "32-true"
    on_bad_image: Literal["stop", "skip"] = "stop"
    labels: dict[str, Any] = field(default_factory=dict)


class Parts:
    """The folder beside an output where the ranks of a run leave their parts, and word of a failure."""

    def __init__(self, output: Path) -> None:
        self.folder = output.parent / f".{output.name}.parts"

    def create(self) -> None:
        """Make the folder, empty: what an earlier run left is of no use."""
        self.remove()
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"{self.folder.parent} cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}"

    def report_failure(self, reason: str) -> None:
        """Tell all ranks why the run must stop."""
        with atomic_write(self.folder / "failure") as file:
            file.write(reason.encode())

    @property
    def failure(self) -> str | None:
        path = self.folder / "failure"
        return path.read_text() if path.exists() else None


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
    def begin(self, part: Path) -> None:
        """Begin this rank's part, to be left at ``part``."""

    @abstractmethod
    def step(self, item: Any, segmenter: Segmenter | None) -> None:
        """Work on one item of the data set."""

    @abstractmethod
    def end(self, part: Path) -> None:
        """Leave this rank's part at ``part``."""

    @abstractmethod
    def finish(self, parts: list[Path]) -> str:
        """Put the parts of all ranks together, write the output; return what to tell the user."""


def required(value: str | None, option: str, what: str) -> Path:
    """The path that an option gives; a UserError where it is missing."""
    if not value:
        raise UserError(f"{option} is missing: {what}")
    return Path(value)


def encoder_settings(cfg: ModelCfg) -> dict[str, Any]:
    """What a memory's vectors depend on and every stage knows."""
    return {"encoder": cfg.encoder_cfg.name, "img_size": cfg.encoder_cfg.img_size}


def build_encoder(cfg: ModelCfg) -> Encoder:
    encoder = cfg.encoder_cfg
    return Encoder(build_dinov2(encoder.name, encoder.img_size, encoder.patch_size, cfg.encoder_ckpt_path))
