"""Why an object was not found: which step of the method lost it.

An object is missed. Each proposal that covers it, with an IoU of at least the one that a hit needs, was lost for one of
the ``REASONS``. The proposal that got furthest explains the object: one that was merged before one that was suppressed,
and that before one of another class. Of several, the one with the highest score does, and of those the one with the
highest IoU. So each missed object has exactly one reason. If the proposal that suppressed another one covers the object
as well, suppression is not to blame.

Where no proposal of the run covers the object, wider ones are searched: those with any predicted IoU, and, with guided
prompts, those of all points.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from no_time_to_train.data.coco import index_coco
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.rle import coco_object, encode_mask
from no_time_to_train.errors import UserError, suggest
from no_time_to_train.files import read_json
from no_time_to_train.method.encoder import without_autocast
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter, score
from no_time_to_train.method.settings import Settings
from no_time_to_train_extras.missed_objects.error_analysis import find_matches
from no_time_to_train_extras.missed_objects.trace import Trace, trace

#: Pixels of masks, one byte each, that exist at once while they are compared with objects.
PIXELS_AT_ONCE = 2**26


class Reason(NamedTuple):
    """A reason why an object is missed: a title for tables, a sentence, and the part of the method that lost it."""

    title: str
    meaning: str
    part: str


#: The reasons in the order of the method's steps.
REASONS = {key: Reason(**reason) for key, reason in read_json(Path(__file__).with_name("reasons.json")).items()}


@dataclass
class MissedObjects:
    """The k objects of one image that are to be explained.

    Attributes:
        names: The names of the memory's C classes.
        classes: The index of each object's class in the memory, in [0, C).
        boxes: float64 [k, 4], x, y, w, h in pixels.
        masks: bool [k, H, W]; None where hits are decided by boxes.
    """

    names: list[str]
    classes: list[int]
    boxes: NDArray[np.float64]
    masks: NDArray[np.bool_] | None
    height: int
    width: int

    def some(self, indices: list[int]) -> "MissedObjects":
        """Some of the objects."""
        classes, masks = [self.classes[index] for index in indices], self.masks
        masks = None if masks is None else masks[indices]
        return replace(self, classes=classes, boxes=self.boxes[indices], masks=masks)


@dataclass
class Finding:
    """Why one object is missed.

    Attributes:
        reason: A key of ``REASONS``.
        best_iou: The highest IoU of any proposal with the object.
        iou: The IoU of the proposal that the reason is about: the best one where it was never proposed.
        predicted_iou: SAM 2's own estimate for this proposal; None where there is none.
        score: The proposal's score for the object's class, before suppression and merging; None likewise.
        final_score: The same after merging; None where the proposal did not get there.
        taken_for: The class that the proposal is most similar to; None where there is no proposal.
        mask: The proposal's mask, bool [H, W]; None where there is none.
    """

    reason: str
    best_iou: float = 0.0
    iou: float = 0.0
    predicted_iou: float | None = None
    score: float | None = None
    final_score: float | None = None
    taken_for: str | None = None
    taken_score: float | None = None
    mask: NDArray[np.bool_] | None = None


#: A reason, and what makes the proposals among which an object that has it is found.
Search = tuple[str, Callable[[], DescribedProposals]]


def wider_settings(settings: Settings) -> dict[str, Settings]:
    """What finds the proposals that a run has not made, by the reason of an object that is found among them."""
    every = replace(settings, pred_iou_thresh=0.0)
    searches = {"predicted_iou": every}
    if settings.prompts == "guided":
        searches["no_prompt"] = replace(every, prompts="grid")
    return searches


def with_settings(segmenter: Segmenter, settings: Settings) -> Segmenter:
    """A segmenter with the same networks and memory, and other settings."""
    assert segmenter.proposer is not None
    proposer = MaskProposer(segmenter.proposer.sam2, settings).to(segmenter.prototypes.device)
    return Segmenter(segmenter.encoder, proposer, segmenter.prototypes, settings, segmenter.negatives)


def explain_image(
    truth: Sequence[tuple[str, NDArray[np.bool_]]],
    found: Instances,
    segmenter: Segmenter,
    propose: Callable[[Segmenter], DescribedProposals],
    min_iou: float,
    min_score: float,
) -> list[Finding | None]:
    """Say of each object of an image why it is missed: as no instance found there is matched with it, as by COCO.

    Args:
        truth: The label and the mask, bool [H, W], of each object. For one that is found, the answer is None.
        propose: The proposals of the image by a segmenter with other settings.
        min_iou: The IoU with an object that a hit needs.
    """
    names, (height, width) = [category.name for category in found.categories], found.image.shape[:2]
    for label, _ in truth:
        if label not in names:
            raise UserError(f"the memory has no class {label!r}{suggest(label, names)}")
    masks = np.array([mask for _, mask in truth], bool).reshape(-1, height, width)
    classes = [names.index(label) for label, _ in truth]
    annotations = [
        {"id": index, "image_id": 1, "category_id": found.categories[class_index].id, **coco_object(encode_mask(mask))}
        for index, (class_index, mask) in enumerate(zip(classes, masks, strict=True), start=1)
    ]
    images = [{"id": 1, "height": height, "width": width}]
    categories = [{"id": category.id, "name": category.name} for category in found.categories]
    coco = index_coco({"images": images, "categories": categories, "annotations": annotations})
    matches = find_matches(coco, found.to_coco(1), found.categories, "segm", COCOeval, hit=min_iou)
    missed = sorted(index - 1 for index in matches.objects.keys() - matches.hit_objects)
    boxes = np.array([one["bbox"] for one in annotations], float).reshape(-1, 4)
    objects = MissedObjects(names, classes, boxes, masks, height, width).some(missed)
    searches = [
        (reason, partial(propose, with_settings(segmenter, settings)))
        for reason, settings in wider_settings(segmenter.settings).items()
    ]
    explained, _ = explain_objects(objects, segmenter, propose(segmenter), searches, min_iou, min_score)
    findings = dict(zip(missed, explained, strict=True))
    return [findings.get(index) for index in range(len(truth))]


def explain_objects(
    objects: MissedObjects,
    segmenter: Segmenter,
    proposals: DescribedProposals,
    searches: Iterable[Search],
    min_iou: float = 0.5,
    min_score: float = 0.0,
) -> tuple[list[Finding], Trace]:
    """Find the reason of each missed object of one image, in their order, and the trace of the run's proposals.

    Args:
        proposals: The run's proposals, on the device of the networks.
        searches: Wider proposals, which are made only where an object is in none of those before.
        min_iou: The IoU with an object that a hit needs.
    """
    traced = trace(segmenter, proposals)
    fates_of = Fates(traced, min_score)
    findings = [Finding("never_proposed") for _ in objects.classes]
    every: list[Search] = [("", lambda: proposals), *searches]
    for reason, propose in every:
        missing = [index for index, found in enumerate(findings) if found.reason == "never_proposed"]
        if not missing:
            break
        searched = propose()
        for index, iou in zip(missing, overlap(objects.some(missing), searched), strict=True):
            found, class_index = findings[index], objects.classes[index]
            good = np.flatnonzero(iou >= min_iou).tolist()
            row = int(iou.argmax()) if len(iou) else 0
            if good and not reason:  # a proposal of the run: the one that got furthest
                fates = {row: fates_of.fate(row, class_index) for row in good}
                row = max(good, key=lambda row: (fates[row].step, fates[row].score, iou[row]))
                found.reason, found.final_score = fates[row].reason, fates[row].final_score
            elif good:  # the one that a lower threshold brings back first
                row = max(good, key=lambda row: float(searched.predicted_iou[row]))
                found.reason = reason
            elif iou.max(initial=0) <= found.best_iou:
                continue
            describe(found, iou, row, segmenter, searched, objects.names, class_index)
    return findings, traced


@torch.inference_mode()
def describe(
    found: Finding,
    iou: NDArray[np.float64],
    row: int,
    segmenter: Segmenter,
    proposals: DescribedProposals,
    names: list[str],
    class_index: int,
) -> None:
    """Set what a finding says about a proposal, given by its row.

    Args:
        iou: float64 [n], the IoU of the object with each proposal.
    """
    one = torch.tensor([row], device=proposals.vectors.device)
    with without_autocast(segmenter.prototypes):
        every = replace(segmenter.settings, classes_per_mask=len(segmenter.prototypes))
        classified = score(proposals[one], segmenter.prototypes, every, segmenter.negatives)
    scores = dict(zip(classified.classes.tolist(), classified.scores.tolist(), strict=True))
    masks = proposals.upsampled_masks(one)
    found.best_iou, found.iou = max(found.best_iou, float(iou.max())), float(iou[row])
    found.predicted_iou = float(proposals.predicted_iou[row])
    found.score = scores[class_index]
    found.taken_for, found.taken_score = names[int(classified.classes[0])], float(classified.scores[0])
    found.mask = proposals.at_full_size(one, masks)[0] if masks.areas.all() else None


class Fate(NamedTuple):
    """What happened to a proposal as a candidate of one class.

    Attributes:
        step: How far it got: 0 if it took other classes, 1 if suppression dropped it, 2 if it was beyond the number
            that merging takes, 3 if it was merged.
        score: Its score for the class at that step.
        reason: Why it did not find an object that it covers; a key of ``REASONS``.
        final_score: Its score after merging; None where it did not get there.
    """

    step: int
    score: float
    reason: str
    final_score: float | None = None


class Fates:
    """Looks up what happened to the proposals of an image; a detection needs a score of ``min_score``."""

    def __init__(self, traced: Trace, min_score: float) -> None:
        self.traced, self.min_score = traced, min_score
        candidates = traced.candidates
        pairs = zip(candidates.rows.tolist(), candidates.classes.tolist(), strict=True)
        self.index = {pair: index for index, pair in enumerate(pairs)}
        self.named = set(candidates.rows[candidates.scores > 0].tolist())
        self.kept = set(traced.kept.tolist())
        left_out = len(traced.kept) < int((~traced.merged.isnan()).sum())
        self.lowest_kept = float(traced.detections.scores.min()) if left_out else 0.0

    def fate(self, row: int, class_index: int) -> Fate:
        """What happened to the candidate of a proposal and a class."""
        index = self.index.get((row, class_index))
        first = 0.0 if index is None else float(self.traced.candidates.scores[index])
        if index is None or first <= 0:
            return Fate(0, 0.0, "class" if row in self.named else "score")
        suppressed, merged = float(self.traced.suppressed[index]), float(self.traced.merged[index])
        if math.isnan(suppressed):
            return Fate(1, first, "score" if first < self.min_score else "suppressed")
        if math.isnan(merged):
            return Fate(2, suppressed, self._lowered(first, suppressed, suppressed) or "limit")
        if index in self.kept and merged >= self.min_score:
            return Fate(3, merged, "shared", merged)
        return Fate(3, merged, self._lowered(first, suppressed, merged) or "limit", merged)

    def _lowered(self, first: float, suppressed: float, merged: float) -> str | None:
        """The step after which the score is too low to be kept; None if it is not, or was so from the beginning."""
        steps = (first, "score"), (suppressed, "suppressed"), (merged, "merged")
        for value, reason in steps:
            if value < self.min_score:
                return reason
        return next((reason for value, reason in steps[1:] if value <= self.lowest_kept < first), None)


def overlap(objects: MissedObjects, proposals: DescribedProposals) -> NDArray[np.float64]:
    """The IoU of each object with each proposal: float64 [k, n]."""
    ious = np.zeros((len(objects.classes), len(proposals)))
    truth = None if objects.masks is None else Masks.pack(objects.masks)
    at_once = max(PIXELS_AT_ONCE // (objects.height * objects.width), 1)
    for rows in torch.arange(len(proposals)).split(at_once):
        masks = proposals.upsampled_masks(rows.to(proposals.boxes.device))
        filled = np.flatnonzero(masks.areas)
        if not len(filled):
            continue
        columns = rows.numpy()[filled]
        regions = proposals.at_full_size(rows[filled], masks[filled])
        if truth is None:
            corners = regions.boxes.numpy().astype(float)
            sides = corners[:, 2:] - corners[:, :2]  # as in the results, without + 1
            found = np.concatenate([corners[:, :2], sides], axis=1)
            ious[:, columns] = coco_mask.iou(found, objects.boxes, [0] * len(objects.boxes)).T
        else:
            shared = Masks.join([truth, regions]).intersections()[: len(truth), len(truth) :]
            ious[:, columns] = shared / (truth.areas[:, None] + regions.areas - shared)
    return ious
