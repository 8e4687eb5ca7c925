"""What a person said about their photos: annotations, each step of which can be undone, and all of which is on disk.

A project is a list of steps. Its state is what the first ``done`` of them give, so that undo and redo only move this
number, and a new step replaces those that were undone. The file is written atomically after every step: a process that
is killed loses nothing that it has shown as done.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any, Literal, get_args

from no_time_to_train.data.names import clean_class_name
from no_time_to_train.data.rle import Rle, check_rle, mask_area
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json, write_json
from no_time_to_train.ranges import Fraction, check_number

#: The first value in a project's file. It changes whenever the content of the file does.
FORMAT = "no-time-to-train project 1"

#: Whether an object of the class is there.
Verdict = Literal["right", "wrong"]


@dataclass(frozen=True)
class Annotation:
    """What a person said about one place in a photo.

    Attributes:
        photo: The photo's name. What the photo is known by is its content: names may change between two starts.
        mask: The place, as compressed RLE at the photo's own size.
        verdict: ``right``: this is an object of the class. ``wrong``: this is none.
        content: The size and the hash of the photo's file, and of a frame of a video its number; empty in projects of
            earlier versions.
    """

    id: int
    photo: str
    label: str
    mask: Rle
    verdict: Verdict = "right"
    reference: bool = True
    content: str = ""


@dataclass(frozen=True)
class Step:
    """One thing that a person did, which is undone as a whole.

    Attributes:
        remove: The ids of annotations that it removes.
        thresholds: Thresholds by class that it sets; None takes one back.
        reviewed: Whether photos were reviewed, by their content. Earlier versions wrote no such thing.
        colors: Colors by class that it sets, such as ``#ff0080``; None takes one back. Earlier versions wrote no such
            thing, and ignore it.
    """

    name: str
    add: Sequence[Annotation] = ()
    remove: Sequence[int] = ()
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    reviewed: Mapping[str, bool] = field(default_factory=dict)
    colors: Mapping[str, str | None] = field(default_factory=dict)


class Project:
    """The annotations of a folder of photos.

    Any number of threads may use it. One that does a step that depends on the state holds ``lock`` meanwhile.

    Attributes:
        annotations: The annotations by their ids, in the order in which they were made.
        reviewed: The contents of the photos that were reviewed.
        colors: The colors by class that the person chose.
        lock: A reentrant lock.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, RLock()
        self._steps: list[Step] = []
        self._done = self.version = 0
        if path.exists():
            self._steps, self._done = _from_json(read_json(path), path)
        self._replay()

    def do(self, step: Step) -> None:
        """Do a step, whose annotations have ids from :meth:`new_id`. Steps that were undone are forgotten."""
        with self.lock:
            self._move([*self._steps[: self._done], step], self._done + 1)

    def undo(self) -> str | None:
        """Take the last step back, and return its name; None where there is none."""
        return self._go(-1)

    def redo(self) -> str | None:
        """Do the last undone step again, and return its name; None where there is none."""
        return self._go(1)

    def _go(self, by: int) -> str | None:
        """Go one step back or forward, and return its name."""
        with self.lock:
            name = self.next_undo if by < 0 else self.next_redo
            if name is not None:
                self._move(self._steps, self._done + by)
            return name

    @property
    def next_undo(self) -> str | None:
        """The name of the step that :meth:`undo` takes back."""
        return self._steps[self._done - 1].name if self._done else None

    @property
    def next_redo(self) -> str | None:
        """The name of the step that :meth:`redo` does again."""
        return self._steps[self._done].name if self._done < len(self._steps) else None

    def new_id(self) -> int:
        """An id for an annotation: larger than those of all steps, also of undone ones."""
        return 1 + max((one.id for step in self._steps for one in step.add), default=0)

    def of_photo(self, photo: str) -> list[Annotation]:
        """The annotations of one photo. Needs no lock: a new state replaces the old one."""
        return self._by_photo.get(photo, [])

    @property
    def contents(self) -> set[str]:
        """The contents of all photos about which any step, also an undone one, said something."""
        said = {one.content for step in self._steps for one in step.add}
        return said.union(*(step.reviewed for step in self._steps))

    @property
    def photos(self) -> set[str]:
        """The names that annotations of any step, also an undone one, give their photos."""
        return {one.photo for step in self._steps for one in step.add}

    def ever_had(self, annotation: Annotation) -> bool:
        """Whether any step, also an undone one, added this annotation; its id and its photo's content do not count."""
        known = (one for step in self._steps for one in step.add)
        return any(replace(one, id=annotation.id, content=annotation.content) == annotation for one in known)

    def place(self, now: Callable[[Sequence[Annotation]], Sequence[Annotation]]) -> None:
        """Give the annotations of all steps the names that their photos have now.

        Args:
            now: Returns the same annotations with these names.
        """
        placed = iter(now([one for step in self._steps for one in step.add]))
        self._steps = [replace(step, add=[next(placed) for _ in step.add]) for step in self._steps]
        self._replay()

    def _move(self, steps: list[Step], done: int) -> None:
        """Write the file, and then change the state."""
        write_json(self.path, {"format": FORMAT, "done": done, "steps": [asdict(step) for step in steps]}, indent=None)
        self._steps, self._done = steps, done
        self._replay()
        self.version += 1  # last: what was derived from a half-changed state is derived again

    def _replay(self) -> None:
        """The state after the steps that are done."""
        annotations: dict[int, Annotation] = {}
        thresholds: dict[str, float | None] = {}
        reviewed: dict[str, bool] = {}
        colors: dict[str, str | None] = {}
        for step in self._steps[: self._done]:
            for annotation_id in step.remove:
                annotations.pop(annotation_id, None)
            annotations |= {one.id: one for one in step.add}
            thresholds |= step.thresholds
            reviewed |= step.reviewed
            colors |= step.colors
        by_photo: dict[str, list[Annotation]] = {}
        for one in annotations.values():
            by_photo.setdefault(one.photo, []).append(one)
        self.annotations, self._by_photo = annotations, by_photo
        self.thresholds = {label: score for label, score in thresholds.items() if score is not None}
        self.colors = {label: color for label, color in colors.items() if color is not None}
        self.reviewed = {content for content, is_reviewed in reviewed.items() if is_reviewed}


def check_color(color: Any) -> str:
    """A color that a person chose, such as ``#ff0080``."""
    if not isinstance(color, str) or not re.fullmatch("#[0-9a-f]{6}", color):
        raise UserError(f"{color!r} is no color: give red, green and blue, such as '#ff0080'")
    return color


def _from_json(content: Any, path: Path) -> tuple[list[Step], int]:
    """The steps of a project's file, and how many of them are done; every value is checked."""
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
        steps = [_step(step) for step in content["steps"]]
        masks: dict[int, Rle] = {}
        for one in (one for step in steps for one in step.add):
            if masks.setdefault(one.id, one.mask) != one.mask:  # as in projects that were joined by hand
                raise ValueError(f"two annotations have the id {one.id}")
        done = content["done"]
        if type(done) is not int or not 0 <= done <= len(steps):
            raise ValueError(f"{done!r} of its {len(steps)} steps are done")
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"{path} is not a project of this app: {error}; move it away to start a new one") from error
    return steps, done


def _step(content: Any) -> Step:
    """A step from JSON."""
    name, remove = content["name"], content["remove"]
    if not isinstance(name, str) or any(type(one) is not int for one in remove):
        raise ValueError("a step has no name, or removes what is no id")
    for score in content["thresholds"].values():
        check_number("a threshold", score, Fraction | None)
    thresholds = {clean_class_name(label): score for label, score in content["thresholds"].items()}
    reviewed = content.get("reviewed", {})
    if any(type(one) is not bool for one in reviewed.values()):
        raise ValueError("a photo is neither reviewed nor not")
    chosen = content.get("colors", {}).items()
    colors = {clean_class_name(label): None if color is None else check_color(color) for label, color in chosen}
    return Step(name, [_annotation(one) for one in content["add"]], remove, thresholds, reviewed, colors)


def _annotation(content: Any) -> Annotation:
    """An annotation from JSON."""
    one = Annotation(**content)
    check_rle(one.mask)
    if not mask_area(one.mask):
        raise ValueError(f"annotation {one.id!r} marks no pixel")
    types = type(one.id), type(one.photo), type(one.content), type(one.reference)
    if types != (int, str, str, bool):
        raise ValueError(f"annotation {one.id!r} has a value of another type")
    if one.content and not re.fullmatch(r"\d+ [0-9a-f]{64}( \d+)?", one.content):
        raise ValueError(f"annotation {one.id} is of a photo that is known by {one.content!r}")
    if one.verdict not in get_args(Verdict):
        raise ValueError(f"annotation {one.id} is {one.verdict!r}")
    return replace(one, label=clean_class_name(one.label))
