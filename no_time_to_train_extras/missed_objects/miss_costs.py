"""What the reasons of missed objects cost: how many objects have each, and how much AP would rise without it.

The gain of a reason is the AP after all objects that have it are found, minus the AP before. As TIDE corrects errors
(``error_analysis.py``): of the detections that were meant for such an object, with its class and too low an IoU or with
another class, the one with the highest score becomes a hit, and the others are removed. An object for which there is
none no longer counts. Gains do not add up, because AP is not linear.
"""

from collections import Counter
from typing import Any

from no_time_to_train.visual.html import render_text
from no_time_to_train_extras.missed_objects.error_analysis import Matches, assign_kinds, corrected_ap
from no_time_to_train_extras.missed_objects.explain import REASONS

#: Reasons that every table shows. Others are shown where an object has them.
ALWAYS = ("never_proposed", "predicted_iou", "class", "score", "suppressed", "merged", "limit")


def miss_costs(matches: Matches, reasons: dict[int, str], names: dict[int, str], hit: float = 0.5) -> dict[str, Any]:
    """Count the reasons, and compute what each costs.

    Args:
        matches: The hits of the run. Its detections get their kinds of errors.
        reasons: The reason of each missed object by its id.
        names: The names of the classes by category id.

    Returns:
        ``{"objects": n, "misses": n, "AP": ..., "gain": AP gained without any miss, "reasons": {reason: {"count": n,
        "gain": ...}}, "parts": {part of the method: {"count": n, "gain": ...}}, "per_class": {name: {reason: n}}}``,
        where AP is that at the IoU ``hit``.
    """
    for image in matches.images():
        assign_kinds(image, hit)
    before = ap_if_found(matches, set(), names)

    def cost(objects: set[int]) -> dict[str, Any]:
        return {"count": len(objects), "gain": ap_if_found(matches, objects, names) - before}

    having = {reason: {one for one, its in reasons.items() if its == reason} for reason in REASONS}
    parts = {
        part: set().union(*(having[reason] for reason in REASONS if REASONS[reason].part == part))
        for part in dict.fromkeys(reason.part for reason in REASONS.values())
    }
    per_class = {name: Counter[str]() for name in names.values()}
    for object_id, reason in reasons.items():
        per_class[names[matches.objects[object_id]["category_id"]]][reason] += 1
    return {
        "objects": len(matches.objects),
        "misses": len(reasons),
        "AP": before,
        "gain": cost(set(reasons))["gain"],
        "reasons": {reason: cost(having[reason]) for reason in REASONS if having[reason] or reason in ALWAYS},
        "parts": {part: cost(objects) for part, objects in parts.items() if objects},
        "per_class": {name: dict(counts.most_common()) for name, counts in per_class.items() if counts},
    }


def ap_if_found(matches: Matches, found: set[int], names: dict[int, str]) -> float:
    """The mean AP over classes if some missed objects, given by their ids, were found."""
    without_detection = found - {detection.target for detection in matches.detections}
    return corrected_ap(matches, lambda detection: detection.target in found, without_detection, names)


def cost_table(costs: dict[str, Any]) -> str:
    """The table of the reasons; ``costs`` has "iou" and "score", too, which a hit needs."""
    return render_text("explain.txt", costs=costs, reasons=REASONS)
