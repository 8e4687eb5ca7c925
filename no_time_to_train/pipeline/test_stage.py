"""Stage 3: find the instances of the memory's classes in the target images."""

import json
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.config import DatasetCfgs, ModelCfg
from no_time_to_train.data.coco import annotation_mask, class_splits, read_coco, read_json, select_categories
from no_time_to_train.data.datasets import BadImage, Target, TargetDataset, check_images_exist, read_listed_image
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation import check_truth, evaluate
from no_time_to_train.files import atomic_write, sha256
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.matching import DescribedProposals
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.networks.build import build_sam2
from no_time_to_train.pipeline.proposal_cache import ProposalCache, StoredProposals
from no_time_to_train.pipeline.stage import RunCfg, Stage, build_encoder, content, encoder_settings, required
from no_time_to_train.visual.drawing import draw_instances, save_picture, side_by_side

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
        self.json_file, self.memory = json_file, path
        self.drawings: deque[Future[None]] = deque()
        self.drawing = ThreadPoolExecutor(DRAWING_THREADS)
        self.bad = 0

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

    def work(self) -> dict[str, Any]:
        settings = asdict(self.model_cfg.sam2_infer_cfgs)
        for name in ("testing_point_bs", "kmeans_k", "n_pca_components"):  # change no result
            del settings[name]
        return {
            "targets": content(self.json_file),
            "root": self.root,
            "memory": content(self.memory),
            "sam2_infer_cfgs": settings,
            "networks": proposals_made_with(self.model_cfg, self.run.precision),
            "cached": self.run.cache_dir is not None,
        }

    def step(self, item: Target | BadImage, segmenter: Segmenter | None) -> dict[str, Any]:
        assert segmenter is not None
        if isinstance(item, BadImage):
            return self.skip(item)
        detections = segmenter.name_and_merge(self.proposals(item, segmenter))
        results = detections.to_coco(item.image_id, [category.id for category in self.categories])
        if self.model_cfg.test.online_vis:
            self.picture(item.image_id).unlink(missing_ok=True)  # an earlier run's
            if len(self.drawings) == DRAWINGS_WAITING:
                self.drawings.popleft().result()
            self.drawings.append(self.drawing.submit(self.draw, item.image_id, results))
        return {"image_id": item.image_id, "results": results}

    def skip(self, item: BadImage) -> dict[str, Any]:
        """The record of an image that cannot be read, or a UserError where it may not be skipped."""
        if self.run.on_bad_image == "stop":
            raise UserError(f"{item.reason} (--on_bad_image skip goes on without it)")
        self.bad += 1
        self.check_bad(self.bad, item.reason)
        return {"image_id": self.dataset.entries[item.index]["id"], "skipped": item.reason}

    def check_bad(self, count: int, reason: str) -> None:
        if self.run.max_bad is not None and count > self.run.max_bad:
            raise UserError(f"more than --max_bad {self.run.max_bad} images cannot be read; one of them: {reason}")

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

    def picture(self, image_id: int) -> Path:
        return self.output.parent / "pictures" / f"{image_id}.jpg"

    def draw(self, image_id: int, results: list[dict[str, Any]]) -> None:
        """Draw a target, ground truth left and predictions right, into the folder ``pictures`` beside the results."""
        vis, entry = self.model_cfg.test, self.coco.imgs[image_id]
        image = read_listed_image(vis.imgs_path or self.root, entry)
        names = {category.id: category.name for category in self.categories}

        def drawn(records: list[dict[str, Any]], labels: list[str]) -> NDArray[np.uint8]:
            masks = [annotation_mask(record, *image.shape[:2]) for record in records]
            classes = [list(names).index(record["category_id"]) for record in records]
            return draw_instances(image, np.array(masks).reshape(-1, *image.shape[:2]), np.array(classes, int), labels)

        truth = [
            annotation
            for annotation in self.coco.imgToAnns[image_id]
            if annotation["category_id"] in names and annotation.get("segmentation")
        ]
        left = drawn(truth, [names[annotation["category_id"]] for annotation in truth])
        found = [record for record in results if record["score"] >= vis.vis_thr]
        right = drawn(found, [f"{names[record['category_id']]} {record['score']:.2f}" for record in found])
        save_picture(side_by_side(left, right, ("ground truth", "predictions")), self.picture(image_id))

    def end(self) -> None:
        self.drawing.shutdown()
        for drawing in self.drawings:
            drawing.result()

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        skipped, count = [], 0
        with atomic_write(self.output) as file:
            file.write(b"[")
            for record in records:
                if "skipped" in record:
                    if self.run.on_bad_image == "stop":
                        raise UserError(f"{record['skipped']} (--on_bad_image skip goes on without it)")
                    skipped.append(record)
                    self.check_bad(len(skipped), record["skipped"])
                    continue
                for result in record["results"]:
                    file.write((b",\n" if count else b"\n") + json.dumps(result).encode())
                    count += 1
                if self.model_cfg.test.online_vis and not self.picture(record["image_id"]).exists():
                    self.draw(record["image_id"], record["results"])  # killed between its record and its picture
            file.write(b"\n]\n")
        report = [f"{len(self.dataset) - len(skipped)} images, {count} instances: {self.output}"]
        if self.run.on_bad_image == "skip":
            path = self.output.parent / "skipped.json"
            with atomic_write(path) as file:
                file.write(json.dumps(skipped, indent=1).encode() + b"\n")
            report.append(f"{len(skipped)} images were skipped: {path}")
            report += [record["skipped"] for record in skipped]
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
