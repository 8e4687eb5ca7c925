"""Stage 2: the vectors of a class become its prototype (docs/method.md, 2)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from no_time_to_train.data.memory_files import check_fits, load_memory, save_memory
from no_time_to_train.files import sha256_if_readable
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.pipeline.stage import Stage, required


class PostprocessMemoryStage(Stage):
    """Stage 2: the vectors of a class become its prototype."""

    unit = "memories"

    def read_inputs(self) -> None:
        path = required(self.run.ckpt_path, "--ckpt_path", "the memory that fill_memory wrote")
        self.output = required(self.run.out_path, "--out_path", "where to write the memory")
        self.bank = load_memory(path)
        check_fits(self.bank, path, self.encoder_settings(), [])
        self.dataset = [path]

    def depends_on(self) -> dict[str, Any]:
        return {"memory": sha256_if_readable(self.dataset[0])}

    def step(self, item: Path, segmenter: Segmenter | None) -> dict[str, Any]:
        return {}

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        self.bank.postprocess()
        save_memory(self.bank, self.output)
        return f"prototypes of {len(self.bank.categories)} classes: {self.output}"
