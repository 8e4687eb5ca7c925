"""The lists of the page: photos with their numbers of objects, classes with theirs, and how far the search is."""

import html
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gradio as gr

from no_time_to_train.app.photos import Thumbnails
from no_time_to_train.app.view import count_text
from no_time_to_train.app.workspace import Workspace
from no_time_to_train.errors import plural
from no_time_to_train.visual.drawing import PALETTE

#: Orders of the photos, by their names on the page.
ORDERS = {"name": "name", "most objects": "count", "most doubtful": "doubt"}

#: Thumbnails that are shown at once.
AT_ONCE = 60


class ClassThreshold(NamedTuple):
    """The threshold of a class, as its slider shows it; ``origin``: ``chosen``, ``automatic`` or ``default``."""

    label: str
    score: float
    origin: str


@dataclass
class Shelf:
    """What the lists of one browser show."""

    sort: str = "name"
    names: list[str] = field(default_factory=list)
    first: int = 0
    photo: str | None = None
    state: tuple[Any, ...] | None = None
    shown: Any = None
    scores: list[ClassThreshold] | None = None


class Lists:
    """Makes the lists."""

    def __init__(self, workspace: Workspace, thumbnails: Thumbnails) -> None:
        self.workspace, self.thumbnails = workspace, thumbnails

    def update(self, shelf: Shelf, photo: str | None) -> list[Any]:
        """The gallery, what stands below it, and the thresholds; each is skipped where it has not changed."""
        workspace = self.workspace
        state = (*workspace.state, self.thumbnails.made, shelf.sort, shelf.first, photo)
        if state == shelf.state:
            return [gr.skip()] * 5
        shelf.state, shelf.names = state, workspace.ordered(ORDERS[shelf.sort])
        if photo != shelf.photo and photo in shelf.names:
            shelf.first = shelf.names.index(photo) // AT_ONCE * AT_ONCE
        shelf.photo, shelf.first = photo, max(min(shelf.first, (len(shelf.names) - 1) // AT_ONCE * AT_ONCE), 0)
        names = shelf.names[shelf.first : shelf.first + AT_ONCE]
        captions = [f"{name}\n{self._found(name)}".strip() for name in names]
        pictures = [(str(self.thumbnails.file(name)), text) for name, text in zip(names, captions, strict=True)]
        place = names.index(photo) if photo in names else None
        shown = pictures, place, shelf.first, len(shelf.names)
        lists: list[Any] = [gr.skip()] * 4
        if shown != shelf.shown:
            shelf.shown = shown
            several = len(shelf.names) > AT_ONCE
            last = shelf.first + len(names)
            lists = [
                gr.update(
                    value=pictures,
                    selected_index=place,  # None leaves Gradio's mark where it was: the class hides it
                    elem_classes=["unmarked"] if place is None else [],
                ),
                gr.update(value=f"{shelf.first + 1} to {last} of {len(shelf.names)}", visible=several),
                gr.update(visible=several, interactive=shelf.first > 0),
                gr.update(visible=several, interactive=last < len(shelf.names)),
            ]
        scores = self.scores()
        if scores == shelf.scores:
            return [*lists, gr.skip()]
        shelf.scores = scores
        return [*lists, scores]

    def _found(self, name: str) -> str:
        """What a photo's caption says below its name."""
        if self.workspace.photos[name].problem:
            return "cannot be read"
        return count_text(self.workspace.shown(name).counts)

    def scores(self) -> list[ClassThreshold]:
        """The threshold of each class."""
        workspace, thresholds = self.workspace, self.workspace.thresholds
        chosen, automatic = workspace.project.thresholds, workspace.automatic
        return [
            ClassThreshold(
                label,
                thresholds.of(label),
                "chosen" if label in chosen else "automatic" if label in automatic else "default",
            )
            for label in workspace.classes
        ]

    def class_table(self) -> str:
        """The number of objects of each class, in all photos."""
        workspace = self.workspace
        if not workspace.classes:
            return "<p class='hint'>No class yet. Click on an object, name it, and every one like it is found.</p>"
        counts: Counter[str] = Counter()
        for of_photo in workspace.counts().values():
            counts.update(of_photo)
        rows = ""
        for number, label in enumerate(workspace.classes):
            color = PALETTE.by_idx(number).as_hex()
            rows += f"<tr><td><i style='background:{color}'></i>{html.escape(label)}</td><td>{counts[label]}</td></tr>"
        return f"<table><tr><th>class</th><th>objects</th></tr>{rows}</table>"

    def search_state(self) -> list[Any]:
        """The progress, and the button that stops the search."""
        progress = self.workspace.search.progress()
        if not progress.photos:
            done = "no photo to search"
        else:
            done = f"{progress.classified} of {plural(progress.photos, 'photo')} searched"
        left = progress.seconds_left
        if not progress.done and not progress.running:
            done += ", stopped"
        elif not progress.done and left:
            done += f", {f'{left / 60:.0f} minutes' if left > 90 else f'{left:.0f} seconds'} left"
        share = progress.classified / max(progress.photos, 1)
        search = self.workspace.search.problem
        problems = [search] if search else []
        problems += [one.problem for one in list(self.workspace.photos.values()) if one.problem]
        lines = "".join(f"<p class='problem'>{html.escape(problem)}</p>" for problem in problems[:3])
        if len(problems) > 3:
            lines += f"<p class='problem'>and {plural(len(problems) - 3, 'more problem')}</p>"
        bar = f"<div class='bar'><div style='width:{share:.0%}'></div></div><p>{done}</p>{lines}"
        button = gr.update(value="Stop" if progress.running else "Continue", visible=not progress.done)
        return [bar, button]
