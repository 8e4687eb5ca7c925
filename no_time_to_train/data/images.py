"""Images and masks, read from files or taken as PIL images, numpy arrays and tensors."""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from no_time_to_train.errors import UserError

#: An image: a path, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4], or a tensor [H, W] or [3, H, W]; colours are
#: RGB, integers of 8 or 16 bits or floats in [0, 1].
ImageInput = str | Path | Image.Image | NDArray[np.generic] | Tensor

#: A mask: as an image, or a bool array or tensor [H, W].
MaskInput = ImageInput


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as stored (EXIF orientation is not applied, as COCO's annotations expect): uint8 [H, W, 3].

    Raises:
        UserError: see :func:`open_image`.
    """
    return to_rgb(open_image(path))


def open_image(path: str | Path) -> Image.Image:
    """Read an image whole, as stored and in its own mode.

    Raises:
        UserError: the file is missing, truncated, not an image, or so large that it may be a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
            image.load()
            return image
    except FileNotFoundError as error:
        raise UserError(f"image not found: {path}") from error
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise UserError(f"image {path} cannot be read: {error}") from error


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an image of any mode: uint8 [H, W, 3].

    Greys deeper than 8 bits are stretched from their darkest to their brightest pixel, as cameras and microscopes use
    only a part of 16 bits; PIL would clip them at 255. What is transparent becomes white.
    """
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
        values = (values - values.min()) / max(np.ptp(values), 1e-9)
        return np.repeat(np.rint(255 * values).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def upright(image: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """Turn an image as its EXIF orientation says.

    Args:
        size: height and width that an annotation states; where only the image as stored has them, it is not turned,
            for the annotation was made without regard to EXIF.
    """
    turned = ImageOps.exif_transpose(image)
    stored, shown = image.size[::-1], turned.size[::-1]
    return image if size is not None and size == stored != shown else turned


def as_rgb(image: ImageInput, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The pixels of an image, upright: uint8 [H, W, 3].

    Args:
        image: see ``ImageInput``.
        size: see :func:`upright`.

    Raises:
        UserError: the file cannot be read, or the shape or type is not that of an image.
    """
    if isinstance(image, str | Path):
        return to_rgb(upright(open_image(image), size))
    if isinstance(image, Image.Image):
        return to_rgb(upright(image, size))
    shape = tuple(image.shape)
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
        if image.ndim == 3:
            image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)) or not image.size:
        raise UserError(f"an image of shape {shape}: arrays are [H, W], [H, W, 3] or [H, W, 4], tensors [3, H, W]")
    if image.dtype.kind == "f":
        if not (image.min() >= 0 and image.max() <= 1):
            raise UserError(f"an image of {image.dtype} from {image.min():g} to {image.max():g}: floats are in [0, 1]")
        image = np.rint(255 * image).astype(np.uint8)
    elif image.dtype == np.uint16 and image.ndim == 3:
        image = (image.astype(np.uint16) >> 8).astype(np.uint8)
    elif image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"an image of {image.dtype}: give uint8, uint16, or floats in [0, 1]")
    return to_rgb(Image.fromarray(np.ascontiguousarray(image)))


def as_mask(mask: MaskInput) -> NDArray[np.bool_]:
    """The inside of a mask: bool [H, W].

    Of a picture with transparency that is what is opaque; of one with a palette every entry but the first; else what is
    brighter than half of the brightest pixel, so that 0 and 1, 0 and 255, and JPEG's blur all read alike.

    Raises:
        UserError: the file cannot be read, or nothing is inside.
    """
    if isinstance(mask, str | Path):
        name, picture = str(mask), upright(open_image(mask))
    elif isinstance(mask, Image.Image):
        name, picture = "the mask", upright(mask)
    else:
        values = torch.as_tensor(mask).detach().cpu().numpy().squeeze()
        if values.ndim != 2:
            raise UserError(f"a mask of shape {tuple(mask.shape)}: give one mask, [H, W]")
        return not_empty(values > values.max(initial=0) / 2, "the mask")
    if picture.has_transparency_data:
        inside = np.asarray(picture.convert("RGBA"))[..., 3] > 127
    elif picture.mode == "P":
        inside = np.asarray(picture) > 0
    else:
        values = np.asarray(picture if picture.mode.startswith(("I", "F")) else picture.convert("L"))
        inside = values > values.max() / 2
    return not_empty(inside, name)


def not_empty(mask: NDArray[np.bool_], name: str) -> NDArray[np.bool_]:
    if not mask.any():
        raise UserError(f"{name} is empty: the object's pixels must be brighter than the rest")
    return mask


#: Endings of the files that count as images in a folder.
IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def is_image(path: Path) -> bool:
    """Whether a path is an image by its ending, and no hidden file (macOS leaves ``._photo.jpg`` behind)."""
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")


def shown_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as it is shown, from its header.

    Raises:
        UserError: the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except FileNotFoundError as error:
        raise UserError(f"image not found: {path}") from error
    except Exception as error:  # see open_image
        raise UserError(f"image {path} cannot be read: {error}") from error
    return (width, height) if turned else (height, width)
