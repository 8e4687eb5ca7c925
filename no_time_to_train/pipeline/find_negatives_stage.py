"""Negative references from the references' own images: what stage 3 finds there and no annotation confirms."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from no_time_to_train.config import TargetDatasetCfg, VisualizationCfg
from no_time_to_train.data.coco import image_ids_of_other_type, index_coco
from no_time_to_train.data.memory_files import recorded
from no_time_to_train.data.reference_sets import ReferenceSet, write_references
from no_time_to_train.data.rle import decode_mask, mask_box
from no_time_to_train.errors import UserError, first_of, plural
from no_time_to_train.files import ANNOTATIONS, MADE_HERE, write_json
from no_time_to_train.method.fill_memory import crop_window
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.pipeline.find_instances_stage import FindInstancesStage, write_results
from no_time_to_train.pipeline.stage import required

#: The largest box IoU of a false positive with the annotations of its class (the published code's value).
FALSE_POSITIVE_IOU = 0.1


class FindNegativesStage(FindInstancesStage):
    """Stage 3 on the images of the references, whose false positives become a negative reference set.

    The detections of an image are compared with all annotations of their class there, not with the references only.
    """

    section, needs_negatives, kind = "support", False, ANNOTATIONS

    def read_inputs(self) -> None:
        support, filled = self.dataset_cfgs.support, self.dataset_cfgs.fill_memory
        written = "where to write the negative references"
        output = required(self.run.out_neg_json, "--out_neg_json", f"{written}' annotations")
        self.reference_file = required(self.run.out_neg_pkl, "--out_neg_pkl", f"{written} (.pkl or .json)")
        if output.resolve() == self.reference_file.resolve():
            raise UserError(f"--out_neg_json and --out_neg_pkl are both {output}: give two files")
        self.others[self.reference_file] = "a reference set"
        if self.run.out_support_res:
            self.others[Path(self.run.out_support_res)] = "COCO results"
        classes = support if support.class_split or support.cat_names else filled
        images = TargetDatasetCfg(
            root=support.root or filled.root,
            json_file=support.json_file or filled.json_file,
            class_split=classes.class_split,
            cat_names=classes.cat_names,
            image_size=support.image_size,
        )
        self.dataset_cfgs = replace(self.dataset_cfgs, test=images)
        self.model_cfg = replace(self.model_cfg, test=VisualizationCfg(), dataset_name=None, exp_folder=None)
        self.run = replace(self.run, export_result=str(output))
        super().read_inputs()

    def read_targets(self, bank: MemoryBank) -> COCO:
        self.context_ratio = recorded(bank, self.memory, "context_ratio")
        coco = super().read_targets(bank)
        return coco if self.dataset_cfgs.support.json_file else self.of_references(coco, bank)

    def of_references(self, coco: COCO, bank: MemoryBank) -> COCO:
        """The part of the references' annotation file that is about the images of the memory's references."""
        used = {source["img_id"] for shot, source in enumerate(bank.sources) if source and not bank.negative[shot]}
        if not used:
            raise UserError(
                f"memory {self.memory} does not record the images of its references: give "
                "dataset_cfgs.support.json_file"
            )
        other_type = image_ids_of_other_type(coco)
        used = {other_type.get(image_id, image_id) for image_id in used}
        for image_id in used - coco.imgs.keys():
            raise UserError(f"{self.json_file} has no image with id {image_id!r}, which memory {self.memory} records")
        images = [image for image in coco.dataset["images"] if image["id"] in used]
        annotations = [one for one in coco.dataset["annotations"] if one["image_id"] in used]
        return index_coco({**coco.dataset, "images": images, "annotations": annotations})

    def write(self, results: Iterator[dict[str, Any]]) -> str:
        found = list(results)
        if self.run.out_support_res:
            write_results(Path(self.run.out_support_res), found)
        chosen = self.choose(false_positives(found, self.coco))
        annotations: list[dict[str, Any]] = []
        references: ReferenceSet = {}
        for category_id, records in chosen.items():
            first = len(annotations) + 1
            annotations += [{**record, "id": first + index} for index, record in enumerate(records)]
            references[category_id] = [
                {"img_id": record["image_id"], "ann_ids": [first + index]} for index, record in enumerate(records)
            ]
        sizes = {
            one["image_id"]: dict(zip(("height", "width"), one["segmentation"]["size"], strict=True))
            for one in annotations
        }
        images = [{**image, **sizes[image_id]} for image_id, image in self.coco.imgs.items() if image_id in sizes]
        categories = [{"id": category.id, "name": category.name} for category in self.categories]
        write_references(references, self.reference_file)
        content = {**MADE_HERE, "images": images, "annotations": annotations, "categories": categories}
        write_json(self.output, content, indent=None)
        self.missing = self.few(chosen)
        counts = f"{plural(len(found), 'instance')}, {plural(len(annotations), 'false positive')}"
        return f"{counts}: {self.output}, {self.reference_file}"

    def choose(self, candidates: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
        """The false positives that become negative references, by category id, in descending order of score."""
        threshold, limit = (
            self.model_cfg.sam2_infer_cfgs.negative_score_thr,
            self.model_cfg.memory_bank_cfg.length_negative,
        )
        chosen: dict[int, list[dict[str, Any]]] = {category.id: [] for category in self.categories}
        for record in sorted(candidates, key=lambda record: -record["score"]):
            of_class = chosen[record["category_id"]]
            if record["score"] >= threshold and (limit is None or len(of_class) < limit) and self.is_usable(record):
                of_class.append({**record, "area": float(decode_mask(record["segmentation"]).sum()), "iscrowd": 0})
        return chosen

    def is_usable(self, record: dict[str, Any]) -> bool:
        """Whether the crop around a detection shows some of its mask; that of a box of one pixel is empty."""
        mask = decode_mask(record["segmentation"])
        x1, y1, x2, y2 = crop_window(record["bbox"], mask.shape[0], mask.shape[1], self.context_ratio)
        return bool(mask[y1:y2, x1:x2].any())

    def few(self, chosen: dict[int, list[dict[str, Any]]]) -> str:
        """A line for the user that names the classes with fewer negatives than wanted."""
        wanted = self.model_cfg.memory_bank_cfg.length_negative or 1
        few = [f"{one.name} ({len(chosen[one.id])})" for one in self.categories if len(chosen[one.id]) < wanted]
        return f"classes with fewer than {wanted} false positives: {first_of(few, 10)}" if few else ""

    def score(self) -> str:
        return self.missing


def false_positives(results: Iterable[dict[str, Any]], coco: COCO) -> list[dict[str, Any]]:
    """The results whose box has an IoU of at most 0.1 with each annotation of the same class in the same image.

    They keep their order within a class of an image. Crowds count as annotations; a missing box is that of the mask.
    """
    groups = defaultdict(list)
    for record in results:
        groups[record["image_id"], record["category_id"]].append(record)
    found = []
    for (image_id, category_id), records in groups.items():
        annotated = [one for one in coco.imgToAnns[image_id] if one["category_id"] == category_id]
        truth = [one.get("bbox") or mask_box(coco.annToRLE(one)) for one in annotated]
        for record in records:
            overlaps = coco_mask.iou([record["bbox"]], truth, [0] * len(truth))
            if np.max(overlaps, initial=0) <= FALSE_POSITIVE_IOU:
                found.append(record)
    return found
