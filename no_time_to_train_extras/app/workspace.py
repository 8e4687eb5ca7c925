"""The app without its page: photos, what was found in them, what a person said, and the memory that follows from it.

The networks see each photo once. What they say is kept in a proposal cache on disk, so that after each correction only
the classification is done again, a few hundredths of a second for a photo.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.rle import Rle, decode_mask, encode_mask, mask_area
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.errors import UserError, first_of, plural
from no_time_to_train.files import remove_leftovers_in
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train.ranges import Fraction, check_number
from no_time_to_train_extras.app.corrections import Item, correct, doubt, same_object
from no_time_to_train_extras.app.photos import OpenPhotos
from no_time_to_train_extras.app.project import Annotation, Project, Step, check_color
from no_time_to_train_extras.app.references import AnnotatedReferences, AutomaticThresholds, place
from no_time_to_train_extras.app.search import Photos, Search, photo_of
from no_time_to_train_extras.app.video_frames import Video, Videos
from no_time_to_train_extras.app.video_tracks import Tracking

#: How far below its threshold an object may be and still make a photo doubtful.
DOUBTFUL = 0.1

#: The smallest difference between thresholds that a person chooses.
SLIDER_STEP = 0.01


@dataclass(frozen=True)
class Shown:
    """What is shown of a photo.

    Attributes:
        full: Whether as many objects were found in it as are found at most.
    """

    state: tuple[int, ...]
    items: list[Item]
    counts: Counter[str]
    doubt: float
    full: bool


class Workspace:
    """A folder of photos, searched in the background while a person shows and corrects objects.

    All methods may be called from any thread.

    Args:
        segmenter: The networks. Its memory, if it has one, holds classes that were loaded, to which those of the
            project are added. Prompts on a grid only: guided ones depend on the memory.
        folder: Where the project, the proposals and the references are kept. One process at a time uses it.
        score: The threshold of classes for which nobody chose one, and whose references do not show one.

    Attributes:
        project: What the person said.
        photos: The photos by name.
    """

    def __init__(
        self,
        segmenter: ReferenceSegmenter,
        photos: Sequence[TargetImage],
        videos: Videos,
        folder: Path,
        score: float = 0.5,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers_in(folder)
        self.segmenter, self.score = segmenter, score
        self.loaded = segmenter.memory
        self.project = Project(folder / "project.json")
        self.videos = videos
        frames = videos.known(self.project.contents, self.project.photos)
        self.photos = Photos([*map(photo_of, photos), *frames], videos.look_up)
        self.search = Search(segmenter, self.photos, folder / "proposals", self._find_thresholds)
        self.project.place(lambda annotations: place(annotations, self.photos))
        self.tracking = Tracking(self.search.networks, folder.parent / "tracks")
        self.opened = OpenPhotos(segmenter, self.search)
        self.references = AnnotatedReferences(segmenter, folder / "shots.memory")
        self.finder = AutomaticThresholds(self._proposals, segmenter.segmenter.settings)
        self.automatic: Mapping[str, float] = {}
        self.number_of_automatic = 0
        self._shown: dict[str, Shown] = {}
        self.learn()

    # What is known.

    @property
    def classes(self) -> list[str]:
        """The names of all classes: those that were loaded, and those that the person showed."""
        return self.segmenter.classes

    @property
    def thresholds(self) -> Thresholds:
        """The thresholds: the person's choice, or else what the references show, or else the default."""
        return Thresholds(self.score, {**self.automatic, **self.project.thresholds})

    @property
    def state(self) -> tuple[int, ...]:
        """Differs wherever anything that is shown differs."""
        known = self.search.changes, self.project.version, self.number_of_automatic
        return *known, self.videos.changes, self.tracking.changes, self.tracking.progress[0]

    def shown(self, name: str) -> Shown:
        """What is shown of a photo."""
        photo = self.photos[name]
        with self.search.state:
            state, found = (photo.memory, self.project.version, self.number_of_automatic), photo.found
        known = self._shown.get(name)
        if known is None or known.state != state:  # the page asks for all photos
            scores = self.thresholds
            low = Thresholds(
                scores.score - DOUBTFUL, {label: score - DOUBTFUL for label, score in scores.class_scores.items()}
            )
            near = correct(found, self.said(name), low)
            items = [item for item in near if item.confirmed or item.score >= scores.of(item.label)]
            counts = Counter(item.label for item in items)
            number = sum(one.score >= scores.of(one.label) for one in found)
            full = number >= self.segmenter.segmenter.settings.max_instances
            known = self._shown[name] = Shown(state, items, counts, doubt(near, scores), full)
        return known

    def said(self, name: str) -> list[Annotation]:
        """What a person said about a photo, not about another one that had its name."""
        return [one for one in self.project.of_photo(name) if one.content == self.photos[name].content]

    def present(self) -> list[Annotation]:
        """What a person said about photos that are here, in the order in which it was said."""
        here = {one.id for name in list(self.photos) for one in self.said(name)}
        return [one for one in self.project.annotations.values() if one.id in here]

    def absent(self) -> str:
        """What is not shown because its photo is not here, in one line; empty where all is."""
        here = {one.id for one in self.present()}
        lost = [one for one in self.project.annotations.values() if one.id not in here]
        if not lost:
            return ""
        names = first_of(sorted({one.photo for one in lost}))
        return f"{plural(len(lost), 'annotation')} not shown: {names} is not here, or has changed since"

    def items(self, name: str) -> list[Item]:
        """The objects to show in a photo."""
        return self.shown(name).items

    def item_at(self, name: str, x: int, y: int) -> Item | None:
        """The smallest object that is shown at a pixel of a photo; None where there is none."""
        there = [item for item in self.items(name) if decode_mask(item.mask)[y, x]]
        return min(there, key=lambda item: mask_area(item.mask), default=None)

    def counts(self) -> dict[str, Counter[str]]:
        """The number of objects of each class, by photo."""
        return {name: self.shown(name).counts for name in list(self.photos)}

    def ordered(self, by: str) -> list[str]:
        """The names of the photos."""
        names = sorted(self.photos)
        if by == "count":
            names.sort(key=lambda name: -self.shown(name).counts.total())
        if by == "doubt":
            names.sort(key=lambda name: -self.shown(name).doubt)
        if by == "review":
            names.sort(key=self.is_reviewed)
        return names

    def is_reviewed(self, name: str) -> bool:
        """Whether a person said that all of a photo is right."""
        return self.photos[name].content in self.project.reviewed

    def annotation(self, number: int) -> Annotation:
        """The annotation with this id."""
        if type(number) is not int or number not in self.project.annotations:
            raise UserError("this reference was removed")
        return self.project.annotations[number]

    # What a person does.

    def segment(self, image: NDArray[np.uint8], score: float) -> Instances:
        """Find the objects of all classes in an image that is none of the photos."""
        with self.search.networks:
            proposals = self.segmenter.propose(image)
        with self.search.classifying:
            return self.segmenter.classify(proposals, score)

    def show(self, name: str, mask: NDArray[np.bool_], label: str) -> None:
        """Show an object: it is confirmed, and becomes a reference of its class.

        Args:
            mask: The object, bool [H, W], not empty.
        """
        encoded = encode_mask(mask)
        self.do(f"{label}: shown", [Annotation(0, name, label, encoded)], (name, encoded))

    def right(self, name: str, item: Item) -> None:
        """Confirm an object that was found; it becomes a reference of its class."""
        with self.project.lock:  # another person may have said something about it a moment ago
            said = [self.project.annotations[number] for number in self._same(name, item.mask)]
            if not any((one.label, one.verdict) == (item.label, "right") for one in said):
                against = [one.id for one in said if one.label == item.label or one.verdict == "right"]
                self.do(f"{item.label}: right", [Annotation(0, name, item.label, item.mask)], remove=against)

    def wrong(self, name: str, item: Item) -> None:
        """Say that an object is none of its class; it becomes a negative reference of it."""
        self.do(f"{item.label}: wrong", [self._denial(name, item)], (name, item.mask))

    def rename(self, name: str, item: Item, label: str) -> None:
        """Say that an object is of another class: a reference of the one, a negative reference of the other."""
        if label != item.label:
            added = [self._denial(name, item), Annotation(0, name, label, item.mask)]
            self.do(f"{item.label} is {label}", added, (name, item.mask))

    def remove(self, name: str, item: Item) -> None:
        """Remove an object from what is shown; the memory does not learn from it."""
        denial = [] if item.confirmed else [replace(self._denial(name, item), reference=False)]
        self.do(f"{item.label}: removed", denial, (name, item.mask))

    def track(self, video: Video, every: int) -> None:
        """Start to find the tracks in a video, in one frame in so many."""
        with self.project.lock:
            lowest = {label: self.thresholds.of(label) for label in self.classes}
            self.tracking.start(video, self.segmenter, lowest, every)

    def close(self) -> None:
        """End what runs in the background."""
        self.tracking.close()
        self.search.close()

    def set_threshold(self, label: str, score: float | None) -> None:
        """Choose the threshold of a class; None takes the automatic one again, or the default.

        The one that the class has is not chosen again: sliders send theirs when a person passes them by the keyboard.
        """
        check_number("the threshold", score, Fraction | None)
        if score is not None and abs(score - self.thresholds.of(label)) < SLIDER_STEP / 2:
            return
        if self.project.thresholds.get(label) != score:
            name = f"{label}: automatic score" if score is None else f"{label}: from {score:.2f} on"
            self.project.do(Step(name, thresholds={label: score}))

    def set_color(self, label: str, color: str) -> None:
        """Choose the color of a class, such as ``#ff0080``."""
        if label in self.classes and self.project.colors.get(label) != check_color(color):
            self.project.do(Step(f"{label}: color {color}", colors={label: color}))

    def review(self, name: str) -> None:
        """Say that all of a photo is right, or take this back."""
        self.search.check(name)
        content, reviewed = self.search.content(name), not self.is_reviewed(name)
        text = "reviewed" if reviewed else "not reviewed"
        self.project.do(Step(f"{name}: {text}", reviewed={content: reviewed}))
        self.learn()

    def rename_class(self, label: str, name: str) -> None:
        """Give a class another name, or join it to another class; the order of the classes stays."""
        if self.loaded is not None and label in [category.name for category in self.loaded.categories]:
            raise UserError(f"class {label} comes from a memory file: it cannot be renamed here")
        with self.project.lock:
            renamed = [replace(one, label=name) for one in self.project.annotations.values() if one.label == label]
            joined = [*renamed, *(one for one in self.project.annotations.values() if one.label == name)]
            objects = {(one.content, one.mask["counts"]) for one in joined if one.verdict == "right"}
            denied = [one for one in joined if one.verdict == "wrong"]  # of what was the other class, and is this one
            denials = [one.id for one in denied if (one.content, one.mask["counts"]) in objects]
            new = name not in self.classes  # a class that it joins keeps its own threshold and color
            thresholds = {label: None, **({name: self.project.thresholds.get(label)} if new else {})}
            colors = {label: None, **({name: self.project.colors.get(label)} if new else {})}
            if renamed and name != label:
                # They keep their ids.
                kept = [one for one in renamed if one.id not in denials]
                step = Step(f"{label} is called {name}", kept, denials, thresholds, colors=colors)
                self.project.do(step)
                self.learn()

    def forget(self, number: int) -> None:
        """Remove a reference, or what was said to be none."""
        self.do(f"{self.annotation(number).label}: reference removed", [], remove=[number])

    def confirm(self, annotations: Sequence[Annotation], source: Path) -> None:
        """Confirm the objects of references that were given, in one step, which can be undone.

        What the project knew already stays as it is: objects that it took from these references earlier, also where
        the person has removed them since, and objects about which the person said something.
        """
        new = [one for one in annotations if not self.project.ever_had(one) and not self._same(one.photo, one.mask)]
        if new:
            self.do(f"{plural(len(new), 'reference')} of {source.name or source}", new)

    def undo(self) -> str | None:
        """Take the last step back. Returns its name; None where there is none."""
        with self.project.lock:
            name = self.project.undo()
            self.learn()
        return name

    def redo(self) -> str | None:
        """Do the last undone step again. Returns its name; None where there is none."""
        with self.project.lock:
            name = self.project.redo()
            self.learn()
        return name

    def do(
        self,
        name: str,
        add: Sequence[Annotation],
        instead_of: tuple[str, Rle] | None = None,
        remove: Sequence[int] = (),
    ) -> None:
        """Do a step and learn from it.

        Args:
            add: Annotations, which get ids.
            remove: The ids of annotations that are removed.
            instead_of: A photo and a mask. What was said about this object is removed.
        """
        for photo in {one.photo for one in add}:
            self.search.check(photo)
        with self.project.lock:
            numbered = enumerate(add, start=self.project.new_id())
            added = [replace(one, id=number, content=self.search.content(one.photo)) for number, one in numbered]
            self.references.describe(added, self.opened.pixels)
            same = [] if instead_of is None else self._same(*instead_of)
            self.project.do(Step(name, added, [*remove, *same]))
            self.learn()  # before another step: the memory and the annotations go together

    def learn(self) -> None:
        """Make the memory from what was loaded and from the annotations, and classify all photos again."""
        with self.project.lock:
            annotations = self.project.annotations.values()
            contents = self.project.reviewed.union(one.content for one in annotations)
            frames = self.videos.known(contents, {one.photo for one in annotations})
            self.search.set_frames({photo.target.name: photo for photo in frames})
            self.references.describe(self.present(), self.opened.pixels, new=False)  # those of an earlier process
            bank = self.references.memory(self.loaded, annotations)
            if not same_memory(bank, self.segmenter.memory) or not self.search.memory:
                self.search.set_memory(bank)

    def _find_thresholds(self) -> None:
        """Find the thresholds that the references show, once all photos are classified."""
        with self.project.lock:
            number, bank = self.search.memory, self.segmenter.memory
            annotations = self.references.of(self.project.annotations.values())
        found: Mapping[str, float] | None = {}
        if bank is not None:
            found = self.finder.measure(bank, annotations, lambda: self.search.closed or self.search.memory != number)
        if found is not None and found != self.automatic:
            with self.search.state:
                self.automatic = found
                self.number_of_automatic += 1

    def _proposals(self, name: str, content: str) -> DescribedProposals | None:
        """The proposals of a photo, unless its content is another one."""
        is_there = name in self.photos and self.photos[name].content == content
        return self.search.proposals(name) if is_there else None

    def _denial(self, name: str, item: Item) -> Annotation:
        return Annotation(0, name, item.label, item.mask, "wrong")

    def _same(self, name: str, mask: Rle) -> list[int]:
        """The ids of the annotations of a photo that are about the same object."""
        annotations = self.said(name)
        same = same_object([one.mask for one in annotations], [mask])
        return [one.id for one, hit in zip(annotations, same.any(axis=1), strict=True) if hit]


def same_memory(bank: MemoryBank | None, other: MemoryBank | None) -> bool:
    """Whether two memories give the same results."""
    if bank is None or other is None:
        return bank is other
    tensors = [(one.vectors, one.class_index, one.negative) for one in (bank, other)]
    same = all(torch.equal(ours, theirs) for ours, theirs in zip(*tensors, strict=True))
    return same and [asdict(one) for one in bank.categories] == [asdict(one) for one in other.categories]
