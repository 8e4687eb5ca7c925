"""Drawn scenes: COCO-format data sets to try, test and train on, made from a seed.

A class is a surface pattern. Everything else about an object (outline, size, rotation, phase, colors, light) is random
with the same distribution for all classes, so only the pattern tells classes apart. ``NOVEL_CLASSES`` are the classes
of references and targets. The nano networks were trained on other kinds of patterns, which ``scripts/nano_patterns.py``
generates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.rle import coco_object, encode_mask
from no_time_to_train.files import atomic_write, write_json

Floats = NDArray[np.float32]
#: Tones in [0, 1], or False and True for 0 and 1.
Tones = NDArray[np.bool_] | NDArray[np.floating[Any]]

#: Side of a pattern's finest tile in pixels.
TILE = 128

#: Height and width of the images of a data set in pixels.
MIN_SIDE, MAX_SIDE = 352, 448

#: Objects per scene.
MIN_OBJECTS, MAX_OBJECTS = 3, 8

#: An object's longer side, as a share of the image's shorter side.
MIN_SIZE, MAX_SIZE = 1 / 8, 1 / 2

#: The largest rotation of an object's pattern, in radians. Its outline has any rotation.
MAX_TURN = np.pi / 6

#: Share of an object that objects drawn later leave visible at least.
MIN_VISIBLE = 0.6

#: Kinds of background.
NUM_BACKGROUNDS = 8


@dataclass(frozen=True)
class PatternClass:
    """A class of drawn objects.

    Attributes:
        kind: The kind of pattern. Classes of one kind resemble each other.
        scale: Width of the pattern's repeating tile, as a share of the longer side of an object a third as large as
            the image. The tile grows with the square root of the object's size.
        draw_tile: Draws one tile, which repeats in both directions: takes x and y, float32 [s, s] in [0, 1), and
            returns the tones there, [s, s].
    """

    name: str
    kind: str
    scale: float
    draw_tile: Callable[[Floats, Floats], Tones]


class Scene(NamedTuple):
    """One drawn image with n objects.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        labels: int64 [n], indices into the classes that were drawn from.
        masks: bool [n, H, W], the visible parts; disjoint, none empty.
        background: The kind of background, in [0, ``NUM_BACKGROUNDS``).
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]
    background: int


def draw_scene(
    rng: np.random.Generator,
    classes: Sequence[PatternClass],
    size: tuple[int, int],
    counts: tuple[int, int] = (MIN_OBJECTS, MAX_OBJECTS),
    extents: tuple[float, float] = (MIN_SIZE, MAX_SIZE),
    pattern_side: float | None = None,
) -> Scene:
    """Draw objects of random classes on a random background.

    Args:
        rng: Everything that is random comes from it.
        size: Height and width of the image in pixels.
        counts: The fewest and the most objects.
        extents: The smallest and the largest longer side of an object, as shares of the image's shorter side.
        pattern_side: The shorter side in pixels of an image with patterns as fine. None takes the image's own.
    """
    height, width = size
    background = int(rng.integers(NUM_BACKGROUNDS))
    canvas = draw_background(rng, background, height, width)
    owner = np.full(size, -1, np.int64)
    labels: list[int] = []
    areas, visible = np.zeros((2, counts[1]), np.int64)  # pixels of whole objects, and of their visible parts
    count = rng.integers(counts[0], counts[1] + 1)
    while len(labels) < count:
        extent = float(min(size) * rng.uniform(*extents))
        alpha = draw_outline(rng, extent)
        h, w = alpha.shape
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        inside = alpha >= 0.5
        under = owner[y : y + h, x : x + w]
        hidden = np.bincount(under[inside & (under >= 0)], minlength=counts[1])
        if np.any(visible - hidden < MIN_VISIBLE * areas):
            continue
        visible -= hidden
        areas[len(labels)] = visible[len(labels)] = inside.sum()
        label = int(rng.integers(len(classes)))
        _cast_shadow(canvas, alpha, y, x)
        patch = canvas[y : y + h, x : x + w]
        period = tile_width(classes[label], extent, pattern_side or min(size))
        patch += alpha[..., None] * (draw_surface(rng, classes[label], alpha, period) - patch)
        under[inside] = len(labels)
        labels.append(label)
    image = np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    masks = owner == np.arange(len(labels))[:, None, None]
    return Scene(image, np.array(labels, np.int64), masks, background)


def write_coco(out_dir: str | Path, classes: Sequence[PatternClass], num_images: int, seed: int) -> Path:
    """Draw a data set in COCO's format: ``out_dir/images/*.png``, and ``out_dir/instances.json``, which is returned.

    The same arguments write the same bytes, and image i does not depend on ``num_images``. All ids start at 1;
    segmentations are the visible parts as compressed RLE, boxes (x, y, w, h) and areas are theirs, in pixels.
    """
    out_dir = Path(out_dir)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(num_images):
        rng = np.random.default_rng([seed, index])
        height, width = (int(side) for side in rng.integers(MIN_SIDE, MAX_SIDE, 2, endpoint=True))
        scene = draw_scene(rng, classes, (height, width))
        image: dict[str, Any] = {"id": index + 1, "file_name": f"{index + 1:06d}.png", "height": height, "width": width}
        _, png = cv2.imencode(".png", cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
        with atomic_write(out_dir / "images" / image["file_name"]) as file:
            file.write(png.tobytes())
        images.append(image)
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            rle = encode_mask(mask)
            ids = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": int(label) + 1}
            annotations.append({**ids, "segmentation": rle, **coco_object(rle), "area": float(mask.sum())})
    categories = [{"id": i + 1, "name": c.name, "supercategory": "pattern"} for i, c in enumerate(classes)]
    path = out_dir / "instances.json"
    write_json(path, {"images": images, "annotations": annotations, "categories": categories}, indent=None)
    return path


def _two_colors(rng: np.random.Generator, contrast: float) -> Floats:
    """Two random RGB colors in [0, 1] whose lightness differs by at least ``contrast``: [2, 3]."""
    while True:
        colors = rng.uniform(0.05, 0.95, (2, 3)).astype(np.float32)
        lightness = colors @ np.array([0.3, 0.59, 0.11], np.float32)
        if abs(lightness[0] - lightness[1]) >= contrast:
            return colors


def _noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]) -> Floats:
    """Smooth noise in [0, 1], interpolated between ``cells`` = (rows, columns) random values: [height, width]."""
    grid = rng.random((cells[0] + 3, cells[1] + 3), dtype=np.float32)
    return np.clip(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def draw_background(rng: np.random.Generator, kind: int, height: int, width: int) -> Floats:
    """A background of one of the eight kinds under uneven light: [height, width, 3]."""
    if kind == 0:  # plain, with a slow gradient
        tone = _noise(rng, height, width, (1, 1))
    elif kind == 1:  # clouds
        tone = 0.6 * _noise(rng, height, width, (3, 3)) + 0.4 * _noise(rng, height, width, (9, 9))
    elif kind == 2:  # grain
        tone = 0.6 * _noise(rng, height, width, (2, 2)) + 0.4 * rng.random((height, width), dtype=np.float32)
    elif kind == 3:  # brushed
        tone = 0.5 * _noise(rng, height, width, (2, 3)) + 0.5 * _noise(rng, height, width, (height // 3, 4))
    elif kind == 4:  # wood
        tone = _noise(rng, height, width, (2, 25)) * 0.7 + 0.3 * _noise(rng, height, width, (10, width // 2))
    elif kind == 5:  # blotches
        tone = 1 / (1 + np.exp(18 * (0.5 - _noise(rng, height, width, (6, 6)))))
    elif kind == 6:  # pebbles
        tone = 0.5 * _noise(rng, height, width, (30, 30)) + 0.5 * _noise(rng, height, width, (60, 60))
    else:  # scratches
        tone = _noise(rng, height, width, (3, 3))
        for _ in range(60):
            ends = rng.integers(0, [[width, height]] * 2, (2, 2))
            start, end = ends.tolist()
            cv2.line(tone, start, end, (float(rng.random()),), 1, cv2.LINE_AA)
    if rng.random() < 0.5:
        tone = np.ascontiguousarray(tone[:, ::-1])
    colors = _two_colors(rng, 0.1)
    weight = tone[..., None] * np.float32(rng.uniform(0.4, 1.0))
    light = 0.7 + 0.5 * _noise(rng, height, width, (1, 1))[..., None]
    return (colors[0] * (1 - weight) + colors[1] * weight) * light


def draw_outline(rng: np.random.Generator, extent: float) -> Floats:
    """The share of each pixel in a random shape whose longer side is ``extent`` pixels: [h, w] in [0, 1]."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    family = rng.integers(4)
    if family == 0:  # ellipse
        radius = np.ones_like(angle)
    elif family == 1:  # rounded rectangle
        radius = (np.abs(np.cos(angle)) ** 6 + np.abs(np.sin(angle)) ** 6) ** (-1 / 6)
    elif family == 2:  # regular polygon
        wedge = 2 * np.pi / rng.integers(3, 7)
        radius = np.cos(wedge / 2) / np.cos(angle % wedge - wedge / 2)
    else:  # lobes
        radius = 1 + rng.uniform(0.1, 0.3) * np.cos(rng.integers(2, 6) * angle)
        radius += rng.uniform(0, 0.1) * np.cos(angle + rng.uniform(0, 2 * np.pi))
    points = np.stack([radius * np.cos(angle), rng.uniform(0.6, 1) * radius * np.sin(angle)], axis=1)
    turn = rng.uniform(0, 2 * np.pi)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points -= points.min(axis=0)
    points *= (extent - 1) / points.max()
    w, h = np.ceil(points.max(axis=0)).astype(int) + 1
    coverage = np.zeros((h, w), np.uint8)
    cv2.fillPoly(coverage, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return (coverage / np.float32(255)).astype(np.float32)


def tile_width(pattern: PatternClass, extent: float, side: float) -> float:
    """Width of a tile on an object whose longer side is ``extent``, in an image whose shorter side is ``side``."""
    return pattern.scale * float(np.sqrt(extent * side / 3))


def draw_surface(rng: np.random.Generator, pattern: PatternClass, alpha: Floats, period: float) -> Floats:
    """Draw a pattern in two random colors, with a dark rim and light from one side.

    Args:
        rng: Everything that is random comes from it.
        alpha: float32 [h, w] in [0, 1], the share of each pixel that the object covers.
        period: The width of a tile in pixels, before a random change by some percent.

    Returns:
        float32 [h, w, 3] RGB, about [0, 1]; also drawn outside the object.
    """
    h, w = alpha.shape
    period *= rng.uniform(0.85, 1.2)
    turn = rng.uniform(-MAX_TURN, MAX_TURN)
    tiles = tile_pyramid(pattern)
    tile = tiles[max(0, min(len(tiles) - 1, int(np.log2(TILE / period))))]
    y, x = np.mgrid[:h, :w].astype(np.float32) / np.float32(period)
    u = (np.cos(turn) * x + np.sin(turn) * y + rng.random()) % 1
    v = (np.cos(turn) * y - np.sin(turn) * x + rng.random()) % 1
    side = tile.shape[0] - 1  # the last row and column repeat the first
    tone = cv2.remap(tile, (u * side).astype(np.float32), (v * side).astype(np.float32), cv2.INTER_LINEAR)[..., None]
    colors = _two_colors(rng, 0.3)
    surface = colors[0] * (1 - tone) + colors[1] * tone
    depth = cv2.distanceTransform((alpha >= 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    rim = 1 - 0.7 * np.exp(-depth / np.float32(1.2 + 0.015 * max(h, w)))
    tilt = rng.uniform(0, 2 * np.pi)
    light = 1 + 0.2 * ((np.cos(tilt) * (x * period / w - 0.5)) + np.sin(tilt) * (y * period / h - 0.5))
    return surface * (rim * light).astype(np.float32)[..., None]


@cache
def tile_pyramid(pattern: PatternClass) -> list[Floats]:
    """A pattern's tile at five sizes, each half the last, from ``TILE``: tones in [0, 1], float32 [s + 1, s + 1].

    The last row and column repeat the first.
    """
    fine = 2 * TILE
    y, x = ((np.mgrid[:fine, :fine] + 0.5) / fine).astype(np.float32)
    tone = np.asarray(pattern.draw_tile(x, y), np.float32)
    sides = [TILE >> level for level in range(5)]
    tiles = [cv2.resize(tone, (side, side), interpolation=cv2.INTER_AREA) for side in sides]
    return [np.pad(tile, (0, 1), mode="wrap") for tile in tiles]


def _cast_shadow(canvas: Floats, alpha: Floats, y: int, x: int) -> None:
    """Darken ``canvas`` in place around an object whose coverage ``alpha`` has its top left corner at (y, x)."""
    height, width = canvas.shape[:2]
    pad = max(3, round(0.06 * max(alpha.shape)))
    shadow = cv2.blur(cv2.blur(np.pad(alpha, pad), (pad, pad)), (pad, pad))
    top, left = max(0, y - pad), max(0, x - pad)
    bottom, right = min(height, y + alpha.shape[0] + pad), min(width, x + alpha.shape[1] + pad)
    shadow = shadow[top - y + pad : bottom - y + pad, left - x + pad : right - x + pad]
    canvas[top:bottom, left:right] *= 1 - 0.45 * shadow[..., None]


def _dots(x: Floats, y: Floats) -> Tones:
    near = np.hypot(x - 0.5, y - 0.5)
    corner = np.hypot(0.5 - np.abs(x - 0.5), 0.5 - np.abs(y - 0.5))
    return np.minimum(near, corner) < 0.22


def _bricks(x: Floats, y: Floats) -> Tones:
    row = np.floor(2 * y)
    return ((2 * y) % 1 > 0.2) & ((x + 0.5 * row) % 1 > 0.1)


def _crosses(x: Floats, y: Floats) -> Tones:
    dx, dy = np.abs(x - 0.5), np.abs(y - 0.5)
    return ((dx < 0.12) & (dy < 0.36)) | ((dy < 0.12) & (dx < 0.36))


#: What references and targets are drawn from. The nano networks have seen none of these kinds in training.
NOVEL_CLASSES = (
    PatternClass("stripes", "stripes", 0.12, lambda x, y: x < 0.5),
    PatternClass("checks", "checks", 0.2, lambda x, y: (x < 0.5) ^ (y < 0.5)),
    PatternClass("dots", "dots", 0.2, _dots),
    PatternClass("bricks", "bricks", 0.26, _bricks),
    PatternClass("rings", "rings", 0.32, lambda x, y: (np.hypot(x - 0.5, y - 0.5) * 4) % 1 < 0.5),
    PatternClass("crosses", "crosses", 0.3, _crosses),
    PatternClass("triangles", "triangles", 0.3, lambda x, y: np.abs(x - 0.5) * 2 < y),
    PatternClass("weave", "weave", 0.32, lambda x, y: np.where((x < 0.5) ^ (y < 0.5), x * 4 % 1, y * 4 % 1) < 0.5),
)
