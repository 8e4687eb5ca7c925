"""The app without its page: photos, what was found in them, what a person said, and the memory that follows from it.

The networks see each photo once. What they say is kept in a proposal cache on disk, so that after each correction only
the ranking is done again, a few hundredths of a second for a photo.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Condition, RLock, Thread

import numpy as np
import torch
from numpy.typing import NDArray

from no_time_to_train.app.corrections import Found, Item, correct, doubt, same_object
from no_time_to_train.app.project import Annotation, Project, Step
from no_time_to_train.app.shots import Shots
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.rle import Rle, decode_mask, encode_mask, mask_area
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.errors import UserError, one_line
from no_time_to_train.files import remove_leftovers_in
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.networks.box_prompts import PromptedImage
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.pipeline.proposal_cache import ProposalCache
from no_time_to_train.pipeline.segment_images import hash_tensors
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train.reference_segmenter import ReferenceSegmenter

#: Photos whose proposals stay in memory: with the largest encoder, 4 MB each.
KEPT_PROPOSALS = 100

#: Photos whose pixels, and features for clicks, stay in memory.
KEPT_PHOTOS = 4

#: How far below its threshold an object may be and still make a photo doubtful.
DOUBTFUL = 0.1


@dataclass
class Photo:
    """A photo and what is known of it.

    Attributes:
        target: Its name and its file.
        proposed: Whether the cache has its proposals.
        found: What was found in it, at any score.
        memory: The number of the memory that it was found with; -1 before.
        items: The objects to show.
        items_of: The memory and the project's version that they belong to.
        problem: Why it cannot be read; empty where it can.
    """

    target: TargetImage
    proposed: bool = False
    found: list[Found] = field(default_factory=list)
    memory: int = -1
    items: list[Item] = field(default_factory=list)
    items_of: tuple[int, int] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Progress:
    """How far the search is.

    Attributes:
        photos: The number of photos.
        proposed: Photos that the networks have seen.
        ranked: Photos that were ranked with the present memory.
        seconds_left: Estimate of the time until all are ranked; None before the first photo.
        running: Whether the search runs; it stops where a person says so.
    """

    photos: int
    proposed: int
    ranked: int
    seconds_left: float | None
    running: bool

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.ranked == self.photos


class Workspace:
    """A folder of photos, searched in the background while a person shows and corrects objects.

    All methods may be called from any thread.

    Args:
        segmenter: The networks. Its memory, if it has one, holds classes that were loaded, to which those of the
            project are added. Prompts on a grid only: guided ones depend on the memory.
        photos: The photos.
        folder: Where the project, the proposals and the shots are kept. One process at a time uses it.
        score: The lowest score of classes for which nobody chose one.

    Attributes:
        project: What the person said.
        photos: The photos by name.

    Raises:
        UserError: The folder's files cannot be read.
    """

    def __init__(
        self, segmenter: ReferenceSegmenter, photos: Sequence[TargetImage], folder: Path, score: float = 0.5
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers_in(folder)
        self.segmenter, self.score = segmenter, score
        self.loaded = segmenter.memory
        self.photos = {target.name: Photo(target) for target in photos}
        self.project = Project(folder / "project.json")
        self.shots = Shots(segmenter, folder / "shots.memory")
        networks = {name: hash_tensors(one.state_dict()) for name, one in segmenter.segmenter.named_children()}
        settings = segmenter.segmenter.settings
        made_with = {
            **networks,
            "settings": [settings.points_per_side, settings.pred_iou_thresh],
            **segmenter.made_with,
        }
        self.cache = ProposalCache(folder / "proposals", {**made_with, "precision": segmenter.precision})
        self.proposals: OrderedDict[str, DescribedProposals] = OrderedDict()
        self.prompted: OrderedDict[str, tuple[NDArray[np.uint8], PromptedImage | None]] = OrderedDict()
        self.state, self.networks, self.ranking = Condition(RLock()), RLock(), RLock()
        self.first: str | None = None
        self.memory = 0
        self.seconds: list[float] = []
        self.running, self.closed = True, False
        self.learn()
        self.thread = Thread(target=self._search, name="search", daemon=True)

    # What is known.

    @property
    def classes(self) -> list[str]:
        """The names of all classes: those that were loaded, and those that the person showed."""
        return self.segmenter.classes

    @property
    def thresholds(self) -> Thresholds:
        """The lowest scores."""
        return Thresholds(self.score, dict(self.project.thresholds))

    def items(self, name: str) -> list[Item]:
        """The objects to show in a photo."""
        with self.state:
            photo, state = self.photos[name], (self.photos[name].memory, self.project.version)
            if photo.items_of != state:  # the page asks every second, for all photos
                photo.items = correct(photo.found, self.project.of_photo(name), self.thresholds)
                photo.items_of = state
            return photo.items

    def item_at(self, name: str, x: int, y: int) -> Item | None:
        """The smallest object that is shown at a pixel of a photo; None where there is none."""
        there = [item for item in self.items(name) if decode_mask(item.mask)[y, x]]
        return min(there, key=lambda item: mask_area(item.mask), default=None)

    def counts(self) -> dict[str, Counter[str]]:
        """The number of objects of each class, by photo."""
        return {name: Counter(item.label for item in self.items(name)) for name in self.photos}

    def ordered(self, by: str) -> list[str]:
        """The names of the photos.

        Args:
            by: ``name``; ``count``, most objects first; or ``doubt``, the least certain first.
        """
        if by == "count":
            counts = self.counts()
            return sorted(self.photos, key=lambda name: -counts[name].total())
        if by == "doubt":
            low = Thresholds(self.score - DOUBTFUL, {k: v - DOUBTFUL for k, v in self.thresholds.class_scores.items()})

            def certainty(name: str) -> float:
                items = correct(self.photos[name].found, self.project.of_photo(name), low)
                return -doubt(items, self.thresholds)

            return sorted(self.photos, key=certainty)
        return sorted(self.photos)

    def progress(self) -> Progress:
        """How far the search is."""
        with self.state:
            readable = [photo for photo in self.photos.values() if not photo.problem]
            proposed = sum(photo.proposed for photo in readable)
            ranked = sum(self._is_ranked(photo) for photo in readable)
            each = sum(self.seconds[-10:]) / len(self.seconds[-10:]) if self.seconds else None
            left = None if each is None else each * (len(readable) - proposed)
            return Progress(len(readable), proposed, ranked, left, self.running and not self.closed)

    # What a person does.

    def pixels(self, name: str) -> NDArray[np.uint8]:
        """The pixels of a photo, uint8 [H, W, 3] RGB.

        Raises:
            UserError: It cannot be read.
        """
        return self._photo(name)[0]

    def masks(
        self,
        name: str,
        points: Sequence[tuple[float, float]] = (),
        negative_points: Sequence[tuple[float, float]] = (),
        box: Sequence[float] | None = None,
    ) -> NDArray[np.bool_]:
        """The masks of the object that a person clicks on; see ``PromptedImage.masks``.

        Returns:
            bool [n, H, W], n is 3 for a single point and 1 otherwise; none is empty.

        Raises:
            UserError: The photo cannot be read, or there is nothing.
        """
        pixels, prompted = self._photo(name)
        if prompted is None:
            with self.networks, computing_in(self.segmenter.precision, self.segmenter.device):
                prompted = PromptedImage(self.segmenter.prompts, pixels)
            with self.state:
                self.prompted[name] = pixels, prompted
        with computing_in(self.segmenter.precision, self.segmenter.device):
            masks, _ = prompted.masks(points, negative_points, box)
        masks = masks[masks.any(axis=(1, 2))]
        if not len(masks):
            raise UserError("nothing was found there: click on the middle of the object, or give a box")
        return masks

    def add_photo(self, target: TargetImage) -> None:
        """Add a photo, whose name no other one has."""
        with self.state:
            self.photos[target.name] = Photo(target)
            self.state.notify_all()

    def segment(self, image: NDArray[np.uint8], score: float) -> Instances:
        """Find the objects of all classes in an image that is none of the photos."""
        with self.networks:
            proposals = self.segmenter.propose(image)
        with self.ranking:
            return self.segmenter.rank(proposals, score)

    def open(self, name: str) -> None:
        """Search this photo before all others."""
        with self.state:
            self.first = name
            self.state.notify_all()

    def show(self, name: str, mask: NDArray[np.bool_], label: str) -> None:
        """Show an object: it is confirmed, and becomes a reference of its class.

        Args:
            name: The photo.
            mask: The object, bool [H, W], not empty.
            label: Its class.

        Raises:
            UserError: The label is blank, or a file cannot be written.
        """
        encoded = encode_mask(mask)
        self._do(f"{label}: shown", [Annotation(0, name, label, encoded)], self._same(name, encoded))

    def right(self, name: str, item: Item) -> None:
        """Confirm an object that was found; it becomes a reference of its class."""
        if not item.confirmed:
            self._do(f"{item.label}: right", [Annotation(0, name, item.label, item.mask)])

    def wrong(self, name: str, item: Item) -> None:
        """Say that an object is none of its class; it becomes a negative reference of it."""
        self._do(f"{item.label}: wrong", [self._denial(name, item)], self._same(name, item.mask))

    def rename(self, name: str, item: Item, label: str) -> None:
        """Say that an object is of another class: a reference of the one, a negative reference of the other."""
        if label != item.label:
            added = [self._denial(name, item), Annotation(0, name, label, item.mask)]
            self._do(f"{item.label} is {label}", added, self._same(name, item.mask))

    def remove(self, name: str, item: Item) -> None:
        """Remove an object from what is shown; the memory does not learn from it."""
        denial = [] if item.confirmed else [replace(self._denial(name, item), reference=False)]
        self._do(f"{item.label}: removed", denial, self._same(name, item.mask))

    def set_threshold(self, label: str, score: float | None) -> None:
        """Choose the lowest score of a class; None takes the default again."""
        if self.project.thresholds.get(label) != score:
            self.project.do(Step(f"{label}: from {score} on", thresholds={label: score}))

    def undo(self) -> str | None:
        """Take the last step back. Returns its name; None where there is none."""
        step = self.project.undo()
        self.learn()
        return None if step is None else step.name

    def redo(self) -> str | None:
        """Do the last undone step again. Returns its name; None where there is none."""
        step = self.project.redo()
        self.learn()
        return None if step is None else step.name

    def _denial(self, name: str, item: Item) -> Annotation:
        return Annotation(0, name, item.label, item.mask, "wrong")

    def _same(self, name: str, mask: Rle) -> list[int]:
        """The ids of the annotations of a photo that are about the same object."""
        annotations = self.project.of_photo(name)
        same = same_object([one.mask for one in annotations], [mask])
        return [one.id for one, hit in zip(annotations, same.any(axis=1), strict=True) if hit]

    def _do(self, name: str, add: Sequence[Annotation], remove: Sequence[int] = ()) -> None:
        """Do a step and learn from it; the annotations get their ids."""
        with self.project.lock:
            first = self.project.new_id()
            added = [replace(one, id=first + number) for number, one in enumerate(add)]
            with self.networks:
                self.shots.describe(added, self.pixels)
            self.project.do(Step(name, added, list(remove)))
        self.learn()

    def learn(self) -> None:
        """Make the memory from what was loaded and from the annotations, and rank all photos again."""
        with self.networks:
            self.shots.describe(self.project.annotations.values(), self.pixels)  # those of an earlier process
        bank = self.shots.memory(self.loaded, self.project.annotations.values())
        with self.ranking, self.state:
            if not same_memory(bank, self.segmenter.memory) or not self.memory:
                self.segmenter.set_memory(bank)
                self.memory += 1
            self.state.notify_all()

    # The search.

    def start(self) -> None:
        """Start the search."""
        self.thread.start()

    def run(self, running: bool) -> None:
        """Stop the search, or let it continue."""
        with self.state:
            self.running = running
            self.state.notify_all()

    def close(self) -> None:
        """End the search."""
        with self.state:
            self.closed = True
            self.state.notify_all()
        if self.thread.ident is not None:
            self.thread.join()

    def wait(self, seconds: float) -> bool:
        """Wait until the search is done. Returns whether it is."""
        with self.state:
            return self.state.wait_for(lambda: self.progress().done, seconds)

    def rank(self, name: str) -> bool:
        """Rank a photo with the present memory. Returns whether it could be: the cache must have its proposals."""
        photo = self.photos[name]
        proposals = self._proposals(photo)
        if proposals is None:
            return False
        with self.ranking:
            number, memory = self.memory, self.segmenter.memory
            found = self.segmenter.segmenter.match_and_merge(proposals) if memory is not None else None
        results = []
        if found is not None and memory is not None:
            for index, score, mask in zip(found.classes.tolist(), found.scores.tolist(), found.masks, strict=True):
                results.append(Found(memory.categories[index].name, score, encode_mask(mask.numpy())))
        with self.state:
            photo.found, photo.memory = results, number
            self.state.notify_all()
        return True

    def _search(self) -> None:
        """Rank what can be ranked, the open photo first; propose masks where the cache has none."""
        while True:
            with self.state:
                self.state.wait_for(lambda: self.closed or (self.running and not self.progress().done))
                if self.closed:
                    return
                names = [*filter(None, [self.first]), *self.photos]
                waiting = [name for name in names if not self._is_ranked(self.photos[name])]
            name = next((name for name in waiting if self.photos[name].proposed), waiting[0] if waiting else None)
            if name is None:
                continue
            if self.first in waiting:
                name = self.first
            try:
                if not self.rank(name):
                    self._propose(name)
            except (UserError, MemoryError, OSError, RuntimeError) as error:
                with self.state:
                    self.photos[name].problem = one_line(error) or type(error).__name__
                    self.state.notify_all()

    def _propose(self, name: str) -> None:
        """Let the networks propose the masks of a photo, and keep them in the cache."""
        photo, begin = self.photos[name], time.monotonic()
        pixels = photo.target.read()
        with self.networks:
            proposals = self.segmenter.propose(pixels).proposals
        assert photo.target.path is not None
        entry = self.cache.write(self.cache.key(photo.target.path), proposals, *pixels.shape[:2])
        with self.state:
            self._keep(name, entry.proposals)
            self.seconds.append(time.monotonic() - begin)

    def _proposals(self, photo: Photo) -> DescribedProposals | None:
        """The proposals of a photo, from memory or from the cache; None where they have to be made."""
        name = photo.target.name
        with self.state:
            if name in self.proposals:
                self.proposals.move_to_end(name)
                return self.proposals[name]
        assert photo.target.path is not None
        entry = self.cache.read(self.cache.key(photo.target.path))
        if entry is None:
            return None
        with self.state:
            self._keep(name, entry.proposals)
        return entry.proposals

    def _keep(self, name: str, proposals: DescribedProposals) -> None:
        """Keep the proposals of a photo in memory, in place of those that were used longest ago."""
        self.proposals[name] = proposals.to(self.segmenter.device)
        self.photos[name].proposed = True
        if len(self.proposals) > KEPT_PROPOSALS:
            self.proposals.popitem(last=False)

    def _is_ranked(self, photo: Photo) -> bool:
        return bool(photo.problem) or photo.memory == self.memory

    def _photo(self, name: str) -> tuple[NDArray[np.uint8], PromptedImage | None]:
        """The pixels of a photo, and its features where it was clicked on."""
        with self.state:
            if name not in self.photos:
                raise UserError(f"there is no photo {name!r}")
            if name in self.prompted:
                self.prompted.move_to_end(name)
                return self.prompted[name]
        pixels = self.photos[name].target.read()
        with self.state:
            self.prompted[name] = pixels, None
            if len(self.prompted) > KEPT_PHOTOS:
                self.prompted.popitem(last=False)
            return self.prompted[name]


def same_memory(bank: MemoryBank | None, other: MemoryBank | None) -> bool:
    """Whether two memories give the same results."""
    if bank is None or other is None:
        return bank is other
    tensors = [(one.vectors, one.class_index, one.negative) for one in (bank, other)]
    same = all(torch.equal(ours, theirs) for ours, theirs in zip(*tensors, strict=True))
    return same and [asdict(one) for one in bank.categories] == [asdict(one) for one in other.categories]
