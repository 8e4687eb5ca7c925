"""Leave-one-out: what the references of a class find in the images of the others, and what that says about each.

An image is searched with a memory that lacks the references taken from it. What is found there is one of three: a
reference; certainly wrong, because it lies on a reference of another class, on a part of one, or on one that was found
already; or of unknown truth, because references are annotated one object at a time, and the rest of an image is not.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.analysis.annotated_proposals import AnnotatedProposals, annotate
from no_time_to_train.analysis.reference_report import MeasuredReference
from no_time_to_train.analysis.score_thresholds import ClassScores
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.file_hashes import sha256_if_readable
from no_time_to_train.method.encoder import without_autocast
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import classify_and_merge, score
from no_time_to_train.method.settings import Settings

#: IoU with an annotated instance from which a mask counts as found.
FOUND_IOU = 0.5

#: Share of a mask inside a reference, or of a reference inside a mask of its class, from which the mask is about it.
ABOUT = 0.5


@dataclass
class MeasuredImage:
    """An image of references.

    Attributes:
        proposals: Its proposals, and the instances that are references.
        references: The number of each instance's reference in the memory, in the order of ``proposals.iou``'s columns.
    """

    name: str
    proposals: AnnotatedProposals
    references: list[int]


@dataclass
class LeaveOneOut:
    """What leave-one-out gives for a set of references.

    Attributes:
        classes: The scores of each class.
        references: What was found on each reference, by its number.
        without: The scores of each reference's class if it did not exist, by its number, where that was wanted.
    """

    classes: list[ClassScores]
    references: dict[int, MeasuredReference] = field(default_factory=dict)
    without: dict[int, ClassScores] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Add what another image gives, as ``dataclasses.asdict`` and JSON, whose keys are texts, have made it."""
        for ours, theirs in zip(self.classes, record["classes"], strict=True):
            ours.add(theirs)
        self.references |= {int(number): MeasuredReference(**one) for number, one in record["references"].items()}
        for number, scores in record["without"].items():
            self.without.setdefault(int(number), ClassScores()).add(scores)


class Ranked(NamedTuple):
    """The instances of an image, in descending order of score, as ``Segmenter.match_and_merge`` returns them.

    Attributes:
        rows: int64 [n], the proposal that each is.
        classes: int64 [n], the class of each, as its index in the whole memory.
        scores: float32 [n].
    """

    rows: Tensor
    classes: Tensor
    scores: Tensor


def references_by_image(bank: MemoryBank) -> list[list[int]]:
    """The numbers of the references of a memory that were taken from each image, or from copies of its file."""
    in_image: dict[tuple[Any, ...], list[int]] = {}
    for number, image in enumerate(bank.images):
        content = sha256_if_readable(image.name) or image.name
        in_image.setdefault((content, *image.mask["size"]), []).append(number)
    return list(in_image.values())


def measured_image(
    bank: MemoryBank, numbers: list[int], propose: Callable[[NDArray[np.uint8], MemoryBank], DescribedProposals]
) -> MeasuredImage:
    """Propose masks in the image that some references of a memory were taken from.

    ``propose`` takes an image, and the memory that guided prompts may know: that without the image's own references.
    """
    out, _ = left_out(bank, numbers)
    part = bank.keep_references([one for one in range(len(bank)) if one not in out])
    assert part is not None  # each class keeps a reference
    image = bank.images[numbers[0]]
    pixels, instances = image.read(), [decode_mask(bank.images[number].mask) for number in numbers]
    return MeasuredImage(image.name, annotate(propose(pixels, part), pixels.shape[:2], instances), numbers)


def leave_one_out(
    bank: MemoryBank, images: Iterable[MeasuredImage], settings: Settings, each: bool = False
) -> LeaveOneOut:
    """Search each image without its own references.

    Args:
        images: The images of the references; each reference is in one of them. One is needed at a time.
        each: Search each image without each other reference as well, to see what that one is worth.
    """
    found = LeaveOneOut([ClassScores() for _ in bank.categories])
    for image in images:
        out, kept = left_out(bank, image.references)
        ranked = rank_without(image.proposals.proposals, bank, out, settings)
        ranked = ranked._replace(scores=ranked.scores * expected_gains(bank, out)[ranked.classes])
        add_scores(found.classes, ranked, image, bank, kept)
        found.references |= {
            one: _measure(column, ranked, image, bank, kept) for column, one in enumerate(image.references)
        }
        for dropped in range(len(bank)) if each else ():
            index = int(bank.class_index[dropped])
            scores = [ClassScores() for _ in bank.categories]
            scores[index] = found.without.setdefault(dropped, scores[index])
            out, kept = left_out(bank, image.references, dropped)
            part = rank_without(image.proposals.proposals, bank, out, settings, only=index)
            gain = expected_gains(bank, out, dropped)[index]
            add_scores(scores, part._replace(scores=part.scores * gain), image, bank, kept)
    return found


def left_out(bank: MemoryBank, of_image: Collection[int], dropped: int | None = None) -> tuple[set[int], set[int]]:
    """The references to leave out where an image is searched, and the classes that keep one of this image.

    A class whose positive references are all in the image keeps them: without it, its objects would go to others.

    Args:
        of_image: The references that were taken from the image.
        dropped: One to leave out in any case, if another positive one of its class remains.
    """
    out = {*of_image, *([] if dropped is None else [dropped])}
    kept = {index for index in range(len(bank.categories)) if out.issuperset(bank.references_of(index))}
    return {one for one in out if int(bank.class_index[one]) not in kept}, kept


def prototype_without(vectors: Tensor, members: Iterable[int], out: Collection[int]) -> Tensor | None:
    """The mean, float32 [D], of a class's members among vectors [M, D] without some; None where none is left."""
    rest = [one for one in members if one not in out]
    return vectors[rest].mean(dim=0) if rest else None


@torch.inference_mode()
def rank_without(
    proposals: DescribedProposals, bank: MemoryBank, out: Collection[int], settings: Settings, only: int | None = None
) -> Ranked:
    """Find the instances of an image with a memory that lacks some references; tensors on the CPU.

    Args:
        proposals: The proposals of the image. They do not depend on the memory, except with guided prompts.
        out: The references that are left out. A class without any other positive one finds nothing.
        only: Find only the instances of this class, in less time; its index in the whole memory.
    """
    nothing = Ranked(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    part = bank.keep_references([one for one in range(len(bank)) if one not in out])
    if part is None:
        return nothing
    assert part.prototypes is not None
    whole = torch.tensor([bank.categories.index(category) for category in part.categories])
    device = proposals.vectors.device
    prototypes = part.prototypes.to(device)
    negatives = None if part.negatives is None else part.negatives.to(device)
    with without_autocast(proposals.vectors):
        rows = torch.arange(len(proposals), device=device)
        if only is not None:
            classified = score(proposals, prototypes, settings, negatives)
            rows = classified.rows[whole.to(device)[classified.classes] == only].sort().values
            if not len(rows):
                return nothing
        candidates, _ = classify_and_merge(proposals[rows], prototypes, settings, negatives)
    best = candidates.scores.argsort(descending=True, stable=True)
    classes = whole[candidates.classes[best].cpu()]
    if only is not None:
        best, classes = best[(classes == only).to(device)], classes[classes == only]
    best = best[: settings.max_instances]
    return Ranked(rows[candidates.rows[best]].cpu(), classes[: len(best)], candidates.scores[best].cpu())


def add_scores(
    scores: list[ClassScores], ranked: Ranked, image: MeasuredImage, bank: MemoryBank, kept: set[int]
) -> None:
    """Sort what was found in an image into the scores of each class, in place.

    What the classes in ``kept``, which keep a reference of this image, find here does not count.
    """
    iou, inside, covered = (
        one[ranked.rows] for one in (image.proposals.iou, image.proposals.inside, image.proposals.covered)
    )
    classes = bank.class_index[image.references]
    positive = ~bank.negative[image.references]
    waiting = set()
    for column, reference in enumerate(image.references):
        if positive[column] and int(classes[column]) not in kept:
            scores[int(classes[column])].found[reference] = 0.0
            waiting.add(column)
    for row, (class_index, value) in enumerate(zip(ranked.classes.tolist(), ranked.scores.tolist(), strict=True)):
        if class_index in kept:
            continue
        own = (classes == class_index) & positive
        hits = [column for column in waiting if own[column] and iou[row, column] >= FOUND_IOU]
        about = (iou[row] >= FOUND_IOU) | (inside[row] >= ABOUT) | (own & (covered[row] >= ABOUT))
        if hits:
            best = max(hits, key=lambda column: float(iou[row, column]))
            scores[class_index].found[image.references[best]] = value
            waiting.remove(best)
        elif about.any():
            scores[class_index].wrong.append(value)
        else:
            scores[class_index].unknown.append(value)


def expected_gains(bank: MemoryBank, out: Collection[int], dropped: int | None = None) -> Tensor:
    """How much higher the scores of each class are expected to be with all of its references: float32 [C].

    A mean of k vectors points less exactly to what they have in common than a mean of n. With g the mean cosine between
    two references of a class, and r = (1 - g) / g the spread relative to what is common, the cosine of an object to the
    mean of k is expected to be proportional to (1 + r / k) ^ -1/2.

    Args:
        dropped: One that does not count as one of its class; None counts all.
    """
    gains = torch.ones(len(bank.categories))
    for index in range(len(gains)):
        members = [one for one in bank.references_of(index) if one != dropped]
        n, rest = len(members), len([one for one in members if one not in out])
        if 0 < rest < n:
            vectors = F.normalize(bank.vectors[members], dim=1)
            common = ((vectors @ vectors.T).sum() - n) / (n * (n - 1))
            spread = 1 / common.clamp(0.1, 1) - 1
            gains[index] = ((1 + spread / rest) / (1 + spread / n)).sqrt()
    return gains


def _measure(column: int, ranked: Ranked, image: MeasuredImage, bank: MemoryBank, kept: set[int]) -> MeasuredReference:
    """What was found on a reference of an image; a class in ``kept`` says nothing about its own references."""
    number, annotated, labels = image.references[column], image.proposals, [one.name for one in bank.categories]
    index, every = int(bank.class_index[number]), annotated.iou[:, column]
    of_class = [one for one in range(len(bank)) if int(bank.class_index[one]) == index]
    measured = MeasuredReference(
        labels[index],
        image.name,
        of_class.index(number) + 1,
        negative=bool(bank.negative[number]),
        compared=index not in kept,
        best_iou=float(every.max()) if len(every) else 0.0,
        area=float(annotated.areas[column]),
    )
    if measured.best_iou > 0:
        row = int(every.argmax())
        measured.mask_ratio = float(annotated.inside[row, column] / annotated.covered[row, column])
    found = zip(every[ranked.rows].tolist(), ranked.classes.tolist(), ranked.scores.tolist(), strict=True)
    for iou, class_index, value in found:  # the best first
        if iou < FOUND_IOU or class_index in kept:
            continue
        if measured.taken_for is None:
            measured.taken_for, measured.taken_score = labels[class_index], min(value, 1.0)
        if class_index == index and measured.score is None:
            measured.iou, measured.score = iou, min(value, 1.0)
    if measured.compared and not measured.negative:
        measured.found = measured.score is not None
    return measured
