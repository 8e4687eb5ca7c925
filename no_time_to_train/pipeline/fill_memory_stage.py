"""Stage 1: every reference instance becomes a vector in the memory bank."""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

import torch

from no_time_to_train.config import DatasetCfgs, ModelCfg
from no_time_to_train.data.coco import read_coco, select_categories
from no_time_to_train.data.datasets import BadImage, Reference, ReferenceDataset, check_images_exist
from no_time_to_train.data.reference_sets import check_references, read_references
from no_time_to_train.errors import UserError
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.pipeline.stage import RunCfg, Stage, build_encoder, content, encoder_settings, required


class FillMemoryStage(Stage):
    """Stage 1: every reference instance becomes a vector in the memory bank."""

    unit = "references"

    def __init__(self, model_cfg: ModelCfg, dataset_cfgs: DatasetCfgs, run: RunCfg) -> None:
        super().__init__()
        cfg, bank_cfg = dataset_cfgs.fill_memory, model_cfg.memory_bank_cfg
        self.model_cfg = model_cfg
        self.output = required(run.out_path, "--out_path", "where to write the memory")
        size = model_cfg.encoder_cfg.img_size
        if cfg.image_size not in (None, size):
            raise UserError(
                f"dataset_cfgs.fill_memory.image_size is {cfg.image_size}, the encoder's (encoder_cfg.img_size) {size}"
            )
        json_file = required(cfg.json_file, "dataset_cfgs.fill_memory.json_file", "the references' annotations")
        memory_pkl = required(cfg.memory_pkl, "dataset_cfgs.fill_memory.memory_pkl", "the reference set")
        if None not in (cfg.memory_length, bank_cfg.length) and cfg.memory_length > bank_cfg.length:  # type: ignore[operator]
            raise UserError(
                f"memory_length ({cfg.memory_length} shots a class) is over memory_bank_cfg.length ({bank_cfg.length})"
            )
        self.json_file, self.memory_pkl = json_file, memory_pkl
        coco = read_coco(json_file)
        self.categories = select_categories(coco, json_file, cfg.class_split, cfg.cat_names)
        if bank_cfg.category_num not in (None, len(self.categories)):
            raise UserError(
                f"memory_bank_cfg.category_num is {bank_cfg.category_num}, {len(self.categories)} classes are chosen"
            )
        shots = bank_cfg.length if cfg.memory_length is None else cfg.memory_length
        self.references = check_references(read_references(memory_pkl), coco, json_file, self.categories, shots)
        self.length = bank_cfg.length or max(map(len, self.references.values()))
        check_images_exist(cfg.root, coco, [s["img_id"] for shots in self.references.values() for s in shots])
        self.dataset = ReferenceDataset(coco, cfg.root, self.categories, self.references, size, cfg.context_ratio)
        self.made_with = {**encoder_settings(model_cfg), "context_ratio": cfg.context_ratio}

    def build(self) -> Segmenter:
        encoder = build_encoder(self.model_cfg)
        self.bank = MemoryBank.empty(self.categories, self.length, encoder.dim)
        self.bank.made_with, self.bank.references = self.made_with, self.references
        return Segmenter(encoder)

    def work(self) -> dict[str, Any]:
        return {
            "references": [content(self.memory_pkl), self.length],
            "annotations": content(self.json_file),
            "categories": [category.id for category in self.categories],
            "encoder weights": content(self.model_cfg.encoder_ckpt_path),
            **self.made_with,
        }

    def step(self, item: Reference | BadImage, segmenter: Segmenter | None) -> dict[str, Any]:
        assert segmenter is not None
        if isinstance(item, BadImage):
            raise UserError(item.reason)
        vector, weight = segmenter.describe(item.crop, item.mask)
        return {
            "class_index": item.class_index,
            "slot": item.slot,
            "vector": b64encode(vector.cpu().numpy().tobytes()).decode(),
            "weight": weight.item(),
        }

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        for record in records:
            vector = torch.frombuffer(bytearray(b64decode(record["vector"])), dtype=torch.float32)
            self.bank.insert(record["class_index"], record["slot"], vector, torch.tensor(record["weight"]))
        self.bank.save(self.output)
        return f"memory of {len(self.categories)} classes, {int(self.bank.counts.sum())} references: {self.output}"
