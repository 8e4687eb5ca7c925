"""The lists of the page: photos with their numbers of objects, classes with theirs, and how far the search is."""

import html
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import gradio as gr

from no_time_to_train.app.photos import Pictures, Thumbnails
from no_time_to_train.app.view import color_of, count_text
from no_time_to_train.app.workspace import Workspace
from no_time_to_train.errors import plural

#: Orders of the photos, by their names on the page.
ORDERS = {"name": "name", "most objects": "count", "most doubtful": "doubt", "to review first": "review"}

#: Thumbnails that are shown at once.
AT_ONCE = 60

#: What stands in place of thumbnails where no photo has such a name.
NONE = "<p class='hint'>No photo has a name with this text.</p>"


class ClassThreshold(NamedTuple):
    """The threshold of a class, as its slider shows it; ``origin``: ``chosen``, ``automatic`` or ``default``."""

    label: str
    score: float
    origin: str


@dataclass
class Shelf:
    """What the lists of one browser show."""

    sort: str = "name"
    wanted: str = ""
    names: list[str] = field(default_factory=list)
    first: int = 0
    photo: str | None = None
    state: tuple[Any, ...] | None = None
    shown: Any = None
    scores: list[ClassThreshold] | None = None


class Lists:
    """Makes the lists."""

    def __init__(self, workspace: Workspace, thumbnails: Thumbnails) -> None:
        self.workspace, self.thumbnails, self.pictures = workspace, thumbnails, Pictures(thumbnails.folder)

    def update(self, shelf: Shelf, photo: str | None) -> list[Any]:
        """The gallery, what stands below it, and the thresholds; each is skipped where it has not changed."""
        workspace = self.workspace
        state = (*workspace.state, self.thumbnails.made, shelf.sort, shelf.wanted, shelf.first, photo)
        if state == shelf.state:
            return [gr.skip()] * 5
        names, wanted = workspace.ordered(ORDERS[shelf.sort]), shelf.wanted.strip().lower()
        shelf.state, shelf.names = state, [name for name in names if wanted in name.lower()]
        if photo != shelf.photo and photo in shelf.names:
            shelf.first = shelf.names.index(photo) // AT_ONCE * AT_ONCE
        shelf.photo, shelf.first = photo, max(min(shelf.first, (len(shelf.names) - 1) // AT_ONCE * AT_ONCE), 0)
        names = shelf.names[shelf.first : shelf.first + AT_ONCE]
        pictures = "".join(self._thumbnail(name, name == photo) for name in names)
        shown = pictures, shelf.first, len(shelf.names)
        lists: list[Any] = [gr.skip()] * 4
        if shown != shelf.shown:
            shelf.shown = shown
            several = len(shelf.names) > AT_ONCE
            last = shelf.first + len(names)
            lists = [
                gr.update(value=f"<div>{pictures or NONE}</div>"),
                gr.update(value=f"{shelf.first + 1} to {last} of {len(shelf.names)}", visible=several),
                gr.update(visible=several, interactive=shelf.first > 0),
                gr.update(visible=several, interactive=last < len(shelf.names)),
            ]
        scores = self.scores()
        if scores == shelf.scores:
            return [*lists, gr.skip()]
        shelf.scores = scores
        return [*lists, scores]

    def _thumbnail(self, name: str, is_open: bool) -> str:
        """A photo in the list, with what was found in it below its name."""
        photo = self.workspace.photos[name]
        found = "cannot be read" if photo.problem else count_text(self.workspace.shown(name).counts)
        lines = [name, found, "\N{CHECK MARK} reviewed" if self.workspace.is_reviewed(name) else ""]
        caption, url = html.escape("\n".join(filter(None, lines))), html.escape(address(self.thumbnails.file(name)))
        current = " aria-current='true'" if is_open else ""
        return (
            f"<button type='button' data-photo='{html.escape(name)}'{current}>"
            f"<img src='{url}' alt='' loading='lazy'><span>{caption}</span></button>"
        )

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
        """Each class with its color, its number of objects in all photos and its references, as JSON."""
        workspace = self.workspace
        counts: Counter[str] = Counter()
        for of_photo in workspace.counts().values():
            counts.update(of_photo)
        references: dict[str, list[dict[str, Any]]] = {label: [] for label in workspace.classes}
        for one, name, crop in workspace.references.crops(workspace.project.annotations.values()):
            url = address(self.pictures.crop(name, crop)) if crop is not None else ""
            of_class = references.setdefault(one.label, [])
            of_class.append({"id": one.id, "photo": one.photo, "verdict": one.verdict, "url": url})
        rows = [
            {
                "label": label,
                "color": color_of(label, workspace.classes).as_hex(),
                "count": counts[label],
                "references": references[label],
            }
            for label in workspace.classes
        ]
        return json.dumps(rows).replace("<", "\\u003c")  # no text of it is HTML

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
        if reviewed := sum(map(self.workspace.is_reviewed, list(self.workspace.photos))):
            done += f"; {reviewed} reviewed"
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


def address(file: Path) -> str:
    """The address of a temporary file on the page."""
    return f"gradio_api/file={quote(str(file))}"
