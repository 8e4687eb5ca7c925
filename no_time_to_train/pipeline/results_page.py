"""A gallery of the targets of a run of the three stages, with the ground truth."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO

from no_time_to_train.data.coco import ImageId, read_coco
from no_time_to_train.data.coco_results import from_coco_records
from no_time_to_train.data.datasets import ReferenceCrop, ReferenceDataset, read_listed_image
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.data.reference_image import encode_picture
from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.files import read_json
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.pipeline.target_pictures import picture_files
from no_time_to_train.visual.drawing import save_picture
from no_time_to_train.visual.gallery import Gallery

#: Side in pixels of the references' pictures, which the stages do not keep.
REFERENCE_SIDE = 320

#: The score that the page begins with.
SCORE = 0.5


def write_results_page(
    out: Path, title: str, references: Path, targets: Path, reference_dir: Path, image_dir: Path
) -> None:
    """Write ``index.html`` for a finished run: the targets, what was found, the ground truth and the AP.

    Args:
        out: The run's folder, with ``memory_postprocessed.ckpt``, ``results.json`` and perhaps ``metrics.json``.
    """
    bank = load_memory(out / "memory_postprocessed.ckpt")
    add_pictures(bank, read_coco(references), reference_dir)
    coco = read_coco(targets)
    results: dict[ImageId, list[dict[str, Any]]] = defaultdict(list)
    for record in read_json(out / "results.json"):
        results[record["image_id"]].append(record)
    ids = [category.id for category in bank.categories]
    gallery, files = Gallery(out, bank), picture_files(coco)
    for image_id, entry in coco.imgs.items():
        image = read_listed_image(image_dir, entry)
        detections = from_coco_records(results[image_id], ids, *image.shape[:2])
        found = Instances(image, bank.categories, detections)
        overlay = f"overlays/{files[image_id]}"
        shown = Instances(image, bank.categories, detections[detections.scores >= SCORE])
        save_picture(np.asarray(shown.plot()), out / overlay)
        truth = ground_truth(image, coco.imgToAnns[image_id], bank.categories)
        gallery.add(entry["file_name"], overlay, found, truth)
    metrics = read_json(out / "metrics.json") if (out / "metrics.json").exists() else {}
    facts = {
        f"{name} {measure}": f"{100 * metrics[kind][measure]:.1f}"
        for kind, name in (("segm", "mask"), ("bbox", "box"))
        for measure in ("AP", "AP50")
        if metrics.get(kind, {}).get(measure) is not None
    }
    gallery.finish(title, score=SCORE, facts=facts)


def ground_truth(image: NDArray[np.uint8], annotations: list[dict[str, Any]], categories: list[Category]) -> Instances:
    """The annotated instances of an image, uint8 [H, W, 3] RGB, that have a mask of one of the classes; score 1."""
    ids = [category.id for category in categories]
    chosen = [one for one in annotations if one["category_id"] in ids and one.get("segmentation")]
    regions = Masks.from_crops(((annotation_mask(one, *image.shape[:2]), 0, 0) for one in chosen), *image.shape[:2])
    filled = torch.from_numpy(regions.areas > 0)
    classes = torch.tensor([ids.index(one["category_id"]) for one in chosen], dtype=torch.int64)
    regions, classes = regions[filled], classes[filled]
    scores = torch.ones(len(classes))
    return Instances(image, categories, Detections(regions, regions.boxes, scores, classes))


def add_pictures(bank: MemoryBank, references: COCO, reference_dir: Path) -> None:
    """Add the pictures of its references, which come from a reference set, to a memory that has none, in place."""
    shots: dict[int, Any] = {
        category.id: [bank.sources[shot] for shot in bank.references_of(index)]
        for index, category in enumerate(bank.categories)
    }
    context_ratio = bank.made_with["context_ratio"]
    crops = ReferenceDataset(references, reference_dir, bank.categories, shots, REFERENCE_SIDE, context_ratio)
    positive = [shot for index in range(len(bank.categories)) for shot in bank.references_of(index)]
    for index, shot in enumerate(positive):
        crop = crops[index]
        if isinstance(crop, ReferenceCrop):  # an image may have gone since
            bank.crops[shot] = encode_picture(crop.crop, crop.mask)
