"""The search in the background: the networks see each photo once, and photos are classified when the memory changes."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Condition, RLock, Thread

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.images import as_rgb
from no_time_to_train.data.names import unique_names, unique_stems
from no_time_to_train.data.rle import encode_crop
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.errors import UserError, one_line
from no_time_to_train.file_hashes import sha256
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.pipeline.proposal_cache import ProposalCache, hash_networks, proposals_depend_on
from no_time_to_train_extras.app.corrections import Item

#: Bytes of vectors that stay in memory; the proposals of other photos are read from the cache again.
KEPT_BYTES = 2**28

#: Seconds until what failed is tried again, such as writing to a full disk.
PAUSE = 5.0


class TryAgain(UserError):
    """What fails at the moment: the photo has changed, or its proposals cannot be kept."""


@dataclass
class Photo:
    """A photo and what is known of it.

    Attributes:
        identify: Returns what it is known by now, see :func:`identity`.
        content: What it is known by since it was first looked at; None before.
        memory: The number of the memory that it was found with; -1 before.
    """

    target: TargetImage
    identify: Callable[[], str]
    content: str | None = None
    proposed: bool = False
    found: list[Item] = field(default_factory=list)
    memory: int = -1
    problem: str = ""


@dataclass(frozen=True)
class Progress:
    """How far the search is.

    Attributes:
        seconds_left: Estimate of the time until all are classified; None before the first photo.
    """

    photos: int
    proposed: int
    classified: int
    seconds_left: float | None
    running: bool

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.classified == self.photos


class Photos(dict[str, Photo]):
    """The photos by name. A frame of a video about which nothing was said is none, but is found by its name, too.

    Args:
        look_up: Returns a photo that is none of these; raises a UserError where there is none.
    """

    def __init__(self, photos: Iterable[Photo], look_up: Callable[[str], Photo]) -> None:
        super().__init__({photo.target.name: photo for photo in photos})
        self.look_up = look_up

    def __missing__(self, name: str) -> Photo:
        return self.look_up(name)


class Search:
    """Searches photos in a thread of its own.

    All methods may be called from any thread.

    Args:
        afterwards: What is done in the thread once all photos are classified with a memory.

    Attributes:
        state: Held while what is known changes, and notified then.
        networks: Held while the networks compute.
        classifying: Held while the memory changes, and while a photo is classified with it.
        problem: Why the search cannot go on, or the step after it; empty where they can.
    """

    def __init__(
        self, segmenter: ReferenceSegmenter, photos: Photos, folder: Path, afterwards: Callable[[], None]
    ) -> None:
        self.segmenter, self.afterwards = segmenter, afterwards
        self.photos = photos
        networks = hash_networks(segmenter.segmenter)
        depends_on = proposals_depend_on(networks, segmenter.segmenter.settings, segmenter.precision)
        self.cache = ProposalCache(folder, depends_on)
        self.kept: dict[str, DescribedProposals] = {}
        self.kept_bytes = 0
        self.state, self.networks, self.classifying = Condition(RLock()), RLock(), RLock()
        self.first: str | None = None
        self.memory = self.settled = self.changes = 0
        self.seconds: list[float] = []
        self.running, self.closed, self.problem = True, False, ""
        self.thread = Thread(target=self._search, name="search", daemon=True)

    def start(self) -> None:
        """Start the search."""
        self.thread.start()

    def run(self, running: bool) -> None:
        """Stop the search, or let it continue."""
        with self.changing():
            self.running = running

    def close(self) -> None:
        """End the search."""
        with self.changing():
            self.closed = True
        if self.thread.ident is not None:
            self.thread.join(PAUSE)  # it is a daemon: a photo whose disk does not answer keeps nobody waiting

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold ``state`` while something becomes known, and say so."""
        with self.state:
            yield
            self.changes += 1
            self.state.notify_all()

    def progress(self) -> Progress:
        """How far the search is."""
        with self.state:
            readable = [photo for photo in self.photos.values() if not photo.problem]
            proposed = sum(photo.proposed for photo in readable)
            classified = sum(self._is_classified(photo) for photo in readable)
            each = sum(self.seconds[-10:]) / len(self.seconds[-10:]) if self.seconds else None
            left = None if each is None else each * (len(readable) - proposed)
            return Progress(len(readable), proposed, classified, left, self.running and not self.closed)

    def add(self, path: Path, name: str) -> str:
        """Add a photo, and return its name, which may have a number to differ from those of the others."""
        with self.changing():
            name = unique_names([*self.photos, name])[-1]
            stems = [photo.target.stem for photo in self.photos.values()]
            target = TargetImage(name, unique_stems([name], stems)[0], partial(as_rgb, path), path)
            self.photos[name] = photo_of(target)
        return name

    def set_frames(self, frames: Mapping[str, Photo]) -> None:
        """Say which frames of videos are among the photos."""
        earlier = {name for name, photo in self.photos.items() if photo.target.video is not None}
        if earlier != frames.keys():
            with self.changing():
                for name in earlier - frames.keys():
                    del self.photos[name]
                self.photos |= {name: photo for name, photo in frames.items() if name not in earlier}

    def open(self, name: str) -> None:
        """Search this photo before all others, also where it could not be read before, or is another one now."""
        with suppress(TryAgain):
            self.check(name)
        with self.changing():
            self.photos[name].problem, self.first = "", name

    def content(self, name: str) -> str:
        """What a photo's file is known by since it was first looked at."""
        photo = self.photos[name]
        if photo.content is None:
            photo.content = photo.identify()
        return photo.content

    def read(self, name: str) -> NDArray[np.uint8]:
        """The pixels of a photo, uint8 [H, W, 3] RGB; see :meth:`check`."""
        content = self.content(name)
        pixels = self.photos[name].target.read()
        self.check(name, content)
        return pixels

    def check(self, name: str, content: str | None = None) -> None:
        """Check that the file of a photo is the one that it was, or gone; one that is another is searched again.

        Args:
            content: What it was known by; None for what it is known by since it was first looked at, if it was.
        """
        photo, changed = self.photos[name], False
        with suppress(UserError):
            changed = (content or photo.content) not in (None, photo.identify())
        if changed:
            with self.changing():
                photo.content, photo.proposed, photo.found, photo.memory, photo.problem = None, False, [], -1, ""
                dropped = self.kept.pop(name, None)
                self.kept_bytes -= 0 if dropped is None else dropped.vectors.nbytes
            raise TryAgain(f"photo {name} has changed: it is searched again")

    def set_memory(self, bank: MemoryBank | None) -> None:
        """Classify all photos with another memory."""
        with self.classifying, self.changing():
            self.segmenter.set_memory(bank)
            self.memory += 1

    def catch_up(self, *names: str) -> None:
        """Classify photos, or all, with the present memory that were classified with an earlier one."""
        photos = {name: self.photos[name] for name in names} or dict(self.photos)
        for name, photo in photos.items():
            if photo.memory >= 0 and not self._is_classified(photo):
                with suppress(UserError):  # it is not searched yet
                    self.classify(name)

    def classify(self, name: str) -> bool:
        """Classify a photo with the present memory. Returns whether it could be: the cache must have its proposals."""
        photo = self.photos[name]
        proposals = self.proposals(name)
        if proposals is None:
            return False
        with self.classifying:
            number, memory = self.memory, self.segmenter.memory
            found = self.segmenter.segmenter.match_and_merge(proposals) if memory is not None else None
        results = []
        if found is not None and memory is not None:
            for row, (index, score) in enumerate(zip(found.classes.tolist(), found.scores.tolist(), strict=True)):
                mask = encode_crop(*found.masks.crop(row), found.masks.height, found.masks.width)
                results.append(Item(memory.categories[index].name, score, mask))
        with self.changing():
            if number >= photo.memory:  # another thread may have used a later memory meanwhile
                photo.found, photo.memory = results, number
        return True

    def proposals(self, name: str) -> DescribedProposals | None:
        """The proposals of a photo, from memory or from the cache; None where they have to be made."""
        with self.state:
            if name in self.kept:
                return self.kept[name]
        entry = self.cache.read(self._key(name))
        if entry is None:
            return None
        return self._keep(name, entry.proposals)

    def _search(self) -> None:
        """Search until the end. Whatever fails is reported, and the next photo is tried."""
        while True:
            with self.state:
                self.state.wait_for(lambda: self.closed or (self.running and not self.is_settled()))
                if self.closed:
                    return
            problem = ""
            try:
                self._search_next()
            except Exception as error:  # of any type: nobody would start the thread again
                problem = one_line(error) or type(error).__name__
            with self.state:
                if problem != self.problem:
                    with self.changing():
                        self.problem = problem
                if problem:
                    self.state.wait_for(lambda: self.closed, PAUSE)

    def _search_next(self) -> None:
        """Classify what can be classified, the open photo first; propose masks where the cache has none."""
        with self.state:
            number = self.memory
            names = [*filter(None, [self.first]), *self.photos]
            waiting = [name for name in names if not self._is_classified(self.photos[name])]
        if not waiting:
            try:
                self.afterwards()
            finally:  # it is no condition of anything else
                with self.changing():
                    self.settled = number
            return
        name = next((name for name in waiting if self.photos[name].proposed), waiting[0])
        if self.first in waiting:
            name = self.first
        try:
            if not self.classify(name):
                self._propose(name)
        except TryAgain:
            raise
        except Exception as error:  # whatever its decoder or the networks raise: it fails alone
            with self.changing():
                self.photos[name].problem = named(name, error)

    def _propose(self, name: str) -> None:
        """Let the networks propose the masks of a photo, and keep them in the cache."""
        begin, key, pixels = time.monotonic(), self._key(name), self.read(name)
        with self.networks:
            proposals = self.segmenter.propose(pixels).proposals
        try:
            entry = self.cache.write(key, proposals, *pixels.shape[:2])
        except (UserError, OSError) as error:
            raise TryAgain(f"the search continues when this is repaired: {error}") from error
        self._keep(name, entry.proposals)
        with self.state:
            self.seconds.append(time.monotonic() - begin)

    def _keep(self, name: str, proposals: DescribedProposals) -> DescribedProposals:
        """The proposals on the device. They stay in memory while there is room: all photos are classified in turn.

        Those of the photos that were used last would always be dropped just before they are needed again.
        """
        proposals = proposals.to(self.segmenter.device)
        with self.state:
            self.photos[name].proposed = True
            size = proposals.vectors.nbytes
            if name not in self.kept and self.kept_bytes + size <= KEPT_BYTES:
                self.kept[name], self.kept_bytes = proposals, self.kept_bytes + size
        return proposals

    def _key(self, name: str) -> str:
        """The name of a photo's entry in the cache."""
        return self.cache.key_of(self.content(name).partition(" ")[2])

    def _is_classified(self, photo: Photo) -> bool:
        return bool(photo.problem) or photo.memory == self.memory

    def is_settled(self) -> bool:
        """Whether all photos are classified, and what is done afterwards is done."""
        with self.state:
            photos = [*self.photos.values(), *([self.photos[self.first]] if self.first else [])]
            return self.settled == self.memory and all(map(self._is_classified, photos))


def photo_of(target: TargetImage) -> Photo:
    """The photo that an image file is."""
    return Photo(target, partial(identity, target.path, target.name))


def named(name: str, error: Exception) -> str:
    """What is wrong with a photo, in one line with its name."""
    text = one_line(error) or type(error).__name__
    return text if PurePosixPath(name).name in text else f"{name}: {text}"


def identity(path: Path | None, name: str) -> str:
    """What a photo is known by, whatever it is called: the size of its file in bytes, and the file's SHA-256."""
    try:
        if path is None or (path.exists() and not path.is_file()):  # reading a pipe or a device would not end
            raise UserError(f"photo {name} cannot be read: it is not a file")
        return f"{path.stat().st_size} {sha256(path)}"
    except OSError as error:
        raise UserError(f"photo {name} cannot be read: {error.strerror}") from error
