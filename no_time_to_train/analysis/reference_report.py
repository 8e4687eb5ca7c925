"""What was measured about references, and the advice that follows from it, in words."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from no_time_to_train.analysis.score_thresholds import Threshold
from no_time_to_train.errors import plural
from no_time_to_train.files import read_json
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.visual.html import render_text

#: The format of ``ReferenceReport.to_json``.
FORMAT = "no-time-to-train reference report 1"

#: The keys of this format that are not named as the attributes.
KEYS = {"same_as": "twin"}

#: Advice is given from these values on, which were tuned on drawn scenes with planted faults (timing/advice.py): how
#: much more similar a reference is to another class than to its own;
UNLIKE = 0.2
#: the share of a mask that looks more like its surroundings than like its class;
MOSTLY_BACKGROUND = 0.55
#: below this, the highest IoU of a proposal with a mask. Its area relative to the proposal's says what is wrong.
FITS, LARGE, SMALL = 0.47, 2.0, 0.5
#: Below this, the area of an object in pixels of SAM 2's masks, which have 256 x 256.
TINY = 64

#: The texts of the advice, with places for values.
ADVICE: dict[str, str] = read_json(Path(__file__).with_name("advice.json"))

#: Side of SAM 2's masks in pixels.
MASK_SIDE = 256


@dataclass
class MeasuredReference:
    """What was measured about one reference.

    Attributes:
        number: Its number among the references of its class, from 1; negative references are counted with them.
        negative: Whether it shows what the class is not.
        compared: Whether the class has references in other images, so that something can be said about this one.
        found: Whether the other references find it as its class; None where it was not compared, or is negative.
        best_iou: The highest IoU of any of SAM 2's proposals with its mask.
        iou: The IoU of the mask that it was found with; None where it was not found.
        score: The score of that mask, likewise.
        taken_for: The class of the mask on it with the highest score; None where there is none.
        taken_score: The score of that mask.
        similarity: The cosine of its vector with its class's prototype, without it and without references that look
            like another class; None where there are no others.
        most_similar: The other class whose prototype its vector is most similar to; None where there is no other.
        similarity_to_it: The cosine with that prototype, likewise.
        area: Its mask's share of the image.
        mask_ratio: Its mask's area, divided by that of the proposal with the highest IoU; None where none overlaps it.
        background: Share of its mask that looks more like the surroundings in its crop than like its class; None
            where its crop shows no surroundings.
        same_as: The number of another reference of its class that is nearly the same; None where there is none.
        ap_without: How much the expected AP of its class changes without it; None where it is not known.
    """

    label: str
    image: str
    number: int
    negative: bool
    compared: bool
    found: bool | None = None
    best_iou: float = 0.0
    iou: float | None = None
    score: float | None = None
    taken_for: str | None = None
    taken_score: float | None = None
    similarity: float | None = None
    most_similar: str | None = None
    similarity_to_it: float | None = None
    area: float = 0.0
    mask_ratio: float | None = None
    background: float | None = None
    same_as: int | None = None
    ap_without: float | None = None
    advice: list[str] = field(default_factory=list)


@dataclass
class ClassReport:
    """What was measured about one class.

    Attributes:
        images: The number of images that they are in.
        found: The number of references that the others find.
        threshold: The score threshold with the best expected F1; None where it is not known.
        ap: The expected AP on the references' images, in [0, 1]; None likewise.
    """

    label: str
    references: int
    images: int
    found: int
    threshold: Threshold | None
    ap: float | None
    advice: list[str] = field(default_factory=list)


@dataclass
class Confusion:
    """Two classes that the references tell apart badly.

    Attributes:
        share: Share of their references that look more like the other class; None where each has one reference only.
    """

    labels: tuple[str, str]
    share: float | None
    similarity: float
    advice: str = ""


@dataclass
class ReferenceReport:
    """What ``ReferenceSegmenter.measure_references`` has measured.

    Attributes:
        references: In the order of the classes.
        confusions: Pairs of classes, the worst first.
        memory: The memory that was made of the references, in the same order.
    """

    classes: list[ClassReport]
    references: list[MeasuredReference]
    confusions: list[Confusion]
    settings: dict[str, Any]
    memory: MemoryBank

    @property
    def thresholds(self) -> dict[str, float]:
        """The score threshold of each class that has one, by its name."""
        return {one.label: one.threshold.score for one in self.classes if one.threshold is not None}

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "format": FORMAT,
            "settings": self.settings,
            "classes": [asdict(one) for one in self.classes],
            "shots": [{KEYS.get(key, key): value for key, value in asdict(one).items()} for one in self.references],
            "confusions": [asdict(one) for one in self.confusions],
        }


def with_advice(report: ReferenceReport) -> ReferenceReport:
    """The same report with advice for each reference, class and pair of classes."""
    for reference in report.references:
        reference.advice = advice_on_reference(reference)
    for one in report.classes:
        one.advice = advice_on_class(one)
    for pair in report.confusions:
        pair.advice = advice_on_pair(pair)
    return report


def say(key: str, **values: Any) -> str:
    """The text of an advice, from ``advice.json``, with some values in it."""
    return ADVICE[key].format(**values)


def advice_on_reference(one: MeasuredReference) -> list[str]:
    """What to do about a reference, one sentence for each thing that was measured; empty where it is fine."""
    advice = []
    if not one.negative:
        own, other = one.similarity, one.similarity_to_it
        if own is not None and other is not None and other - own > UNLIKE:
            advice.append(say("unlike", one=one))
        if one.background is not None and one.background >= MOSTLY_BACKGROUND:
            than = f"the other references of {one.label}" if own is not None else "the rest of the mask"
            advice.append(say("background", percent=100 * one.background, than=than))
    pixels = one.area * MASK_SIDE**2
    if pixels < TINY:
        advice.append(say("tiny", percent=100 * one.area, pixels=pixels, side=MASK_SIDE))
    if one.best_iou < FITS:
        ratio = 1.0 if one.mask_ratio is None else one.mask_ratio
        key = "large_mask" if ratio >= LARGE else "small_mask" if ratio <= SMALL else "no_outline"
        advice.append(say(key, one=one, percent=100 * ratio))
    if one.same_as is not None and one.same_as < one.number:
        advice.append(say("repeated", one=one))
    return advice


def advice_on_class(one: ClassReport) -> list[str]:
    """What to do about a class; empty where it is fine."""
    if one.references == 1:
        return [say("one_reference")]
    if one.images == 1:
        return [say("one_image")]
    if one.threshold is None:
        return [say("none_found")]
    return [say("few_found", one=one)] if one.found * 2 < one.references else []


def advice_on_pair(pair: Confusion) -> str:
    """What to do about two classes."""
    a, b = pair.labels
    if pair.share is None:
        return say("perhaps_mixed_up", a=a, b=b, pair=pair)
    return say("mixed_up", a=a, b=b, percent=100 * pair.share)


def summary_lines(report: ReferenceReport) -> list[str]:
    """The report as lines for a terminal: a table of the classes, then all advice."""
    return render_text("reference_report.txt", report=report, precision_text=precision_text).rstrip("\n").split("\n")


def precision_text(threshold: Threshold) -> str:
    """The precision to expect, and its interval: ``79 % (53 to 92)``."""
    low, high = threshold.precision_interval
    return f"{100 * threshold.precision:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def title_of(report: ReferenceReport) -> str:
    """What was checked, in a few words."""
    classes = len(report.classes)
    return f"{plural(len(report.references), 'reference')} of {plural(classes, 'class')}"
