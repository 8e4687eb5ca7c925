"""Why a run of the test stage missed objects: the networks run again on these images, and each step is traced.

A results file does not say what SAM 2 proposed and where it was lost. The run's configuration, checkpoints and memory
do: ``run.json`` names them, and they must be what they were.
"""

import warnings
from collections import defaultdict
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentError, ArgumentParser
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from no_time_to_train.config import OUR_NAMES, PRECISIONS, DatasetCfgs, ModelCfg, renamed
from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.datasets import BadImage, loaded
from no_time_to_train.data.rle import annotation_mask, encode_mask
from no_time_to_train.errors import UserError, UserNotice, plural
from no_time_to_train.evaluation.coco_ap import VocEval
from no_time_to_train.evaluation.protocols import renumber_annotations
from no_time_to_train.file_hashes import sha256_if_readable
from no_time_to_train.files import write_json
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.devices import to_device
from no_time_to_train.pipeline.find_instances_stage import FindInstancesStage, square
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.run_record import FILE_NAME, read_sections
from no_time_to_train.pipeline.stage import RunCfg
from no_time_to_train_extras.missed_objects.error_analysis import find_matches
from no_time_to_train_extras.missed_objects.explain import (
    Finding,
    MissedObjects,
    explain_objects,
    wider_settings,
    with_settings,
)
from no_time_to_train_extras.missed_objects.explain_page import write_explain_page
from no_time_to_train_extras.missed_objects.miss_costs import cost_table, miss_costs

#: The difference between two scores that another device or precision may make.
TOLERANCE = 0.01


def explain_run(
    results_file: Path,
    out: Path,
    coco: COCO,
    gt: Path,
    results: list[dict[str, Any]],
    categories: list[Category],
    protocol: str,
    iou_type: str,
    min_iou: float = 0.5,
    min_score: float = 0.0,
) -> str:
    """Say of each object that a run missed why, write ``explain.json`` and ``explain.html``, and return the table.

    Images are done one by one; the command resumes after an interruption, and uses the run's proposal cache.

    Args:
        results_file: The run's results, next to its ``run.json``; ``results`` is its content.
        coco: Ground truth, as ``evaluate`` leaves it.
        iou_type: "segm" where hits are decided by masks, "bbox" where by boxes.
        min_iou: The IoU with an object that a hit needs.
    """
    if protocol == "lvis":
        raise UserError("misses cannot be explained with LVIS, where not every class is verified in every image")
    rerun = Rerun(results_file.parent, gt, iou_type, min_iou, min_score)
    if unknown := [category.name for category in categories if category.id not in rerun.names]:
        raise UserError(
            f"the memory does not know {', '.join(unknown[:5])}: choose the run's classes with --split or --cat-names"
        )
    ids = {new: one["id"] for new, one in enumerate(coco.dataset["annotations"], start=1)} if 0 in coco.anns else {}
    coco = renumber_annotations(coco) if ids else coco
    shown = [record for record in results if record["score"] >= min_score]
    matches = find_matches(coco, shown, categories, iou_type, VocEval if protocol == "voc" else COCOeval, hit=min_iou)
    missed = defaultdict(list)
    for object_id in sorted(matches.objects.keys() - matches.hit_objects):
        missed[matches.objects[object_id]["image_id"]].append(matches.objects[object_id])
    scores = defaultdict(list)
    for record in results:
        scores[record["image_id"]].append(record["score"])
    journal = Journal(out / "explain.json")
    root, files = rerun.stage.dataset_cfgs.test.root, [coco.imgs[image_id]["file_name"] for image_id in missed]
    depends_on = {
        "pictures": {file: sha256_if_readable(Path(root, file)) for file in files},
        "run": rerun.stage.depends_on(),
        "results": sha256_if_readable(results_file),
        "classes": [category.id for category in categories],
        "explain": [protocol, iou_type, min_iou, min_score],
    }
    with journal.run(depends_on):
        for index, image_id in enumerate(tqdm(missed, desc="explain", unit=" image")):
            if journal.get(index) is None:
                journal.add(index, rerun.explain(image_id, missed[image_id], scores[image_id]))
        records = list(journal.records(len(missed)))
        if differing := sum(record["differs"] for record in records):
            warnings.warn(
                f"the scores of {plural(differing, 'image')} in {results_file} are not those that the run's networks "
                "and memory give now: the reasons are those of the latter",
                UserNotice,
                stacklevel=2,
            )
        misses = [miss for record in records for miss in record["misses"]]
        reasons = {miss["id"]: miss["reason"] for miss in misses}
        names = {category.id: category.name for category in categories}
        costs = {"iou": min_iou, "score": min_score, **miss_costs(matches, reasons, names, min_iou)}
        misses = [{**miss, "id": ids.get(miss["id"], miss["id"])} for miss in misses]
        annotations = {ids.get(object_id, object_id): one for object_id, one in matches.objects.items()}
        page = out / "explain.html"
        write_explain_page(page, costs, misses, annotations, coco, root, rerun.stage.rescales)
        write_json(out / "explain.json", {**costs, "objects_missed": misses})
    return f"{cost_table(costs)}each object: {out / 'explain.json'}, pictures: {page}\n"


class Rerun:
    """The networks, the memory and the stage of a finished run; the annotation file ``gt`` lists its images.

    ``iou_type``, ``min_iou`` and ``min_score`` say what a hit is, as in :func:`explain_run`.
    """

    def __init__(self, folder: Path, gt: Path, iou_type: str, min_iou: float, min_score: float) -> None:
        self.iou_type, self.min_iou, self.min_score = iou_type, min_iou, min_score
        model_cfg, dataset_cfgs, run = read_run(folder)
        dataset_cfgs.test.json_file = str(gt)
        infer = model_cfg.sam2_infer_cfgs
        self.stage = FindInstancesStage(model_cfg, dataset_cfgs, run)
        self.precision = run.precision
        self.segmenter = self.stage.build()
        to_device(None, self.segmenter)
        self.wider = {}
        for reason, settings in wider_settings(infer).items():
            cfg = replace(infer, pred_iou_thresh=settings.pred_iou_thresh, prompts=settings.prompts)
            stage = FindInstancesStage(replace(model_cfg, sam2_infer_cfgs=cfg), dataset_cfgs, run)
            self.wider[reason] = stage, with_settings(self.segmenter, settings)
        self.index = {entry["id"]: index for index, entry in enumerate(self.stage.dataset.entries)}
        self.names = {category.id: category.name for category in self.stage.categories}

    def explain(self, image_id: ImageId, annotations: list[dict[str, Any]], scores: list[float]) -> dict[str, Any]:
        """The record of one image: its missed objects, and whether its scores in the results file are others now."""
        index = self.index[image_id]
        item = self.stage.dataset[index]
        if isinstance(item, BadImage):
            skipped = [self.miss(one, Finding("skipped")) for one in annotations]
            return {"misses": skipped, "differs": False}
        size, masks = (item.height, item.width), None
        if self.iou_type == "segm":
            masks = np.stack([annotation_mask(one, *size) for one in annotations])
        classes = [list(self.names).index(one["category_id"]) for one in annotations]
        boxes = np.array([one.get("bbox", [0] * 4) for one in annotations], float)
        objects = MissedObjects(list(self.names.values()), classes, boxes, masks, *size)
        searches = (
            (reason, partial(self.propose, stage, segmenter, index))
            for reason, (stage, segmenter) in self.wider.items()
        )
        proposals = self.propose(self.stage, self.segmenter, index)
        needs = self.min_iou, self.min_score
        findings, traced = explain_objects(objects, self.segmenter, proposals, searches, *needs)
        now, then = traced.detections.scores.tolist(), sorted(scores, reverse=True)
        differs = len(now) != len(then) or bool(np.abs(np.subtract(now, then)).max(initial=0) > TOLERANCE)
        misses = [self.miss(one, found) for one, found in zip(annotations, findings, strict=True)]
        return {"misses": misses, "differs": differs}

    @torch.inference_mode()
    def propose(self, stage: FindInstancesStage, segmenter: Segmenter, index: int) -> DescribedProposals:
        """The proposals of an image by a stage and its segmenter, from the cache where it has them."""
        item = loaded(stage.dataset[index])
        device = segmenter.prototypes.device
        described = None
        if item.proposals is None:
            half = torch.bfloat16 if self.precision.startswith("bf16") else torch.float16
            with torch.autocast(device.type, half, enabled=not self.precision.startswith("32")):
                described = segmenter.describe(*square(item, segmenter))
        return stage.as_stored(item, described).to(device)

    def miss(self, annotation: dict[str, Any], found: Finding) -> dict[str, Any]:
        """A missed object as JSON values."""
        return {
            "id": annotation["id"],
            "image_id": annotation["image_id"],
            "file_name": self.stage.coco.imgs[annotation["image_id"]]["file_name"],
            "class": self.names[annotation["category_id"]],
            **asdict(found),
            "mask": None if found.mask is None else encode_mask(found.mask),
        }


def read_run(folder: Path) -> tuple[ModelCfg, DatasetCfgs, RunCfg]:
    """Read the configuration of a run of the test stage, which has finished, and check that its files have stayed."""
    path = folder / FILE_NAME
    section = read_sections(path)["test"]
    config = section["config"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model_cfg", type=ModelCfg)
    parser.add_argument("--dataset_cfgs", type=DatasetCfgs)
    try:
        init = config["model"]["init_args"]
        values = {key: init.get(key) or {} for key in ("model_cfg", "dataset_cfgs")}
        parsed = parser.instantiate_classes(parser.parse_object(renamed(values, OUR_NAMES)))
        precision = str(config["trainer"].get("precision") or "32-true")
        files = {str(known["path"]): known["sha256"] for known in section["files"].values()}
    except (ArgumentError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds a configuration that cannot be read: {' '.join(str(error).split())}") from error
    for file, known in files.items():
        if sha256_if_readable(file) != known:
            raise UserError(f"{file} is not the file any more with which {folder} was made: its results need that one")
    compiled = init.get("compile") or init.get("compile_decoder")
    run = RunCfg(
        ckpt_path=config.get("ckpt_path"),
        save_dir=str(folder),
        cache_dir=None if compiled else init.get("cache_dir"),  # whose entries are those of compiled networks
        precision=next((name for name, old in PRECISIONS.items() if precision in (name, *old)), precision),
        on_bad_image=config.get("on_bad_image") or "stop",
        size_mismatch=config.get("size_mismatch") or "stop",
    )
    return parsed.model_cfg, parsed.dataset_cfgs, run
