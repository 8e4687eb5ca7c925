"""Drawn scenes: COCO-format data sets to try, train and test on, made from a seed.

A class is a surface pattern. Everything else about an object (outline, size, turn, phase, colours, light) is drawn anew
for each object from the same distributions for every class, so only the pattern tells classes apart. ``NOVEL_CLASSES``
share no kind of pattern with ``BASE_CLASSES``, the only ones that the nano networks are trained on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from no_time_to_train.files import atomic_write

Floats = NDArray[np.float32]

TILE = 128  # side of a pattern's finest tile, in pixels
MIN_OBJECTS, MAX_OBJECTS = 3, 8
MIN_SIZE, MAX_SIZE = 1 / 8, 1 / 2  # an object's longer extent, over the image's shorter side
MAX_TURN = np.pi / 6  # of an object's pattern, in radians; its outline turns freely
MIN_VISIBLE = 0.6  # an object never loses more than this share of itself to later ones
NUM_BACKGROUNDS = 8


@dataclass(frozen=True)
class PatternClass:
    """A class of drawn objects.

    Attributes:
        name: the category's name.
        kind: the kind of pattern, a key of ``_NOVEL_TILES`` or ``_BASE_TILES``.
        scale: width of the pattern's repeating tile over the size of an object a third as large as the image; it grows
            with the square root of the object's size.
        seed: which pattern of a generated kind; the kinds of the novel classes have only one.
    """

    name: str
    kind: str
    scale: float
    seed: int = 0


class Scene(NamedTuple):
    """One drawn image: H x W pixels with n objects."""

    image: NDArray[np.uint8]  # [H, W, 3], RGB
    labels: NDArray[np.int64]  # [n], indices into the classes drawn from
    masks: NDArray[np.bool_]  # [n, H, W], visible parts; disjoint, none empty
    background: int  # which of the NUM_BACKGROUNDS kinds


def draw_scene(rng: np.random.Generator, classes: Sequence[PatternClass], size: tuple[int, int]) -> Scene:
    """Draw 3 to 8 objects of random ``classes`` on a random background; ``size`` is (height, width) in pixels."""
    height, width = size
    background = int(rng.integers(NUM_BACKGROUNDS))
    canvas = _draw_background(rng, background, height, width)
    owner = np.full(size, -1, np.int64)
    labels: list[int] = []
    areas = np.zeros(MAX_OBJECTS, np.int64)  # of whole objects, in pixels
    visible = np.zeros(MAX_OBJECTS, np.int64)
    count = rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1)
    while len(labels) < count:
        extent = float(min(size) * rng.uniform(MIN_SIZE, MAX_SIZE))
        alpha = _draw_outline(rng, extent)
        h, w = alpha.shape
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        inside = alpha >= 0.5
        under = owner[y : y + h, x : x + w]
        hidden = np.bincount(under[inside & (under >= 0)], minlength=MAX_OBJECTS)
        if np.any(visible - hidden < MIN_VISIBLE * areas):
            continue
        visible -= hidden
        areas[len(labels)] = visible[len(labels)] = inside.sum()
        label = int(rng.integers(len(classes)))
        _cast_shadow(canvas, alpha, y, x)
        patch = canvas[y : y + h, x : x + w]
        period = tile_width(classes[label], extent, min(size))
        patch += alpha[..., None] * (draw_surface(rng, classes[label], alpha, period) - patch)
        under[inside] = len(labels)
        labels.append(label)
    image = np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    masks = owner == np.arange(len(labels))[:, None, None]
    return Scene(image, np.array(labels, np.int64), masks, background)


def write_coco(
    out_dir: str | Path,
    classes: Sequence[PatternClass],
    num_images: int,
    seed: int,
    sides: tuple[int, int] = (352, 448),
) -> Path:
    """Draw a COCO-format data set: ``out_dir/images/*.png`` and ``out_dir/instances.json``.

    The same arguments write the same bytes, and image i does not depend on ``num_images``.

    Args:
        out_dir: made where missing.
        classes: the categories; class i gets the category id i + 1.
        num_images: how many.
        seed: of everything drawn.
        sides: least and greatest height and width of an image, in pixels.

    Returns:
        The path of ``instances.json``: ids from 1, segmentations of the visible parts as compressed RLE, boxes
        (x, y, w, h) of their extents and areas in pixels.
    """
    out_dir = Path(out_dir)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(num_images):
        rng = np.random.default_rng([seed, index])
        height, width = (int(side) for side in rng.integers(sides[0], sides[1], 2, endpoint=True))
        scene = draw_scene(rng, classes, (height, width))
        image: dict[str, Any] = {"id": index + 1, "file_name": f"{index + 1:06d}.png", "height": height, "width": width}
        _, png = cv2.imencode(".png", cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
        with atomic_write(out_dir / "images" / image["file_name"]) as file:
            file.write(png.tobytes())
        images.append(image)
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(label) + 1,
                    "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
                    "bbox": [float(value) for value in coco_mask.toBbox(rle)],
                    "area": float(mask.sum()),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i + 1, "name": c.name, "supercategory": "pattern"} for i, c in enumerate(classes)]
    path = out_dir / "instances.json"
    with atomic_write(path) as file:
        file.write(json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode())
    return path


def _two_colours(rng: np.random.Generator, contrast: float) -> Floats:
    """Two RGB colours in [0, 1] whose lightness differs by at least ``contrast``: [2, 3]."""
    while True:
        colours = rng.uniform(0.05, 0.95, (2, 3)).astype(np.float32)
        lightness = colours @ np.array([0.3, 0.59, 0.11], np.float32)
        if abs(lightness[0] - lightness[1]) >= contrast:
            return colours


def _noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]) -> Floats:
    """Smooth noise in [0, 1] with ``cells`` = (down, across) random values: [height, width]."""
    grid = rng.random((cells[0] + 3, cells[1] + 3), dtype=np.float32)
    return np.clip(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _draw_background(rng: np.random.Generator, kind: int, height: int, width: int) -> Floats:
    """A background of one of eight kinds, lit unevenly: [height, width, 3]."""
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
    colours = _two_colours(rng, 0.1)
    weight = tone[..., None] * np.float32(rng.uniform(0.4, 1.0))
    light = 0.7 + 0.5 * _noise(rng, height, width, (1, 1))[..., None]
    return (colours[0] * (1 - weight) + colours[1] * weight) * light


def _draw_outline(rng: np.random.Generator, extent: float) -> Floats:
    """Coverage of a random closed shape whose longer side is ``extent`` pixels, cut to its extent: [h, w] in [0, 1]."""
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
    """Pixels a tile takes on an object of ``extent`` pixels in an image of ``side``; it grows with the object."""
    return pattern.scale * float(np.sqrt(extent * side / 3))


def draw_surface(rng: np.random.Generator, pattern: PatternClass, alpha: Floats, period: float) -> Floats:
    """The pattern, about ``period`` pixels a tile, in two random colours, with a dark rim and light: [h, w, 3]."""
    h, w = alpha.shape
    period *= rng.uniform(0.85, 1.2)
    turn = rng.uniform(-MAX_TURN, MAX_TURN)
    level = max(0, min(len(_tiles(pattern)) - 1, int(np.log2(TILE / period))))
    tile = _tiles(pattern)[level]
    y, x = np.mgrid[:h, :w].astype(np.float32) / np.float32(period)
    u = (np.cos(turn) * x + np.sin(turn) * y + rng.random()) % 1
    v = (np.cos(turn) * y - np.sin(turn) * x + rng.random()) % 1
    side = tile.shape[0] - 1  # the last row and column repeat the first
    tone = cv2.remap(tile, (u * side).astype(np.float32), (v * side).astype(np.float32), cv2.INTER_LINEAR)[..., None]
    colours = _two_colours(rng, 0.3)
    surface = colours[0] * (1 - tone) + colours[1] * tone
    depth = cv2.distanceTransform((alpha >= 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    rim = 1 - 0.7 * np.exp(-depth / np.float32(1.2 + 0.015 * max(h, w)))
    tilt = rng.uniform(0, 2 * np.pi)
    light = 1 + 0.2 * ((np.cos(tilt) * (x * period / w - 0.5)) + np.sin(tilt) * (y * period / h - 0.5))
    return surface * (rim * light).astype(np.float32)[..., None]


def _cast_shadow(canvas: Floats, alpha: Floats, y: int, x: int) -> None:
    """Darken ``canvas`` in place, softly, around an object whose coverage ``alpha`` begins at (y, x)."""
    height, width = canvas.shape[:2]
    pad = max(3, round(0.06 * max(alpha.shape)))
    shadow = cv2.blur(cv2.blur(np.pad(alpha, pad), (pad, pad)), (pad, pad))
    top, left = max(0, y - pad), max(0, x - pad)
    bottom, right = min(height, y + alpha.shape[0] + pad), min(width, x + alpha.shape[1] + pad)
    shadow = shadow[top - y + pad : bottom - y + pad, left - x + pad : right - x + pad]
    canvas[top:bottom, left:right] *= 1 - 0.45 * shadow[..., None]


# Patterns: each kind draws one tile that repeats in both directions, as tones in [0, 1] over x and y in [0, 1).


def _stripes(x: Floats, y: Floats) -> Any:
    return x < 0.5


def _checks(x: Floats, y: Floats) -> Any:
    return (x < 0.5) ^ (y < 0.5)


def _dots(x: Floats, y: Floats) -> Any:
    near = np.hypot(x - 0.5, y - 0.5)
    corner = np.hypot(0.5 - np.abs(x - 0.5), 0.5 - np.abs(y - 0.5))
    return np.minimum(near, corner) < 0.22


def _bricks(x: Floats, y: Floats) -> Any:
    row = np.floor(2 * y)
    return ((2 * y) % 1 > 0.2) & ((x + 0.5 * row) % 1 > 0.1)


def _rings(x: Floats, y: Floats) -> Any:
    return (np.hypot(x - 0.5, y - 0.5) * 4) % 1 < 0.5


def _crosses(x: Floats, y: Floats) -> Any:
    dx, dy = np.abs(x - 0.5), np.abs(y - 0.5)
    return ((dx < 0.12) & (dy < 0.36)) | ((dy < 0.12) & (dx < 0.36))


def _triangles(x: Floats, y: Floats) -> Any:
    return np.abs(x - 0.5) * 2 < y


def _weave(x: Floats, y: Floats) -> Any:
    return np.where((x < 0.5) ^ (y < 0.5), (x * 4) % 1 < 0.5, (y * 4) % 1 < 0.5)


def _fourier(rng: np.random.Generator, x: Floats, y: Floats) -> Any:
    """Random low frequencies, in some classes mirrored or turned on to themselves, cut at a level."""
    coefficients = rng.normal(size=(7, 7)) + 1j * rng.normal(size=(7, 7))
    k = np.arange(-3, 4)
    coefficients *= np.exp(-0.25 * (k[:, None] ** 2 + k**2)) * (k[:, None] ** 2 + k**2 > 0)
    tone = np.real(
        np.einsum("ab,a...,b...->...", coefficients, *(np.exp(2j * np.pi * k[:, None, None] * c) for c in (y, x)))
    )
    symmetry = rng.integers(4)
    if symmetry in (1, 2):
        tone = tone + tone[:, ::-1]
    if symmetry == 2:
        tone = tone + tone[::-1]
    if symmetry == 3:
        tone = tone + np.rot90(tone) + np.rot90(tone, 2) + np.rot90(tone, 3)
    return tone > np.quantile(tone, rng.uniform(0.35, 0.65))


def _motifs(rng: np.random.Generator, x: Floats, y: Floats) -> Any:
    """A random lobed or angular figure, filled or as a line, in rows that may be staggered."""
    lobes, depth, thin = rng.integers(2, 6), rng.uniform(0.25, 0.6), rng.uniform(0.45, 0.8)
    sharp, hollow, stagger = rng.random() < 0.5, rng.random() < 0.4, rng.random() < 0.5
    turn = rng.uniform(0, np.pi)
    tone = np.zeros(x.shape, bool)
    for cx, cy in ((0.25, 0.25), (0.75, 0.25), (0.0 if stagger else 0.25, 0.75), (0.5 if stagger else 0.75, 0.75)):
        dx, dy = (x - cx + 0.5) % 1 - 0.5, (y - cy + 0.5) % 1 - 0.5
        a, b = np.cos(turn) * dx + np.sin(turn) * dy, (np.cos(turn) * dy - np.sin(turn) * dx) / thin
        wave = np.cos(lobes * np.arctan2(b, a))
        radius = 0.24 * (1 - depth * (np.arccos(wave) / np.pi if sharp else 0.5 - 0.5 * wave))
        distance = np.hypot(a, b) / radius
        tone |= (distance < 1) & ((distance > 0.55) | (not hollow))
    return tone


def _bands(rng: np.random.Generator, x: Floats, y: Floats) -> Any:
    """Bands of several widths, in some classes bent into chevrons, broken, or crossed by others."""
    cuts = np.sort(rng.permutation(12)[: 2 * rng.integers(2, 4)]) / 12
    form = rng.integers(4)
    along = x + (0.5 * np.abs(y - 0.5) * rng.integers(1, 4) if form == 1 else 0)
    tone = np.searchsorted(cuts, along % 1) % 2 == 1
    if form == 2:
        tone &= y < rng.uniform(0.5, 0.8)
    if form == 3:
        other = np.searchsorted(np.sort(rng.permutation(12)[:4]) / 12, y) % 2 == 1
        tone = (0.5 * tone + 0.5 * other) if rng.random() < 0.5 else tone ^ other
    return tone


def _cells(rng: np.random.Generator, x: Floats, y: Floats) -> Any:
    """Cells around random points: their borders, or cells of three tones."""
    points = rng.random((rng.integers(5, 12), 2))
    offsets = [(x - px + 0.5) % 1 - 0.5 for px in points[:, 0]], [(y - py + 0.5) % 1 - 0.5 for py in points[:, 1]]
    distances = np.hypot(*(np.stack(offset) for offset in offsets))
    if rng.random() < 0.5:
        first, second = np.sort(distances, axis=0)[:2]
        return second - first > rng.uniform(0.04, 0.1)
    return (distances.argmin(axis=0) % 3) / 2


_NOVEL_TILES: dict[str, Callable[[Floats, Floats], Any]] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "bricks": _bricks,
    "rings": _rings,
    "crosses": _crosses,
    "triangles": _triangles,
    "weave": _weave,
}
_BASE_TILES: dict[str, Callable[[np.random.Generator, Floats, Floats], Any]] = {
    "fourier": _fourier,
    "motifs": _motifs,
    "bands": _bands,
    "cells": _cells,
}


def pattern_tile(pattern: PatternClass) -> Floats:
    """The finest tile of a pattern, tones in [0, 1] that repeat in both directions: [TILE, TILE]."""
    return _tiles(pattern)[0][:-1, :-1]


@cache
def _tiles(pattern: PatternClass) -> list[Floats]:
    """The pattern's tile at halving sizes, each with its first row and column repeated at the end: [s + 1, s + 1]."""
    fine = 2 * TILE
    y, x = ((np.mgrid[:fine, :fine] + 0.5) / fine).astype(np.float32)
    if pattern.kind in _NOVEL_TILES:
        tone = _NOVEL_TILES[pattern.kind](x, y)
    else:
        tone = _BASE_TILES[pattern.kind](np.random.default_rng([7, pattern.seed]), x, y)
    tone = np.asarray(tone, np.float32)
    sides = [TILE >> level for level in range(5)]
    tiles = [cv2.resize(tone, (side, side), interpolation=cv2.INTER_AREA) for side in sides]
    return [np.pad(tile, (0, 1), mode="wrap") for tile in tiles]


def _base_classes() -> tuple[PatternClass, ...]:
    """240 generated classes: variants of kinds that no novel class has, from fine to coarse."""
    counts = {"fourier": 50, "motifs": 70, "bands": 80, "cells": 40}
    classes: list[PatternClass] = []
    for kind, count in counts.items():
        for index in range(count):
            scale = 0.12 * 3.5 ** (index / (count - 1))
            classes.append(PatternClass(f"{kind}-{index}", kind, scale, seed=len(classes)))
    return tuple(classes)


#: What the nano networks are trained on.
BASE_CLASSES = _base_classes()

#: What references and targets are drawn from: never seen in training.
NOVEL_CLASSES = (
    PatternClass("stripes", "stripes", 0.12),
    PatternClass("checks", "checks", 0.2),
    PatternClass("dots", "dots", 0.2),
    PatternClass("bricks", "bricks", 0.26),
    PatternClass("rings", "rings", 0.32),
    PatternClass("crosses", "crosses", 0.3),
    PatternClass("triangles", "triangles", 0.3),
    PatternClass("weave", "weave", 0.32),
)
