"""Stages 1 and 2 (docs/method.md): references become vectors of a memory, and these prototypes; negatives likewise.

And pictures of a memory.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pycocotools.coco import COCO
from torch.utils.data import Dataset

from no_time_to_train.config import AREA_WEIGHTED, NETWORKS
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import BadImage, ReferenceCrop, ReferenceDataset, check_images_exist, loaded
from no_time_to_train.data.memory_files import check_fits, load_memory, recorded, save_memory
from no_time_to_train.data.reference_sets import ReferenceSet, read_references, validate_references
from no_time_to_train.errors import UserError, plural
from no_time_to_train.file_hashes import sha256_if_readable
from no_time_to_train.files import PICTURE
from no_time_to_train.method.beyond.ablations import area_weighted_prototypes
from no_time_to_train.method.beyond.free_encoder import crop_freely
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import changed
from no_time_to_train.pipeline.stage import Stage, required
from no_time_to_train.plugins import hashes
from no_time_to_train.visual.drawing import save_picture
from no_time_to_train.visual.memory_pictures import class_sheet


class FillMemoryStage(Stage):
    """Stage 1: every reference instance becomes a vector of the memory bank."""

    unit = "references"
    networks = NETWORKS["fill_memory"]

    def read_inputs(self) -> None:
        cfg, bank_cfg = self.dataset_cfgs.fill_memory, self.model_cfg.memory_bank_cfg
        encoder_cfg = self.model_cfg.encoder_cfg
        self.output = required(self.run.out_path, "--out_path", "where to write the memory")
        size = encoder_cfg.input_size
        if cfg.image_size not in (None, size):
            raise UserError(
                f"dataset_cfgs.fill_memory.image_size is {cfg.image_size}, encoder_cfg.img_size is {size}: "
                "leave image_size out"
            )
        self.json_file = required(cfg.json_file, "dataset_cfgs.fill_memory.json_file", "the references' annotations")
        self.memory_pkl = required(cfg.memory_pkl, "dataset_cfgs.fill_memory.memory_pkl", "the reference set")
        context_ratio = encoder_cfg.context_ratio if cfg.context_ratio is None else cfg.context_ratio
        self.shots = bank_cfg.length if cfg.memory_length is None else cfg.memory_length
        if self.shots is not None and bank_cfg.length is not None and self.shots > bank_cfg.length:
            raise UserError(f"memory_length ({self.shots}) exceeds memory_bank_cfg.length ({bank_cfg.length})")
        coco = read_coco(self.json_file)
        self.categories = select_categories(coco, self.json_file, cfg.class_split, cfg.cat_names)
        self.check_category_num(self.categories, "the data set")
        references = read_references(self.memory_pkl)
        references = validate_references(references, coco, self.json_file, self.categories, self.shots)
        self.set_dataset(coco, cfg.root, references, context_ratio)

    def set_dataset(self, coco: COCO, root: str, references: ReferenceSet, context_ratio: float) -> None:
        """Set the items, which are checked references (classes may be missing), and what their vectors depend on."""
        check_images_exist(root, coco, [shot["img_id"] for shots in references.values() for shot in shots])
        size = self.model_cfg.encoder_cfg.input_size
        shots = {category.id: references.get(category.id, []) for category in self.categories}
        cfg, encoder = self.dataset_cfgs.fill_memory, self.model_cfg.encoder_cfg
        self.made_with = {**self.encoder_settings(), "context_ratio": context_ratio}
        crop = None
        if encoder.keep_aspect or cfg.reference_view != "crop":
            whole, patch = cfg.reference_view == "image", encoder.patch if encoder.keep_aspect else None
            crop = partial(crop_freely, size=size, context_ratio=None if whole else context_ratio, patch=patch)
        numbers = size, context_ratio, self.rescales, cfg.blur_ksize, crop
        self.dataset = ReferenceDataset(coco, root, self.categories, shots, *numbers)
        if cfg.blur_ksize:
            self.made_with["blur_ksize"] = cfg.blur_ksize
        if cfg.reference_view != "crop":
            self.made_with["reference_view"] = cfg.reference_view
        self.made_with |= changed(self.model_cfg.sam2_infer_cfgs, "pooling")

    def build(self) -> Segmenter:
        return Segmenter(self.build_encoder(), settings=self.model_cfg.sam2_infer_cfgs)

    def depends_on(self) -> dict[str, Any]:
        return {
            "references": [sha256_if_readable(self.memory_pkl), self.shots],
            "annotations": sha256_if_readable(self.json_file),
            "categories": [category.id for category in self.categories],
            "size_mismatch": self.run.size_mismatch,
            "encoder weights": sha256_if_readable(self.model_cfg.encoder_checkpoint),
            **hashes(self.model_cfg.encoder_cfg.name),
            **self.made_with,
        }

    def about(self) -> dict[str, Any]:
        annotations: dict[int, list[int]] = {category.id: [] for category in self.categories}
        for class_index, shot in self.dataset.shots:
            annotations[self.categories[class_index].id].append(shot["ann_ids"][0])
        return {"references": {"path": str(self.memory_pkl), "annotations": annotations}}

    def steps(self, items: Iterable[ReferenceCrop | BadImage], segmenter: Segmenter | None) -> Iterator[dict[str, Any]]:
        assert segmenter is not None
        crops = [loaded(item) for item in items]
        described = segmenter.describe_references([(item.crop, item.mask) for item in crops])
        for item, (vector, weight) in zip(crops, described, strict=True):
            yield {"shot": item.index, "vector": vector.tolist(), "weight": weight.item(), "rescaled": item.rescaled}

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        bank, notes = self.fill(records)
        save_memory(bank, self.output)
        counts = f"{plural(len(self.categories), 'class')}, {plural(len(bank), 'reference')}"
        return "\n".join([f"memory of {counts}: {self.output}", *notes])

    def fill(self, records: Iterable[dict[str, Any]]) -> tuple[MemoryBank, list[str]]:
        """The memory of the shots in some records, and lines for the user."""
        vectors, weights, classes, sources = [], [], [], []
        rescaled = set()
        for record in records:
            class_index, source = self.dataset.shots[record["shot"]]
            vectors.append(torch.tensor(record["vector"]))
            weights.append(record["weight"])
            classes.append(class_index)
            sources.append(dict(source))
            if record["rescaled"]:
                rescaled.add(source["img_id"])
        bank = MemoryBank(
            self.categories,
            torch.stack(vectors),
            torch.tensor(classes),
            torch.tensor(weights),
            made_with=self.made_with,
            sources=sources,
        )
        return bank, self.say_rescaled(len(rescaled))


class PostprocessMemoryStage(Stage):
    """Stage 2: the vectors of a class become its prototype."""

    unit = "memories"

    def read_inputs(self) -> None:
        path = required(self.run.ckpt_path, "--ckpt_path", "the memory that fill_memory wrote")
        self.output = required(self.run.out_path, "--out_path", "where to write the memory")
        self.prototype = self.model_cfg.sam2_infer_cfgs.prototype
        self.bank = load_memory(path)
        check_fits(self.bank, path, self.encoder_settings(), [])
        self.check_category_num(self.bank.categories, f"memory {path}")
        self.dataset = [path]

    def depends_on(self) -> dict[str, Any]:
        return {"memory": sha256_if_readable(self.dataset[0]), "prototype": self.prototype}

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        self.bank.postprocess()
        if self.prototype == AREA_WEIGHTED:
            self.bank.prototypes = area_weighted_prototypes(self.bank)
        save_memory(self.bank, self.output)
        return f"prototypes of {plural(len(self.bank.categories), 'class')}: {self.output}"


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


class VisMemoryStage(FillMemoryStage):
    """Draw one sheet per class, with k-means regions and principal components of its references.

    The references are encoded again, because a memory keeps no patch tokens.
    """

    unit, kind = "classes", None

    def read_inputs(self) -> None:
        cfg = self.dataset_cfgs.fill_memory
        self.output = Path(self.run.out_path or Path(self.run.save_dir) / "memory_pictures")
        self.memory = required(self.run.ckpt_path, "--ckpt_path", "the memory to draw")
        json_file = required(cfg.json_file, "dataset_cfgs.fill_memory.json_file", "the references' annotations")
        self.bank = load_memory(self.memory)
        self.categories = self.bank.categories
        self.others = {self.picture_file(category): PICTURE for category in self.categories}
        check_fits(self.bank, self.memory, self.encoder_settings(), [])
        coco = read_coco(json_file)
        references: dict[int, Any] = {
            category.id: list(filter(None, (self.bank.sources[shot] for shot in self.bank.references_of(index))))
            for index, category in enumerate(self.categories)
        }
        references = validate_references(references, coco, json_file, self.categories, shots=None)
        self.set_dataset(coco, cfg.root, references, recorded(self.bank, self.memory, "context_ratio"))
        if self.dataset_cfgs.fill_memory.reference_view != "crop" or self.model_cfg.encoder_cfg.keep_aspect:
            raise UserError("vis_memory draws square crops: leave out reference_view and keep_aspect")
        self.dataset = ClassDataset(self.dataset)

    def depends_on(self) -> dict[str, Any]:
        settings = self.model_cfg.sam2_infer_cfgs
        return {
            "memory": sha256_if_readable(self.memory),
            "encoder": sha256_if_readable(self.model_cfg.encoder_checkpoint),
            "size_mismatch": self.run.size_mismatch,
            "kmeans_k": settings.kmeans_k,
            "n_pca_components": settings.n_pca_components,
        }

    def about(self) -> dict[str, Any]:
        return {}

    def steps(self, items: Iterable[Any], segmenter: Segmenter | None) -> Iterator[dict[str, Any]]:
        assert segmenter is not None
        for item in items:
            references = [loaded(reference) for reference in item]
            crops = [(reference.crop, reference.mask) for reference in references]
            category = self.categories[references[0].class_index]
            cfg = self.model_cfg.sam2_infer_cfgs
            picture = class_sheet(category.name, crops, segmenter.encoder, cfg.kmeans_k, cfg.n_pca_components)
            save_picture(picture, self.picture_file(category))
            yield {}

    def picture_file(self, category: Category) -> Path:
        """The file of a class's sheet."""
        return self.output / f"{category.id}.png"

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        return f"pictures of {plural(len(self.categories), 'class')}: {self.output}"


class ClassDataset(Dataset[list[Any]]):
    """The references of a data set, one item per class: the list of the class's crops."""

    def __init__(self, references: ReferenceDataset) -> None:
        self.references = references
        self.members: dict[int, list[int]] = {}
        for index, (class_index, _) in enumerate(references.shots):
            self.members.setdefault(class_index, []).append(index)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> list[ReferenceCrop | BadImage]:
        return [self.references[member] for member in self.members[index]]


def say_negatives(bank: MemoryBank) -> str:
    """The numbers of negative references and of their classes, for the user."""
    counts = bank.negative_counts
    classes = int((counts > 0).sum())
    return f"{plural(int(counts.sum()), 'negative reference')} of {plural(classes, 'class')}"
