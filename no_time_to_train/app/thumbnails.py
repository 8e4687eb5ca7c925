"""The thumbnails, which are made in the background: a page with many photos is there at once."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import LifoQueue
from threading import Thread

import numpy as np
from PIL import Image

from no_time_to_train.app.search import Photo
from no_time_to_train.errors import UserError
from no_time_to_train.visual.drawing import save_picture

#: Longest side of a thumbnail in pixels.
SIDE = 240

#: The gray of a thumbnail that is not there yet.
GRAY = 128


class Thumbnails:
    """Thumbnails of photos, in a folder."""

    def __init__(self, folder: Path, photos: Mapping[str, Photo]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.photos, self.made = folder, photos, 0
        self.blank = folder / "blank.png"  # the others end with .jpg
        save_picture(np.full((SIDE * 3 // 4, SIDE, 3), GRAY, np.uint8), self.blank)
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
                small.thumbnail((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2)
                save_picture(np.asarray(small), self._path(name))
                self.made += 1
