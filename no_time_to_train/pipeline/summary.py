"""What a run found, in one line for the user, and the thresholds that decide what counts as found."""

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from no_time_to_train.data.names import composed
from no_time_to_train.errors import UserError, plural, suggest
from no_time_to_train.ranges import Fraction, parse_number


@dataclass(frozen=True)
class Thresholds:
    """The lowest scores of instances.

    Attributes:
        score: The lowest score of classes that have none of their own, in [0, 1].
        class_scores: The lowest scores of other classes, by name, in [0, 1].
    """

    score: float = 0.5
    class_scores: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, score: float, class_scores: Sequence[str]) -> "Thresholds":
        """The thresholds that ``--threshold X --class-score NAME=X ...`` state."""
        parsed = {}
        for text in class_scores:
            name, _, number = text.rpartition("=")
            if not name:
                raise UserError(f"--class-score {text}: write NAME=SCORE, such as boat=0.5")
            parsed[composed(name)] = parse_number(f"--class-score {name}", number, Fraction)
        return cls(score, parsed)

    def of(self, label: str) -> float:
        """The lowest score of a class."""
        return self.class_scores.get(label, self.class_scores.get(composed(label), self.score))

    def check_names(self, labels: Iterable[str]) -> None:
        """Check that all classes with a threshold of their own exist."""
        known = [*map(composed, labels)]
        for name in self.class_scores:
            if composed(name) not in known:
                raise UserError(f"--class-score {name}: there is no such class{suggest(name, known)}")


@dataclass(frozen=True, order=True)
class Best:
    """The instance with the highest score, whether it counts or not."""

    score: float
    label: str
    image: str

    def __str__(self) -> str:
        return f"{self.score:.3f} ({self.label} in {self.image})"


@dataclass
class Summary:
    """What a run did.

    Attributes:
        images: Number of images in the results, including those of an earlier, unfinished run.
        found: Number of instances that count per class, by the class's name.
        best: The best instance that the method returned; None where it returned none.
        skipped: One line for each image that could not be read.
        done_before: Number of images that an earlier, unfinished run had done.
        prompts: Number of points that were decoded for all images together.
        full: Number of images with as many instances as an image may have, so that there may be more.
        large: Number of large images in which nothing counts, and that were not searched in tiles.
        left_out: What the files of proposals hold that was of no use, and which images they lack, in a line each.
        interrupted: The number of the signal that ended the run; 0 where none did.
    """

    images: int = 0
    found: Counter[str] = field(default_factory=Counter)
    best: Best | None = None
    skipped: list[str] = field(default_factory=list)
    interrupted: int = 0
    done_before: int = 0
    prompts: int = 0
    full: int = 0
    large: int = 0
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Images and instances, with the best score where no instance counts."""
        images = plural(self.images, "image")
        if self.found:
            return f"{images}, {plural(self.found.total(), 'instance')}: {count_labels(self.found)}"
        if self.best is None:
            return f"{images}, nothing found at any score"
        return f"{images}, nothing found: the best score is {self.best}"

    def advice(self, out: Path) -> str:
        """What to do where no instance counts, as the end of a sentence; empty where some do."""
        if self.found or self.best is None:
            return ""
        return f"; {filter_command(out)} --threshold {math.floor(100 * self.best.score) / 100:g} shows it"


def count_labels(found: Mapping[str, int]) -> str:
    """How many there are of each class: ``3 bird, 12 boat``."""
    return ", ".join(f"{count} {label}" for label, count in sorted(found.items()))


def filter_command(out: Path) -> str:
    """The command that filters the results in a folder, without its options."""
    return shlex.join(["no-time-to-train", "results", "filter", str(out)])
