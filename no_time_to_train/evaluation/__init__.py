"""Scores of COCO results, by the protocol of each benchmark."""

from no_time_to_train.evaluation.coco_ap import Metrics
from no_time_to_train.evaluation.protocols import PROTOCOLS, check_truth, evaluate
from no_time_to_train.evaluation.semantic import DEFAULT_THRESHOLD

__all__ = ["DEFAULT_THRESHOLD", "PROTOCOLS", "Metrics", "check_truth", "evaluate"]
