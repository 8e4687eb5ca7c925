"""The photos of the app: their files, the pixels and clicks of those that are open, and thumbnails."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from queue import LifoQueue
from threading import Lock, Thread

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.images import as_rgb, is_image, read_rgb
from no_time_to_train.data.names import clean_name, unique_names, unique_stems
from no_time_to_train.data.targets import TargetImage, Targets, find_targets
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write
from no_time_to_train.networks.box_prompts import PromptedImage
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.visual.drawing import save_picture
from no_time_to_train_extras.app.search import Photo, Search
from no_time_to_train_extras.app.video_frames import Videos

#: What the names of uploaded photos begin with.
UPLOADS = "uploads"

#: The x and y of each point in pixels.
Points = Sequence[tuple[float, float]]

#: Bytes of all photos that were added in the browser; and what is held while one is given its name.
LARGEST_UPLOADS, STORING = 10 * 2**30, Lock()

#: Photos whose pixels, and features for clicks, stay in memory.
KEPT_PHOTOS = 4

#: Longest side in pixels at which a photo is clicked on. SAM 2 sees 1,024, and its masks have 256.
CLICKED_SIDE = 1536

#: Longest side of a thumbnail in pixels.
THUMBNAIL_SIDE = 240

#: Longest side in pixels of a photo's picture on the page: browsers show no larger ones.
PICTURE_SIDE = 8192

#: The gray of a thumbnail that is not there yet.
GRAY = 128


def find_photos(images: Sequence[str], uploads: Path, out: Path) -> tuple[list[TargetImage], Videos]:
    """The photos and the videos, whose names and stems are unique.

    Args:
        images: Folders, globs, images, videos, or one COCO file.
        out: The folder of the app, whose other files are no photos.
    """
    found = find_targets(images, 0, out) if images else Targets([], 0, "")
    given = [(target.name, target.path) for target in found.images if target.path is not None]
    given += [
        (f"{UPLOADS}/{path.name}", path)
        for path in sorted(uploads.glob("*"))
        if is_image(path) and not path.is_symlink()
    ]
    names = unique_names([name for name, _ in given])
    stems = unique_stems(names, folders=[stem for _, stem in found.videos.values()])
    photos = [
        TargetImage(name, stem, partial(as_rgb, path), path)
        for name, stem, (_, path) in zip(names, stems, given, strict=True)
    ]
    return photos, Videos(found.videos)


def store_upload(file: Path, uploads: Path) -> Path:
    """Check an uploaded file, and copy it to the folder of uploads; the uploaded one is removed.

    Returns:
        The copy. Its name has nothing of a path, and is not that of another upload.
    """
    read_rgb(file)
    name = clean_name(Path(clean_name(file.name)).name).lstrip(".") or "image"
    with STORING:
        others = [path for path in uploads.iterdir() if path.is_file()]
        if sum(path.stat().st_size for path in [*others, file]) > LARGEST_UPLOADS:
            raise UserError(f"image {file} does not fit into {uploads}, which holds {LARGEST_UPLOADS} bytes at most")
        place = uploads / unique_names([*(path.name for path in uploads.iterdir()), name])[-1]
        with file.open("rb") as source, atomic_write(place) as target:
            shutil.copyfileobj(source, target)
    file.unlink(missing_ok=True)
    return place


class OpenPhotos:
    """Pixels of photos, and masks of what is clicked on. What the last photos need stays in memory."""

    def __init__(self, segmenter: ReferenceSegmenter, search: Search) -> None:
        self.segmenter, self.search = segmenter, search
        self._pixels, self._prompted = lru_cache(KEPT_PHOTOS)(self._read), lru_cache(KEPT_PHOTOS)(self._prompt)

    def pixels(self, name: str) -> NDArray[np.uint8]:
        """The pixels of a photo, uint8 [H, W, 3] RGB."""
        return self._pixels(name, self.search.content(name))

    def masks(
        self, name: str, points: Points = (), negative_points: Points = (), box: Sequence[float] | None = None
    ) -> NDArray[np.bool_]:
        """The masks of the object that a person clicks on, by points and a box in pixels of the photo.

        Returns:
            bool [n, H, W], n is 3 for a single point and 1 otherwise; none is empty.
        """
        height, width = self.pixels(name).shape[:2]
        prompted, scale = self._prompted(name, self.search.content(name)), min(CLICKED_SIDE / max(height, width), 1)
        on, off = ([(scale * x, scale * y) for x, y in places] for places in (points, negative_points))
        corners = None if box is None else [scale * value for value in box]
        with computing_in(self.segmenter.precision, self.segmenter.device):
            masks, _ = prompted.masks(on, off, corners)
        masks = masks[masks.any(axis=(1, 2))]
        if not len(masks):
            raise UserError("nothing was found there: click on the middle of the object, or give a box")
        if scale == 1:
            return masks
        return np.stack([cv2.resize(255 * mask.astype(np.uint8), (width, height)) > 127 for mask in masks])

    def _read(self, name: str, content: str) -> NDArray[np.uint8]:
        """Read a photo with this content."""
        return self.search.read(name)

    def _prompt(self, name: str, content: str) -> PromptedImage:
        """Compute the features that a click on a photo needs; also while the search computes."""
        pixels = shrink(self.pixels(name), CLICKED_SIDE)
        with computing_in(self.segmenter.precision, self.segmenter.device):
            return PromptedImage(self.segmenter.prompts, pixels)


def shrink(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture, uint8 [H, W, 3], whose longer side is at most ``side``."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(round(scale * width), 1), max(round(scale * height), 1)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


class Pictures:
    """Pictures of photos and of references in a folder, for the page. Those of photos are removed after a while.

    Args:
        folder: The folder that stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, content: str, pixels: NDArray[np.uint8]) -> Path:
        """The picture of a photo, made again where it was removed.

        Args:
            content: What the photo is known by.
            pixels: uint8 [H, W, 3] RGB.
        """
        path = self.folder.with_name("pictures") / f"{content.partition(' ')[2]}.jpg"
        try:
            os.utime(path)
        except FileNotFoundError:
            save_picture(shrink(pixels, PICTURE_SIDE), path)
        return path

    def crop(self, name: str, content: bytes) -> Path:
        """The picture of a reference, from the bytes of its PNG file."""
        path = self.folder / f"{name}.png"
        if not path.exists():
            picture = Image.open(BytesIO(content))
            save_picture(np.asarray(picture.convert("RGBA").crop(picture.getbbox())), path)
        return path


class Thumbnails:
    """Thumbnails in a folder, made in the background: a page with many photos is there at once."""

    def __init__(self, folder: Path, photos: Mapping[str, Photo]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.photos, self.made = folder, photos, 0
        self.blank = folder / "blank.png"  # the others end with .jpg
        save_picture(np.full((THUMBNAIL_SIDE * 3 // 4, THUMBNAIL_SIDE, 3), GRAY, np.uint8), self.blank)
        self.asked: set[str] = set()
        self.waiting: LifoQueue[str] = LifoQueue()  # those of the page that is shown now come first
        Thread(target=self._work, name="thumbnails", daemon=True).start()

    def file(self, name: str) -> Path:
        """The file of a photo's thumbnail; a gray picture as long as there is none."""
        path = self._path(name)
        if path.exists():
            return path
        if name not in self.asked:
            self.asked.add(name)
            self.waiting.put(name)
        return self.blank

    def _path(self, name: str) -> Path:
        return self.folder / f"{self.photos[name].target.stem}.jpg"

    def _work(self) -> None:
        """Make those that are asked for."""
        while True:
            name = self.waiting.get()
            with suppress(UserError, OSError, MemoryError):  # the search says what is wrong with the photo
                small = Image.fromarray(self.photos[name].target.read())
                small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX, reducing_gap=2)
                save_picture(np.asarray(small), self._path(name))
                self.made += 1
                self.asked.discard(name)  # a system may clean its temporary folder while the app runs
