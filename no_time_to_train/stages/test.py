"""Stage 3: find the instances of the memory's classes in the target images."""

import heapq
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from no_time_to_train.coco import annotation_mask, class_splits, read_coco, read_json, select_categories
from no_time_to_train.config import DatasetCfgs, ModelCfg
from no_time_to_train.datasets import BadImage, Target, TargetDataset, check_images_exist, read_listed_image
from no_time_to_train.detections import Detections
from no_time_to_train.drawing import draw_instances, save_picture, side_by_side
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation import check_truth, evaluate
from no_time_to_train.files import atomic_write, sha256
from no_time_to_train.mask_proposals import MaskProposer
from no_time_to_train.matching import DescribedProposals
from no_time_to_train.memory_bank import MemoryBank
from no_time_to_train.models import build_sam2
from no_time_to_train.proposal_cache import ProposalCache, StoredProposals
from no_time_to_train.segmenter import Segmenter
from no_time_to_train.stages.base import RunCfg, Stage, build_encoder, encoder_settings, required

#: Threads that draw pictures beside the networks' work, and pictures that may wait for them.
DRAWING_THREADS = 2
DRAWINGS_WAITING = 8


class TestStage(Stage):
    """Stage 3: find the instances of the memory's classes in the target images."""

    unit = "images"

    def __init__(self, model_cfg: ModelCfg, dataset_cfgs: DatasetCfgs, run: RunCfg) -> None:
        super().__init__()
        cfg = dataset_cfgs.test
        self.model_cfg, self.cfg, self.run, self.root = model_cfg, cfg, run, cfg.root
        self.output = Path(run.export_result or Path(run.save_dir) / "results.json")
        path = required(run.ckpt_path, "--ckpt_path", "the memory that postprocess_memory wrote")
        json_file = required(cfg.json_file, "dataset_cfgs.test.json_file", "the list of target images")
        if model_cfg.dataset_name in class_splits() and cfg.class_split not in (None, model_cfg.dataset_name):
            raise UserError(
                f"model_cfg.dataset_name is {model_cfg.dataset_name}, dataset_cfgs.test.class_split {cfg.class_split}"
            )
        self.bank = MemoryBank.load(path)
        if self.bank.prototypes is None:
            raise UserError(f"memory {path} is not post-processed: run test_mode postprocess_memory on it first")
        self.coco = read_coco(json_file)
        has_classes = cfg.class_split or cfg.cat_names or self.coco.dataset.get("categories")
        categories = select_categories(self.coco, json_file, cfg.class_split, cfg.cat_names) if has_classes else []
        self.bank.check_fits(path, encoder_settings(model_cfg), categories)
        self.categories = self.bank.categories
        check_truth(self.coco, self.categories, cfg.name)
        if not self.coco.imgs:
            raise UserError(f"{json_file} lists no images")
        if run.on_bad_image == "stop":
            check_images_exist(cfg.root, self.coco, list(self.coco.imgs))
        self.dataset = TargetDataset(self.coco, cfg.root, cfg.image_size)
        self.drawings: deque[Future[None]] = deque()

    def build(self) -> Segmenter:
        cfg = self.model_cfg
        proposer = MaskProposer(
            build_sam2(cfg.sam2_cfg_file, cfg.sam2_ckpt_path),
            cfg.sam2_infer_cfgs.points_per_side,
            cfg.sam2_infer_cfgs.testing_point_bs,
            cfg.sam2_infer_cfgs.iou_thr,
        )
        if proposer.size != self.dataset.size:
            raise UserError(
                f"dataset_cfgs.test.image_size is {self.dataset.size}, {cfg.sam2_cfg_file} works at {proposer.size}"
            )
        encoder = build_encoder(cfg)
        if self.run.cache_dir is not None:
            self.dataset.cache = ProposalCache(self.run.cache_dir, proposals_made_with(cfg, self.run.precision))
        return Segmenter(encoder, proposer, self.bank.prototypes, cfg.sam2_infer_cfgs)

    def begin(self, part: Path) -> None:
        self.lines = part.open("w")
        self.drawing = ThreadPoolExecutor(DRAWING_THREADS)

    def step(self, item: Target | BadImage, segmenter: Segmenter | None) -> None:
        assert segmenter is not None
        if isinstance(item, BadImage):
            if self.run.on_bad_image == "stop":
                raise UserError(f"{item.reason} (--on_bad_image skip goes on without it)")
            self.write({"index": item.index, "skipped": item.reason})
            return
        detections = segmenter.name_and_merge(self.proposals(item, segmenter))
        records = detections.to_coco(item.image_id, [category.id for category in self.categories])
        self.write({"index": item.index, "results": records})
        if self.model_cfg.test.online_vis:
            if len(self.drawings) == DRAWINGS_WAITING:
                self.drawings.popleft().result()
            self.drawings.append(self.drawing.submit(self.draw, item.image_id, detections.cpu()))

    def proposals(self, item: Target, segmenter: Segmenter) -> DescribedProposals:
        """An image's proposals, from the networks or from the cache; with a cache, always as it stores them."""
        cache, stored = self.dataset.cache, item.stored
        if stored is None:
            assert item.image is not None
            proposals = segmenter.propose(item.image, item.height, item.width)
            if cache is None:
                return proposals
            stored = StoredProposals.of(proposals, item.height, item.width)
            cache.write(item.key, stored)
        return stored.described(segmenter.prototypes.device)

    def write(self, line: dict[str, Any]) -> None:
        self.lines.write(json.dumps(line) + "\n")

    def draw(self, image_id: int, detections: Detections) -> None:
        """Draw a target, ground truth left and predictions right, into the folder ``pictures`` beside the results."""
        vis, entry = self.model_cfg.test, self.coco.imgs[image_id]
        image = read_listed_image(vis.imgs_path or self.root, entry)
        names = {category.id: category.name for category in self.categories}
        indices = {category.id: index for index, category in enumerate(self.categories)}
        truth = [
            annotation
            for annotation in self.coco.imgToAnns[image_id]
            if annotation["category_id"] in names and annotation.get("segmentation")
        ]
        left = draw_instances(
            image,
            np.array([annotation_mask(a, *image.shape[:2]) for a in truth]).reshape(-1, *image.shape[:2]),
            np.array([indices[a["category_id"]] for a in truth], int),
            [names[a["category_id"]] for a in truth],
        )
        shown = detections[detections.scores >= vis.vis_thr]
        right = draw_instances(
            image,
            shown.masks.numpy(),
            shown.classes.numpy(),
            [f"{self.categories[c].name} {s:.2f}" for c, s in zip(shown.classes, shown.scores.tolist(), strict=True)],
        )
        folder = self.output.parent / "pictures"
        save_picture(side_by_side(left, right, ("ground truth", "predictions")), folder / f"{image_id}.jpg")

    def end(self, part: Path) -> None:
        self.lines.close()
        self.drawing.shutdown()
        for drawing in self.drawings:
            drawing.result()

    def finish(self, parts: list[Path]) -> str:
        skipped, count = [], 0
        with atomic_write(self.output) as file:
            file.write(b"[")
            for line in merge_lines(parts):
                if "skipped" in line:
                    skipped.append(line["skipped"])
                for record in line.get("results", []):
                    file.write((b",\n" if count else b"\n") + json.dumps(record).encode())
                    count += 1
            file.write(b"\n]\n")
        report = [f"{len(self.dataset) - len(skipped)} images, {count} instances: {self.output}"]
        if skipped:
            report.append(f"{len(skipped)} images were skipped:")
            report += skipped
        return "\n".join([*report, self.evaluate()])

    def evaluate(self) -> str:
        """Score the results, write ``metrics.json`` beside them, and return the tables."""
        if not self.coco.anns:
            return "the target file has no annotations: there is nothing to evaluate"
        metrics, tables = evaluate(
            self.coco, read_json(self.output), self.categories, self.cfg.name, self.cfg.semantic_threshold
        )
        self.metrics = {
            f"{kind}/{name}": metrics[kind][name] or 0.0
            for kind in metrics
            for name in ("AP", "AP50", "mIoU")
            if name in metrics[kind]
        }
        path = self.output.parent / "metrics.json"
        content = {"dataset_name": self.model_cfg.dataset_name, **self.run.labels, **metrics}
        with atomic_write(path) as file:
            file.write(json.dumps(content, indent=1).encode() + b"\n")
        return f"{tables}metrics: {path}"


def proposals_made_with(cfg: ModelCfg, precision: str) -> dict[str, Any]:
    """What the proposals of an image depend on beside its pixels."""
    return {
        "sam2": [cfg.sam2_cfg_file.removesuffix(".yaml"), sha256(cfg.sam2_ckpt_path)],
        "encoder": [cfg.encoder_cfg.name, cfg.encoder_cfg.img_size, sha256(cfg.encoder_ckpt_path)],
        "points_per_side": cfg.sam2_infer_cfgs.points_per_side,
        "iou_thr": cfg.sam2_infer_cfgs.iou_thr,
        "precision": precision,
    }


def merge_lines(parts: list[Path]) -> Iterator[dict[str, Any]]:
    """The lines of all ranks' parts, by ascending index, read as they are needed."""

    def lines(part: Path) -> Iterator[dict[str, Any]]:
        with part.open() as file:
            yield from map(json.loads, file)

    return heapq.merge(*map(lines, parts), key=lambda line: line["index"])
