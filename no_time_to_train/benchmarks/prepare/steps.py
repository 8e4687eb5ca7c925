"""A data set is prepared in steps, each of which knows whether it is done: a second run does what is left."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from no_time_to_train.errors import UserError
from no_time_to_train.networks.box_prompts import BoxSegmenter
from no_time_to_train.pipeline.boxes_to_masks import boxes_to_masks


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        root: folder of all data sets; archives go to its ``downloads``.
        build: makes the network for masks from boxes.
        masks: which boxes get masks: those that references are drawn from, all (targets too), or none.
        keep_archives: leave archives where they are once unpacked.
        subset: accept files with other numbers of images and annotations than the published ones.
        sets: of a collection, the sets to prepare; empty: all.
    """

    root: Path
    build: Callable[[], BoxSegmenter]
    masks: Literal["references", "all", "none"] = "references"
    keep_archives: bool = False
    subset: bool = False
    sets: tuple[str, ...] = ()

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"


@dataclass(frozen=True)
class Step:
    """One piece of a data set.

    Attributes:
        name: of the piece, for messages.
        problem: says in a few words what is missing; None once the piece is there. A UserError if what is there is
            wrong: it is never overwritten.
        make: makes the piece; None where the user has to bring it.
        source: how the piece is to be had; empty where it is made from the pieces before it.
    """

    name: str
    problem: Callable[[], str | None]
    make: Callable[[], object] | None
    source: str = ""


#: Name of a part -> its steps. A failing part does not keep the others from being prepared.
Parts = dict[str, list[Step]]


def run_parts(parts: Parts, check: bool) -> None:
    """Do every step that is not done; with ``check``, only say which are not.

    Raises:
        UserError: a step failed, or with ``check``, something is missing.
    """
    if check:
        return check_steps([step for steps in parts.values() for step in steps])
    failed: dict[str, UserError] = {}
    for part, steps in parts.items():
        try:
            for step in steps:
                _complete(step)
        except UserError as error:
            failed[part] = error
            if len(parts) > 1:
                print(f"{part}: {error}", file=sys.stderr)
    if failed and len(parts) == 1:
        raise next(iter(failed.values()))
    if failed:
        raise UserError(
            f"{len(failed)} of {len(parts)} sets are not ready: {', '.join(failed)}; each has its line above "
            "(--sets chooses the sets)"
        )


def check_steps(steps: list[Step]) -> None:
    """Print a line a step; a UserError if any is not done."""
    lacking = 0
    for step in steps:
        try:
            problem = step.problem()
        except UserError as error:
            print(f"{step.name}: {error}")
            lacking += 1
            continue
        lacking += problem is not None
        if problem and step.source:
            print(f"{step.name}: missing, {problem}; {step.source}")
        else:
            print(f"{step.name}: {'not made yet' if problem else 'ready'}")
    if lacking:
        raise UserError(f"{lacking} of {len(steps)} pieces are missing; without --check what can be made is made")


def _complete(step: Step) -> None:
    problem = step.problem()
    if problem is None:
        print(f"{step.name}: ready")
        return
    if step.make is None:
        raise UserError(f"{step.name}: {problem}; {step.source}")
    print(f"{step.name}: {problem}; making it")
    step.make()
    problem = step.problem()
    if problem is not None:
        raise UserError(
            f"{step.name}: {problem}, after all was done to make it" + (f"; {step.source}" if step.source else "")
        )
    print(f"{step.name}: ready")


def masks_step(name: str, boxes: Path, image_dir: Path, settings: Settings) -> Step:
    """The step that makes ``<boxes>_masks.json`` of ``<boxes>.json``."""
    masks = boxes.with_name(f"{boxes.stem}_masks.json")
    return Step(
        f"{name}, masks",
        lambda: None if masks.is_file() else f"{masks} is not there",
        lambda: boxes_to_masks(boxes, image_dir, masks, settings.build),
    )
