"""The training of the nano SAM 2: a point gives the visible part of the object under it, or nothing on background."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from nano_batches import EVALUATION, TARGET_SIZE, Batch, as_input, coverage, random_scene, stack
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from no_time_to_train.demo.scenes import NOVEL_CLASSES, Scene

#: Side of the mask logits in pixels.
MASK_SIZE = TARGET_SIZE // 4

#: Point prompts per scene.
OBJECT_POINTS, BACKGROUND_POINTS = 9, 3


def sam2_example(rng: np.random.Generator, scene: Scene) -> Batch:
    """A training example: a scene with K random points.

    Args:
        rng: Everything that is random comes from it.
        scene: The scene.

    Returns:
        ``image`` float32 [3, 256, 256], normalized; ``points`` float32 [K, 2], (x, y) in pixels of the image;
        ``target`` float32 [K, 64, 64] in [0, 1], the object under each point; ``on_object`` bool [K]; and ``boxes``,
        see :func:`object_boxes`.
    """
    height, width = scene.masks.shape[1:]
    targets = coverage(scene.masks, MASK_SIZE)
    points, chosen = [], []
    for k in range(OBJECT_POINTS + BACKGROUND_POINTS):
        index = int(rng.integers(len(scene.masks))) if k < OBJECT_POINTS else -1
        ys, xs = np.nonzero(scene.masks[index] if index >= 0 else ~scene.masks.any(axis=0))
        pick = int(rng.integers(len(ys)))
        points.append(((xs[pick] + 0.5) / width * TARGET_SIZE - 0.5, (ys[pick] + 0.5) / height * TARGET_SIZE - 0.5))
        chosen.append(index)
    index_of = torch.tensor(chosen)
    on_object = index_of >= 0
    return {
        "image": as_input(cv2.resize(scene.image, (TARGET_SIZE, TARGET_SIZE), interpolation=cv2.INTER_AREA)),
        "points": torch.tensor(points, dtype=torch.float32),
        "target": targets[index_of.clamp(min=0)] * on_object[:, None, None],
        "on_object": on_object,
        "boxes": object_boxes(scene.masks, MASK_SIZE // 4),
    }


def image_features(model: SAM2Base, images: Tensor) -> list[Tensor]:
    """The feature maps that the mask decoder takes, at 1/4, 1/8 and 1/16 of the images' size.

    Args:
        model: SAM 2.
        images: float [B, 3, S, S], normalized.
    """
    _, features, _, sizes = model._prepare_backbone_features(model.forward_image(images))
    return [feature.permute(1, 2, 0).unflatten(2, size) for feature, size in zip(features, sizes, strict=True)]


def predict_masks(model: SAM2Base, features: list[Tensor], points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decode K point prompts on each image.

    Args:
        model: SAM 2.
        features: From :func:`image_features`.
        points: float [B, K, 2], (x, y) in pixels of the images.

    Returns:
        Mask logits [B * K, 4, S / 4, S / 4], predicted IoUs [B * K, 4] and objectness logits [B * K].
    """
    maps = [feature.repeat_interleave(points.shape[1], 0) for feature in features]
    coordinates = points.flatten(0, 1)[:, None]
    labels = torch.ones(coordinates.shape[:2], dtype=torch.int32, device=coordinates.device)
    return decode_prompts(model, maps, coordinates, labels)


def decode_prompts(
    model: SAM2Base, maps: list[Tensor], coordinates: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode n prompts of T points each, with the maps of the image of each.

    Args:
        model: SAM 2.
        maps: As :func:`image_features` returns them, with n images.
        coordinates: float [n, T, 2], (x, y) in pixels of the images.
        labels: int32 [n, T], what SAM 2 calls the points: 1 on an object, 2 and 3 for the corners of a box.

    Returns:
        Mask logits [n, 4, S / 4, S / 4], predicted IoUs [n, 4] and objectness logits [n].
    """
    sparse, dense = model.sam_prompt_encoder(points=(coordinates, labels), boxes=None, masks=None)
    logits, ious, _, objectness = model.sam_mask_decoder.predict_masks(
        image_embeddings=maps[2],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=maps[:2],
    )
    return logits, ious, objectness[:, 0]


def mask_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Focal and dice loss of each mask, [n, 4], of logits and of what is true in [0, 1], [n, 4, s, s]."""
    odds = logits.sigmoid()
    focal = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * (odds - target).abs() ** 2
    overlap = (odds * target).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (odds.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    return 20 * focal.mean((-2, -1)) + dice


def region_iou(logits: Tensor, target: Tensor) -> Tensor:
    """The IoU of the regions ``logits > 0`` and ``target > 0.5`` over the last two axes."""
    region, truth = logits > 0, target > 0.5
    return (region & truth).sum((-2, -1)) / (region | truth).sum((-2, -1)).clamp(min=1)


class EncoderGuide(nn.Module):
    """A head for training only: predicts from each cell of SAM 2's embedding whether it lies on an object, and its box.

    The decoder alone takes long to learn that its prompt is a place. This head trains the encoder from the first step.

    Args:
        width: Channels of the embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(width, 5, 1)

    def forward(self, embedding: Tensor, truth: Tensor) -> Tensor:
        """The loss of the head.

        Args:
            embedding: float [B, C, G, G].
            truth: float [B, 5, G, G], see :func:`object_boxes`.

        Returns:
            A scalar.
        """
        predicted, on_object = self.head(embedding), truth[:, :1]
        presence = F.binary_cross_entropy_with_logits(predicted[:, :1], on_object)
        distances = (predicted[:, 1:] - truth[:, 1:]).abs() * on_object
        return presence + 5 * distances.sum() / on_object.sum().clamp(min=1) / 4


def object_boxes(masks: NDArray[np.bool_], side: int) -> Tensor:
    """What :class:`EncoderGuide` must predict.

    Args:
        masks: bool [n, H, W], the visible parts of the objects.
        side: Cells per side of the embedding.

    Returns:
        float32 [5, side, side]: 1 in cells on an object; and there the distances from the cell's center to the left,
        upper, right and lower side of the object's box, as shares of the image's width and height.
    """
    truth = np.zeros((5, side, side), np.float32)
    height, width = masks.shape[1:]
    centers = (np.arange(side) + 0.5) / side
    sample = np.ix_((centers * height).astype(int), (centers * width).astype(int))
    for mask in masks:
        xs, ys = np.flatnonzero(mask.any(0)) / width, np.flatnonzero(mask.any(1)) / height
        x, y = np.broadcast_arrays(centers, centers[:, None])
        box = np.stack([np.ones_like(x), x - xs[0], y - ys[0], xs[-1] - x, ys[-1] - y])
        truth = np.where(mask[sample], box, truth)
    return torch.from_numpy(truth.astype(np.float32))


def sam2_loss(model: SAM2Base, guide: EncoderGuide, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Focal and dice loss of the single mask and of the best of the other three, L1 of the IoUs, and objectness.

    The mean over all three masks has a tenth of the weight, so that each of them keeps learning.

    Args:
        model: SAM 2.
        guide: The training-only head on the embedding.
        batch: Examples of :func:`sam2_example`, stacked.

    Returns:
        The loss, and two measures: the IoU of the masks that the network ranks first, and the error of its IoUs.
    """
    features = image_features(model, batch["image"])
    logits, ious, objectness = predict_masks(model, features, batch["points"])
    on_object = batch["on_object"].flatten()
    target = batch["target"].flatten(0, 1)[:, None]
    with torch.no_grad():
        true_ious = region_iou(logits, target) * on_object[:, None]
    iou_loss = (ious - true_ious).abs().mean()
    objectness_loss = F.binary_cross_entropy_with_logits(objectness, on_object.float())
    mask_loss = mask_losses(logits[on_object], target[on_object].expand(-1, 4, -1, -1))
    single, three = mask_loss[:, 0], mask_loss[:, 1:]
    loss = single.mean() + three.amin(1).mean() + 0.1 * three.mean() + iou_loss + 0.2 * objectness_loss
    loss = loss + guide(features[2], batch["boxes"])
    own = true_ious[:, 1:].gather(1, ious[:, 1:].argmax(1, keepdim=True))[on_object]
    return loss, {"iou": own.mean().item(), "iou_error": iou_loss.item()}


@torch.inference_mode()
def evaluate_sam2(model: SAM2Base, seed: int, scenes: int = 100) -> dict[str, float]:
    """Measure the masks of points in scenes of the novel classes.

    Args:
        model: SAM 2.
        seed: The seed of the scenes.
        scenes: The number of scenes.

    Returns:
        Over points on objects, the mean IoU of the mask that the network ranks first and of the best of its three; the
        mean error of the predicted IoUs; and the share of background points whose masks the threshold of 0.4 drops.
    """
    rows = []
    for index in range(scenes):
        rng = np.random.default_rng([seed, EVALUATION, index])
        batch = stack([sam2_example(rng, random_scene(rng, NOVEL_CLASSES))])
        logits, predicted, _ = predict_masks(model, image_features(model, batch["image"]), batch["points"])
        true, on_object = region_iou(logits, batch["target"][0][:, None])[:, 1:], batch["on_object"][0]
        true, predicted = true * on_object[:, None], predicted[:, 1:]
        own = true.gather(1, predicted.argmax(1, keepdim=True))[:, 0]
        dropped = (predicted.amax(1) <= 0.4).float()
        rows.append(
            [
                own[on_object].mean(),
                true.amax(1)[on_object].mean(),
                (predicted - true).abs().mean(),
                dropped[~on_object].mean(),
            ]
        )
    names = ("iou_of_own_choice", "iou_of_best_of_three", "error_of_predicted_iou", "background_points_dropped")
    return dict(zip(names, torch.tensor(rows).mean(0).tolist(), strict=True))
