"""Stage 2: the instance vectors of a class become its prototype."""

from pathlib import Path

from no_time_to_train.config import DatasetCfgs, ModelCfg
from no_time_to_train.memory_bank import MemoryBank
from no_time_to_train.segmenter import Segmenter
from no_time_to_train.stages.base import RunCfg, Stage, encoder_settings, required


class PostprocessMemoryStage(Stage):
    """Stage 2: the instance vectors of a class become its prototype."""

    unit = "memories"

    def __init__(self, model_cfg: ModelCfg, dataset_cfgs: DatasetCfgs, run: RunCfg) -> None:
        super().__init__()
        path = required(run.ckpt_path, "--ckpt_path", "the memory that fill_memory wrote")
        self.output = required(run.out_path, "--out_path", "where to write the memory")
        self.bank = MemoryBank.load(path)
        self.bank.check_fits(path, encoder_settings(model_cfg), [])
        self.dataset = [path]

    def begin(self, part: Path) -> None:
        """There are no parts: one rank does the little there is to do."""

    def step(self, item: Path, segmenter: Segmenter | None) -> None:
        self.bank.postprocess()

    def end(self, part: Path) -> None:
        """See :meth:`begin`."""

    def finish(self, parts: list[Path]) -> str:
        self.bank.save(self.output)
        return f"prototypes of {len(self.bank.categories)} classes: {self.output}"
