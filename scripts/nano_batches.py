"""Batches of drawn scenes for the training of the nano networks."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from no_time_to_train.demo.scenes import BASE_CLASSES, PatternClass, Scene, draw_scene
from no_time_to_train.method.encoder import IMAGE_MEAN, IMAGE_STD

SIDES = (256, 336)  # least and greatest side of a training scene, in pixels
TARGET_SIZE = 256  # side of the square that both networks see a scene through: SAM 2's input
TRAINING, EVALUATION = 0, 1  # streams of scenes

Batch = dict[str, Tensor]


class DrawnBatches(Dataset[Batch]):
    """Batch i of a run, drawn from (seed, i) alone."""

    def __init__(self, seed: int, scenes: int, example: Callable[[np.random.Generator, Scene], Batch]) -> None:
        self.seed = seed
        self.scenes = scenes
        self.example = example

    def __getitem__(self, index: int) -> Batch:
        cv2.setNumThreads(0)
        rng = np.random.default_rng([self.seed, TRAINING, index])
        return stack([self.example(rng, random_scene(rng, BASE_CLASSES)) for _ in range(self.scenes)])


def random_scene(rng: np.random.Generator, classes: Sequence[PatternClass]) -> Scene:
    """A scene of a random size."""
    height, width = (int(side) for side in rng.integers(SIDES[0], SIDES[1], 2, endpoint=True))
    return draw_scene(rng, classes, (height, width))


def stack(examples: list[Batch]) -> Batch:
    """Examples of equal shapes to one batch, along a new first axis."""
    return {key: torch.stack([example[key] for example in examples]) for key in examples[0]}


def as_input(image: NDArray[np.uint8] | NDArray[np.float32]) -> Tensor:
    """[H, W, 3] in 0..255 to a normalised [3, H, W]."""
    mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
    return (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - mean) / std


def coverage(masks: NDArray[np.bool_], side: int) -> Tensor:
    """Share of each cell of a side x side grid that masks [n, H, W] cover: [n, side, side]."""
    planes = [cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for mask in masks]
    return torch.from_numpy(np.stack(planes))
