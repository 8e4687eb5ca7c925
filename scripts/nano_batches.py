"""Batches of drawn scenes for the training of the nano networks."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from nano_patterns import BASE_CLASSES
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from no_time_to_train.demo.scenes import PatternClass, Scene, draw_scene
from no_time_to_train.method.encoder import IMAGE_MEAN, IMAGE_STD

#: Height and width of a training scene in pixels.
MIN_SIDE, MAX_SIDE = 256, 336

#: Side in pixels of the square that a scene is resized to for both networks: SAM 2's input.
TARGET_SIZE = 256

#: The second part of a scene's seed, which keeps the scenes of training and evaluation apart.
TRAINING, EVALUATION = 0, 1

Batch = dict[str, Tensor]


class DrawnBatches(Dataset[Batch]):
    """Batches of training examples. Batch i depends only on the seed and on i.

    Args:
        seed: The seed of the training.
        scenes: Scenes per batch.
        example: Makes a training example from a scene.
    """

    def __init__(self, seed: int, scenes: int, example: Callable[[np.random.Generator, Scene], Batch]) -> None:
        self.seed = seed
        self.scenes = scenes
        self.example = example

    def __getitem__(self, index: int) -> Batch:
        cv2.setNumThreads(0)
        rng = np.random.default_rng([self.seed, TRAINING, index])
        return stack([self.example(rng, random_scene(rng, BASE_CLASSES)) for _ in range(self.scenes)])


def random_scene(rng: np.random.Generator, classes: Sequence[PatternClass]) -> Scene:
    """A scene of a random size with objects of these classes."""
    height, width = (int(side) for side in rng.integers(MIN_SIDE, MAX_SIDE, 2, endpoint=True))
    return draw_scene(rng, classes, (height, width))


def stack(examples: list[Batch]) -> Batch:
    """Stack examples of equal shapes along a new first axis."""
    return {key: torch.stack([example[key] for example in examples]) for key in examples[0]}


def as_input(image: NDArray[Any]) -> Tensor:
    """Normalize an image, uint8 [H, W, 3], as both networks take it: float32 [3, H, W]."""
    mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
    return (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - mean) / std


def coverage(masks: NDArray[np.bool_], side: int) -> Tensor:
    """The share of each cell of a grid that each mask covers.

    Args:
        masks: bool [n, H, W].
        side: Cells per side of the grid.

    Returns:
        float32 [n, side, side] in [0, 1].
    """
    planes = [cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for mask in masks]
    return torch.from_numpy(np.stack(planes))
