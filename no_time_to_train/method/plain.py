"""Stage 3 on one page, step by step as the paper states it, without any savings.

:func:`segment` is the method. It takes about five times as long as ``Segmenter.segment`` and gives the same instances:
the property tests and the timing code compare the two. The numbers are the sections of docs/method.md.
"""

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms, masks_to_boxes

from no_time_to_train.method.beyond.negatives import NEGATIVE_SCALE, Negatives
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.mask_proposals import MaskProposer, point_grid
from no_time_to_train.method.proposals import Proposals


def segment(
    encoder: Encoder,
    proposer: MaskProposer,
    prototypes: Tensor,
    image: Tensor,
    height: int,
    width: int,
    negatives: Negatives | None = None,
) -> Detections:
    """Find the instances of the memory's classes in an image.

    Args:
        encoder: DINOv2.
        proposer: SAM 2.
        prototypes: float [C, D], not normalized.
        image: float [3, S, S] in [0, 1], where S is SAM 2's input size.
        negatives: The negative shots; None where there are none.

    Returns:
        At most 100 instances in descending order of score.
    """
    features = encode(encoder, image)
    proposals = propose(proposer, image)
    return match_and_merge(proposals, features, prototypes, height, width, negatives)


def encode(encoder: Encoder, image: Tensor) -> Tensor:
    """3.2: the feature map, float [D, g, g], of an image [3, S, S] in [0, 1]."""
    resized = F.interpolate(image[None], (encoder.size, encoder.size), mode="bicubic", antialias=False)
    tokens = encoder.vit.forward_features(encoder.normalize(resized))[0, encoder.vit.num_prefix_tokens :]
    return tokens.T.reshape(-1, encoder.grid, encoder.grid)


def propose(proposer: MaskProposer, image: Tensor, batch: int = 64) -> Proposals:
    """3.3 and 3.4: masks at every point of a grid, those whose predicted IoU is above the threshold."""
    points = point_grid(proposer.points_per_side, proposer.size).to(image.device)
    proposals = decode(proposer.sam2, *proposer.encode(image), points, batch)
    return proposals[proposals.predicted_iou > proposer.pred_iou_thresh]


def decode(
    sam2: SAM2Base, embedding: Tensor, high_res_features: list[Tensor], points: Tensor, batch: int = 64
) -> Proposals:
    """3.3 from the image's features on: the sam2 package's decoder, and the best of three masks per point."""
    logits, predicted_iou = [], []
    for part in points.split(batch):
        labels = torch.ones(len(part), 1, dtype=torch.int, device=part.device)
        sparse, dense = sam2.sam_prompt_encoder(points=(part[:, None], labels), boxes=None, masks=None)
        masks, ious, _, _ = sam2.sam_mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=sam2.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=True,
            high_res_features=high_res_features,
        )
        best = ious[:, 1:].argmax(dim=1) + 1
        each = torch.arange(len(part), device=part.device)
        logits.append(masks[each, best])
        predicted_iou.append(ious[each, best])
    return Proposals(torch.cat(logits), torch.cat(predicted_iou))


def match_and_merge(
    proposals: Proposals,
    features: Tensor,
    prototypes: Tensor,
    height: int,
    width: int,
    negatives: Negatives | None = None,
) -> Detections:
    """3.5 to 3.9: the instances among an image's proposals."""
    filled = (proposals.logits > 0).any(dim=(1, 2)).nonzero()[:, 0]
    proposals = proposals[filled[proposals.predicted_iou[filled].argsort(descending=True, stable=True)]]
    vectors = pool(features, proposals.logits > 0)
    scores, classes = classify(vectors, prototypes, negatives)
    kept = suppress(proposals.logits > 0, proposals.predicted_iou, scores, classes)
    logits, vectors, scores, classes = proposals.logits[kept], vectors[kept], scores[kept], classes[kept]
    regions = F.interpolate(logits[:, None], (height, width), mode="bilinear", antialias=True)[:, 0] > 0
    filled = regions.any(dim=(1, 2)).nonzero()[:, 0]
    regions, vectors, scores, classes = regions[filled], vectors[filled], scores[filled], classes[filled]
    scores = soft_merge(scores, classes, regions, vectors)
    best = scores.argsort(descending=True, stable=True)[:100]
    return Detections(regions[best], masks_to_boxes(regions[best]).long(), scores[best], classes[best])


def pool(features: Tensor, regions: Tensor) -> Tensor:
    """3.5: the mean of the upsampled feature map over each region, L2-normalized: [n, D]."""
    upsampled = F.interpolate(features[None], regions.shape[1:], mode="bilinear")[0].flatten(1)
    inside = regions.flatten(1).float()
    return F.normalize((inside @ upsampled.T) / inside.sum(dim=1, keepdim=True), dim=1)


def classify(vectors: Tensor, prototypes: Tensor, negatives: Negatives | None = None) -> tuple[Tensor, Tensor]:
    """3.5: the cosine similarity, clamped at 0, with the most similar prototype, and its class: [n] and [n]."""
    similarity = (vectors @ F.normalize(prototypes, dim=1).T).clamp(min=0)
    if negatives is not None:
        for class_index in negatives.classes.unique():
            of_class = F.normalize(negatives.vectors[negatives.classes == class_index], dim=1)
            ahead = (vectors @ of_class.T).amax(dim=1) - similarity[:, class_index]
            similarity[:, class_index] *= torch.exp(-ahead.clamp(min=0) / NEGATIVE_SCALE)
    return similarity.max(dim=1)


def suppress(regions: Tensor, predicted_iou: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
    """3.6: the rows, in descending predicted IoU, that non-maximum suppression per class keeps."""
    kept = batched_nms(masks_to_boxes(regions), predicted_iou, classes, 0.5).sort().values[:800]
    return kept[scores[kept] > 0]


def soft_merge(scores: Tensor, classes: Tensor, regions: Tensor, vectors: Tensor) -> Tensor:
    """3.8: scores, in descending predicted IoU, lowered where a better mask of the class covers and resembles."""
    merged = scores.clone()
    for class_index in classes.unique():
        members = (classes == class_index).nonzero()[:, 0]
        pixels = regions[members].flatten(1).float()
        overlap = (pixels @ pixels.T) / pixels.sum(dim=1, keepdim=True)
        overlap = (overlap * (vectors[members] @ vectors[members].T).clamp(min=0)).tril(diagonal=-1)
        merged[members] *= (1 - overlap.amax(dim=1)).clamp(min=0) ** 0.5
    return merged
