"""Stage 3: find the instances of the memory's classes in the target images (docs/method.md, 3), and score them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pycocotools.coco import COCO

from no_time_to_train.config import NETWORKS, PUBLISHED_NAMES, renamed
from no_time_to_train.data.class_splits import class_splits, select_categories
from no_time_to_train.data.coco import ImageId, read_coco
from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.data.datasets import BadImage, Target, TargetDataset, check_images_exist
from no_time_to_train.data.memory_files import check_fits, load_memory
from no_time_to_train.data.names import clean_name
from no_time_to_train.data.proposal_files import ProposalFile, hash_sources, read_files, source_names
from no_time_to_train.errors import UserError, plural
from no_time_to_train.evaluation import check_truth, evaluate
from no_time_to_train.file_hashes import sha256_if_readable
from no_time_to_train.files import (
    PICTURE,
    REPORT,
    atomic_write,
    kind_of,
    read_json,
    remove_leftovers,
    remove_leftovers_in,
    write_json,
)
from no_time_to_train.method.beyond.free_encoder import encoder_view
from no_time_to_train.method.beyond.given import Square
from no_time_to_train.method.beyond.negatives import Negatives
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import as_recorded
from no_time_to_train.networks.build import build_proposer
from no_time_to_train.networks.registry import sam2_input_size
from no_time_to_train.pipeline.proposal_cache import CachedTargetDataset, ProposalCache, proposals_depend_on
from no_time_to_train.pipeline.stage import Stage, Work, required
from no_time_to_train.pipeline.target_pictures import TargetPictures
from no_time_to_train.plugins import hashes
from no_time_to_train.visual.drawing import check_pictures

#: Figures that go to Lightning's loggers; ``metrics.json`` has all of them.
LOGGED = ("AP", "AP50", "mIoU", "AP_as_published", "nAP50_as_published", "mIoU_as_published")


@dataclass
class BadImages:
    """What to do with images that cannot be read, and which ones there were.

    Attributes:
        policy: ``stop`` ends the run at the first one, ``skip`` continues without it.
        limit: How many may be skipped; None means any number.
    """

    policy: Literal["stop", "skip"]
    limit: int | None
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, image_id: ImageId, reason: str) -> dict[str, Any]:
        """Add an image with one line that says what is wrong, and return its record."""
        if self.policy == "stop":
            raise UserError(f"{reason} (--on_bad_image skip continues without it)")
        self.skipped.append({"image_id": image_id, "skipped": reason})
        if self.limit is not None and len(self.skipped) > self.limit:
            raise UserError(f"more than --max_bad {self.limit} images cannot be read; one of them: {reason}")
        return self.skipped[-1]

    def write(self, path: Path) -> list[str]:
        """Write the list of skipped images, if skipping is allowed, and return lines for the user."""
        if self.policy == "stop":
            return []
        write_json(path, self.skipped)
        return [
            f"{plural(len(self.skipped), 'image')} skipped: {path}",
            *(record["skipped"] for record in self.skipped),
        ]


class FindInstancesStage(Stage):
    """Stage 3: find the instances of the memory's classes in the target images, write COCO results and score them."""

    unit, kind = "images", "COCO results"
    networks = NETWORKS["test"]
    section = "test"  # of dataset_cfgs, for messages
    needs_negatives = True  # where the configuration says that they are used

    def read_inputs(self) -> None:
        cfg, run, name = self.dataset_cfgs.test, self.run, self.model_cfg.dataset_name
        self.output = Path(run.export_result or Path(run.save_dir) / "results.json")
        folder = self.output.parent
        self.metrics_file, self.skipped_file = folder / "metrics.json", folder / "skipped.json"
        self.memory = required(run.ckpt_path, "--ckpt_path", "the memory that postprocess_memory wrote")
        self.json_file = required(cfg.json_file, f"dataset_cfgs.{self.section}.json_file", "the list of target images")
        if name in class_splits() and cfg.class_split not in (None, name):
            raise UserError(f"model_cfg.dataset_name is {name}, but dataset_cfgs.test.class_split is {cfg.class_split}")
        bank = load_memory(self.memory)
        if bank.prototypes is None:
            raise UserError(f"memory {self.memory} is not post-processed: run test_mode postprocess_memory on it first")
        self.prototypes = bank.prototypes
        self.categories = bank.categories
        self.negatives = self.choose_negatives(bank)
        self.coco = self.read_targets(bank)
        has_classes = cfg.class_split or cfg.cat_names or self.coco.dataset.get("categories")
        chosen = select_categories(self.coco, self.json_file, cfg.class_split, cfg.cat_names) if has_classes else []
        check_fits(bank, self.memory, self.encoder_settings(), chosen)
        self.check_category_num(self.categories, f"memory {self.memory}")
        check_truth(self.coco, self.categories, cfg.protocol)
        if not self.coco.imgs:
            raise UserError(f"{self.json_file} lists no images")
        if run.on_bad_image == "stop":
            check_images_exist(cfg.root, self.coco, list(self.coco.imgs))
        self.bad_images = BadImages(run.on_bad_image, run.max_bad)
        size = sam2_input_size(self.model_cfg.sam2_cfg_file)
        if cfg.image_size not in (None, size):
            raise UserError(
                f"dataset_cfgs.{self.section}.image_size is {cfg.image_size}, the input size of "
                f"{self.model_cfg.sam2_cfg_file} is {size}: leave image_size out"
            )
        infer, encoder = self.model_cfg.sam2_infer_cfgs, self.model_cfg.encoder_cfg
        self.sources = read_files(self.model_cfg.proposals, self.model_cfg.proposals_per_image)
        if infer.tiles > 1 and (self.sources != [None] or encoder.keep_aspect):
            raise UserError("tiles need proposals grid and keep_aspect false: files and views show the whole image")
        view = partial(encoder_view, long_side=encoder.input_size, patch=encoder.patch) if encoder.keep_aspect else None
        loading = (self.rescales, infer.tiles, infer.tile_overlap, self.sources, view)
        self.dataset = TargetDataset(self.coco, cfg.root, size, *loading)
        self.cache = ProposalCache(run.cache_dir, self.proposals_depend_on()) if run.cache_dir else None
        if self.cache is not None:
            self.dataset = CachedTargetDataset(self.cache, self.coco, cfg.root, size, *loading)
        vis = self.model_cfg.test
        root = vis.imgs_path or cfg.root
        exp_folder, pictures = self.model_cfg.exp_folder, folder / "pictures"
        if exp_folder is not None:
            data_set = name or cfg.class_split or Path(self.json_file).stem
            pictures = Path(exp_folder) / "results_analysis" / clean_name(data_set)
        by_file_name = exp_folder is not None
        self.pictures = TargetPictures(
            pictures, self.coco, root, self.categories, vis.vis_thr, by_file_name, self.rescales
        )
        check_pictures(pictures / file for file in self.pictures.files.values() if vis.online_vis)
        if self.section == "test" and self.coco.anns:
            self.others[self.metrics_file] = REPORT
        if run.on_bad_image == "skip":
            self.others[self.skipped_file] = "COCO results"

    def inputs(self) -> list[str]:
        return [*super().inputs(), *(str(one.path) for one in self.sources if isinstance(one, ProposalFile))]

    def read_targets(self, bank: MemoryBank) -> COCO:
        """Read the list of target images."""
        return read_coco(self.json_file)

    def choose_negatives(self, bank: MemoryBank) -> Negatives | None:
        """The negative references that lower scores, as ``with_negative_refs`` says."""
        wanted = self.model_cfg.sam2_infer_cfgs.with_negative_refs
        if wanted and bank.negatives is None and self.needs_negatives:
            raise UserError(
                f"sam2_infer_cfgs.with_negative_refs is true, but memory {self.memory} has no negative references: "
                "add some with test_mode fill_memory_neg"
            )
        return None if wanted is False else bank.negatives

    def build(self) -> Segmenter:
        cfg = self.model_cfg
        settings = cfg.sam2_infer_cfgs
        proposer = build_proposer(cfg.sam2_cfg_file, cfg.sam2_checkpoint, settings)
        return Segmenter(self.build_encoder(), proposer, self.prototypes, settings, self.negatives)

    def depends_on(self) -> dict[str, Any]:
        settings = renamed(as_recorded(self.model_cfg.sam2_infer_cfgs), PUBLISHED_NAMES)
        for name in ("kmeans_k", "n_pca_components", "negative_score_thr"):  # change no result
            del settings[name]
        settings["with_negative_refs"] = self.negatives is not None
        return {
            **hash_sources(self.sources),
            "targets": sha256_if_readable(self.json_file),
            "root": self.dataset_cfgs.test.root,
            "size_mismatch": self.run.size_mismatch,
            "memory": sha256_if_readable(self.memory),
            "sam2_infer_cfgs": settings,
            "networks": self.proposals_depend_on(),
            "cached": self.cache is not None,
            **hashes(*settings.values()),
        }

    def proposals_depend_on(self) -> dict[str, Any]:
        """What the proposals of an image depend on besides its pixels."""
        cfg, encoder = self.model_cfg, self.model_cfg.encoder_cfg
        networks = {
            "sam2": [cfg.sam2_cfg_file.removesuffix(".yaml"), sha256_if_readable(cfg.sam2_checkpoint)],
            "encoder": [encoder.name, encoder.input_size, sha256_if_readable(cfg.encoder_checkpoint)],
            **({"compile": True} if self.run.compile else {}),  # only then, so that older caches stay valid
            **({"compile_decoder": True} if self.run.compile_decoder else {}),
            **encoder.unusual,
            **hashes(cfg.sam2_cfg_file, encoder.name),
        }
        return proposals_depend_on(networks, cfg.sam2_infer_cfgs, self.run.precision, self.prototypes)

    def remove_leftovers(self) -> None:
        for path in (self.output, *self.others, self.metrics_file, self.skipped_file):
            remove_leftovers(path)
        remove_leftovers_in(self.pictures.folder)
        if self.cache is not None:
            self.cache.remove_leftovers()

    def steps(self, items: Iterable[Target | BadImage], segmenter: Segmenter | None) -> Iterator[Work]:
        assert segmenter is not None
        items = list(items)
        described = segmenter.describe_each(
            square(item, segmenter) for item in items if isinstance(item, Target) and item.proposals is None
        )
        for item in items:
            if isinstance(item, BadImage):
                yield self.bad_images.skip(self.dataset.entries[item.index]["id"], item.reason)
            else:
                yield partial(self.follow, item, next(described) if item.proposals is None else None, segmenter)

    @torch.inference_mode()
    def follow(self, item: Target, described: DescribedProposals | None, segmenter: Segmenter) -> dict[str, Any]:
        """The record of an image, without the networks.

        Args:
            described: What the networks say about the image; None where the cache has it.
        """
        proposals = self.as_stored(item, described)
        detections = segmenter.match_and_merge(proposals)
        ids, names = [category.id for category in self.categories], source_names(self.sources)
        results = to_coco_records(detections, item.image_id, ids, names)
        if self.model_cfg.test.online_vis:
            self.pictures.draw(item.image_id, results)
        return {"image_id": item.image_id, "results": results, "rescaled": item.rescaled, "prompts": proposals.prompts}

    def as_stored(self, item: Target, described: DescribedProposals | None) -> DescribedProposals:
        """The proposals of an image, as the cache stores them where there is one; it is written where it lacks them."""
        if described is None:
            assert item.proposals is not None
            return item.proposals
        if self.cache is None:
            return described
        return self.cache.write(item.cache_key, described, item.height, item.width).proposals

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        bad_images = BadImages(self.run.on_bad_image, self.run.max_bad)  # of all processes and attempts
        rescaled, prompts = 0, 0
        by_source = dict.fromkeys(source_names(self.sources), 0)

        def results() -> Iterator[dict[str, Any]]:
            nonlocal rescaled, prompts
            for record in records:
                if "skipped" in record:
                    bad_images.skip(record["image_id"], record["skipped"])
                    continue
                if self.model_cfg.test.online_vis:
                    self.pictures.draw(record["image_id"], record["results"], replace=False)
                rescaled += record["rescaled"]
                prompts += record["prompts"]
                for result in record["results"]:
                    by_source[result.get("source", next(iter(by_source)))] += 1
                yield from record["results"]

        summary = self.write(results())
        if self.model_cfg.test.online_vis and self.model_cfg.exp_folder is None:
            pictures = self.pictures.folder
            for earlier in {*pictures.glob("*.*")}.difference(map(pictures.joinpath, self.pictures.files.values())):
                if earlier.is_file() and kind_of(earlier) == PICTURE:
                    earlier.unlink()  # of an image that is no target any more
        images = len(self.dataset) - len(bad_images.skipped)
        self.record = {"prompts_per_image": round(prompts / max(images, 1), 1)}
        if self.sources != [None]:
            self.record["instances_by_source"] = by_source
        return "\n".join(
            [
                f"{plural(images, 'image')}, {summary}",
                *bad_images.write(self.skipped_file),
                *self.say_rescaled(rescaled),
                *self.say_left_out(),
                self.score(),
            ]
        )

    def say_left_out(self) -> list[str]:
        """What the files of proposals hold that was of no use, and which images they lack, for the user."""
        images = [
            (entry["id"], Path(entry["file_name"]).as_posix(), entry["height"], entry["width"])
            for entry in self.dataset.entries
            if {"height", "width"} <= entry.keys()
        ]
        return [line for source in self.sources if source for line in source.survey(images)]

    def write(self, results: Iterator[dict[str, Any]]) -> str:
        """Write the results, and return a summary for the user."""
        lines = [f"{plural(write_results(self.output, results), 'instance')}: {self.output}"]
        explained = [(self.metrics_file.with_name(f"explain.{ending}"), REPORT) for ending in ("json", "html")]
        for earlier, kind in ((self.metrics_file, REPORT), (self.skipped_file, self.kind), *explained):
            if earlier not in self.others and earlier.is_file() and kind_of(earlier) in (kind, "empty"):
                earlier.unlink()
                lines.append(f"{earlier} was of earlier results, and is removed")
        return "\n".join(lines)

    def score(self) -> str:
        """Evaluate the results, write ``metrics.json`` next to them, and return the tables."""
        if not self.coco.anns:
            return "the target file has no annotations: there is nothing to evaluate"
        cfg = self.dataset_cfgs.test
        results = read_json(self.output)
        metrics, tables = evaluate(self.coco, results, self.categories, cfg.protocol, cfg.semantic_threshold)
        self.metrics = {
            f"{kind}/{name}": metrics[kind][name] or 0.0 for kind in metrics for name in LOGGED if name in metrics[kind]
        }
        write_json(self.metrics_file, {"dataset_name": self.model_cfg.dataset_name, **self.run.labels, **metrics})
        return f"{tables}metrics: {self.metrics_file}"


def square(item: Target, segmenter: Segmenter) -> Square:
    """What the networks look at of a target image that was loaded."""
    assert item.image is not None
    device = segmenter.prototypes.device
    view = None if item.view is None else item.view.to(device)
    return Square(item.image.to(device), item.height, item.width, item.sources, view)


def write_results(path: Path, results: Iterable[dict[str, Any]]) -> int:
    """Write COCO result records as a JSON list, one per line, not all in memory at once. Returns their number."""
    count = 0
    with atomic_write(path) as file:
        file.write(b"[")
        for count, result in enumerate(results, start=1):
            file.write((b"\n" if count == 1 else b",\n") + json.dumps(result).encode())
        file.write(b"\n]\n")
    return count
