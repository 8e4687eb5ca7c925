"""Masks: read from files, or taken as PIL images, numpy arrays or tensors."""

import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.data.images import MaskInput, open_image, to_numpy, upright
from no_time_to_train.errors import UserError, UserNotice

if TYPE_CHECKING:
    from torch import Tensor

#: From which share of pixels that are neither dark nor bright a mask looks like a photo; how few tones are values.
PHOTO, FEW_TONES = 0.25, 8


def as_mask(mask: MaskInput) -> NDArray[np.bool_]:
    """The inside of a mask in any form, upright.

    Inside are: the opaque pixels of an image that has transparent ones as well; all entries but the first of a palette
    that is not black and white; otherwise the pixels brighter than half of the brightest one.

    Returns:
        bool [H, W].
    """
    name = str(mask) if isinstance(mask, str | Path) else getattr(mask, "filename", "") or "the mask"
    if isinstance(mask, str | Path):
        mask = open_image(mask)
    inside = _inside(upright(mask), name) if isinstance(mask, Image.Image) else _inside_array(mask, name)
    if not inside.any():
        raise UserError(f"{name} is empty: its pixels must be brighter than the rest, and outlines in pixels")
    return inside


def _inside(image: Image.Image, name: str) -> NDArray[np.bool_]:
    """The inside of a mask that is a PIL image; see :func:`as_mask`."""
    if image.has_transparency_data:
        opaque = np.asarray(image.convert("RGBA"))[..., 3] > 127
        if opaque.any() and not opaque.all():
            return opaque
        image = image if image.mode == "P" else image.convert("RGB")  # its transparency says nothing
    light = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("L"))
    if image.mode == "P" and {*np.unique(light)} != {0, 255}:  # black and white may stand in any order
        return np.asarray(image) > 0
    return _bright(light, name, image.mode == "RGB" and _has_colors(np.asarray(image)))


def _has_colors(pixels: NDArray[np.uint8]) -> bool:
    """Whether an image, uint8 [H, W, 3], has large parts of different colors, as a mask of several objects has."""
    colors = pixels[np.ptp(pixels, axis=2) > 64].astype(int)
    channels = 2 * colors > (colors.min(axis=1) + colors.max(axis=1))[:, None]  # bool [N, 3], which one of six colors
    return int((np.bincount(channels @ [1, 2, 4], minlength=8) > 0.1 * len(colors)).sum()) > 1


def _inside_array(mask: "NDArray[np.generic] | Tensor", name: str) -> NDArray[np.bool_]:
    """The inside of a mask that is an array or a tensor; see :func:`as_mask`."""
    values = to_numpy(mask)
    while values.ndim > 2 and 1 in values.shape:
        values = values.squeeze(values.shape.index(1))
    if values.ndim != 2:
        raise UserError(f"a mask of shape {tuple(mask.shape)} cannot be used: give one mask, [H, W]")
    if values.dtype.kind not in "buif":
        raise UserError(f"a mask of {values.dtype} cannot be used: give bools or numbers")
    return _bright(values, name)


def _bright(values: NDArray[Any], name: str, has_colors: bool = False) -> NDArray[np.bool_]:
    """Where values are above half of the largest one; a notice names what looks like a photo or several objects."""
    values = np.nan_to_num(values)
    highest = values.max(initial=0)
    bright: NDArray[np.bool_] = values > highest / 2
    darkest, brightest = float(values.min(initial=highest)), float(highest)
    between = (values > 0.9 * darkest + 0.1 * brightest) & (values < 0.1 * darkest + 0.9 * brightest)
    tones = np.sort(np.unique(values[between], return_counts=True)[1])
    few = len(tones) < FEW_TONES or (tones.sum() > 1000 and tones[-FEW_TONES:].sum() > 0.75 * tones.sum())  # of a JPEG
    if has_colors or (few and 4 * between.sum() > bright.sum()):
        _notice_odd(name, "holds several values, as for several objects")
    elif between.mean() > PHOTO:
        _notice_odd(name, "looks like a photo")
    border = all(side.all() for side in (bright[:1], bright[-1:], bright[:, :1], bright[:, -1:]))
    if border and not bright.all() and values.dtype != bool:
        _notice_odd(name, "covers the whole border, as where black and white are exchanged")
    return bright


@cache  # once per file
def _notice_odd(name: str, what: str) -> None:
    text = f"{name} {what}: its pixels brighter than half of the brightest are taken; a mask is white on black"
    warnings.warn(text, UserNotice, stacklevel=6)
