"""Stage 2: the instance vectors of a class become its prototype."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from no_time_to_train.config import DatasetCfgs, ModelCfg
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.pipeline.stage import RunCfg, Stage, content, encoder_settings, required


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

    def work(self) -> dict[str, Any]:
        return {"memory": content(self.dataset[0])}

    def step(self, item: Path, segmenter: Segmenter | None) -> dict[str, Any]:
        return {}

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        self.bank.postprocess()
        self.bank.save(self.output)
        return f"prototypes of {len(self.bank.categories)} classes: {self.output}"
