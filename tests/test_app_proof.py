"""Corrections in the app raise the AP: a small run of ``python -m timing.corrections``, and what a person corrects."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from no_time_to_train.data.rle import encode_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES
from tests.browser import needs_browser
from tests.conftest import Patch, nano_segmenter
from timing.app_person import Drawn, Mistake, Shown, mistakes, worst

#: Point prompts per side, and the seed of the scenes.
POINTS, SEED = 12, 1003


def square(left: int, top: int = 10, side: int = 20) -> dict[str, object]:
    mask = np.zeros((60, 200), bool)
    mask[top : top + side, left : left + side] = True
    return encode_mask(mask)


@contextmanager
def app_in_this_process(images: Path, out: Path, *_: str) -> Iterator[SimpleNamespace]:
    """The app without a process of its own, which would import everything again."""
    from no_time_to_train_extras.app.page import serve
    from no_time_to_train_extras.app.photos import find_photos
    from no_time_to_train_extras.app.workspace import Workspace

    segmenter, folder = nano_segmenter(POINTS), out / "app"
    workspace = Workspace(segmenter, *find_photos([str(images)], folder / "uploads", folder), folder)
    page = serve(workspace, out / "results", folder, browser=False, block=False)
    try:
        yield SimpleNamespace(url=page.local_url)
    finally:
        page.close()
        workspace.search.close()
        shutil.rmtree(os.environ["GRADIO_TEMP_DIR"])


@needs_browser
def test_corrections_in_the_browser_raise_the_ap(tmp_path: Path, monkeypatch: Patch) -> None:
    pytest.importorskip("gradio", reason="the app's extra is not installed")
    from timing.corrections import measure

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # which the app sets
    course = measure(tmp_path, SEED, 4, 3, NOVEL_CLASSES[:3], held_out=False, start=app_in_this_process)
    assert course.corrected == ["missed", "missed", "wrong"]
    assert course.ap[-1] > course.ap[0] + 5


def test_a_person_sees_missed_objects_and_masks_of_nothing_and_of_other_classes_that_were_not_confirmed() -> None:
    drawn = [Drawn("a.png", "dots", square(0)), Drawn("a.png", "dots", square(40)), Drawn("a.png", "rings", square(80))]
    shown = [
        Shown("dots", 0.9, square(0), False),
        Shown("dots", 0.8, square(1), False),  # the same object
        Shown("dots", 0.7, square(0, side=8), False),  # a part of it
        Shown("dots", 0.8, square(81), False),
        Shown("rings", 0.7, square(120), False),
        Shown("rings", 1.0, square(160), True),
    ]
    found = [(one.kind, one.label, one.drawn) for one in mistakes("a.png", shown, drawn)]
    wrong = [("other class", "dots", drawn[2]), ("wrong", "rings", None)]
    assert found == [*wrong, ("missed", "dots", drawn[1])]


def test_a_person_clicks_where_the_page_takes_the_click_for_what_they_mean() -> None:
    wide = np.zeros((60, 200), bool)
    wide[:, :100] = True
    drawn = [Drawn("a.png", "dots", square(10)), Drawn("a.png", "rings", square(90))]
    (wrong, missed) = mistakes("a.png", [Shown("rings", 0.9, encode_mask(wide), False)], drawn)
    assert (wrong.kind, missed.kind) == ("wrong", "missed")
    assert 100 <= missed.place[0] < 110, "the rest of the object is below the mask, where a click selects it"
    small = Shown("dots", 0.9, square(20, 20, 40), True)
    covering = [small, Shown("rings", 0.8, square(20, 20, 40), False)]
    assert mistakes("a.png", covering, [])[:1] == [], "the confirmed mask lies over all of it"


def test_a_person_shows_two_missed_objects_and_then_corrects_the_surest_mask() -> None:
    found = [
        Mistake("missed", "a.png", (0, 0), 300),
        Mistake("missed", "b.png", (0, 0), 900),
        Mistake("wrong", "a.png", (0, 0), 0.6),
        Mistake("other class", "b.png", (0, 0), 0.8),
    ]
    assert [worst(found, number) for number in range(4)] == [found[1], found[1], found[3], found[1]]
    assert [worst(found[2:], 0), worst(found[:2], 2), worst([], 0)] == [found[3], found[1], None]
