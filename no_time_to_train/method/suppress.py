"""Suppression of similar boxes of one class (docs/method.md, 3.6), with two alternatives to the paper's."""

import torch
from torchvision.ops import batched_nms, box_iou

from no_time_to_train.method.proposals import Candidates, DescribedProposals
from no_time_to_train.method.settings import Suppression

#: Candidates that remain for soft merging per instance that is returned in the end (the published code's value).
CANDIDATES_PER_INSTANCE = 8

#: How fast the scores of overlapping boxes fall with Soft-NMS (Bodla et al., arXiv 1704.04503, 3).
SOFT_NMS_SIGMA = 0.5


def suppress(
    candidates: Candidates,
    proposals: DescribedProposals,
    box_nms_thresh: float = 0.5,
    max_instances: int = 100,
    suppression: Suppression = "nms",
) -> Candidates:
    """Suppress similar boxes per class.

    The paper's non-maximum suppression is ranked by predicted IoU and not by similarity.

    Args:
        candidates: In descending order of predicted IoU.
        proposals: The proposals that the candidates' rows refer to.
        box_nms_thresh: Box IoU above which ``nms`` drops the lower-ranked candidate of a class.
        max_instances: Instances wanted in the end. The best eight times as many candidates remain.
        suppression: ``nms`` keeps of similar boxes the one with the best predicted IoU; ``soft_nms`` lowers scores
            instead (:func:`soft_nms`); ``none`` changes nothing.

    Returns:
        The remaining candidates with a positive score, in descending order of predicted IoU.
    """
    if suppression == "nms":
        boxes = proposals.boxes[candidates.rows].to(candidates.scores.dtype)
        kept = batched_nms(boxes, proposals.predicted_iou[candidates.rows], candidates.classes, box_nms_thresh)
        candidates = candidates[kept.sort().values]  # back to the candidates' order
    elif suppression == "soft_nms":
        candidates = soft_nms(candidates, proposals)
    candidates = candidates[: CANDIDATES_PER_INSTANCE * max_instances]
    return candidates[candidates.scores > 0]


def soft_nms(candidates: Candidates, proposals: DescribedProposals, sigma: float = SOFT_NMS_SIGMA) -> Candidates:
    """Soft-NMS with a Gaussian (Bodla et al., arXiv 1704.04503): boxes that a better one overlaps lose score.

    Per class, the candidate with the highest score is taken, and the scores of all that are not taken yet are
    multiplied by ``exp(-IoU^2 / sigma)``, until all are taken.

    Args:
        candidates: In any order.
        proposals: The proposals that the candidates' rows refer to.

    Returns:
        The same candidates with new scores.
    """
    lowered = candidates.scores.clone()
    for class_index in candidates.classes.unique():
        members = (candidates.classes == class_index).nonzero()[:, 0]
        boxes = proposals.boxes[candidates.rows[members]].to(lowered.dtype)
        overlap = box_iou(boxes, boxes).nan_to_num(0)  # two boxes one pixel wide have no area; NMS keeps both as well
        factors = (-(overlap**2) / sigma).exp()
        scores, waiting = lowered[members], candidates.scores[members]
        for _ in range(len(members)):
            best = waiting.argmax()
            scores[best] = waiting[best]
            waiting = waiting * factors[best]
            waiting[best] = -torch.inf  # which no factor brings back to 0
        lowered[members] = scores
    return Candidates(candidates.rows, lowered, candidates.classes)
