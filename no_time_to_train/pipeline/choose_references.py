"""Choose the references with the best leave-one-out score in a pool: the run of ``sample-references --choose best``.

The networks see each image of the pool once. Their proposals are kept in a cache, with which a run that was killed, or
one for another number of shots, continues.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from torch import Tensor
from tqdm import tqdm

from no_time_to_train.analysis.best_references import (
    NO_INSTANCE,
    ClassRanking,
    PoolProposals,
    Shots,
    choose_shots,
    distinct_proposals,
    shown_instances,
)
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import index_coco
from no_time_to_train.data.datasets import BadImage, ReferenceDataset, check_images_exist
from no_time_to_train.data.reference_sets import ReferenceSet
from no_time_to_train.data.rle import Rle, annotation_mask, check_rle, encode_mask
from no_time_to_train.errors import UserError, plural
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.target_image import as_float
from no_time_to_train.pipeline.proposal_cache import CachedTargetDataset, EncodedMasks, ProposalCache
from no_time_to_train.pipeline.segment_images import hash_tensors

#: Random draws from the pool whose mean score is reported next to that of the choice.
DRAWS = 10


@dataclass(frozen=True)
class ClassReport:
    """What is expected of the references that were chosen for a class.

    Attributes:
        name: The class.
        pool: The number of instances that were chosen from.
        score: The score of those chosen, in [0, 1]; see ``ClassRanking.scores``.
        drawn: The mean score of as many that are drawn at random.
    """

    name: str
    pool: int
    score: float
    drawn: float


def choose_references(
    coco: COCO,
    image_dir: str | Path,
    categories: Sequence[Category],
    pool: ReferenceSet,
    shots: int,
    segmenter: ReferenceSegmenter,
    cache_dir: str | Path,
) -> tuple[ReferenceSet, list[ClassReport]]:
    """Choose the references of each class whose prototype ranks the proposals of the pool's images best.

    Args:
        coco: The annotation file of the pool.
        image_dir: Folder of its images.
        categories: The classes, in ascending order of their ids.
        pool: The instances to choose from, at least ``shots`` of each class (``validate_references``).
        shots: The number of references per class.
        segmenter: The networks. Its memory is not used.
        cache_dir: Folder of the proposal cache.

    Returns:
        The reference set, and a report per class.
    """
    used = {shot["img_id"] for entries in pool.values() for shot in entries}
    images = [entry for image_id, entry in coco.imgs.items() if image_id in used]
    number = {entry["id"]: index for index, entry in enumerate(images)}
    check_images_exist(image_dir, coco, number)
    proposals = pool_proposals(coco, images, image_dir, categories, segmenter, cache_dir)
    dataset = ReferenceDataset(
        coco, image_dir, list(categories), pool, segmenter.segmenter.encoder.size, segmenter.context_ratio
    )
    candidates = Shots(
        torch.stack([_describe(dataset, index, segmenter) for index in tqdm(range(len(dataset)), "references")]),
        torch.tensor([class_index for class_index, _ in dataset.shots]),
        torch.tensor([number[shot["img_id"]] for _, shot in dataset.shots]),
    )
    references: ReferenceSet = {}
    reports = []
    for index, category in enumerate(tqdm(categories, "choosing", unit=" class")):
        ranking = ClassRanking(proposals, candidates, index)
        chosen = choose_shots(ranking, shots)
        references[category.id] = [dataset.shots[row][1] for row in chosen.shots]
        generator = random.Random(0)
        drawn = [generator.sample(range(len(ranking)), shots) for _ in range(DRAWS)]
        mean = float(ranking.scores(drawn).mean())
        reports.append(ClassReport(category.name, len(ranking), chosen.score, mean))
    return references, reports


def pool_proposals(
    coco: COCO,
    images: list[dict[str, Any]],
    image_dir: str | Path,
    categories: Sequence[Category],
    segmenter: ReferenceSegmenter,
    cache_dir: str | Path,
) -> PoolProposals:
    """The distinct proposals of the pool's images and the annotated instances that they show.

    Args:
        images: The entries of the pool's images in the annotation file.
    """
    class_of = {category.id: index for index, category in enumerate(categories)}
    vectors, instances, classes = [], [], []
    for entry, proposals in zip(images, read_proposals(images, image_dir, segmenter, cache_dir), strict=True):
        annotations = [
            one for one in coco.imgToAnns[entry["id"]] if one["category_id"] in class_of and one.get("segmentation")
        ]
        rows, shown = _match(proposals, annotations)
        vectors.append(proposals.vectors[rows])
        instances.append(shown)
        labels = [class_of[one["category_id"]] for one in annotations if not one.get("iscrowd")]
        classes.append(torch.tensor(labels, dtype=torch.int64))
    return PoolProposals.join(vectors, instances, classes)


def read_proposals(
    images: list[dict[str, Any]], image_dir: str | Path, segmenter: ReferenceSegmenter, cache_dir: str | Path
) -> Iterator[DescribedProposals]:
    """The proposals of each image as the cache stores them; it is written where it lacks them.

    Args:
        images: The entries of the images in their annotation file.
        image_dir: Folder of the images.
        segmenter: The networks.
        cache_dir: Folder of the proposal cache.
    """
    networks, proposer = segmenter.segmenter, segmenter.segmenter.proposer
    assert proposer is not None
    cache = ProposalCache(cache_dir, proposals_depend_on(segmenter))
    cache.remove_leftovers()
    dataset = CachedTargetDataset(index_coco({"images": images}), image_dir, proposer.size, cache)
    cached = 0
    progress = tqdm(range(len(images)), "pool", unit=" image")
    for index in progress:
        start = time.perf_counter()
        target = dataset[index]
        if isinstance(target, BadImage):
            raise UserError(target.reason)
        if target.proposals is not None:
            cached += 1
            yield target.proposals
            continue
        assert target.image is not None
        found = networks.describe(as_float(target.image).to(segmenter.device), target.height, target.width)
        stored = cache.write(target.cache_key, found, target.height, target.width).proposals
        if index == cached:  # the first that the cache lacked
            seconds, left = time.perf_counter() - start, len(images) - index - 1
            progress.write(f"{seconds:.1f} s for an image: at most {_duration(seconds * left)} for the others")
        yield stored
    if cached:
        print(f"the proposals of {plural(cached, 'image')} were in {cache_dir}")


def proposals_depend_on(segmenter: ReferenceSegmenter) -> dict[str, Any]:
    """What the proposals of an image depend on besides its pixels, as JSON values."""
    networks = segmenter.segmenter
    return {
        "networks": {name: hash_tensors(network.state_dict()) for name, network in networks.named_children()},
        "points_per_side": networks.settings.points_per_side,
        "iou_thr": networks.settings.pred_iou_thresh,
        "precision": segmenter.precision,
    }


def _match(proposals: DescribedProposals, annotations: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """The rows of an image's distinct proposals, and the instance that each shows.

    Proposals that lie in a crowd are left out: they are neither right nor wrong.

    Args:
        proposals: The proposals of an image, from the cache.
        annotations: The annotations of the image; the instances are those that are no crowds.
    """
    rows = distinct_proposals(proposals.boxes, proposals.predicted_iou)
    masks = proposals.upsampled_masks
    assert isinstance(masks, EncodedMasks)
    found: list[Rle] = [{"size": [masks.height, masks.width], "counts": masks.counts[row]} for row in rows.tolist()]
    try:
        for mask in found:
            check_rle(mask)
    except ValueError as error:
        raise UserError(f"the cache holds a mask that no run wrote ({error}): delete its folder") from error
    crowd = np.array([bool(one.get("iscrowd")) for one in annotations], bool)
    truth = [encode_mask(annotation_mask(one, masks.height, masks.width)) for one in annotations]
    iou = torch.zeros(len(found), len(truth), dtype=torch.float64)
    if found and truth:
        iou = torch.from_numpy(np.asarray(coco_mask.iou(found, truth, crowd.tolist()), np.float64))
    shown = shown_instances(iou[:, ~crowd])
    kept = (shown != NO_INSTANCE) | (shown_instances(iou[:, crowd]) == NO_INSTANCE)
    return rows[kept], shown[kept]


def _describe(dataset: ReferenceDataset, index: int, segmenter: ReferenceSegmenter) -> Tensor:
    """The vector of a shot of the pool: float32 [D], on the CPU."""
    reference = dataset[index]
    if isinstance(reference, BadImage):
        raise UserError(reference.reason)
    crop, mask = reference.crop.to(segmenter.device), reference.mask.to(segmenter.device)
    return segmenter.segmenter.describe_reference(crop, mask)[0].cpu()


def _duration(seconds: float) -> str:
    """A time in words: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
