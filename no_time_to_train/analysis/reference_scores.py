"""Leave-one-out on the references' own images: which scores the shots of a class get from its other shots.

Each image is ranked without the shots that were taken from it. What is found there is one of three: a shot; certainly
wrong, because it lies on a shot of another class, on a part of a shot, or on a shot that was found already; or of
unknown truth, because references are annotated one object at a time, and the rest of their images is not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.nn import functional as F

from no_time_to_train.analysis.annotated_proposals import AnnotatedProposals
from no_time_to_train.analysis.leave_one_out import Ranked, rank_without
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.settings import Settings

#: IoU with a shot from which a mask counts as found.
FOUND_IOU = 0.5

#: Share of a mask inside a shot, or of a shot inside a mask of its class, from which the mask is about this shot.
ABOUT = 0.5


@dataclass
class ShotImage:
    """An image of references.

    Attributes:
        name: Its file.
        proposals: Its proposals, and the instances that are shots.
        shots: The number of each instance's shot in the memory, in the order of ``proposals.iou``'s columns.
    """

    name: str
    proposals: AnnotatedProposals
    shots: list[int]


@dataclass
class ClassScores:
    """The scores of a class on all images of references, at any score.

    Attributes:
        found: For each positive shot that could be left out, its score; 0 where the others did not find it.
        wrong: The scores of masks that are certainly not of the class.
        unknown: The scores of masks outside all shots.
    """

    found: dict[int, float] = field(default_factory=dict)
    wrong: list[float] = field(default_factory=list)
    unknown: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What the other shots say about one shot.

    Attributes:
        image: Its image file.
        compared: Whether its class has positive shots in other images.
        best_iou: The highest IoU of any proposal with the shot.
        mask_ratio: The shot's area, divided by that of this proposal; None where no proposal overlaps it.
        area: The shot's area as a share of the image.
        iou: The IoU of the mask that it was found with; None where it was not found as its class.
        score: The score of that mask, likewise.
        taken_for: The class, by its index, of the mask on the shot with the highest score; None where there is none.
        taken_score: The score of that mask.
    """

    image: str
    compared: bool
    best_iou: float
    mask_ratio: float | None
    area: float
    iou: float | None = None
    score: float | None = None
    taken_for: int | None = None
    taken_score: float | None = None


@dataclass
class ShotScores:
    """What leave-one-out gives for a set of references.

    Attributes:
        classes: The scores of each class.
        verdicts: What the others say about each shot, by its number.
        without: The scores of each shot's class if the shot did not exist, by its number; empty where that was not
            wanted.
    """

    classes: list[ClassScores]
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    without: dict[int, ClassScores] = field(default_factory=dict)


def left_out_shots(bank: MemoryBank, shots: Sequence[int], dropped: int | None = None) -> tuple[set[int], set[int]]:
    """The shots to leave out where an image is ranked, and the classes that keep a shot of this image.

    A class whose positive shots are all in the image keeps them: without the class, its objects would go to others.

    Args:
        bank: The whole memory.
        shots: The shots that were taken from the image.
        dropped: A shot to leave out in any case, if another positive one of its class remains.

    Returns:
        The numbers of the shots, and the indices of the classes.
    """
    out = {*shots, *([] if dropped is None else [dropped])}
    kept = {index for index in range(len(bank.categories)) if out.issuperset(bank.references_of(index))}
    return {shot for shot in out if int(bank.class_index[shot]) not in kept}, kept


def score_shots(bank: MemoryBank, images: Iterable[ShotImage], settings: Settings, each: bool = False) -> ShotScores:
    """Rank each image without its own shots.

    Args:
        bank: The whole memory.
        images: The images of the references; each shot of the memory is in one of them. One is needed at a time.
        settings: The method's numbers.
        each: Rank each image without each other shot as well, to see what that shot is worth.
    """
    found = ShotScores([ClassScores() for _ in bank.categories])
    for image in images:
        left_out, kept = left_out_shots(bank, image.shots)
        ranked = rank_without(image.proposals.proposals, bank, left_out, settings)
        ranked = ranked._replace(scores=ranked.scores * expected_gains(bank, left_out, settings)[ranked.classes])
        add_scores(found.classes, ranked, image, bank, kept)
        found.verdicts |= _verdicts(ranked, image, bank, kept)
        for shot in range(len(bank)) if each else ():
            index = int(bank.class_index[shot])
            scores = [ClassScores() for _ in bank.categories]
            scores[index] = found.without.setdefault(shot, scores[index])
            left_out, kept = left_out_shots(bank, image.shots, shot)
            part = rank_without(image.proposals.proposals, bank, left_out, settings, only=index)
            gain = expected_gains(bank, left_out, settings, shot)[index]
            add_scores(scores, part._replace(scores=part.scores * gain), image, bank, kept)
    return found


def add_scores(scores: list[ClassScores], ranked: Ranked, image: ShotImage, bank: MemoryBank, kept: set[int]) -> None:
    """Sort what was found in an image into the scores of the classes, in place.

    Args:
        scores: One per class.
        ranked: What was found.
        image: The image.
        bank: The whole memory.
        kept: The classes that keep a shot of this image; what they find here does not count.
    """
    iou, inside, covered = (
        one[ranked.rows] for one in (image.proposals.iou, image.proposals.inside, image.proposals.covered)
    )
    classes = bank.class_index[image.shots]
    positive = ~bank.negative[image.shots]
    waiting = set()
    for column, shot in enumerate(image.shots):
        if positive[column] and int(classes[column]) not in kept:
            scores[int(classes[column])].found[shot] = 0.0
            waiting.add(column)
    for row, (class_index, score) in enumerate(zip(ranked.classes.tolist(), ranked.scores.tolist(), strict=True)):
        if class_index in kept:
            continue
        own = (classes == class_index) & positive
        hits = [column for column in waiting if own[column] and iou[row, column] >= FOUND_IOU]
        about = (iou[row] >= FOUND_IOU) | (inside[row] >= ABOUT) | (own & (covered[row] >= ABOUT))
        if hits:
            best = max(hits, key=lambda column: float(iou[row, column]))
            scores[class_index].found[image.shots[best]] = score
            waiting.remove(best)
        elif about.any():
            scores[class_index].wrong.append(score)
        else:
            scores[class_index].unknown.append(score)


def expected_gains(
    bank: MemoryBank, left_out: set[int], settings: Settings, dropped: int | None = None
) -> torch.Tensor:
    """How much higher the scores of each class are expected to be with all of its shots.

    A mean of k shots points less exactly to what they have in common than a mean of n. With g the mean cosine between
    two shots of a class, and r = (1 - g) / g the spread relative to what is common, the cosine of an object to the mean
    of k shots is expected to be proportional to (1 + r / k) ^ -1/2.

    Args:
        bank: The whole memory.
        left_out: The shots that are left out.
        settings: The method's numbers.
        dropped: A shot that does not count as one of its class; None counts all.

    Returns:
        float32 [C], 1 where nothing of a class is left out.
    """
    gains = torch.ones(len(bank.categories))
    for index in range(len(gains)):
        shots = [shot for shot in bank.references_of(index) if shot != dropped]
        rest = len([shot for shot in shots if shot not in left_out])
        if 0 < rest < len(shots):
            vectors = F.normalize(bank.vectors[shots], dim=1)
            n = len(shots)
            common = ((vectors @ vectors.T).sum() - n) / (n * (n - 1))
            spread = 1 / common.clamp(0.1, 1) - 1
            gains[index] = ((1 + spread / rest) / (1 + spread / n)).sqrt()
    return gains


def _verdicts(ranked: Ranked, image: ShotImage, bank: MemoryBank, kept: set[int]) -> dict[int, Verdict]:
    """What was found on each shot of an image; a class in ``kept`` says nothing about its own shots."""
    verdicts, annotated = {}, image.proposals
    for column, shot in enumerate(image.shots):
        of_class, every = int(bank.class_index[shot]), annotated.iou[:, column]
        best_iou, ratio = float(every.max()) if len(every) else 0.0, None
        if best_iou > 0:
            row = int(every.argmax())
            ratio = float(annotated.inside[row, column] / annotated.covered[row, column])
        verdict = Verdict(image.name, of_class not in kept, best_iou, ratio, float(annotated.areas[column]))
        iou = every[ranked.rows]
        on_it = [i for i in range(len(iou)) if iou[i] >= FOUND_IOU and int(ranked.classes[i]) not in kept]
        if on_it:
            first = on_it[0]
            verdict = replace(
                verdict, taken_for=int(ranked.classes[first]), taken_score=min(float(ranked.scores[first]), 1.0)
            )
        same = [i for i in on_it if int(ranked.classes[i]) == of_class]
        if same:
            verdict = replace(verdict, iou=float(iou[same[0]]), score=min(float(ranked.scores[same[0]]), 1.0))
        verdicts[shot] = verdict
    return verdicts
