"""The numbers of the method. The paper uses the same values on every data set."""

from dataclasses import dataclass

#: The paper's context around a reference, the same on every data set.
CONTEXT_RATIO = 0.2


@dataclass(frozen=True)
class Settings:
    """How masks are proposed, classified, suppressed and merged, with the paper's values as defaults.

    Attributes that SAM 2's automatic mask generator has, too, have its names.

    Attributes:
        points_per_side: Point prompts per side of the square grid.
        points_per_batch: Prompts decoded at once. Affects speed and memory only, never results.
        pred_iou_thresh: Proposals with a predicted IoU at or below this are dropped.
        box_nms_thresh: Box IoU above which non-maximum suppression drops the lower-ranked proposal of a class.
        max_instances: Instances returned per image at most.
        classes_per_mask: Classes that one proposal may be assigned to; -1 means all of them.
        merge_exponent: Exponent of the share of a mask that better masks leave uncovered (soft merging).
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.4
    box_nms_thresh: float = 0.5
    max_instances: int = 100
    classes_per_mask: int = 1
    merge_exponent: float = 0.5
