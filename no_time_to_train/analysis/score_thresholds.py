"""The score threshold of a class with the best F1, estimated from its references alone.

Few references of a class are known, and the rest of their images is not annotated: a mask of the class there may be
right or wrong. Only scores of at least half the references' median score count, because no threshold is lower. They are
taken for a mixture of two distributions:

- Scores of right masks are normal. Their standard deviation is a fixed share of the references' median score.
- Scores of wrong masks are exponential: they begin at the lowest score that counts, and higher ones are rarer.

Expectation and maximization alternate: how likely each mask outside the references is right; then the share and the
mean of right masks, and the mean of wrong ones. Masks that are certainly right or wrong stay so. With tp(t) and fp(t)
the expected numbers of right and wrong masks with a score of at least t, and n the number of objects,

    F1(t) = 2 tp(t) / (n + tp(t) + k fp(t)).

An image of references shows the class because it was chosen for that, so objects are rarer in other images, and wrong
masks are not. Where objects are spread at random, an image that was chosen for one of them shows one object more than
any image does; k = n / (n - number of references) makes up for that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from no_time_to_train.evaluation.coco_ap import average_precision

#: Thresholds that are compared, in steps of 0.01.
GRID = torch.linspace(0, 1, 101)

#: References of a class that others were compared with, from which its threshold is estimated.
FEWEST_REFERENCES = 2

#: The following are relative to the references' median score (docs/experiments.md says how they were chosen):
#: the lowest score that counts,
LOWEST = 0.5
#: the standard deviation of the scores of right masks,
RIGHT_SPREAD = 0.18
#: and how far the scores of wrong masks are above the lowest on average, before any is seen. This counts for so many.
WRONG_MEAN, WRONG_COUNT = 0.15, 20

#: The largest k: objects of some classes are alone in their images, and no rarer elsewhere.
RAREST = 2

#: Rounds of expectation and maximization; it has converged long before.
ROUNDS = 30

#: Standard deviation of the kernel that smooths counts of masks.
BANDWIDTH = 0.05


@dataclass
class ClassScores:
    """The scores of a class in all images of references, at any score.

    Attributes:
        found: For each positive reference that could be left out, its score; 0 where the others did not find it.
        wrong: The scores of masks that are certainly not of the class.
        unknown: The scores of masks outside all references.
    """

    found: dict[int, float] = field(default_factory=dict)
    wrong: list[float] = field(default_factory=list)
    unknown: list[float] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Add those of another image, as ``dataclasses.asdict`` and JSON, whose keys are texts, have made them."""
        self.found |= {int(number): score for number, score in record["found"].items()}
        self.wrong += record["wrong"]
        self.unknown += record["unknown"]


@dataclass(frozen=True)
class Threshold:
    """The threshold of a class, and what is expected at it.

    Attributes:
        precision: Share of the instances that are right.
        precision_at_least: The same, if nothing outside the annotated objects was of the class.
        precision_interval: From Wilson's lower end for ``precision`` to his upper end for the precision if all masks of
            unknown truth were right, at 95 % each: the estimate of their truth is often wrong alike. Only the
            references that are found at the threshold count as trials.
        recall: Share of the objects that are found.
        f1: Their harmonic mean.
        objects: The estimated number of objects of the class in the references' images, annotated or not.
    """

    score: float
    precision: float
    precision_at_least: float
    precision_interval: tuple[float, float]
    recall: float
    f1: float
    objects: float


def best_thresholds(scores: Sequence[ClassScores]) -> list[Threshold | None]:
    """The threshold with the best expected F1 of each class.

    It is None for a class of which fewer than ``FEWEST_REFERENCES`` could be compared with others, or none was found.
    """
    return [_best_threshold(one) for one in scores]


def _best_threshold(scores: ClassScores) -> Threshold | None:
    """The threshold of a class."""
    references = torch.tensor(list(scores.found.values()))
    found = references[references > 0]
    if len(references) < FEWEST_REFERENCES or not len(found):
        return None
    median = float(references.quantile(0.5)) or float(found.quantile(0.5))  # of those found, where most are not
    lowest, spread = LOWEST * median, RIGHT_SPREAD * median
    wrong, unknown = (torch.tensor(one)[torch.tensor(one) >= lowest] for one in (scores.wrong, scores.unknown))
    middle, tail, share = torch.tensor(median), torch.tensor(WRONG_MEAN * median), 0.5
    for _ in range(ROUNDS):
        is_right = share * torch.exp(-(((unknown - middle) / spread) ** 2) / 2) / (spread * (2 * torch.pi) ** 0.5)
        is_wrong = (1 - share) * torch.exp((lowest - unknown) / tail) / tail
        right = is_right / (is_right + is_wrong)
        share = float((right.sum() + 1) / (len(unknown) + 2))
        middle = (len(found) * median + (right * unknown).sum()) / (len(found) + right.sum())
        wrongs = len(wrong) + (1 - right).sum()
        above = (wrong - lowest).sum() + ((1 - right) * (unknown - lowest)).sum()
        tail = (above + WRONG_COUNT * WRONG_MEAN * median) / (wrongs + WRONG_COUNT)
    rights = len(found) + right.sum()
    objects = rights * len(references) / len(found)
    rarer = (objects / (objects - len(references)).clamp(min=1e-9)).clamp(max=RAREST)
    tp = rights * torch.special.ndtr((middle - GRID) / spread)
    fp = rarer * wrongs * torch.exp((lowest - GRID) / tail)
    f1 = torch.where(lowest <= GRID, 2 * tp / (objects + tp + fp), 0)
    best = int(f1.argmax())
    known = _above(scores.found.values())[best]
    rest = rarer * (_above(scores.wrong)[best] + _above(scores.unknown)[best])
    precision = float(tp[best] / (tp + fp)[best])
    trials, perhaps, bad = (int((one >= GRID[best]).sum()) for one in (found, unknown, wrong))
    at_most = max((trials + perhaps) / max(trials + perhaps + bad, 1), precision)
    return Threshold(
        score=round(float(GRID[best]), 2),
        precision=precision,
        precision_at_least=min(float(known / (known + rest).clamp(min=1e-9)), precision),  # counts, not the mixture
        precision_interval=(wilson(precision, max(trials, 1))[0], wilson(at_most, max(trials, 1))[1]),
        recall=float(tp[best] / objects),
        f1=float(f1[best]),
        objects=float(objects),
    )


def expected_ap(scores: ClassScores, objects: float) -> float:
    """The AP that a class is expected to have on its references' images, where it has n ``objects``.

    With r(t) the share of the references found with a score of at least t, and D(t) the number of masks of the class
    with such a score, the precision is n r(t) / D(t).
    """
    references = torch.tensor(list(scores.found.values()))
    known = _above(references.tolist())
    everything = known + _above(scores.wrong) + _above(scores.unknown)
    precision = (objects * known / len(references) / everything.clamp(min=1e-9)).clamp(max=1)
    steps = len(GRID) - 1
    places = steps - (references * steps).round().long().clamp(max=steps)  # of the thresholds, the highest first
    return average_precision(precision.flip(0).numpy(), places.where(references > 0, len(GRID)).numpy())


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's bounds, each one-sided at 95 %, of a probability that came true in the ``share`` of ``count`` trials."""
    z = 1.645
    center, spread = share + z * z / (2 * count), z * (share * (1 - share) / count + z * z / (4 * count**2)) ** 0.5
    low, high = ((center + sign * spread) / (1 + z * z / count) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def _above(values: Iterable[float]) -> Tensor:
    """The smoothed number of positive scores above each threshold of the grid: float32 [101]."""
    scores = torch.tensor([value for value in values if value > 0])
    return torch.special.ndtr((scores[:, None] - GRID) / BANDWIDTH).sum(dim=0)
