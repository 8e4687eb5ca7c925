"""Score thresholds that are estimated from references alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from no_time_to_train.analysis.score_thresholds import ClassScores, Threshold, best_thresholds, wilson
from timing.thresholds import f1

REFERENCES = dict(enumerate([0.8, 0.75, 0.7, 0.65, 0.78]))
LOW = [0.1, 0.2, 0.25, 0.3, 0.15, 0.28]


def threshold(wrong: list[float], unknown: list[float], scale: float = 1) -> Threshold:
    """The threshold of a class with the scores of ``REFERENCES`` and others, all multiplied by ``scale``."""
    references = {number: scale * score for number, score in REFERENCES.items()}
    (found,) = best_thresholds(
        [ClassScores(references, *([scale * score for score in one] for one in (wrong, unknown)))]
    )
    assert found is not None
    return found


def test_thresholds_of_drawn_scenes_are_within_0_05_of_the_best_f1_and_their_precision_is_in_its_interval() -> None:
    classes = json.loads((Path(__file__).parent / "data/threshold_scores.json").read_text())
    differences, inside = [], 0
    for one in classes:
        (found,) = best_thresholds([ClassScores(dict(enumerate(one["found"])), one["wrong"], one["unknown"])])
        assert found is not None
        scores = np.array(one["right"] + one["others"])
        right = np.arange(len(scores)) < len(one["right"])
        best = max(f1(scores, right, one["objects"], value) for value in scores)
        differences.append(best - f1(scores, right, one["objects"], found.score))
        assert found.precision_at_least <= found.precision
        low, high = found.precision_interval
        inside += low <= right[scores >= found.score].mean() <= high + 1e-9
    assert np.mean(differences) <= 0.05
    assert inside >= 0.95 * len(classes)


def test_objects_that_nobody_annotated_do_not_raise_the_threshold() -> None:
    alone = threshold([], LOW)
    among = threshold([], [*LOW, 0.82, 0.76, 0.71, 0.69])
    assert abs(alone.score - among.score) <= 0.05
    assert 0.3 < among.score < 0.65
    assert among.objects == pytest.approx(9, abs=0.5)
    assert among.precision > 0.9 > among.precision_at_least


def test_masks_that_are_certainly_wrong_raise_the_threshold() -> None:
    assert threshold([0.45, 0.5, 0.52, 0.55, 0.48], LOW).score > threshold([], LOW).score + 0.05


def test_thresholds_do_not_depend_on_the_scale_of_the_scores() -> None:
    unknown = [*LOW, 0.42, 0.5, 0.55, 0.71]
    assert threshold([0.6], unknown, 0.4).score == pytest.approx(0.4 * threshold([0.6], unknown).score, abs=0.01)


def test_the_interval_of_the_precision_allows_for_few_references_and_for_misjudged_masks() -> None:
    assert wilson(0.8, 10) == pytest.approx((0.541, 0.931), abs=0.001)
    for unknown in ([*LOW, 0.5], [*LOW, 0.5, *[0.8] * 30]):
        found = threshold([0.6, 0.45], unknown)
        perhaps, wrong = (sum(score >= found.score for score in scores) for scores in (unknown, [0.6, 0.45]))
        low, high = wilson(found.precision, 5)[0], wilson((5 + perhaps) / (5 + perhaps + wrong), 5)[1]
        assert found.precision_interval == pytest.approx((low, high)), "masks of unknown truth are no trials"
    assert threshold([], LOW).precision_interval[1] == pytest.approx(1), "nothing speaks against a perfect precision"
