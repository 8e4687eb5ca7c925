"""Suppression of similar boxes of one class (docs/method.md, 3.6)."""

from collections.abc import Callable

from torchvision.ops import batched_nms

from no_time_to_train.method.proposals import Candidates, DescribedProposals

#: Candidates that remain for soft merging per instance that is returned in the end (the published code's value).
CANDIDATES_PER_INSTANCE = 8


def nms(candidates: Candidates, proposals: DescribedProposals, box_nms_thresh: float = 0.5) -> Candidates:
    """Non-maximum suppression per class, ranked by predicted IoU and not by similarity."""
    boxes = proposals.boxes[candidates.rows].to(candidates.scores.dtype)
    kept = batched_nms(boxes, proposals.predicted_iou[candidates.rows], candidates.classes, box_nms_thresh)
    return candidates[kept.sort().values]  # back to the candidates' order


def suppress(
    candidates: Candidates,
    proposals: DescribedProposals,
    box_nms_thresh: float = 0.5,
    max_instances: int = 100,
    lower: Callable[[Candidates, DescribedProposals, float], Candidates] = nms,
    min_similarity: float = 0,
) -> Candidates:
    """Suppress similar boxes per class.

    Args:
        candidates: In descending order of predicted IoU.
        box_nms_thresh: Box IoU above which the lower-ranked candidate of a class is dropped.
        max_instances: Instances wanted in the end. The best eight times as many candidates remain.
        lower: What happens to similar boxes.
        min_similarity: The score that a candidate must exceed.

    Returns:
        The remaining candidates, in descending order of predicted IoU.
    """
    candidates = lower(candidates, proposals, box_nms_thresh)[: CANDIDATES_PER_INSTANCE * max_instances]
    return candidates[candidates.scores > min_similarity]
