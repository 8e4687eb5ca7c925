"""The steps that prepare a data set. Each step knows whether it is done, so a second run does only what is left.

Existing files are checked: whether annotation files are the published ones, and whether images are missing.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from no_time_to_train.data.coco import check_images, check_sections
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json

if TYPE_CHECKING:
    from no_time_to_train.networks.box_prompts import BoxSegmenter


@dataclass(frozen=True)
class PrepareOptions:
    """The options of the ``prepare`` command.

    Attributes:
        root: Folder of all data sets.
        build_segmenter: Builds the network that makes masks from boxes. Called only when masks are made.
        masks: Which boxes get masks: those that references are drawn from, all (also the targets'), or none.
        keep_archives: Do not delete archives after unpacking them.
        subset: Accept other numbers of images and annotations than the published ones.
        sets: The sets to prepare, for a collection of sets; empty means all.
    """

    root: Path
    build_segmenter: "Callable[[], BoxSegmenter]"
    masks: Literal["references", "all", "none"] = "references"
    keep_archives: bool = False
    subset: bool = False
    sets: tuple[str, ...] = ()

    @property
    def downloads(self) -> Path:
        """Folder of the downloaded archives."""
        return self.root / "downloads"

    def makes_masks(self, references: bool) -> bool:
        """Whether masks are made for a file of references, or else of targets."""
        return self.masks == "all" or (self.masks == "references" and references)


#: Says in a few words what is missing; None where nothing is.
Problem = Callable[[], str | None]


@dataclass(frozen=True)
class Step:
    """One step, which makes one piece of a data set.

    Attributes:
        problem: Returns in a few words what is missing, or None when the piece is complete. Raises a UserError where
            existing files are wrong; they are never overwritten.
        make: Makes the piece; None where the user has to provide it.
        source: Where the piece comes from, for messages; empty where it is made from earlier pieces.
    """

    name: str
    problem: Problem
    make: Callable[[], object] | None
    source: str = ""


#: The steps of each independent part of a data set, by its name. The failure of one part does not stop the others.
Parts = dict[str, list[Step]]


def run_parts(parts: Parts, check: bool) -> None:
    """Do every step that is not done yet; with ``check``, change nothing and only print which steps are done."""
    if check:
        return check_steps([step for steps in parts.values() for step in steps])
    failed = []
    for part, steps in parts.items():
        try:
            for step in steps:
                _complete(step)
        except UserError as error:
            if len(parts) == 1:
                raise
            print(f"{part}: {error}", file=sys.stderr)
            failed.append(part)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(parts)} sets are not ready: {', '.join(failed)}; the lines above say why "
            "(--sets chooses the sets to prepare)"
        )


def check_steps(steps: list[Step]) -> None:
    """Print one line per step that says whether it is done."""
    missing = 0
    for step in steps:
        try:
            problem = step.problem()
            status = "ready" if problem is None else f"{problem}; {step.source}" if step.source else "not made yet"
        except UserError as error:
            problem = status = str(error)
        print(f"{step.name}: {status}")
        missing += problem is not None
    if missing:
        raise UserError(f"{missing} of {len(steps)} pieces are missing; run without --check to download and make them")


def read_annotations(path: Path, counts: dict[str, int], subset: bool) -> dict[str, Any]:
    """Read a COCO annotation file and compare its numbers of entries per section with the published counts."""
    data: dict[str, Any] = read_json(path)
    check_sections(data, path)
    if "annotations" not in data:
        raise UserError(f"{path} is not a COCO annotation file: it needs a list 'annotations'")
    check_images(data["images"], path)
    for section, expected in counts.items():
        found = len(data[section])
        if found != expected and not subset:
            raise UserError(
                f"{path} has {found:,} {section} instead of {expected:,}: delete it and run the same command again, "
                "or accept it with --subset"
            )
    return data


def annotations_problem(path: Path, counts: dict[str, int], subset: bool) -> str | None:
    """What a step says about an annotation file: that it is missing, or None."""
    problem = missing(path)
    if problem is None:
        read_annotations(path, counts, subset)
    return problem


def missing_message(files: list[str], total: int, folder: Path) -> str | None:
    """What a step says about the missing of ``total`` images, given by their file names; None where none is missing."""
    if not files:
        return None
    return f"{len(files):,} of {total:,} images are missing in {folder}, the first is {files[0]}"


def missing(path: Path) -> str | None:
    """What a step says about a file that is missing, or None."""
    return None if path.is_file() else f"{path} is missing"


def masks_step(
    name: str, boxes: Path, image_dir: Path, options: PrepareOptions, problem: Callable[[Path], str | None] = missing
) -> Step:
    """The step that makes ``<boxes>_masks.json`` from ``<boxes>.json``, a COCO file with boxes.

    The masks are stored as polygons, as those that the published results were computed with.
    """
    masks = boxes.with_name(f"{boxes.stem}_masks.json")

    def make() -> None:
        from no_time_to_train.pipeline.boxes_to_masks import boxes_to_masks

        boxes_to_masks(boxes, image_dir, masks, options.build_segmenter, as_published=True)

    return Step(f"{name}, masks", lambda: problem(masks), make)


def _complete(step: Step) -> None:
    """Do a step unless it is done; a UserError where it remains incomplete."""
    source = f"; {step.source}" if step.source else ""
    problem = step.problem()
    if problem is not None:
        if step.make is None:
            raise UserError(f"{step.name}: {problem}{source}")
        print(f"{step.name}: {problem}; preparing it")
        step.make()
        problem = step.problem()
        if problem is not None:
            raise UserError(f"{step.name}: {problem}, although this step has run{source}")
    print(f"{step.name}: ready")
