"""The score threshold of a class with the best F1, estimated from its references alone.

Few references of a class are known, and the rest of their images is not annotated: a mask of the class there may be
right or wrong. So the scores of these masks are taken for a mixture of two normal distributions. That of right masks
lies around the median score of the shots, which is drawn a little towards that of all classes; that of wrong masks is
fitted to the masks that are certainly wrong, and begins at lower scores. Expectation and maximization alternate: how
likely each unknown mask is right, then how many are right and where the wrong ones lie. A mask that scores more than
the median shot is right. With tp(t) and fp(t) the expected numbers of right and wrong masks with a score of at least t,
and n the number of objects,

    F1(t) = 2 tp(t) / (n + tp(t) + fp(t)).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from no_time_to_train.evaluation.shot_scores import ClassScores

#: Thresholds that are compared, in steps of 0.01.
GRID = torch.linspace(0, 1, 101)

#: Shots of a class that others were compared with, from which its threshold is estimated.
FEWEST_SHOTS = 2

#: What is assumed before any score is seen, and how many scores that counts for (timing/thresholds.py):
#: the median of all classes for that of one,
POOLED = 2
#: the standard deviation of the scores of right masks,
RIGHT_SPREAD, RIGHT_COUNT = 0.13, 10
#: and the scores of wrong masks: their mean relative to the median shot's, and their standard deviation.
WRONG_MEAN, WRONG_SPREAD, WRONG_COUNT = 0.4, 0.17, 20

#: A shot that is further from the median than this counts as this far, because masks may fail in many ways.
FURTHEST = 0.2

#: Rounds of expectation and maximization; it has converged long before.
ROUNDS = 30

#: Standard deviation of the kernel that smooths counts of masks.
BANDWIDTH = 0.05


@dataclass(frozen=True)
class Threshold:
    """The threshold of a class, and what is expected at it.

    Attributes:
        score: The lowest score of an instance.
        precision: Share of the instances that are right.
        precision_at_least: The same, if nothing outside the annotated objects was of the class.
        recall: Share of the objects that are found.
        f1: Their harmonic mean.
        objects: The estimated number of objects of the class in the references' images, annotated or not.
    """

    score: float
    precision: float
    precision_at_least: float
    recall: float
    f1: float
    objects: float


def best_thresholds(scores: Sequence[ClassScores]) -> list[Threshold | None]:
    """The threshold with the best expected F1 of each class.

    Args:
        scores: The scores of each class.

    Returns:
        None for a class of which fewer than ``FEWEST_SHOTS`` shots could be compared with others, or none was found.
    """
    medians = [_median_shot(one) for one in scores]
    known = torch.tensor([median for median in medians if median is not None])
    pooled = float(known.quantile(0.5)) if len(known) else None
    found: list[Threshold | None] = []
    for one, median in zip(scores, medians, strict=True):
        if median is None or pooled is None:
            found.append(None)
            continue
        n = sum(score > 0 for score in one.found.values())
        found.append(_best_threshold(one, (n * median + POOLED * pooled) / (n + POOLED)))
    return found


def _median_shot(scores: ClassScores) -> float | None:
    """The median score of the shots of a class; of those that were found, where most were not."""
    shots = torch.tensor(list(scores.found.values()))
    if len(shots) < FEWEST_SHOTS or not shots.any():
        return None
    median = float(shots.quantile(0.5))
    return median if median > 0 else float(shots[shots > 0].quantile(0.5))


def _best_threshold(scores: ClassScores, middle: float) -> Threshold:
    """The threshold of a class whose right masks have the mean score ``middle``."""
    shots = torch.tensor(list(scores.found.values()))
    found, wrong, unknown = shots[shots > 0], torch.tensor(scores.wrong), torch.tensor(scores.unknown)
    squares = ((found - middle) ** 2).clamp(max=FURTHEST**2).sum()
    spread = ((squares + RIGHT_COUNT * RIGHT_SPREAD**2) / (len(found) + RIGHT_COUNT)).sqrt()
    share, low, width = 0.5, torch.tensor(WRONG_MEAN * middle), torch.tensor(WRONG_SPREAD)
    for _ in range(ROUNDS):
        is_right = share * _density(unknown, middle, spread)
        is_wrong = (1 - share) * _density(unknown, low, width)
        right = torch.where(unknown >= middle, 1, is_right / (is_right + is_wrong).clamp(min=1e-30))
        share = float((right.sum() + 1) / (len(unknown) + 2))
        count = len(wrong) + (1 - right).sum() + WRONG_COUNT
        low = (wrong.sum() + ((1 - right) * unknown).sum() + WRONG_COUNT * WRONG_MEAN * middle) / count
        squares = ((wrong - low) ** 2).sum() + ((1 - right) * (unknown - low) ** 2).sum()
        width = ((squares + WRONG_COUNT * WRONG_SPREAD**2) / count).sqrt()
    rights = len(found) + right.sum()
    objects = rights * len(shots) / len(found)
    tp = rights * torch.special.ndtr((middle - GRID) / spread)
    fp = (len(wrong) + (1 - right).sum()) * torch.special.ndtr((low - GRID) / width)
    f1 = 2 * tp / (objects + tp + fp)
    best = int(f1.argmax())
    above = _above(scores.found.values())[best]
    everything = above + _above(scores.wrong)[best] + _above(scores.unknown)[best]
    return Threshold(
        score=round(float(GRID[best]), 2),
        precision=float(tp[best] / (tp + fp)[best]),
        precision_at_least=float(above / everything.clamp(min=1e-9)),
        recall=float(tp[best] / objects),
        f1=float(f1[best]),
        objects=float(objects),
    )


def expected_ap(scores: ClassScores, objects: float) -> float:
    """The AP that a class is expected to have on its references' images.

    With r(t) the share of the shots found with a score of at least t, D(t) the number of masks of the class with such a
    score, and n the number of objects, the precision is n r(t) / D(t).

    Args:
        scores: The scores of the class.
        objects: n, see :class:`Threshold`.
    """
    shots = torch.tensor(list(scores.found.values()))
    known = _above(shots.tolist())
    everything = known + _above(scores.wrong) + _above(scores.unknown)
    precision = (objects * known / len(shots) / everything.clamp(min=1e-9)).clamp(max=1)
    envelope = precision.cummax(dim=0).values  # the best precision at the recall of each threshold or a higher one
    places = (shots * (len(GRID) - 1)).round().long().clamp(max=len(GRID) - 1)
    return float(torch.where(shots > 0, envelope[places], 0).mean())


def _density(values: Tensor, mean: Tensor | float, spread: Tensor) -> Tensor:
    """The normal density, without its constant factor."""
    return torch.exp(-(((values - mean) / spread) ** 2) / 2) / spread


def _above(values: Iterable[float]) -> Tensor:
    """The smoothed number of positive scores above each threshold of the grid: float32 [101]."""
    scores = torch.tensor([value for value in values if value > 0])
    return torch.special.ndtr((scores[:, None] - GRID) / BANDWIDTH).sum(dim=0)
