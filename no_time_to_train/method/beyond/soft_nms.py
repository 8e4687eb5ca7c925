"""Soft-NMS, an alternative to the paper's suppression (Bodla et al., arXiv 1704.04503, 3)."""

import torch
from torchvision.ops import box_iou

from no_time_to_train.method.proposals import Candidates, DescribedProposals

#: How fast the scores of overlapping boxes fall.
SIGMA = 0.5


def soft_nms(candidates: Candidates, proposals: DescribedProposals, box_nms_thresh: float = 0.5) -> Candidates:
    """Soft-NMS with a Gaussian: boxes that a better one overlaps lose score. The threshold is not used.

    Per class, the candidate with the highest score is taken, and the scores of all that are not taken yet are
    multiplied by ``exp(-IoU^2 / sigma)``, until all are taken.
    """
    lowered = candidates.scores.clone()
    for class_index in candidates.classes.unique():
        members = (candidates.classes == class_index).nonzero()[:, 0]
        boxes = proposals.boxes[candidates.rows[members]].to(lowered.dtype)
        overlap = box_iou(boxes, boxes).nan_to_num(0)  # two boxes one pixel wide have no area; NMS keeps both as well
        factors = (-(overlap**2) / SIGMA).exp()
        scores, waiting = lowered[members], candidates.scores[members]
        for _ in range(len(members)):
            best = waiting.argmax()
            scores[best] = waiting[best]
            waiting = waiting * factors[best]
            waiting[best] = -torch.inf  # which no factor brings back to 0
        lowered[members] = scores
    return Candidates(candidates.rows, lowered, candidates.classes)
