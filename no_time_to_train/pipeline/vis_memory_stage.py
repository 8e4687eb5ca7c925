"""Pictures of a memory: each class's references beside their k-means regions and principal components."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from no_time_to_train.config import DatasetCfgs, ModelCfg
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import BadImage, Reference, ReferenceDataset, check_images_exist
from no_time_to_train.data.reference_sets import check_references
from no_time_to_train.errors import UserError
from no_time_to_train.method.crops import patch_weights
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.pipeline.stage import RunCfg, Stage, build_encoder, content, encoder_settings, required
from no_time_to_train.visual.drawing import save_picture
from no_time_to_train.visual.memory_pictures import class_sheet


class VisMemoryStage(Stage):
    """Encodes a memory's references once more, for their maps are not kept, and draws a sheet a class."""

    unit = "classes"

    def __init__(self, model_cfg: ModelCfg, dataset_cfgs: DatasetCfgs, run: RunCfg) -> None:
        super().__init__()
        cfg = dataset_cfgs.fill_memory
        self.model_cfg = model_cfg
        self.output = Path(run.out_path or Path(run.save_dir) / "memory_pictures")
        path = required(run.ckpt_path, "--ckpt_path", "the memory to draw")
        json_file = required(cfg.json_file, "dataset_cfgs.fill_memory.json_file", "the references' annotations")
        self.memory, self.bank = path, MemoryBank.load(path)
        self.bank.check_fits(path, encoder_settings(model_cfg), [])
        coco = read_coco(json_file)
        references = check_references(self.bank.references, coco, json_file, self.bank.categories, shots=None)
        check_images_exist(cfg.root, coco, [shot["img_id"] for shots in references.values() for shot in shots])
        size = model_cfg.encoder_cfg.img_size
        context_ratio = self.bank.made_with["context_ratio"]
        self.dataset = ClassDataset(
            ReferenceDataset(coco, cfg.root, self.bank.categories, references, size, context_ratio)
        )

    def build(self) -> Segmenter:
        return Segmenter(build_encoder(self.model_cfg))

    def work(self) -> dict[str, Any]:
        settings = self.model_cfg.sam2_infer_cfgs
        return {
            "memory": content(self.memory),
            "encoder": content(self.model_cfg.encoder_ckpt_path),
            "kmeans_k": settings.kmeans_k,
            "n_pca_components": settings.n_pca_components,
        }

    @torch.inference_mode()
    def step(self, item: list[Reference | BadImage], segmenter: Segmenter | None) -> dict[str, Any]:
        assert segmenter is not None
        encoder = segmenter.encoder
        crops, tokens, weights = [], [], []
        for reference in item:
            if isinstance(reference, BadImage):
                raise UserError(reference.reason)
            crops.append((reference.crop.cpu(), reference.mask.cpu()))
            tokens.append(encoder(reference.crop[None])[0].cpu())
            weights.append(patch_weights(reference.mask, encoder.size, encoder.grid).cpu())
            category = self.bank.categories[reference.class_index]
        settings = self.model_cfg.sam2_infer_cfgs
        picture = class_sheet(category.name, crops, tokens, weights, settings.kmeans_k, settings.n_pca_components)
        save_picture(picture, self.output / f"{category.id}.png")
        return {}

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        return f"pictures of {len(self.bank.categories)} classes: {self.output}"


class ClassDataset(Dataset[list[Any]]):
    """The references of a data set, class by class."""

    def __init__(self, references: ReferenceDataset) -> None:
        self.references = references
        self.members: dict[int, list[int]] = {}
        for index, (class_index, _, _) in enumerate(references.shots):
            self.members.setdefault(class_index, []).append(index)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> list[Reference | BadImage]:
        return [self.references[member] for member in self.members[index]]
