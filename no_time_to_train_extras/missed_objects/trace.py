"""Where each proposal of an image leaves the method: the steps of ``Segmenter.match_and_merge``, recorded."""

from dataclasses import dataclass

import torch
from torch import Tensor

from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import without_autocast
from no_time_to_train.method.proposals import Candidates, DescribedProposals
from no_time_to_train.method.segmenter import SUPPRESS, Segmenter, keep_best, merge, score
from no_time_to_train.method.suppress import suppress
from no_time_to_train.plugins import choose


@dataclass
class Trace:
    """What happened to each of the n candidates of an image, that is, to each class of each proposal.

    Attributes:
        candidates: All candidates before suppression, in descending order of predicted IoU (docs/method.md, 3.5).
        suppressed: float32 [n], their scores after suppression (3.6); NaN where it dropped the candidate. Candidates
            beyond the number that merging takes have a score here.
        merged: float32 [n], their scores after merging (3.8); NaN where the candidate did not get there.
        kept: int64 [m], the candidate of each detection.
        detections: The same as ``Segmenter.match_and_merge`` returns.
    """

    candidates: Candidates
    suppressed: Tensor
    merged: Tensor
    kept: Tensor
    detections: Detections


@torch.inference_mode()
def trace(segmenter: Segmenter, proposals: DescribedProposals) -> Trace:
    """Classify, suppress, upsample, merge and keep the best by the steps of ``Segmenter.match_and_merge``.

    The networks are not used. The tensors of the trace are on the CPU.
    """
    settings = segmenter.settings
    with without_autocast(segmenter.prototypes):
        candidates = score(proposals, segmenter.prototypes, settings, segmenter.negatives)
        threshold, way = settings.box_nms_thresh, choose(SUPPRESS, settings.suppression)
        every = suppress(candidates, proposals, threshold, max(len(candidates), 1), way)
        taken = suppress(candidates, proposals, threshold, settings.max_instances, way)
        taken, masks = merge(proposals, taken, settings)
        detections = keep_best(proposals, taken, masks, settings.max_instances)
    best = taken.scores.argsort(descending=True, stable=True)[: settings.max_instances]
    places = _places(taken, candidates)
    return Trace(
        Candidates(candidates.rows.cpu(), candidates.scores.cpu(), candidates.classes.cpu()),
        _spread(every.scores, _places(every, candidates), len(candidates)),
        _spread(taken.scores, places, len(candidates)),
        places[best].cpu(),
        detections,
    )


def _places(some: Candidates, every: Candidates) -> Tensor:
    """The index of each of some candidates among all: int64 [m]. A proposal has one candidate per class."""
    classes = int(every.classes.max()) + 1 if len(every) else 1
    keys, wanted = (one.rows * classes + one.classes for one in (every, some))
    order = keys.argsort()
    return order[torch.searchsorted(keys[order], wanted)]


def _spread(values: Tensor, places: Tensor, count: int) -> Tensor:
    """float32 [count] on the CPU with values at some places, and NaN at the others."""
    return values.new_full((count,), torch.nan).index_copy_(0, places, values).cpu()
