"""The lists of the page: photos with their numbers of objects, classes with theirs, and how far the search is."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import gradio as gr
from jinja2 import PackageLoader

from no_time_to_train.errors import plural
from no_time_to_train.visual.html import TEMPLATES
from no_time_to_train_extras.app.photos import Pictures, Thumbnails
from no_time_to_train_extras.app.video_frames import Video
from no_time_to_train_extras.app.view import color_of, count_text, title
from no_time_to_train_extras.app.workspace import Workspace

#: Orders of the photos, by their names on the page.
ORDERS = {"name": "name", "most objects": "count", "most doubtful": "doubt", "to review first": "review"}

#: Thumbnails that are shown at once.
AT_ONCE = 60

#: The parts of the page that are made here.
PARTS = TEMPLATES.overlay(loader=PackageLoader("no_time_to_train_extras.app"))


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
        videos = [one for one in workspace.videos.all.values() if wanted in one.name.lower()]
        photos = [*map(self._video, videos), *map(self._thumbnail, names)]
        shown = fill("thumbnails.html", photos=photos, opened=photo), shelf.first, len(shelf.names)
        lists: list[Any] = [gr.skip()] * 4
        if shown != shelf.shown:
            shelf.shown = shown
            several = len(shelf.names) > AT_ONCE
            last = shelf.first + len(names)
            lists = [
                gr.update(value=shown[0]),
                gr.update(value=f"{shelf.first + 1} to {last} of {len(shelf.names)}", visible=several),
                gr.update(visible=several, interactive=shelf.first > 0),
                gr.update(visible=several, interactive=last < len(shelf.names)),
            ]
        scores = self.scores()
        if scores == shelf.scores:
            return [*lists, gr.skip()]
        shelf.scores = scores
        return [*lists, scores]

    def _thumbnail(self, name: str) -> dict[str, Any]:
        """What is shown of a photo in the list; its picture appears once it is made."""
        photo = self.workspace.photos[name]
        found = "cannot be read" if photo.problem else count_text(self.workspace.shown(name).counts)
        reviewed = "\N{CHECK MARK} reviewed" if self.workspace.is_reviewed(name) else ""
        lines = [title(photo.target), found, reviewed]
        return {"name": name, "lines": lines, "url": address(self.thumbnails.file(name))}

    def _video(self, video: Video) -> dict[str, Any]:
        """What is shown of a video in the list; its first frame opens it."""
        first, tracks = video.frame_name(0), self.workspace.tracking.tracks(video)
        found = video.problem or plural(len(video.times), "frame") + ("" if video.complete else " so far")
        lines = [
            f"\N{BLACK RIGHT-POINTING TRIANGLE} {video.name}",
            found,
            plural(len(tracks.rows), "track") if tracks else "",
        ]
        return {"name": first, "lines": lines, "url": address(self.thumbnails.file(first))}

    def scores(self) -> list[ClassThreshold]:
        """The threshold of each class."""
        automatic, chosen = self.workspace.automatic, self.workspace.project.thresholds
        origins = dict.fromkeys(automatic, "automatic") | dict.fromkeys(chosen, "chosen")
        score, labels = self.workspace.thresholds.of, self.workspace.classes
        return [ClassThreshold(label, score(label), origins.get(label, "default")) for label in labels]

    def class_table(self) -> str:
        """Each class with its color, its number of objects in all photos and its references, as JSON."""
        workspace = self.workspace
        counts = sum(workspace.counts().values(), Counter[str]())
        references: dict[str, list[dict[str, Any]]] = {label: [] for label in workspace.classes}
        for one, name, crop in workspace.references.crops(workspace.project.annotations.values()):
            url = address(self.pictures.crop(name, crop)) if crop is not None else ""
            of_class = references.setdefault(one.label, [])
            of_class.append({"id": one.id, "photo": one.photo, "verdict": one.verdict, "url": url})
        rows = [
            {
                "label": label,
                "color": color_of(label, workspace.classes, workspace.project.colors).as_hex(),
                "count": counts[label],
                "references": references[label],
            }
            for label in workspace.classes
        ]
        return json.dumps(rows).replace("<", "\\u003c")  # no text of it is HTML

    def search_state(self) -> list[Any]:
        """The progress, and the button that stops the search."""
        workspace = self.workspace
        progress, problem = workspace.search.progress(), workspace.search.problem
        reviewed = sum(map(workspace.is_reviewed, list(workspace.photos)))
        problems = [*filter(None, [problem, *(one.problem for one in list(workspace.photos.values()))])]
        bar = fill("progress.html", progress=progress, reviewed=reviewed, problems=problems, plural=plural)
        button = gr.update(value="Stop" if progress.running else "Continue", visible=not progress.done)
        return [bar, button]


def fill(template: str, **values: Any) -> str:
    """Fill in a template of the app."""
    return PARTS.get_template(template).render(values).strip()


def address(file: Path) -> str:
    """The address of a temporary file on the page."""
    return f"gradio_api/file={quote(str(file))}"
