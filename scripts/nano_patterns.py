"""The classes that the nano networks are trained on: 240 generated patterns of kinds that no novel class has."""

from collections.abc import Callable
from functools import partial

import numpy as np

from no_time_to_train.demo.scenes import Floats, PatternClass, Tones

Draw = Callable[[np.random.Generator, Floats, Floats], Tones]


def _fourier(rng: np.random.Generator, x: Floats, y: Floats) -> Tones:
    """Random low frequencies, in some classes mirrored or rotated onto themselves, cut at a level."""
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


def _motifs(rng: np.random.Generator, x: Floats, y: Floats) -> Tones:
    """A random lobed or angular figure, filled or as an outline, in rows that may be staggered."""
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


def _bands(rng: np.random.Generator, x: Floats, y: Floats) -> Tones:
    """Bands of several widths, in some classes bent into chevrons, interrupted, or crossed by others."""
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


def _cells(rng: np.random.Generator, x: Floats, y: Floats) -> Tones:
    """Cells around random points: only their borders, or cells in three tones."""
    points = rng.random((rng.integers(5, 12), 2))
    offsets = [(x - px + 0.5) % 1 - 0.5 for px in points[:, 0]], [(y - py + 0.5) % 1 - 0.5 for py in points[:, 1]]
    distances = np.hypot(*(np.stack(offset) for offset in offsets))
    if rng.random() < 0.5:
        first, second = np.sort(distances, axis=0)[:2]
        return second - first > rng.uniform(0.04, 0.1)
    return (distances.argmin(axis=0) % 3) / 2


def _draw_tile(draw: Draw, seed: int, x: Floats, y: Floats) -> Tones:
    """One tile of the generated pattern with this seed."""
    return draw(np.random.default_rng([7, seed]), x, y)


def _base_classes() -> tuple[PatternClass, ...]:
    """The variants of each kind, from fine to coarse."""
    kinds: list[tuple[str, Draw, int]] = [
        ("fourier", _fourier, 50),
        ("motifs", _motifs, 70),
        ("bands", _bands, 80),
        ("cells", _cells, 40),
    ]
    classes: list[PatternClass] = []
    for kind, draw, count in kinds:
        for index in range(count):
            scale = 0.12 * 3.5 ** (index / (count - 1))
            classes.append(PatternClass(f"{kind}-{index}", kind, scale, partial(_draw_tile, draw, len(classes))))
    return tuple(classes)


#: What the nano networks are trained on.
BASE_CLASSES = _base_classes()
