"""What a set of references is worth, measured by leave-one-out on the references' own images (docs/references.md)."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.analysis.reference_report import (
    ClassReport,
    Confusion,
    ReferenceReport,
    ShotReport,
    with_advice,
)
from no_time_to_train.analysis.reference_scores import ShotImage, Verdict, score_shots
from no_time_to_train.analysis.score_thresholds import FEWEST_SHOTS, best_thresholds, expected_ap
from no_time_to_train.data.reference_image import decode_picture
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fill_memory import patch_weights
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.settings import Settings

#: Two classes are told apart where the mean margin of their references is this many standard errors above 0.
CLEAR = 2

#: The least share of the references of two confused classes that look more like the other class, and their least
#: number. The share is about one half for two classes that are the same; one wrong reference alone confuses no classes.
MIXED, FEWEST_MIXED = 0.25, 2

#: The cosine of two prototypes from which classes of one reference each may be mixed up.
SIMILAR = 0.5

#: The cosine from which two references of a class are nearly the same picture.
SAME = 0.995


def examine(
    bank: MemoryBank, images: Iterable[ShotImage], settings: Settings, encoder: Encoder, each: bool = True
) -> ReferenceReport:
    """Measure what a set of references is worth.

    Args:
        bank: The memory that was made of the references.
        images: Their images. One is needed at a time.
        settings: The method's numbers.
        encoder: Describes the surroundings of each reference.
        each: Measure what each reference is worth, too; thresholds alone need less time.
    """
    scores = score_shots(bank, images, settings, each)
    similarity = similarities(bank, settings)
    shots = [
        _shot_report(bank, shot, scores.verdicts[shot], similarity, _background(bank, shot, encoder) if each else None)
        for shot in range(len(bank))
    ]
    classes = []
    for index, (category, threshold) in enumerate(zip(bank.categories, best_thresholds(scores.classes), strict=True)):
        positive = bank.shots_of(index)
        ap = None if threshold is None else expected_ap(scores.classes[index], threshold.objects)
        where = {scores.verdicts[shot].image for shot in positive}
        found = sum(bool(shots[shot].found) for shot in positive)
        classes.append(ClassReport(category.name, len(positive), len(where), found, threshold, ap))
        for shot, without in scores.without.items():
            if int(bank.class_index[shot]) == index and threshold is not None and ap is not None:
                known = len(without.found) >= FEWEST_SHOTS
                shots[shot].ap_without = expected_ap(without, threshold.objects) - ap if known else None
    return with_advice(ReferenceReport(classes, shots, confusions(bank, similarity), asdict(settings), bank))


def similarities(bank: MemoryBank, settings: Settings) -> Tensor:
    """The cosine of each shot's vector with each class's prototype, which is made without the shot.

    Returns:
        float32 [M, C]; NaN where a class has no other positive shot.
    """
    vectors, found = F.normalize(bank.vectors, dim=1), torch.full((len(bank), len(bank.categories)), torch.nan)
    for shot in range(len(bank)):
        for index in range(len(bank.categories)):
            others = [one for one in bank.shots_of(index) if one != shot]
            if others and settings.prototype == "best_shot":
                found[shot, index] = (vectors[others] @ vectors[shot]).max()
            elif others:
                chosen = bank.vectors if settings.prototype == "mean" else vectors
                found[shot, index] = F.normalize(chosen[others].mean(dim=0), dim=0) @ vectors[shot]
    return found


def confusions(bank: MemoryBank, similarity: Tensor) -> list[Confusion]:
    """The pairs of classes that the references tell apart badly, the worst first.

    The margin of a reference is how much more similar it is to its own class, without itself, than to the other class.
    Two classes are told apart where the mean margin of their references is clearly above 0.

    Args:
        bank: The whole memory.
        similarity: From :func:`similarities`.
    """
    assert bank.prototypes is not None
    prototypes = F.normalize(bank.prototypes, dim=1)
    found = []
    for a, b in combinations(range(len(bank.categories)), 2):
        margins = torch.cat(
            [similarity[bank.shots_of(x), x] - similarity[bank.shots_of(x), y] for x, y in ((a, b), (b, a))]
        )
        margins = margins[~margins.isnan()]
        labels = bank.categories[a].name, bank.categories[b].name
        cosine = float(prototypes[a] @ prototypes[b])
        if len(margins) < 2 * FEWEST_SHOTS:
            if cosine >= SIMILAR:
                found.append(Confusion(labels, None, cosine))
        else:
            clear = CLEAR * float(margins.std()) / len(margins) ** 0.5
            mixed = int((margins <= 0).sum())
            share = mixed / len(margins)
            if float(margins.mean()) < clear and share >= MIXED and mixed >= FEWEST_MIXED:
                found.append(Confusion(labels, share, cosine))
    return sorted(found, key=lambda one: (one.share is None, -(one.share or 0), -one.similarity))


def _shot_report(
    bank: MemoryBank, shot: int, verdict: Verdict, similarity: Tensor, background: float | None
) -> ShotReport:
    """What was measured about one shot."""
    labels = [category.name for category in bank.categories]
    index, negative = int(bank.class_index[shot]), bool(bank.negative[shot])
    same_class = [one for one in range(len(bank)) if int(bank.class_index[one]) == index]
    others = similarity[shot].clone()
    others[index] = torch.nan
    nearest = None if others.isnan().all() else int(others.nan_to_num(-2).argmax())
    cosines = F.normalize(bank.vectors[same_class], dim=1) @ F.normalize(bank.vectors[shot], dim=0)
    twins = [n for n, one in enumerate(same_class) if one != shot and cosines[n] >= SAME]
    return ShotReport(
        label=labels[index],
        image=verdict.image,
        number=same_class.index(shot) + 1,
        negative=negative,
        compared=verdict.compared,
        found=verdict.score is not None if verdict.compared and not negative else None,
        best_iou=verdict.best_iou,
        iou=verdict.iou,
        score=verdict.score,
        taken_for=None if verdict.taken_for is None else labels[verdict.taken_for],
        taken_score=verdict.taken_score,
        similarity=None if similarity[shot, index].isnan() else float(similarity[shot, index]),
        most_similar=None if nearest is None else labels[nearest],
        similarity_to_it=None if nearest is None else float(others[nearest]),
        area=verdict.area,
        mask_ratio=verdict.mask_ratio,
        background=background,
        twin=twins[0] + 1 if twins else None,
    )


@torch.inference_mode()
def _background(bank: MemoryBank, shot: int, encoder: Encoder) -> float | None:
    """Share of a shot's mask whose tokens are more similar to the mean token outside the mask than to its class.

    Its class is the prototype of its other shots; or its own vector, where it has no others.
    """
    if bank.crops[shot] is None:
        return None
    crop, mask = decode_picture(bank.crops[shot])
    weights = patch_weights(mask, encoder.size, encoder.grid)
    outside = weights == 0
    if not outside.any():
        return None
    tokens = encoder(crop[None].to(encoder.normalize.mean.device))[0].float().cpu()
    others = [one for one in bank.shots_of(int(bank.class_index[shot])) if one != shot]
    own = bank.vectors[others].mean(dim=0) if others else bank.vectors[shot]
    tokens = F.normalize(tokens, dim=1)
    around = F.normalize(tokens[outside].mean(dim=0), dim=0)
    like_around = tokens @ around > tokens @ F.normalize(own, dim=0)
    return float((weights * like_around).sum() / weights.sum())
