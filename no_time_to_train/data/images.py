"""Images: read from files, or taken as PIL images, numpy arrays or tensors."""

import hashlib
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Union

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError, features

from no_time_to_train.errors import UserError, UserNotice, first_of, plural, raise_if_refused

if TYPE_CHECKING:  # references are read before torch is, which takes seconds
    from torch import Tensor
    from typing_extensions import TypeIs

#: Whether the extra "heif" is installed.
HAS_HEIF = find_spec("pillow_heif") is not None
if HAS_HEIF:
    import pillow_heif

    pillow_heif.register_heif_opener()

#: An image: a path, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4], or a tensor [H, W] or [3, H, W]. Colors are
#: RGB, as integers of 8 or 16 bits or floats in [0, 1].
ImageInput = Union[str, Path, Image.Image, NDArray[np.generic], "Tensor"]  # a text is not a type

#: A mask: like an image, or a bool array or tensor [H, W].
MaskInput = ImageInput

#: Modes of PIL that it converts to few others -> a mode that it converts to any.
ODD_MODES = {"La": "LA", "LAB": "RGB"}

#: Endings of the files that count as images in a folder, and that PIL reads without more.
IMAGE_ENDINGS = {".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".jp2", ".ppm", ".pgm"}
IMAGE_ENDINGS |= {".jpg", ".jpeg", ".jpe", ".jfif"}

#: The formats that are read, whatever the file's ending. Pillow knows others: it hands EPS to Ghostscript, a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000", "PPM", "AVIF", "HEIF")

#: Profiles and notes of Photoshop in a PNG may be larger than the million bytes that PIL allows each by default.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

#: Those whose files may hold several pages or frames.
FRAMES = ("TIFF", "GIF", "WEBP", "PNG", "AVIF", "HEIF")

#: Endings of images that can be read only with more -> what to do so that they can.
NEEDS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "pip install pillow-heif"),
    ".avif": "pip install 'pillow>=11.3'",
    **dict.fromkeys(
        (
            *(".jxl", ".psd", ".pdf", ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".raf", ".orf", ".pef", ".rw2"),
            *(".srw", ".gpr", ".dcm", ".czi", ".nd2", ".lif", ".oib", ".oir", ".vsi"),
        ),
        "convert them to JPEG or TIFF",
    ),
}


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as stored: EXIF orientation is not applied, as COCO's annotations expect.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    return to_rgb(open_image(path))


def open_image(path: str | Path) -> Image.Image:
    """Read all pixels of an image, as stored and in its own mode."""
    with _clear_errors(path):
        image = _open(Path(path))
        frames = getattr(image, "n_frames", 1) if image.format in FRAMES else 1
        image = _load(image)
    if frames > 1:
        _notice_frames(str(path), frames)
    return image


@cache  # once per file, however often it is read
def _notice_frames(path: str, frames: int) -> None:
    warnings.warn(f"image {path} has {frames} pages or frames: only the first is used", UserNotice, stacklevel=3)


def decode_image(content: bytes, name: str) -> Image.Image:
    """Read an image that is in memory; see :func:`open_image`."""
    with _clear_errors(name):
        return _load(_open(BytesIO(content)))


def _load(image: Image.Image) -> Image.Image:
    """Decode the pixels of an image. Colors of 16 bits keep their brightest bits, where PIL keeps the upper eight.

    PIL mistakes signs and the order of bytes in TIFF files with other numbers, so that OpenCV reads these.
    """
    kinds = str([part[3] for part in getattr(image, "tile", [])])  # ";16" of PNG and TIFF, 65535 of PPM
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits, sign = (tags.get(tag, (1,)) for tag in (ExifTags.Base.BitsPerSample, ExifTags.Base.SampleFormat))
    photometric = tags.get(ExifTags.Base.PhotometricInterpretation)
    white_is_0, is_ycbcr = photometric == 0, photometric == 6
    if tags.get(ExifTags.Base.PlanarConfiguration) == 2 and (is_ycbcr or max(bits[1:], default=8) > 8):
        raise OSError("its colors of 16 bits or of YCbCr are in planes, which is not read: save them pixel by pixel")
    odd = max(bits) > 16 or max(sign) > 1
    if not odd and (not image.mode.startswith("RGB") or not (";16" in kinds or "65535" in kinds)):
        image.load()
        if image.mode == "I;16" and white_is_0:  # which PIL heeds up to 8 bits only
            return Image.fromarray(65535 - np.asarray(image))
        return image
    source: IO[bytes] = image.fp  # type: ignore[attr-defined]  # that of the file which is open
    source.seek(0)
    pixels = cv2.imdecode(np.frombuffer(source.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if odd:
        if pixels is None or pixels.ndim > 2:
            raise OSError("a TIFF with such numbers, or its compression, is not read: save it with 8 or 16 bits")
        gray = pixels.astype(np.float32 if pixels.dtype.kind == "f" or pixels.max() >= 2**31 else np.int32)
        return Image.fromarray(gray.max() - gray if white_is_0 else gray)
    if pixels is None or pixels.dtype != np.uint16:
        image.load()
        return image
    order = [2, 1, 0, 3][: pixels.shape[2]]  # from BGR
    deep = Image.fromarray(_brightest_bits(pixels)[..., order])
    if image.format != "TIFF":  # which OpenCV, like PIL, turns as it loads it
        deep.getexif().update(image.getexif())
    image.close()
    return deep


def _brightest_bits(colors: NDArray[Any]) -> NDArray[np.uint8]:
    """Colors of up to 16 bits, [H, W, C], with the 8 bits from the highest that any of them uses."""
    used = max(int(colors[..., :3].max(initial=0)).bit_length(), 8)
    scaled = (colors >> (used - 8)).astype(np.uint8)
    if colors.shape[2] == 4:
        scaled[..., 3] = colors[..., 3] >> 8
    return scaled


def _open(file: Path | BytesIO) -> Image.Image:
    """Read the header of an image; every image of this package is opened here."""
    if isinstance(file, Path) and not file.is_file():  # opening a pipe or a device would wait forever
        raise OSError("it is not a file") if file.exists() else FileNotFoundError
    image = Image.open(file, formats=_formats())
    if _are_too_many(image.width * image.height):  # PIL only warns up to twice as many
        image.close()
        raise Image.DecompressionBombError(f"{image.width * image.height} pixels")
    return image


def check_pixels(name: str, pixels: int) -> None:
    """Check that a picture has no more pixels than an image may have."""
    with _clear_errors(name):
        if _are_too_many(pixels):
            raise Image.DecompressionBombError(f"{pixels} pixels")


def _are_too_many(pixels: int) -> bool:
    return Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS


@cache
def _formats() -> list[str]:
    """Those of ``FORMATS`` that this installation can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def stored_size(path: Path) -> tuple[int, int]:
    """The height and width in pixels of an image as it is stored. Only the file's header is read."""
    with _clear_errors(path), _open(path) as image:
        return image.height, image.width


def shown_size(path: Path) -> tuple[int, int]:
    """The height and width in pixels of an image as it is shown, with EXIF orientation applied.

    Only the file's header is read.
    """
    with _clear_errors(path), _open(path) as image:
        width, height = image.size
        # 5 to 8 swap height and width. PIL has done so for a TIFF already.
        turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
    return (width, height) if turned else (height, width)


def is_image(path: Path) -> bool:
    """Whether a path is an image by its ending, and not a hidden file (macOS leaves files like ``._photo.jpg``)."""
    ending = path.suffix.lower()
    known = ending in IMAGE_ENDINGS or (ending in NEEDS and _is_readable(ending))
    return known and not path.name.startswith(".")


def is_picture(path: Path) -> bool:
    """Whether a file is an image by its first bytes, whatever its name is."""
    try:
        stored_size(path)
    except UserError:
        return False
    return True


def describe_unreadable(paths: Iterable[Path]) -> str:
    """The files among some paths that are images by their ending, but cannot be read here, and what to do about it.

    Returns:
        Text for a message; empty where there are none.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        ending = path.suffix.lower()
        if ending in NEEDS and not _is_readable(ending) and not path.name.startswith("."):
            found[NEEDS[ending]].append(path.name)
    counted = {advice: f"{plural(len(names), 'image')} cannot be read here" for advice, names in found.items()}
    return "; ".join(f"{text}: {first_of(found[advice])} ({advice})" for advice, text in counted.items())


def _is_readable(ending: str) -> bool:
    """Whether images with an ending of ``NEEDS`` can be read here."""
    if ending == ".avif":
        return bool(features.check("avif"))
    return ending in (".heic", ".heif", ".hif") and HAS_HEIF


def hash_pixels(image: NDArray[np.uint8]) -> str:
    """The SHA-256 of an image's size and pixels, uint8 [H, W, 3]."""
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def allow_pixels(count: int) -> None:
    """Set the number of pixels above which an image counts as a decompression bomb, for this process."""
    Image.MAX_IMAGE_PIXELS = count


@contextmanager
def _clear_errors(path: str | Path) -> Iterator[None]:
    """Turn what PIL raises about a file into a UserError."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"image not found: {path}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        pixels = (re.findall(r"\d+", str(error)) or ["?"])[0]  # PIL has no other place for it
        raise UserError(
            f"image {path} may be a decompression bomb: it has {pixels} pixels, the limit is {Image.MAX_IMAGE_PIXELS}; "
            f"make it smaller; if you trust it, segment takes --max-pixels {pixels}, Python PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise_if_refused(error, path)
        unknown = f"it is broken, or of no kind that is read of {', '.join(_formats())}"
        reason = unknown if isinstance(error, UnidentifiedImageError) else error
        raise UserError(describe_unreadable([Path(path)]) or f"image {path} cannot be read: {reason}") from error


def as_rgb(image: ImageInput, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The pixels of an image in any form, upright.

    Args:
        size: Of a file or a PIL image, see :func:`upright`.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    if isinstance(image, str | Path):
        image = open_image(image)
    return to_rgb(upright(image, size) if isinstance(image, Image.Image) else _from_array(image))


def upright(image: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """Turn an image as its EXIF orientation says.

    Args:
        image: The image as stored.
        size: Height and width in pixels that an annotation states. An image that has them only as stored is not
            turned, because its annotation was made without regard to EXIF.
    """
    with _clear_errors(getattr(image, "filename", "") or "that was given"):  # PIL reads its file only now
        if 0 in image.size:
            raise OSError(f"it has {image.width}x{image.height} pixels")
        image = image.convert(ODD_MODES[image.mode]) if image.mode in ODD_MODES else image
        turned = ImageOps.exif_transpose(image)
    stored, shown = image.size[::-1], turned.size[::-1]
    return image if size is not None and size == stored != shown else turned


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a PIL image of any mode, as stored.

    Gray values deeper than 8 bits are stretched from the darkest to the brightest pixel, because cameras and
    microscopes use only a part of 16 bits; PIL would clip them at 255. Transparent pixels become white.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
        values = (values - values.min()) / max(np.ptp(values), 1e-9)
        return np.repeat(np.rint(255 * values).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _from_array(image: "NDArray[np.generic] | Tensor") -> Image.Image:
    """A PIL image of an array or a tensor; see ``ImageInput``."""
    values, shape = to_numpy(image), tuple(image.shape)
    image = values.transpose(1, 2, 0) if is_tensor(image) and values.ndim == 3 else values
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)) or not image.size:
        raise UserError(
            f"an image of shape {shape} cannot be used: give an array [H, W], [H, W, 3] or [H, W, 4], or a tensor "
            "[H, W] or [3, H, W]"
        )
    if image.dtype.kind == "f":
        if not (image.min() >= 0 and image.max() <= 1):
            extent = f"from {image.min():g} to {image.max():g}"
            raise UserError(f"an image of {image.dtype} has values {extent}: floats must be in [0, 1]")
        image = np.rint(255 * image).astype(np.uint8)
    elif image.dtype == np.uint16 and image.ndim == 3:  # gray values of 16 bits are for to_rgb
        image = _brightest_bits(image.astype(np.uint16))
    elif image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"an image of {image.dtype} cannot be used: give uint8, uint16, or floats in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(image))


def is_tensor(values: object) -> "TypeIs[Tensor]":
    """Whether an object is a tensor of torch, which need not be imported to know that."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def to_numpy(values: "NDArray[np.generic] | Tensor") -> NDArray[np.generic]:
    """The array in the machine's byte order, or the tensor as an array; numpy has no bfloat16."""
    if isinstance(values, np.ndarray) and not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    if not is_tensor(values):
        kind = "None" if values is None else f"an object of type {type(values).__name__}"
        raise UserError(f"{kind} is not an image: give a path, a PIL image, an array or a tensor")
    with suppress(RuntimeError, TypeError):
        return (values.float() if "bfloat16" in str(values.dtype) else values).detach().cpu().numpy()
    raise UserError("a tensor that is sparse, quantized, conjugated or without data cannot be used: give a plain one")
