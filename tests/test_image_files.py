"""``as_rgb`` and ``as_mask`` on the files of cameras, microscopes and drawing programs."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from no_time_to_train import UserError
from no_time_to_train.data.images import as_mask, as_rgb


def test_exif_rotation_is_applied_where_the_size_that_an_annotation_states_does_not_contradict(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30] = 255  # upper left as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated clockwise
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path, exif=exif)
    for turned in (as_rgb(path), as_rgb(path, size=(60, 40))):
        assert turned.shape == (60, 40, 3)
        assert turned[5, 35].tolist() == [255, 255, 255]
        assert turned[5, 5].tolist() == [0, 0, 0]
    assert (as_rgb(path, size=(40, 60)) == pixels).all()


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_images_keep_their_contrast(tmp_path: Path, ending: str) -> None:
    values = np.linspace(300, 4095, 50 * 40).reshape(40, 50).astype(np.uint16)  # the 12 bits of a microscope
    cv2.imwrite(str(tmp_path / f"cells.{ending}"), values)
    shown = as_rgb(tmp_path / f"cells.{ending}")
    assert shown.shape == (40, 50, 3)
    assert (shown.min(), shown.max()) == (0, 255)
    assert np.ptp(shown, axis=2).max() == 0
    assert (shown == as_rgb(values)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6))
    else:
        image = Image.radial_gradient("L").resize((6, 4)).convert("LA" if mode == "PA" else mode).convert(mode)
    shown = as_rgb(image)
    assert shown.shape == (4, 6, 3)
    assert shown.dtype == np.uint8
    assert shown.std() > 0


def test_transparent_pixels_become_white_and_gray_arrays_and_tensors_are_images() -> None:
    assert as_rgb(Image.new("RGBA", (6, 4), (200, 0, 0, 0))).min() == 255
    gray = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for form in (gray, gray[..., None], torch.from_numpy(gray), torch.from_numpy(gray)[None]):
        assert (as_rgb(form) == gray[..., None]).all()


@pytest.mark.parametrize(
    "image", [np.zeros((3, 4, 6), np.uint8), np.full((4, 6, 3), 200.0), np.zeros((4, 6), np.int64), np.zeros(5)]
)
def test_an_array_that_is_not_an_image_is_refused(image: Any) -> None:
    with pytest.raises(UserError, match="an image of"):
        as_rgb(image)


def test_all_kinds_of_mask_files_are_read_alike(tmp_path: Path) -> None:
    inside = np.zeros((40, 60), bool)
    inside[10:30, 20:50] = True
    zeros = np.zeros_like(inside, np.uint8)
    palette = Image.fromarray(inside.astype(np.uint8)).convert("P")
    cut_out = Image.fromarray(np.dstack([zeros, zeros, zeros, 255 * inside.astype(np.uint8)]))
    for picture in (Image.fromarray(inside), Image.fromarray(inside.astype(np.uint8)), palette, cut_out):
        picture.save(tmp_path / "mask.png")
        assert (as_mask(tmp_path / "mask.png") == inside).all()
    Image.fromarray(255 * inside.astype(np.uint8)).save(tmp_path / "mask.jpg")
    assert (as_mask(tmp_path / "mask.jpg") != inside).mean() < 0.01


@pytest.mark.parametrize("what", ["looks like a photo", "holds several values", "covers the whole border", None])
def test_a_mask_that_looks_like_something_else_is_named(
    what: str | None, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    if what == "looks like a photo":
        pixels[...] = np.linspace(90, 120, 60)[:, None]  # of low contrast: all is brighter than half
    else:
        pixels[10:30, 5:25, 0] = 255
        pixels[10:30, 35:55, 2] = 255 if what else 0
    if what == "covers the whole border":
        pixels = np.where(pixels > 0, 0, 255).astype(np.uint8).min(axis=2, keepdims=True).repeat(3, axis=2)
    smooth = Image.fromarray(pixels) if what else Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))
    smooth.save(tmp_path / "mask.png")
    for _ in range(2):
        as_mask(tmp_path / "mask.png")
    assert [str(one.message).startswith(f"{tmp_path / 'mask.png'} {what}") for one in recwarn] == [True] * bool(what)
