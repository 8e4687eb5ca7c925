"""``as_rgb`` and ``as_mask`` on the files of cameras, microscopes and drawing programs."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from no_time_to_train import UserError
from no_time_to_train.data.images import as_rgb, is_image, shown_size
from no_time_to_train.data.mask_inputs import as_mask
from no_time_to_train.data.targets import is_video
from no_time_to_train.errors import UserNotice


def test_a_jpeg_counts_as_an_image_with_each_of_its_endings() -> None:
    assert all(is_image(Path(f"photo{ending}")) for ending in (".jpg", ".JPEG", ".jpe", ".jfif"))


def test_heic_of_cameras_and_videos_of_camcorders_count_by_their_endings() -> None:
    pytest.importorskip("pillow_heif")
    assert is_image(Path("DSC1.HIF"))
    assert all(is_video(Path(f"clip{ending}")) for ending in (".MTS", ".m2ts", ".3gp", ".flv"))


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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "LAB", "La"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6))
    else:
        between = {"PA": "LA", "La": "LA", "LAB": "RGB"}.get(mode, mode)
        image = Image.radial_gradient("L").resize((6, 4)).convert(between)
        image = Image.merge("LAB", image.split()) if mode == "LAB" else image.convert(mode)
    assert as_mask(image).shape == (4, 6)
    shown = as_rgb(image)
    assert shown.shape == (4, 6, 3)
    assert shown.dtype == np.uint8
    assert shown.std() > 0


#: EXIF's orientations, and what turns an image as stored to the image as shown.
TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_tiff_is_turned_once(orientation: int, deep: bool, tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 1]
    cv2.imwrite(str(tmp_path / "photo.tif"), colors[..., ::-1] * np.uint16(257) if deep else colors[..., ::-1], options)
    content = bytearray((tmp_path / "photo.tif").read_bytes())
    place = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[place : place + 2], "little")
    tags = [bytes(content[place + 2 + 12 * n :][:12]) for n in range(count)]
    turn = b"\x12\x01\3\0\1\0\0\0" + orientation.to_bytes(4, "little")
    tags = sorted(
        [tag for tag in tags if tag[:2] != turn[:2]] + [turn], key=lambda tag: int.from_bytes(tag[:2], "little")
    )
    content[4:8] = len(content).to_bytes(4, "little")
    content += len(tags).to_bytes(2, "little") + b"".join(tags) + bytes(4)
    (tmp_path / "photo.tif").write_bytes(content)
    turned = TURNS[orientation](colors)
    assert np.array_equal(as_rgb(tmp_path / "photo.tif"), turned)
    assert shown_size(tmp_path / "photo.tif") == turned.shape[:2]


@pytest.mark.parametrize(
    "value", [b"\3\0\0\0\1\0\0\0\0", b"\3\0\0\0\1\0\x09\0\0", b"\2\0\0\0\0026\0\0\0"], ids=["0", "9", "text"]
)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_an_orientation_that_exif_does_not_have_turns_nothing(kind: str, value: bytes, tmp_path: Path) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0" + value + bytes(4)
    Image.new("RGB", (40, 30)).save(tmp_path / "photo", kind, exif=exif)
    assert shown_size(tmp_path / "photo") == as_rgb(tmp_path / "photo").shape[:2] == (30, 40)


def test_colors_of_16_bits_in_a_ppm_keep_their_brightest_bits(tmp_path: Path) -> None:
    colors = np.linspace(300, 4095, 30 * 40 * 3).reshape(30, 40, 3).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "photo.ppm"), colors[..., ::-1])
    assert np.array_equal(as_rgb(tmp_path / "photo.ppm"), colors >> 4)


def test_a_16_bit_tiff_in_which_white_is_0_is_not_shown_as_its_negative(tmp_path: Path) -> None:
    values = np.linspace(0, 60_000, 30 * 40).reshape(30, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "xray.tif")
    content = (tmp_path / "xray.tif").read_bytes()
    photometric = b"\x06\x01\3\0\1\0\0\0"  # tag 262, one short
    (tmp_path / "xray.tif").write_bytes(content.replace(photometric + b"\1", photometric + b"\0"))
    shown = as_rgb(tmp_path / "xray.tif")
    assert (shown[0, 0].max(), shown[-1, -1].max()) == (255, 0)


def tiff_of(values: NDArray[Any], order: str, white: int = 1) -> bytes:
    """A TIFF file of gray values [H, W], deflated, with bytes in an order, "<" or ">"."""
    pixels = zlib.compress(values.astype(values.dtype.newbyteorder(order)).tobytes())
    height, width = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    places = {256: width, 257: height, 258: 8 * values.itemsize, 259: 8, 262: white, 273: 8, 277: 1, 278: height}
    tags = {**places, 279: len(pixels), 339: kind}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    begin = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(pixels))
    return begin + pixels + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u2", "u4", "i2", "i4", "f4"])
def test_gray_values_of_any_type_in_a_tiff_are_stretched_from_the_lowest_to_the_highest(
    kind: str, order: str, tmp_path: Path
) -> None:
    gray = np.arange(240, dtype=np.uint8).reshape(12, 20)
    low, high = (0, 1) if kind == "f4" else (int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    values = (low + gray.astype(np.float64) / 240 * (high - low)).astype(kind)
    (tmp_path / "a.tif").write_bytes(tiff_of(values, order))
    if kind == "u4" and order == ">":
        with pytest.raises(UserError, match="of no kind that is read"):
            as_rgb(tmp_path / "a.tif")
        return
    assert np.abs(as_rgb(tmp_path / "a.tif")[..., 0] - gray / 239 * 255).max() < 1.5


def test_a_tiff_of_real_numbers_in_which_white_is_0_is_not_shown_as_its_negative(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(np.linspace(0, 1, 240, dtype=np.float32).reshape(12, 20), "<", white=0))
    assert (as_rgb(tmp_path / "a.tif")[0, 0, 0], as_rgb(tmp_path / "a.tif")[-1, -1, 0]) == (255, 0)


@pytest.mark.parametrize("kind", ["png", "gif", "webp", "tiff", "avif", "heif"])
def test_a_file_of_two_pictures_is_read_as_the_first_with_a_notice(kind: str, tmp_path: Path) -> None:
    first, second = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64))
    first.save(tmp_path / "photo", kind, save_all=True, append_images=[second])
    with pytest.warns(UserNotice, match="has 2 pages or frames: only the first is used"):
        assert as_rgb(tmp_path / "photo").min() > 250


@pytest.mark.parametrize(("kind", "photometric"), [(np.uint16, 2), (np.uint8, 6)])
def test_a_tiff_with_colors_of_16_bits_or_ycbcr_in_planes_is_refused(
    tmp_path: Path, kind: type[Any], photometric: int
) -> None:
    """Neither PIL nor OpenCV reads its pixels, and both return others."""
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), np.zeros((40, 60, 3), kind), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    content = path.read_bytes()
    chunky, planar = (struct.pack("<HHIHH", 284, 3, 1, value, 0) for value in (1, 2))
    assert content.count(chunky) == 1
    rgb, other = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (2, photometric))
    path.write_bytes(content.replace(chunky, planar).replace(rgb, other))
    with pytest.raises(UserError, match="its colors of 16 bits or of YCbCr are in planes"):
        as_rgb(path)


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


@pytest.mark.parametrize("read", [as_rgb, as_mask])
@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (Image.new("RGB", (5, 0)), "image that was given cannot be read: it has 5x0 pixels"),
        (np.ma.array(np.eye(4, dtype=np.uint8), mask=np.eye(4)), "an object of type MaskedArray is not an image"),
        (torch.eye(4).to_sparse(), "a tensor that is sparse"),
        (torch.ones(4, 4, device="meta"), "a tensor that is sparse, quantized, conjugated or without data"),
        (torch.ones(4, 4, dtype=torch.complex64).conj(), "conjugated"),
    ],
)
def test_what_holds_no_plain_pixels_is_refused(read: Callable[[Any], Any], values: Any, refused: str) -> None:
    with pytest.raises(UserError, match=refused):
        read(values)


def test_a_matrix_of_numpy_is_a_mask() -> None:
    assert (as_mask(np.matrix(np.eye(4))) == np.eye(4)).all()


def test_all_kinds_of_mask_files_are_read_alike(tmp_path: Path) -> None:
    inside = np.zeros((40, 60), bool)
    inside[10:30, 20:50] = True
    zeros = np.zeros_like(inside, np.uint8)
    palette = Image.fromarray(inside.astype(np.uint8)).convert("P")
    cut_out = Image.fromarray(np.dstack([zeros, zeros, zeros, 255 * inside.astype(np.uint8)]))
    for picture in (Image.fromarray(inside), Image.fromarray(inside.astype(np.uint8)), palette, cut_out):
        picture.save(tmp_path / "mask.png")
        assert (as_mask(tmp_path / "mask.png") == inside).all()
    for outside, value in ((np.nan, 1), (0, np.inf), (-np.inf, 0.5)):
        Image.fromarray(np.where(inside, value, outside).astype(np.float32)).save(tmp_path / "mask.tif")
        assert (as_mask(tmp_path / "mask.tif") == inside).all()
    Image.fromarray(255 * inside.astype(np.uint8)).save(tmp_path / "mask.jpg")
    assert (as_mask(tmp_path / "mask.jpg") != inside).mean() < 0.01


def test_a_jpeg_of_several_gray_values_is_named(tmp_path: Path) -> None:
    pixels = np.zeros((120, 200), np.uint8)
    for index, value in enumerate((85, 170, 255)):
        pixels[30:90, 10 + 60 * index : 60 + 60 * index] = value
    Image.fromarray(pixels).save(tmp_path / "mask.jpg", quality=75)
    with pytest.warns(UserNotice, match="mask.jpg holds several values"):
        as_mask(tmp_path / "mask.jpg")


@pytest.mark.parametrize(("color", "count"), [((30, 200, 60), 1), ((220, 30, 30), 0)])
def test_a_jpeg_of_several_colors_is_named(
    color: tuple[int, ...], count: int, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[20:60, 20:80], pixels[60:100, 90:140] = (220, 30, 30), color
    Image.fromarray(pixels).save(tmp_path / "mask.jpg", quality=75)
    as_mask(tmp_path / "mask.jpg")
    assert ["holds several values" in str(one.message) for one in recwarn] == [True] * count


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
    as_mask(as_mask(tmp_path / "mask.png"))  # what was read already is not named again
    assert [str(one.message).startswith(f"{tmp_path / 'mask.png'} {what}") for one in recwarn] == [True] * bool(what)
