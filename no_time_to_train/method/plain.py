"""Stage 3 as METHOD.md words it, short and literal: what the fast implementation is tested and timed against."""

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from no_time_to_train.method.encoder import Encoder, Normalise
from no_time_to_train.method.mask_proposals import MaskProposer, Proposals, point_grid


def plain_features(encoder: Encoder, image: Tensor) -> Tensor:
    """Step 2: [3, S, S] to F, [D, g, g]."""
    resized = F.interpolate(image[None], (encoder.size, encoder.size), mode="bicubic", antialias=False)
    tokens = encoder.vit.forward_features(Normalise().to(image.device)(resized))[0, encoder.vit.num_prefix_tokens :]
    return tokens.T.reshape(-1, encoder.grid, encoder.grid)


def plain_decode(
    sam2: SAM2Base, embedding: Tensor, high_res_features: list[Tensor], points: Tensor, batch: int = 64
) -> Proposals:
    """Step 3 from the image's features on: the sam2 package's own decoder, all masks of all points."""
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


def plain_propose(proposer: MaskProposer, image: Tensor, batch: int = 64) -> Proposals:
    """Steps 3 and 4."""
    points = point_grid(proposer.points_per_side, proposer.size).to(image.device)
    proposals = plain_decode(proposer.sam2, *proposer.encode(image), points, batch)
    return proposals[proposals.predicted_iou > proposer.iou_thr]


def plain_mask_vectors(features: Tensor, regions: Tensor) -> Tensor:
    """Step 5: the upsampled map's mean over each region, [n, D]."""
    upsampled = F.interpolate(features[None], regions.shape[1:], mode="bilinear")[0].flatten(1)
    inside = regions.flatten(1).float()
    return F.normalize((inside @ upsampled.T) / inside.sum(dim=1, keepdim=True), dim=1)


def plain_boxes(regions: Tensor) -> Tensor:
    """Step 6: boxes of the pixels' own indices, [n, 4]."""
    boxes = []
    for region in regions:
        y, x = region.nonzero(as_tuple=True)
        boxes.append(torch.stack([x.min(), y.min(), x.max(), y.max()]))
    return torch.stack(boxes) if boxes else regions.new_zeros(0, 4, dtype=torch.int64)


def plain_soft_merge(scores: Tensor, classes: Tensor, regions: Tensor, vectors: Tensor) -> Tensor:
    """Step 8, over the class's masks as one product of floats."""
    merged = scores.clone()
    for class_index in classes.unique():
        members = (classes == class_index).nonzero()[:, 0]
        pixels = regions[members].flatten(1).float()
        overlap = (pixels @ pixels.T) / pixels.sum(dim=1, keepdim=True)
        overlap = (overlap * (vectors[members] @ vectors[members].T).clamp(min=0)).tril(diagonal=-1)
        merged[members] *= (1 - overlap.amax(dim=1)).clamp(min=0) ** 0.5
    return merged


def plain_candidates(regions: Tensor, predicted_iou: Tensor, vectors: Tensor, prototypes: Tensor) -> list[Tensor]:
    """Steps 5 and 6, of regions [n, h, w] by descending predicted IoU: rows that are kept, their scores and classes."""
    scores, classes = (vectors @ F.normalize(prototypes, dim=1).T).clamp(min=0).max(dim=1)
    kept = batched_nms(plain_boxes(regions).float(), predicted_iou, classes, 0.5).sort().values[:800]
    kept = kept[scores[kept] > 0]
    return [kept, scores[kept], classes[kept]]


def plain_match(
    proposals: Proposals, features: Tensor, prototypes: Tensor, height: int, width: int
) -> dict[str, Tensor]:
    """Steps 5 to 9: the image's instances as ``masks``, ``boxes``, ``scores`` and ``classes``."""
    filled = (proposals.logits > 0).any(dim=(1, 2)).nonzero()[:, 0]
    proposals = proposals[filled[proposals.predicted_iou[filled].argsort(descending=True, stable=True)]]
    vectors = plain_mask_vectors(features, proposals.logits > 0)
    kept, scores, classes = plain_candidates(proposals.logits > 0, proposals.predicted_iou, vectors, prototypes)
    regions = F.interpolate(proposals.logits[kept][:, None], (height, width), mode="bilinear", antialias=True)[:, 0] > 0
    filled = regions.any(dim=(1, 2)).nonzero()[:, 0]
    regions, kept, scores, classes = regions[filled], kept[filled], scores[filled], classes[filled]
    merged = plain_soft_merge(scores, classes, regions, vectors[kept])
    best = merged.argsort(descending=True, stable=True)[:100]
    return {
        "masks": regions[best],
        "boxes": plain_boxes(regions[best]),
        "scores": merged[best],
        "classes": classes[best],
    }
