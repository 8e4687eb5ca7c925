"""Drawn clips: the demo's objects move, turn, grow, hide each other, leave and come back, and the camera shakes.

On a belt they pass from the left to the right instead, and none comes back.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.demo.scenes import (
    NUM_BACKGROUNDS,
    PatternClass,
    draw_background,
    draw_outline,
    draw_surface,
    tile_width,
)

#: Height and width of a frame in pixels.
SIDE = 320

#: Frames per second.
RATE = 10

#: The fewest and the most objects of a clip, and of how many classes they are: some objects look much alike.
COUNTS, CLASSES = (4, 7), 3

#: An object's longer side, as a share of the frame's.
EXTENTS = (1 / 5, 1 / 3)

#: How far the middle of a path is from the edges, and how far objects go from there, as shares of the side.
MARGIN, REACH = 0.25, (0.2, 0.6)

#: Seconds of a movement to and fro.
PERIODS = (5.0, 12.0)

#: Objects on a belt, the seconds that each takes, and the lanes, as shares of the side.
ON_BELT, PASSING, LANES = 9, 2.5, (0.3, 0.7)

#: The largest turn in radians; the smallest size, as a share of the largest.
TURN, SHRINK = 0.4, 0.7

#: The camera's largest shift in pixels, and its shake from frame to frame as a standard deviation.
DRIFT, SHAKE = 16, 1.5

#: An object of which less is to be seen, as a share of its area, is not there.
LEAST_VISIBLE = 0.2


class Clip(NamedTuple):
    """T frames with n objects.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        labels: int64 [n], indices into the classes that were drawn from.
        masks: bool [T, n, H, W], the visible parts, disjoint; empty where an object is not there.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]


def draw_clip(
    rng: np.random.Generator,
    classes: Sequence[PatternClass],
    frames: int = 60,
    side: int = SIDE,
    belt: bool = False,
) -> Clip:
    """Draw a clip with ``RATE`` frames per second.

    Args:
        rng: Everything that is random comes from it.
        frames: T.
        side: H and W.
        belt: Objects pass on a belt.
    """
    count = ON_BELT if belt else int(rng.integers(*COUNTS, endpoint=True))
    labels = rng.choice(rng.choice(len(classes), min(CLASSES, len(classes)), replace=False), count)
    wide = side + 2 * (DRIFT + 8)
    background = draw_background(rng, int(rng.integers(NUM_BACKGROUNDS)), wide, wide)
    drift = DRIFT * _waves(rng, frames, 2) + rng.normal(0, SHAKE, (frames, 2))
    shift = np.clip(np.rint(drift), 8 - wide // 2 + side // 2, wide // 2 - side // 2)
    sprites = [_draw_sprite(rng, classes[label], side) for label in labels]
    middles = rng.uniform(MARGIN, 1 - MARGIN, (count, 2)) * side
    paths = middles + rng.uniform(*REACH, (count, 2)) * side * _waves(rng, frames, count, 2)
    if belt:
        paths = side * _belt(rng, frames, count)
    turns, sizes = TURN * _waves(rng, frames, count), 1 - (1 - SHRINK) * (1 + _waves(rng, frames, count)) / 2
    pictures = np.zeros((frames, side, side, 3), np.uint8)
    masks = np.zeros((frames, count, side, side), bool)
    for time in range(frames):
        x, y = ((wide - side) // 2 - shift[time]).astype(int)
        canvas = background[y : y + side, x : x + side].copy()
        owner = np.full((side, side), -1)
        areas = np.zeros(count)
        for index, sprite in enumerate(sprites):
            turn, size = float(turns[time, index]), float(sizes[time, index])
            warp = cv2.getRotationMatrix2D((sprite.shape[1] / 2, sprite.shape[0] / 2), np.degrees(turn), size)
            warp[:, 2] += paths[time, index] + shift[time] - np.array(sprite.shape[1::-1]) / 2
            placed = cv2.warpAffine(sprite, warp, (side, side), flags=cv2.INTER_LINEAR)
            canvas = canvas * (1 - placed[..., 3:]) + placed[..., :3]
            areas[index] = size**2 * (sprite[..., 3] >= 0.5).sum()
            owner[placed[..., 3] >= 0.5] = index
        pictures[time] = np.rint(np.clip(canvas, 0, 1) * 255)
        visible = owner == np.arange(count)[:, None, None]
        masks[time] = visible & (visible.sum(axis=(1, 2)) >= LEAST_VISIBLE * areas)[:, None, None]
    return Clip(pictures, labels, masks)


def _waves(rng: np.random.Generator, frames: int, *shape: int) -> NDArray[np.float64]:
    """Values in [-1, 1] that go to and fro, each with its own period and phase: [frames, *shape]."""
    time = np.arange(frames).reshape(-1, *(1 for _ in shape)) / RATE
    return np.sin(2 * np.pi * (time / rng.uniform(*PERIODS, shape) + rng.random(shape)))


def _belt(rng: np.random.Generator, frames: int, count: int) -> NDArray[np.float64]:
    """Where the objects on a belt are, as shares of the side, x and y: [frames, count, 2]."""
    seconds = np.arange(frames)[:, None] / RATE
    start = np.linspace(-PASSING / 2, frames / RATE - PASSING / 2, count)
    x = (seconds - start) / PASSING * (1 + 2 * EXTENTS[1]) - EXTENTS[1]
    return np.stack([x, np.broadcast_to(rng.uniform(*LANES, count), x.shape)], axis=2)


def _draw_sprite(rng: np.random.Generator, pattern: PatternClass, side: int) -> NDArray[np.float32]:
    """An object at its largest: [h, w, 4] RGB, times its share of each pixel, and that share."""
    extent = side * float(rng.uniform(*EXTENTS))
    alpha = draw_outline(rng, extent)[..., None]
    surface = draw_surface(rng, pattern, alpha[..., 0], tile_width(pattern, extent, side))
    return np.concatenate([alpha * np.clip(surface, 0, 1), alpha], axis=2)
