"""Classification: each proposal takes the class whose prototype is most similar to it (docs/method.md, 3.5)."""

from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.beyond.negatives import Negatives, lower_by_negatives
from no_time_to_train.method.proposals import Candidates, DescribedProposals
from no_time_to_train.method.prototypes import Prototypes, per_class
from no_time_to_train.method.settings import Score

#: Where a proposal keeps all classes, scores below this share of its best score become 0 (the published code's value).
ALL_CLASSES_SHARE = 0.6


def classify(
    proposals: DescribedProposals,
    prototypes: Prototypes,
    classes_per_mask: int = 1,
    negatives: Negatives | None = None,
    score: Score = "cosine",
) -> Candidates:
    """Give every proposal its best class, or its best few, with the cosine similarity as score.

    Args:
        proposals: The n proposals of one image.
        prototypes: The prototypes of the memory.
        score: ``cosine`` is the paper's; ``cosine_iou`` multiplies the similarity by the predicted IoU, so that of two
            masks that are as similar the one with the better outline wins. The classes stay the same.

    Returns:
        n * k candidates in descending order of predicted IoU; scores may be 0.
    """
    by_iou = proposals.predicted_iou.argsort(descending=True, stable=True)
    scores, classes = best_classes(proposals.vectors[by_iou], prototypes, classes_per_mask, negatives)
    if score == "cosine_iou":
        scores = scores * proposals.predicted_iou[by_iou, None].clamp(0, 1)
    rows = by_iou.repeat_interleave(scores.shape[1])
    return Candidates(rows, scores.flatten(), classes.flatten())


def best_classes(
    vectors: Tensor, prototypes: Prototypes, classes_per_mask: int = 1, negatives: Negatives | None = None
) -> tuple[Tensor, Tensor]:
    """The classes most similar to each mask vector.

    Args:
        vectors: float [n, D], L2-normalized.
        prototypes: The prototypes of the C classes.
        classes_per_mask: k, the number of classes that a proposal keeps. -1 keeps all C, and scores below 0.6 times
            the proposal's best become 0.
        negatives: The negative shots of the memory, which lower the similarities to their classes.

    Returns:
        Scores, float [n, k], similarities in [0, 1], in descending order; and class indices, int64 [n, k].
    """
    similarity = per_class((vectors @ F.normalize(prototypes.vectors, dim=1).T).clamp(min=0), prototypes.classes)
    if negatives is not None:
        similarity = lower_by_negatives(similarity, vectors, negatives)
    k = similarity.shape[1] if classes_per_mask == -1 else min(classes_per_mask, similarity.shape[1])
    scores, classes = similarity.sort(dim=1, descending=True, stable=True)  # topk leaves the order of ties open
    scores, classes = scores[:, :k], classes[:, :k]
    if classes_per_mask == -1:
        scores = scores.where(scores >= ALL_CLASSES_SHARE * scores[:, :1], 0)
    return scores, classes
