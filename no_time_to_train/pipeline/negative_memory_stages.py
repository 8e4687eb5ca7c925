"""Negative references in the stages: they are added to a memory, which is then made ready for the test stage."""

from collections.abc import Iterable
from typing import Any

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.memory_files import check_fits, load_memory, recorded, save_memory
from no_time_to_train.data.reference_sets import read_references, validate_references
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import sha256_if_readable
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.pipeline.fill_memory_stage import FillMemoryStage
from no_time_to_train.pipeline.postprocess_memory_stage import PostprocessMemoryStage
from no_time_to_train.pipeline.stage import required


class FillMemoryNegStage(FillMemoryStage):
    """Every instance of a negative reference set becomes a negative shot of a memory, cropped like a positive one."""

    def read_inputs(self) -> None:
        support, filled = self.dataset_cfgs.support, self.dataset_cfgs.fill_memory
        self.memory = required(self.run.ckpt_path, "--ckpt_path", "the memory to add negative references to")
        self.output = required(self.run.out_path, "--out_path", "where to write the memory")
        self.json_file = required(self.run.out_neg_json, "--out_neg_json", "the annotations that test_support wrote")
        self.memory_pkl = required(self.run.out_neg_pkl, "--out_neg_pkl", "the reference set that test_support wrote")
        self.bank = load_memory(self.memory)
        check_fits(self.bank, self.memory, self.encoder_settings(), [])
        self.categories, self.shots = self.bank.categories, self.model_cfg.memory_bank_cfg.length_negative
        coco, references = read_coco(self.json_file), read_references(self.memory_pkl)
        chosen = [category for category in self.categories if references.get(category.id)]
        if not chosen:
            raise UserError(f"{self.memory_pkl} has no shots of the classes of {self.memory}: there is nothing to add")
        negatives = {category.id: references[category.id][: self.shots] for category in chosen}
        negatives = validate_references(negatives, coco, self.json_file, chosen, shots=None)
        context_ratio = recorded(self.bank, self.memory, "context_ratio")
        self.set_dataset(coco, support.root or filled.root, negatives, context_ratio)

    def depends_on(self) -> dict[str, Any]:
        return {**super().depends_on(), "memory": sha256_if_readable(self.memory)}

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        negatives, notes = self.fill(records)
        negatives.negative[:] = True
        save_memory(MemoryBank.join([self.bank, negatives]), self.output)
        return "\n".join([f"{say_negatives(negatives)}: {self.output}", *notes])


class PostprocessMemoryNegStage(PostprocessMemoryStage):
    """Stage 2 of a memory with negative references. The prototypes are those of its positive ones."""

    def read_inputs(self) -> None:
        super().read_inputs()
        if self.bank.negatives is None:
            raise UserError(f"memory {self.run.ckpt_path} has no negative references: run test_mode fill_memory_neg")

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        return f"{super().finish(records)}, with {say_negatives(self.bank)}"


def say_negatives(bank: MemoryBank) -> str:
    """The numbers of negative references and of their classes, for the user."""
    counts = bank.negative_counts
    classes = int((counts > 0).sum())
    return f"{plural(int(counts.sum()), 'negative reference')} of {classes} class{'es' * (classes != 1)}"
