"""Pictures of a memory: each class's references with their k-means regions and principal components."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import BadImage, ReferenceCrop, ReferenceDataset, check_images_exist
from no_time_to_train.data.memory_files import check_fits, load_memory, recorded
from no_time_to_train.data.reference_sets import validate_references
from no_time_to_train.errors import UserError
from no_time_to_train.files import remove_leftovers, sha256_if_readable
from no_time_to_train.method.fill_memory import patch_weights
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.pipeline.stage import Stage, required
from no_time_to_train.visual.drawing import save_picture
from no_time_to_train.visual.memory_pictures import class_sheet


class VisMemoryStage(Stage):
    """Draw one sheet per class. The references are encoded again, because a memory keeps no patch tokens."""

    unit = "classes"
    networks = ("encoder",)

    def read_inputs(self) -> None:
        cfg = self.dataset_cfgs.fill_memory
        self.output = Path(self.run.out_path or Path(self.run.save_dir) / "memory_pictures")
        self.memory = required(self.run.ckpt_path, "--ckpt_path", "the memory to draw")
        json_file = required(cfg.json_file, "dataset_cfgs.fill_memory.json_file", "the references' annotations")
        self.bank = load_memory(self.memory)
        check_fits(self.bank, self.memory, self.encoder_settings(), [])
        coco = read_coco(json_file)
        references: dict[int, Any] = {
            category.id: list(filter(None, (self.bank.sources[shot] for shot in self.bank.references_of(index))))
            for index, category in enumerate(self.bank.categories)
        }
        references = validate_references(references, coco, json_file, self.bank.categories, shots=None)
        check_images_exist(cfg.root, coco, [shot["img_id"] for shots in references.values() for shot in shots])
        size, context_ratio = self.model_cfg.encoder_cfg.input_size, recorded(self.bank, self.memory, "context_ratio")
        shots = ReferenceDataset(coco, cfg.root, self.bank.categories, references, size, context_ratio, self.rescales)
        self.dataset = ClassDataset(shots)

    def build(self) -> Segmenter:
        return Segmenter(self.build_encoder())

    def depends_on(self) -> dict[str, Any]:
        settings = self.model_cfg.sam2_infer_cfgs
        return {
            "memory": sha256_if_readable(self.memory),
            "encoder": sha256_if_readable(self.model_cfg.encoder_checkpoint),
            "size_mismatch": self.run.size_mismatch,
            "kmeans_k": settings.kmeans_k,
            "n_pca_components": settings.n_pca_components,
        }

    def remove_leftovers(self) -> None:
        for category in self.bank.categories:
            remove_leftovers(self.picture_file(category))

    @torch.inference_mode()
    def step(self, item: list[ReferenceCrop | BadImage], segmenter: Segmenter | None) -> dict[str, Any]:
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
        save_picture(picture, self.picture_file(category))
        return {}

    def picture_file(self, category: Category) -> Path:
        """The file of a class's sheet."""
        return self.output / f"{category.id}.png"

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        return f"pictures of {len(self.bank.categories)} classes: {self.output}"


class ClassDataset(Dataset[list[Any]]):
    """The references of a data set, one item per class: the list of the class's crops.

    Args:
        references: The data set.
    """

    def __init__(self, references: ReferenceDataset) -> None:
        self.references = references
        self.members: dict[int, list[int]] = {}
        for index, (class_index, _) in enumerate(references.shots):
            self.members.setdefault(class_index, []).append(index)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> list[ReferenceCrop | BadImage]:
        return [self.references[member] for member in self.members[index]]
