"""Classification: each proposal takes the class whose prototype is most similar to it (docs/method.md, 3.5)."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.proposals import Candidates, DescribedProposals

#: Where a proposal keeps all classes, scores below this share of its best score become 0 (the published code's value).
ALL_CLASSES_SHARE = 0.6

#: Changes the similarities float [n, C] of masks to classes, which come first, with the masks' vectors float [n, D].
Adjust = Callable[[Tensor, Tensor], Tensor]


def classify(
    proposals: DescribedProposals,
    prototypes: Tensor,
    classes_per_mask: int = 1,
    adjust: Adjust | None = None,
    min_similarity: float = 0,
) -> Candidates:
    """Give every proposal its best class, or its best few, with the cosine similarity as score.

    Returns:
        n * k candidates in descending order of predicted IoU; scores may be 0.
    """
    by_iou = proposals.predicted_iou.argsort(descending=True, stable=True)
    scores, classes = best_classes(proposals.vectors[by_iou], prototypes, classes_per_mask, adjust, min_similarity)
    return Candidates(by_iou.repeat_interleave(scores.shape[1]), scores.flatten(), classes.flatten())


def best_classes(
    vectors: Tensor,
    prototypes: Tensor,
    classes_per_mask: int = 1,
    adjust: Adjust | None = None,
    min_similarity: float = 0,
) -> tuple[Tensor, Tensor]:
    """The classes most similar to each mask vector.

    Args:
        vectors: float [n, D], L2-normalized.
        prototypes: float [C, D], not normalized.
        classes_per_mask: k, the number of classes that a proposal keeps. -1 keeps all C, and scores below 0.6 times
            the proposal's best become 0.
        adjust: Changes the similarities, as negative references do.
        min_similarity: Similarities below this count as this; -1 leaves them as they are.

    Returns:
        Scores, float [n, k], similarities in [min_similarity, 1], in descending order; and class indices, int64 [n, k].
    """
    similarity = (vectors @ F.normalize(prototypes, dim=1).T).clamp(min=min_similarity)
    if adjust is not None:
        similarity = adjust(similarity, vectors)
    k = similarity.shape[1] if classes_per_mask == -1 else min(classes_per_mask, similarity.shape[1])
    scores, classes = similarity.sort(dim=1, descending=True, stable=True)  # topk leaves the order of ties open
    scores, classes = scores[:, :k], classes[:, :k]
    if classes_per_mask == -1:
        scores = scores.where(scores >= ALL_CLASSES_SHARE * scores[:, :1], 0)
    return scores, classes
