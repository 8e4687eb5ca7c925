"""Which instances of a pool make the best references: those whose prototype finds the others of their class.

The paper draws references at random, and asks how to choose them. Here, the proposals of a pool of annotated images say
how good a set of references is: the prototype of the set ranks them, and the average precision of that ranking is the
set's score. A set grows by one reference at a time: the one with which its score is best.

No reference may speak for itself (leave-one-out): the proposals of its own image are ranked by the mean of all other
references of the class. Leaving that image out instead would favor references of images in which nothing can be found,
such as mislabeled ones.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from no_time_to_train.analysis.leave_one_out import FOUND_IOU, prototype_without
from no_time_to_train.evaluation.coco_ap import average_precision

#: Box IoU above which only the proposal of the higher predicted IoU counts. One proposal per object is enough to rank
#: them, and takes a tenth of the time and memory.
DISTINCT_IOU = 0.5

#: A proposal that shows no annotated instance.
NO_INSTANCE = -1


class PoolReferences(NamedTuple):
    """The K instances of a pool that may become references.

    Attributes:
        vectors: float32 [K, D], from ``Segmenter.describe_reference``, not normalized.
        classes: int64 [K] in [0, C). Each class has at least one.
        images: int64 [K], the number of the image that each is from.
    """

    vectors: Tensor
    classes: Tensor
    images: Tensor


@dataclass(frozen=True)
class PoolProposals:
    """The n proposals of all images of a pool, and the G instances that are annotated there.

    Attributes:
        vectors: float32 [n, D] mask vectors, L2-normalized.
        images: int64 [n], the number of each proposal's image.
        instances: int64 [n] in [0, G), the instance that each proposal shows, or ``NO_INSTANCE``.
        instance_classes: int64 [G] in [0, C).
    """

    vectors: Tensor
    images: Tensor
    instances: Tensor
    instance_classes: Tensor

    @classmethod
    def join(cls, vectors: list[Tensor], instances: list[Tensor], classes: list[Tensor]) -> "PoolProposals":
        """Join the images of a pool; they are numbered in the order of the lists.

        Args:
            vectors: For each image, float32 [n, D], the vectors of its distinct proposals.
            instances: For each image, int64 [n], as of :func:`shown_instances`.
            classes: For each image, int64 [G], the class of each instance annotated in it.
        """
        starts = np.cumsum([0, *map(len, classes)]).tolist()
        moved = [torch.where(one >= 0, one + start, one) for one, start in zip(instances, starts, strict=False)]
        images = torch.arange(len(vectors)).repeat_interleave(torch.tensor([len(one) for one in vectors]))
        return cls(torch.cat(vectors), images, torch.cat(moved), torch.cat(classes))


def distinct_proposals(boxes: Tensor, predicted_iou: Tensor) -> Tensor:
    """The rows, int64 [m], ascending, of an image's proposals whose box none of higher predicted IoU has already.

    Args:
        boxes: int64 [n, 4], xyxy.
        predicted_iou: float32 [n].
    """
    return nms(boxes.float(), predicted_iou, DISTINCT_IOU).sort().values


def shown_instances(iou: Tensor) -> Tensor:
    """The annotated instance that each proposal of an image shows: int64 [n].

    It is the one with the highest IoU, float [n, G] with G >= 0, or ``NO_INSTANCE`` where that is below ``FOUND_IOU``.
    """
    best, instance = F.pad(iou, (0, 1)).max(dim=1)
    return instance.where(best >= FOUND_IOU, NO_INSTANCE)


class ClassRanking:
    """How well sets of references of one class rank the proposals of a pool.

    Args:
        pool: The references of all classes. The other classes are represented by the mean of theirs.
        class_index: The class, in [0, C).
    """

    def __init__(self, proposals: PoolProposals, pool: PoolReferences, class_index: int) -> None:
        self.rows = (pool.classes == class_index).nonzero()[:, 0]
        self.vectors = pool.vectors[self.rows]
        means = [pool.vectors[pool.classes == one].mean(dim=0) for one in pool.classes.unique().tolist()]
        similarity = proposals.vectors @ F.normalize(torch.stack(means), dim=1).T
        similarity[:, class_index] = 0
        self.rival = similarity.amax(dim=1)
        self.products = proposals.vectors @ self.vectors.T
        self.own = proposals.images[:, None] == pool.images[self.rows]
        self.by_others = torch.zeros(len(proposals.vectors))
        for image in pool.images[self.rows].unique().tolist():  # elsewhere, no set has a reference of its own
            of_image = (pool.images[self.rows] == image).nonzero()[:, 0].tolist()
            others, inside = prototype_without(self.vectors, range(len(self)), of_image), proposals.images == image
            if others is not None:
                self.by_others[inside] = proposals.vectors[inside] @ F.normalize(others, dim=0)
        of_class = proposals.instance_classes == class_index
        right = (proposals.instances >= 0) & of_class[proposals.instances]
        self.instances = proposals.instances.where(right, NO_INSTANCE).numpy()
        self.wanted = max(int(of_class.sum()), 1)  # 0 where the only references are crowds

    def __len__(self) -> int:
        """The number of references of the class in the pool."""
        return len(self.rows)

    def scores(self, sets: list[list[int]]) -> Tensor:
        """The leave-one-out scores, float64 in [0, 1], of sets of references of the class, by indices < len(self).

        A score is the average precision of the pool's proposals as candidates of the class: those that are more similar
        to the prototype than to any other class, ranked by that similarity. The prototype is the set's mean; in the
        images of the set's own references, it is the mean of all references of the class from other images. Of several
        proposals that show one instance, the first counts.
        """
        member = self._members(sets)
        lengths = (member.T @ self.vectors).norm(dim=1).clamp(min=1e-12)
        similarity = (self.products @ member / lengths).where(self.own.float() @ member == 0, self.by_others[:, None])
        scores = []
        for column in range(len(sets)):
            rows = (similarity[:, column] > self.rival).nonzero()[:, 0]
            order = rows[similarity[rows, column].argsort(descending=True, stable=True)]
            instances = self.instances[order.numpy()]
            shown, first = np.unique(instances, return_index=True)
            hits = np.zeros(len(instances), bool)
            hits[first[shown != NO_INSTANCE]] = True
            hits = hits[hits | (instances == NO_INSTANCE)]
            places = np.full(self.wanted, len(hits))  # of the instances; those not found are beyond the last
            places[: hits.sum()] = np.flatnonzero(hits)
            scores.append(average_precision(hits.cumsum() / np.arange(1, len(hits) + 1), places))
        return torch.tensor(scores, dtype=torch.float64)

    def typicality(self, sets: list[list[int]]) -> Tensor:
        """The cosine similarity of the mean of each set to that of all references of the class: float32 [len(sets)]."""
        return F.cosine_similarity(self._members(sets).T @ self.vectors, self.vectors.sum(dim=0)[None])

    def _members(self, sets: list[list[int]]) -> Tensor:
        """Whether each reference is in each set: float32 [len(self), len(sets)] in {0, 1}."""
        member = torch.zeros(len(self), len(sets))
        for column, chosen in enumerate(sets):
            member[chosen, column] = 1
        return member


def choose_best(ranking: ClassRanking, count: int) -> tuple[list[int], float]:
    """Choose the rows of the best ``count`` references of a class in the pool, and their score, one reference by one.

    Each time, the one is taken with which the set is best; of equally good ones, the one with which it is most typical
    of its class, and of those the first. So the first n of a larger choice are the choice of n.
    """
    chosen: list[int] = []
    score = 0.0
    while len(chosen) < count:
        left = [one for one in range(len(ranking)) if one not in chosen]
        sets = [[*chosen, one] for one in left]
        scores = ranking.scores(sets)
        best = int(ranking.typicality(sets).where(scores == scores.max(), -2).argmax())  # the first of several
        score = float(scores[best])
        chosen.append(left[best])
    return ranking.rows[chosen].tolist(), score
