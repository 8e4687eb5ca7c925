"""The paper on one page: its three stages in the order of docs/method.md, without any savings.

:func:`fill` is stage 1, :func:`average` stage 2 and :func:`segment` stage 3. ``Segmenter`` gives the same instances
3.2 times as fast (timing/RESULTS.md); tests/test_fast.py and tests/test_golden.py compare the two. C classes, D the
width of a token, P = g * g patches of the encoder, n proposals.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms, masks_to_boxes

#: ImageNet's mean and standard deviation, with which both networks were trained.
MEAN, STD = torch.tensor([[[0.485]], [[0.456]], [[0.406]]]), torch.tensor([[[0.229]], [[0.224]], [[0.225]]])


class Proposals(NamedTuple):
    """Masks that SAM 2 proposes: logits float [n, 256, 256], positive inside, and their predicted IoU, float [n]."""

    logits: Tensor
    predicted_iou: Tensor


class Found(NamedTuple):
    """Instances by descending score: masks bool [n, H, W], boxes int64 [n, 4] xyxy, scores and classes [n]."""

    masks: Tensor
    boxes: Tensor
    scores: Tensor
    classes: Tensor


# Stage 1: a reference becomes a vector.


def fill(vit: Any, image: NDArray[np.uint8], mask: NDArray[np.bool_], bbox: Sequence[float]) -> Tensor:
    """The vector [D] of a reference: an image [H, W, 3], a mask [H, W], and the mask's box x, y, w, h in pixels."""
    x1, y1, x2, y2 = window(bbox, *mask.shape)
    picture = torch.from_numpy(image[y1:y2, x1:x2].copy()).permute(2, 0, 1).to(MEAN) / 255
    inside = torch.from_numpy(mask[y1:y2, x1:x2].astype(np.float32))[None, None]
    size, grid = vit.patch_embed.img_size[0], vit.patch_embed.grid_size[0]
    weights = F.interpolate(F.interpolate(inside, size, mode="bilinear"), grid, mode="nearest")
    if not weights.any():  # thinner than the sampled pixels; the published code gives NaN
        weights = F.interpolate(inside, grid, mode="area")
    tokens, weights = tokens_of(vit, picture), weights.flatten()
    return weights @ tokens / weights.sum()


def window(bbox: Sequence[float], height: int, width: int, context: float = 0.2) -> tuple[int, int, int, int]:
    """The part of the image around a reference, with context: x1, y1, x2, y2 in pixels; x2 and y2 are excluded."""
    x, y, w, h = bbox
    x1, y1, x2, y2 = int(x), int(y), int(x + w), int(y + h)
    half, cx, cy = max(x2 - x1, y2 - y1) * (1 + context) / 2, (x1 + x2) / 2, (y1 + y2) / 2
    return max(int(cx - half), 0), max(int(cy - half), 0), min(int(cx + half), width), min(int(cy + half), height)


def tokens_of(vit: Any, picture: Tensor) -> Tensor:
    """The patch tokens [P, D] of a picture, float [3, h, w] in [0, 1], which is squashed to the encoder's square."""
    square = F.interpolate(picture[None], (vit.patch_embed.img_size[0],) * 2, mode="bicubic", antialias=False)
    tokens: Tensor = vit.forward_features((square - MEAN.to(square)) / STD.to(square))
    return tokens[0, vit.num_prefix_tokens :]


# Stage 2: the vectors of a class become its prototype.


def average(vectors: Sequence[Tensor]) -> Tensor:
    """The prototypes [C, D]: per class the plain mean of the vectors [N, D] of its references."""
    return torch.stack([of_class.mean(dim=0) for of_class in vectors])


# Stage 3: the instances in an image.


def segment(
    vit: Any,
    sam2: Any,
    prototypes: Tensor,
    image: NDArray[np.uint8],
    negatives: Mapping[int, Tensor] | None = None,
    points_per_side: int = 32,
    pred_iou_thresh: float = 0.4,
) -> Found:
    """Find the instances of the classes with these prototypes [C, D] in an image [H, W, 3].

    Args:
        negatives: For classes that have negative references, their vectors [K, D].
    """
    picture = square(image, sam2.image_size).to(prototypes.device)
    proposals = propose(sam2, picture, points_per_side)
    proposals = Proposals(*(each[proposals.predicted_iou > pred_iou_thresh] for each in proposals))
    height, width = image.shape[:2]
    return match_and_merge(proposals, encode(vit, picture), prototypes, height, width, negatives)


def square(image: NDArray[np.uint8], size: int) -> Tensor:
    """3.1: the image squashed to a square, float [3, size, size] in [0, 1], for both networks."""
    squashed = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(squashed)).permute(2, 0, 1) / 255


def encode(vit: Any, picture: Tensor) -> Tensor:
    """3.2: the feature map [D, g, g]."""
    grid = vit.patch_embed.grid_size[0]
    return tokens_of(vit, picture).T.reshape(-1, grid, grid)


def propose(sam2: Any, picture: Tensor, points_per_side: int = 32) -> Proposals:
    """3.3: at every point of a grid, of three masks the one with the best predicted IoU."""
    backbone = sam2.forward_image(((picture - MEAN.to(picture)) / STD.to(picture))[None])
    _, features, _, sizes = sam2._prepare_backbone_features(backbone)
    maps = [each.permute(1, 2, 0).unflatten(2, size) for each, size in zip(features, sizes, strict=True)]
    coordinates = torch.linspace(0, sam2.image_size - 1, points_per_side) + 0.5
    return decode(sam2, maps[-1], maps[:-1], torch.cartesian_prod(coordinates, coordinates).to(picture.device))


def decode(sam2: Any, embedding: Tensor, high_res_features: list[Tensor], points: Tensor, batch: int = 64) -> Proposals:
    """3.3 from the image's features on, for points float [n, 2], x and y in pixels."""
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
    negatives: Mapping[int, Tensor] | None = None,
) -> Found:
    """3.5 to 3.9: the instances among the proposals whose predicted IoU is above the threshold (3.4)."""
    filled = (proposals.logits > 0).any(dim=(1, 2)).nonzero()[:, 0]
    order = filled[proposals.predicted_iou[filled].argsort(descending=True, stable=True)]
    logits, predicted_iou = proposals.logits[order], proposals.predicted_iou[order]
    vectors = pool(features, logits > 0)
    scores, classes = classify(vectors, prototypes, negatives)
    kept = suppress(logits > 0, predicted_iou, scores, classes)
    masks = F.interpolate(logits[kept][:, None], (height, width), mode="bilinear", antialias=True)[:, 0] > 0  # 3.7
    filled = masks.any(dim=(1, 2)).nonzero()[:, 0]
    masks, kept = masks[filled], kept[filled]
    scores, classes = soft_merge(scores[kept], classes[kept], masks, vectors[kept]), classes[kept]
    best = scores.argsort(descending=True, stable=True)[:100]  # 3.9
    return Found(masks[best], masks_to_boxes(masks[best]).long(), scores[best], classes[best])


def pool(features: Tensor, regions: Tensor) -> Tensor:
    """3.5: the mean of the upsampled feature map over each region, L2-normalized: [n, D]."""
    upsampled = F.interpolate(features[None], regions.shape[1:], mode="bilinear")[0].flatten(1)
    inside = regions.flatten(1).float()
    return F.normalize((inside @ upsampled.T) / inside.sum(dim=1, keepdim=True), dim=1)


def classify(
    vectors: Tensor, prototypes: Tensor, negatives: Mapping[int, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """3.5: the cosine similarity, clamped at 0, with the most similar prototype, and its class: [n] and [n]."""
    similarity = (vectors @ F.normalize(prototypes, dim=1).T).clamp(min=0)
    for class_index, of_class in (negatives or {}).items():
        ahead = (vectors @ F.normalize(of_class, dim=1).T).amax(dim=1) - similarity[:, class_index]
        similarity[:, class_index] *= torch.exp(-ahead.clamp(min=0) / 0.8)
    scores, classes = similarity.max(dim=1)
    return scores, classes


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
