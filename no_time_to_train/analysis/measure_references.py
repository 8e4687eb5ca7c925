"""What a set of references is worth, measured by leave-one-out on the references' own images (docs/references.md)."""

from collections.abc import Collection, Iterable
from dataclasses import asdict
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.analysis.leave_one_out import LeaveOneOut, MeasuredImage, leave_one_out, prototype_without
from no_time_to_train.analysis.reference_report import (
    UNLIKE,
    ClassReport,
    Confusion,
    MeasuredReference,
    ReferenceReport,
    with_advice,
)
from no_time_to_train.analysis.score_thresholds import FEWEST_REFERENCES, ClassScores, best_thresholds, expected_ap
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
    bank: MemoryBank, image: MeasuredImage, settings: Settings, encoder: Encoder, each: bool = True
) -> dict[str, Any]:
    """Measure what an image says about a set of references: a :class:`LeaveOneOut` as JSON values.

    Args:
        bank: The memory that was made of the references.
        encoder: Describes the surroundings of each reference in the image.
        each: Measure what each reference is worth, too; thresholds alone need less time.
    """
    measured = leave_one_out(bank, [image], settings, each)
    for number, reference in measured.references.items():
        reference.background = _background(bank, number, encoder) if each else None
    return asdict(measured)


def conclude(bank: MemoryBank, records: Iterable[dict[str, Any]], settings: Settings) -> ReferenceReport:
    """What a set of references is worth, by what :func:`examine` has measured in each of its images, in their order."""
    measured = LeaveOneOut([ClassScores() for _ in bank.categories])
    for record in records:
        measured.add(record)
    references = [measured.references[number] for number in range(len(bank))]
    trusted = similarities(bank, unlike_their_class(bank))
    for number, reference in enumerate(references):
        _compare(reference, bank, number, trusted)
    classes = []
    thresholds = best_thresholds(measured.classes)
    for index, (category, scores, threshold) in enumerate(
        zip(bank.categories, measured.classes, thresholds, strict=True)
    ):
        positive = [references[number] for number in bank.references_of(index)]
        ap = None if threshold is None else expected_ap(scores, threshold.objects)
        images_of_class = len({one.image for one in positive})
        found = sum(bool(one.found) for one in positive)
        classes.append(ClassReport(category.name, len(positive), images_of_class, found, threshold, ap))
        for number, without in measured.without.items():
            known = int(bank.class_index[number]) == index and len(without.found) >= FEWEST_REFERENCES
            if known and threshold is not None and ap is not None:
                references[number].ap_without = expected_ap(without, threshold.objects) - ap
    for reference, image in zip(references, bank.images, strict=True):
        reference.image = image.name  # of files with the same content, its own
    pairs = confusions(bank, similarities(bank))
    return with_advice(ReferenceReport(classes, references, pairs, asdict(settings), bank))


def similarities(bank: MemoryBank, distrusted: Collection[int] = ()) -> Tensor:
    """The cosine of each reference with each class's prototype without it: float32 [M, C]; NaN without any other.

    Args:
        distrusted: References that no prototype is made of.
    """
    vectors, found = F.normalize(bank.vectors, dim=1), torch.full((len(bank), len(bank.categories)), torch.nan)
    for number in range(len(bank)):
        for index in range(len(bank.categories)):
            prototype = prototype_without(bank.vectors, bank.references_of(index), {number, *distrusted})
            if prototype is not None:
                found[number, index] = F.normalize(prototype, dim=0) @ vectors[number]
    return found


def unlike_their_class(bank: MemoryBank) -> list[int]:
    """The references that are clearly more similar to another class, the clearest first, each without those before."""
    found: list[int] = []
    while True:
        similarity = similarities(bank, found)
        own = similarity.gather(1, bank.class_index[:, None])[:, 0]
        others = similarity.scatter(1, bank.class_index[:, None], torch.nan).nan_to_num(-2).amax(dim=1)
        margins = (others - own).masked_fill(bank.negative | own.isnan(), -2)
        margins[found] = -2
        if margins.max() <= UNLIKE:
            return found
        found.append(int(margins.argmax()))


def confusions(bank: MemoryBank, similarity: Tensor) -> list[Confusion]:
    """The pairs of classes that the references tell apart badly, the worst first.

    The margin of a reference is how much more similar it is to its own class, without itself, than to the other class.
    Two classes are told apart where the mean margin of their references is clearly above 0.
    """
    assert bank.prototypes is not None
    prototypes = F.normalize(bank.prototypes, dim=1)
    found = []
    for a, b in combinations(range(len(bank.categories)), 2):
        margins = torch.cat(
            [similarity[bank.references_of(x), x] - similarity[bank.references_of(x), y] for x, y in ((a, b), (b, a))]
        )
        margins = margins[~margins.isnan()]
        labels = bank.categories[a].name, bank.categories[b].name
        cosine = float(prototypes[a] @ prototypes[b])
        if len(margins) < 2 * FEWEST_REFERENCES:
            if cosine >= SIMILAR:
                found.append(Confusion(labels, None, cosine))
        else:
            clear = CLEAR * float(margins.std()) / len(margins) ** 0.5
            mixed = int((margins <= 0).sum())
            share = mixed / len(margins)
            if float(margins.mean()) < clear and share >= MIXED and mixed >= FEWEST_MIXED:
                found.append(Confusion(labels, share, cosine))
    return sorted(found, key=lambda one: (one.share is None, -(one.share or 0), -one.similarity))


def _compare(reference: MeasuredReference, bank: MemoryBank, number: int, similarity: Tensor) -> None:
    """Set what the vectors of the references say about one of them."""
    index = int(bank.class_index[number])
    others = similarity[number].clone()
    if not others[index].isnan():
        reference.similarity = float(others[index])
    others[index] = torch.nan
    if not others.isnan().all():
        nearest = int(others.nan_to_num(-2).argmax())
        reference.most_similar = bank.categories[nearest].name
        reference.similarity_to_it = float(others[nearest])
    of_class = [one for one in range(len(bank)) if int(bank.class_index[one]) == index]
    cosines = F.normalize(bank.vectors[of_class], dim=1) @ F.normalize(bank.vectors[number], dim=0)
    same = [place for place, one in enumerate(of_class, 1) if one != number and cosines[place - 1] >= SAME]
    reference.same_as = same[0] if same else None


@torch.inference_mode()
def _background(bank: MemoryBank, number: int, encoder: Encoder) -> float | None:
    """Share of a reference's mask whose tokens are more like those outside than like the class without it."""
    if bank.crops[number] is None:
        return None
    crop, mask = decode_picture(bank.crops[number])
    weights = patch_weights(mask, encoder.size, encoder.grid)
    outside = weights == 0
    if not outside.any():
        return None
    tokens = encoder(crop[None].to(encoder.normalize.mean.device))[0].float().cpu()
    own = prototype_without(bank.vectors, bank.references_of(int(bank.class_index[number])), [number])
    tokens = F.normalize(tokens, dim=1)
    around = F.normalize(tokens[outside].mean(dim=0), dim=0)
    like_around = tokens @ around > tokens @ F.normalize(bank.vectors[number] if own is None else own, dim=0)
    return float((weights * like_around).sum() / weights.sum())
