"""Choose the references with the best leave-one-out score in a pool: the run of ``sample --choose best``.

The networks see each image of the pool once. Their proposals are kept in a cache, with which a run that was killed, or
one for another number of references, continues.
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

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import index_coco
from no_time_to_train.data.datasets import ReferenceDataset, check_images_exist, loaded
from no_time_to_train.data.reference_sets import ReferenceSet
from no_time_to_train.data.rle import annotation_mask, encode_crop, encode_mask
from no_time_to_train.errors import plural
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.target_image import as_float
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.pipeline.proposal_cache import (
    CachedTargetDataset,
    ProposalCache,
    hash_networks,
    proposals_depend_on,
)
from no_time_to_train_extras.choosing.best_references import (
    NO_INSTANCE,
    ClassRanking,
    PoolProposals,
    PoolReferences,
    choose_best,
    distinct_proposals,
    shown_instances,
)

#: Random draws from the pool whose mean score is reported next to that of the choice.
DRAWS = 10


@dataclass(frozen=True)
class ClassChoice:
    """What is expected of the references that were chosen for a class.

    Attributes:
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
    n_shot: int,
    segmenter: ReferenceSegmenter,
    cache_dir: str | Path,
) -> tuple[ReferenceSet, list[ClassChoice]]:
    """Choose the references of each class whose prototype ranks the proposals of the pool's images best.

    Args:
        categories: The classes, in ascending order of their ids.
        pool: The instances to choose from, at least ``n_shot`` of each class.
        segmenter: The networks. Its memory is not used.
    """
    used = {entry["img_id"] for entries in pool.values() for entry in entries}
    images = [entry for image_id, entry in coco.imgs.items() if image_id in used]
    number = {entry["id"]: index for index, entry in enumerate(images)}
    check_images_exist(image_dir, coco, number)
    proposals = pool_proposals(coco, images, image_dir, categories, segmenter, cache_dir)
    dataset = ReferenceDataset(
        coco, image_dir, list(categories), pool, segmenter.segmenter.encoder.size, segmenter.context_ratio
    )
    candidates = PoolReferences(
        torch.stack([_describe(dataset, index, segmenter) for index in tqdm(range(len(dataset)), "references")]),
        torch.tensor([class_index for class_index, _ in dataset.shots]),
        torch.tensor([number[entry["img_id"]] for _, entry in dataset.shots]),
    )
    references: ReferenceSet = {}
    reports = []
    for index, category in enumerate(tqdm(categories, "choosing", unit=" class")):
        ranking = ClassRanking(proposals, candidates, index)
        rows, score = choose_best(ranking, n_shot)
        references[category.id] = [dataset.shots[row][1] for row in rows]
        generator = random.Random(0)
        drawn = [generator.sample(range(len(ranking)), n_shot) for _ in range(DRAWS)]
        mean = float(ranking.scores(drawn).mean())
        reports.append(ClassChoice(category.name, len(ranking), score, mean))
    return references, reports


def pool_proposals(
    coco: COCO,
    images: list[dict[str, Any]],
    image_dir: str | Path,
    categories: Sequence[Category],
    segmenter: ReferenceSegmenter,
    cache_dir: str | Path,
) -> PoolProposals:
    """The distinct proposals of the pool's images, given by their entries, and the instances that they show."""
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
    """The proposals of each image, given by its entry, as the cache stores them; what it lacks is added to it."""
    networks, proposer = segmenter.segmenter, segmenter.segmenter.proposer
    assert proposer is not None
    settings, memory = networks.settings, segmenter.memory
    prototypes = None if memory is None else memory.prototypes
    depends_on = proposals_depend_on(hash_networks(networks), settings, segmenter.precision, prototypes)
    cache = ProposalCache(cache_dir, depends_on)
    cache.remove_leftovers()
    tiling = settings.tiles, settings.tile_overlap
    dataset = CachedTargetDataset(cache, index_coco({"images": images}), image_dir, proposer.size, False, *tiling)
    cached = 0
    progress = tqdm(range(len(images)), "pool", unit=" image")
    for index in progress:
        start = time.perf_counter()
        target = loaded(dataset[index])
        if target.proposals is not None:
            cached += 1
            yield target.proposals
            continue
        assert target.image is not None
        with computing_in(segmenter.precision, segmenter.device):
            found = networks.describe(as_float(target.image).to(segmenter.device), target.height, target.width)
        stored = cache.write(target.cache_key, found, target.height, target.width).proposals
        if index == cached:  # the first that the cache lacked
            seconds = time.perf_counter() - start
            others = tqdm.format_interval(seconds * (len(images) - index - 1))
            progress.write(f"{seconds:.1f} s for an image: at most {others} for the others")
        yield stored
    if cached:
        print(f"the proposals of {plural(cached, 'image')} were in {cache_dir}")


def _match(proposals: DescribedProposals, annotations: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """The rows of an image's distinct proposals, and the instance that each shows.

    Crowds are no instances, and proposals that lie in one are left out: they are neither right nor wrong.
    """
    rows = distinct_proposals(proposals.boxes, proposals.predicted_iou)
    masks = proposals.upsampled_masks(rows)
    found = [encode_crop(*masks.crop(index), masks.height, masks.width) for index in range(len(masks))]
    crowd = np.array([bool(one.get("iscrowd")) for one in annotations], bool)
    truth = [encode_mask(annotation_mask(one, masks.height, masks.width)) for one in annotations]
    iou = torch.zeros(len(found), len(truth), dtype=torch.float64)
    if found and truth:
        iou = torch.from_numpy(np.asarray(coco_mask.iou(found, truth, crowd.tolist()), np.float64))
    shown = shown_instances(iou[:, ~crowd])
    kept = (shown != NO_INSTANCE) | (shown_instances(iou[:, crowd]) == NO_INSTANCE)
    return rows[kept], shown[kept]


def _describe(dataset: ReferenceDataset, index: int, segmenter: ReferenceSegmenter) -> Tensor:
    """The vector of a reference of the pool: float32 [D], on the CPU."""
    reference = loaded(dataset[index])
    crop, mask = reference.crop.to(segmenter.device), reference.mask.to(segmenter.device)
    with computing_in(segmenter.precision, segmenter.device):
        return segmenter.segmenter.describe_reference(crop, mask)[0].cpu()


def say_pool(pool: ReferenceSet, cache_dir: Path) -> None:
    """Say how much there is to do before it begins."""
    images = {shot["img_id"] for shots in pool.values() for shot in shots}
    count = sum(map(len, pool.values()))
    print(
        f"pool: {plural(count, 'instance')} of {plural(len(pool), 'class')} in {plural(len(images), 'image')} "
        "(--pool sets how many); the networks see each image once, and their proposals are kept in "
        f"{cache_dir}, up to 3 MB per image"
    )


def print_reports(reports: Sequence[ClassChoice], shots: int) -> None:
    """Print what is expected of the references of each class."""
    width = max(len(one.name) for one in reports)
    print(f"\nexpected AP of the class in the pool (leave-one-out), with {shots} chosen or drawn at random:\n")
    print(f"{'class':{width}}  pool  chosen  drawn")
    for one in reports:
        print(f"{one.name:{width}}  {one.pool:4}  {100 * one.score:6.1f}  {100 * one.drawn:5.1f}")
    print("\nthe chosen are those with the best figure, so they will do somewhat worse on other images\n")
