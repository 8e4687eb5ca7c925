"""How much corrections in the app help: a simulated user in a real browser, on drawn scenes.

``python -m timing.corrections`` draws 40 scenes of eight classes for each seed, starts the app with the nano networks,
and does in Chromium what a person does who knows what was drawn:

1. One click per class: on the first object of the class in the order of the photos, where it is farthest from its
   outline. Of three masks, the person takes the one of the object's size. Where the mask is not that of the object
   (IoU below 0.75), the person undoes it and draws a box around the object; where that does not help either, they take
   the next object. Where something else was found already, the person names it by its class.
2. Ten corrections (``app_person.worst``): twice the largest object that was missed, then the mask of the highest score
   that is wrong or of another class, and so on.

The AP is that of masks, by pycocotools, of all results at any score that the app exports. An object that a person
confirmed has the score 1 there, and what they called wrong is gone, as the user of the app has it; with ten corrections
among about 210 objects, that alone is worth some points. So the memory before and after the corrections is also
measured by ``segment --memory`` on 40 other scenes of the same seed, where nothing was corrected: "held out".

The time of a ranking is that from the click on the button until the page has answered and the server says that all
photos are ranked. The order of the corrections was chosen on the seeds 777 and 1000 to 1004. Measure on others.
"""

import argparse
import contextlib
import io
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from no_time_to_train.cli import main as run_command
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.rle import decode_mask, mask_area, mask_box
from no_time_to_train.demo.scenes import NOVEL_CLASSES, PatternClass, write_coco
from no_time_to_train.evaluation.coco_ap import run_evaluator, summary
from no_time_to_train.files import read_json
from no_time_to_train.method.memory_bank import Category
from timing.app_person import (
    GOOD,
    Drawn,
    Kind,
    Mistake,
    Shown,
    drawn_objects,
    mistakes,
    shown_objects,
    worst,
)
from timing.app_user import App, User, ask, browser_page, inside

#: Seconds between two looks at how far the search is, and the longest that a person waits.
EVERY, PATIENCE = 0.05, 600


@dataclass
class Course:
    """What was measured while a person corrected the results of one seed.

    Attributes:
        objects: The number of objects in the scenes.
        ap: The AP after one click per class, and after each correction, in percent.
        held_out: The AP on other scenes with the memory before and after the corrections, in percent.
        corrected: The kinds of the corrections.
        seconds: The time of the ranking after each correction.
    """

    objects: int
    ap: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    corrected: list[Kind] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Person:
    """A person who knows what was drawn.

    Args:
        user: The browser.
        url: The address of the app.
        drawn: The objects of all photos.
    """

    def __init__(self, user: User, url: str, drawn: Sequence[Drawn]) -> None:
        self.user, self.url = user, url
        self.drawn: dict[str, list[Drawn]] = {}
        for one in drawn:
            self.drawn.setdefault(one.photo, []).append(one)
        self.given_up: list[Drawn] = []

    def wait(self, until: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the search is as far as that."""
        deadline = time.monotonic() + PATIENCE
        while not until(ask(self.url, "photos")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the search is not done after {PATIENCE} s")
            time.sleep(EVERY)

    def settle(self) -> None:
        """Wait until nothing changes any more without the person."""
        self.wait(lambda answer: bool(answer["settled"]))

    def press(self, button: str) -> float:
        """Press a button that changes the memory. Returns the seconds until all photos are ranked."""
        begin = time.perf_counter()
        self.user.press(button)
        self.wait(lambda answer: answer["searched"] == answer["of"])
        return time.perf_counter() - begin

    def shown(self, photo: str) -> list[Shown]:
        """What the page shows in a photo."""
        return shown_objects(ask(self.url, "objects", photo))

    def mistakes(self) -> list[Mistake]:
        """What a person sees to be wrong in all photos, and has not tried to correct."""
        found = [one for photo, drawn in self.drawn.items() for one in mistakes(photo, self.shown(photo), drawn)]
        return [one for one in found if one.kind == "wrong" or one.drawn not in self.given_up]

    def correct(self, mistake: Mistake) -> float | None:
        """Correct a mistake. Returns the seconds that the ranking took; None where the person gave up."""
        if mistake.drawn is not None and mistake.kind == "missed":
            seconds = self.outline(mistake.drawn, mistake.place)
            if seconds is None:
                self.given_up.append(mistake.drawn)
            return seconds
        self.user.open(mistake.photo)
        self.user.select(*mistake.place)
        if mistake.drawn is None:
            return self.press("wrong")
        self.user.name("other", mistake.drawn.label)
        return self.press("rename")

    def show(self, drawn: Drawn) -> bool:
        """Show an object of a class for the first time. Returns whether the person got a good mask of it."""
        x, y = map(int, inside(decode_mask(drawn.mask)))
        while covering := [one for one in self.shown(drawn.photo) if decode_mask(one.mask)[y, x]]:
            smallest = min(covering, key=lambda one: mask_area(one.mask))
            good = iou(smallest, drawn) >= GOOD
            self.user.open(drawn.photo)
            self.user.select(x, y)
            if good:
                self.user.name("other", drawn.label)
            self.press("rename" if good else "remove")
            self.settle()
            if good:
                return True
        return self.outline(drawn, (x, y)) is not None

    def outline(self, drawn: Drawn, place: tuple[int, int]) -> float | None:
        """Show an object by a click where nothing was found, or else by a box.

        Args:
            drawn: The object.
            place: (x, y) in pixels, where nothing was found.

        Returns:
            The seconds that the ranking took; None where no mask was good, and nothing was kept.
        """
        mask = decode_mask(drawn.mask)
        self.user.open(drawn.photo)
        for box in (False, True):
            self.user.begin(*place)
            if box:
                left, top, width, height = mask_box(drawn.mask)
                self.user.draw_box(left, top, left + width - 1, top + height - 1)
            else:
                self.user.choose_mask(float(mask.mean()))
            self.user.name("label", drawn.label)
            seconds = self.press("save")
            self.settle()
            if any(
                one.confirmed and one.label == drawn.label and iou(one, drawn) >= GOOD
                for one in self.shown(drawn.photo)
            ):
                return seconds
            self.press("undo")
            self.settle()
        return None


def iou(shown: Shown, drawn: Drawn) -> float:
    """The IoU of a mask on the page and of an object."""
    return float(coco_mask.iou([shown.mask], [drawn.mask], [0])[0, 0])


def ap(results: Path, coco: COCO) -> float:
    """The mask AP in percent of a folder of ``segment`` or of an export, whatever the scores.

    Args:
        results: The folder.
        coco: The ground truth, whose classes and photos have the same names.
    """
    listed = read_json(results / "images.json")
    names = {one["id"]: one["name"] for one in listed["categories"]}
    files = {one["id"]: Path(one["file_name"]).name for one in listed["images"]}
    categories = [Category(one["id"], one["name"]) for one in coco.cats.values()]
    ids = {one.name: one.id for one in categories}
    image_ids = {one["file_name"]: image_id for image_id, one in coco.imgs.items()}
    records = [
        {**one, "image_id": image_ids[files[one["image_id"]]], "category_id": ids[names[one["category_id"]]]}
        for one in read_json(results / "all_results.json")
    ]
    evaluator, _ = run_evaluator(COCOeval, coco, records, categories, "segm")
    return 100 * float(summary(evaluator)["AP"] or 0)


def held_out_ap(memory: Path, scenes: Path, out: Path, *options: str) -> float:
    """The mask AP in percent that a memory gives on other scenes.

    Args:
        memory: The file of the memory.
        scenes: The folder of the scenes, from ``write_coco``.
        out: A folder to write to.
        options: Further options of the command.
    """
    words = ["--memory", str(memory), "--images", str(scenes / "images"), "--out", str(out), "--overwrite", *options]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_command(["segment", "--nano", "--device", "cpu", *words])
    return ap(out, read_coco(scenes / "instances.json"))


def measure(
    folder: Path,
    seed: int,
    images: int = 40,
    corrections: int = 10,
    classes: Sequence[PatternClass] = NOVEL_CLASSES,
    points_per_side: int = 24,
    held_out: bool = True,
    start: Callable[..., AbstractContextManager[Any]] = App,
) -> Course:
    """Let a person show one object of each class of one seed, and correct mistakes.

    Args:
        folder: An empty folder.
        seed: Of the scenes, as the demo draws them: targets, and references for those that are held out.
        images: The number of scenes, and of those that are held out.
        corrections: The number of corrections. It is less where there is no mistake any more.
        classes: The classes.
        points_per_side: See ``Settings``.
        held_out: Whether to measure the memory on other scenes.
        start: Starts the app, as ``App`` does; what it returns has a ``url``.
    """
    write_coco(folder / "photos", classes, images, 2 * seed + 1)
    coco = read_coco(folder / "photos" / "instances.json")
    drawn = drawn_objects(coco)
    course, options, out = Course(len(drawn)), ("--points-per-side", str(points_per_side)), folder / "app"
    results = out / "results"
    with start(folder / "photos" / "images", out, *options) as app, browser_page() as page:
        person = Person(User(page, app.url), app.url, drawn)
        person.settle()

        def look() -> None:
            ask(app.url, "export", [])
            course.ap.append(ap(results, coco))

        known: set[str] = set()
        for one in drawn:
            if one.label not in known and person.show(one):
                known.add(one.label)
        look()
        shutil.copy(results / "references.memory", folder / "before.memory")
        while len(course.corrected) < corrections:
            mistake = worst(person.mistakes(), len(course.corrected))
            if mistake is None:
                break
            seconds = person.correct(mistake)
            person.settle()
            if seconds is not None:
                course.corrected.append(mistake.kind)
                course.seconds.append(seconds)
                look()
        if person.user.problems:
            raise RuntimeError(f"the page has problems: {person.user.problems}")
    if held_out:
        write_coco(folder / "held_out", classes, images, 2 * seed)
        for memory in (folder / "before.memory", results / "references.memory"):
            course.held_out.append(held_out_ap(memory, folder / "held_out", folder / "segment", *options))
    return course


def table_row(seed: int, course: Course) -> str:
    """A seed's row of the table."""
    counts = Counter(course.corrected)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    before, after = course.held_out
    cells = [
        f"{course.ap[0]:.1f}",
        f"{course.ap[-1]:.1f}",
        f"{course.ap[-1] - course.ap[0]:+.1f}",
        f"{before:.1f}",
        f"{after:.1f}",
        f"{after - before:+.1f}",
        kinds,
        f"{statistics.median(course.seconds):.2f}",
        f"{max(course.seconds):.2f}",
    ]
    return f"| {seed} | {course.objects} | {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--images", type=int, default=40, help="Scenes per seed.")
    parser.add_argument("--corrections", type=int, default=10, help="Corrections per seed.")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the app and the browser are ended, too
    courses = {}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            courses[seed] = measure(Path(folder), seed, args.images, args.corrections)
        trace = " ".join(f"{value:.1f}" for value in courses[seed].ap)
        print(f"seed {seed}: AP after one click per class and after each correction: {trace}", flush=True)
        print(table_row(seed, courses[seed]), flush=True)
    print(
        f"\n| seed | objects | AP, 1 click per class | after {args.corrections} corrections | gain "
        "| held out: before | after | gain | corrections | ranking, median s | slowest s |\n"
        f"| ---: | ---: {'| ---: ' * 6}| --- | ---: | ---: |"
    )
    print("\n".join(table_row(seed, course) for seed, course in courses.items()))
    gains = [[course.ap[-1] - course.ap[0], course.held_out[1] - course.held_out[0]] for course in courses.values()]
    shown, held = np.mean(gains, axis=0)
    print(f"\nmean gain: {shown:+.1f}, held out {held:+.1f}")


if __name__ == "__main__":
    main()
