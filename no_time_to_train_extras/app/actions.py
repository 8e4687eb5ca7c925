"""What the page does when a person clicks: one call of :class:`Workspace`, and the components that show its result."""

import html
import json
import tempfile
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from numpy.typing import NDArray

from no_time_to_train.data.prompts import check_box, check_label, check_point
from no_time_to_train.data.rle import decode_mask, mask_area
from no_time_to_train.errors import UserError, one_line, plural
from no_time_to_train.pipeline.summary import Summary
from no_time_to_train.ranges import Positive, check_number
from no_time_to_train_extras.app.exports import Exports
from no_time_to_train_extras.app.lists import AT_ONCE, Lists, Shelf, address
from no_time_to_train_extras.app.photos import UPLOADS, store_upload
from no_time_to_train_extras.app.video_frames import Video
from no_time_to_train_extras.app.video_view import scene_video
from no_time_to_train_extras.app.view import View, corners, count_text, same, scene_items, scene_masks, title
from no_time_to_train_extras.app.workspace import Workspace

#: What a person may say of an object.
VERDICTS = ("right", "wrong", "remove", "rename")

#: The most photos whose problems an export tells.
MOST_NAMED = 10


class Actions:
    """The functions behind the page. Each takes what the browser shows, and returns components."""

    def __init__(self, workspace: Workspace, lists: Lists, exports: Exports, uploads: Path) -> None:
        self.workspace, self.lists, self.exports, self.uploads = workspace, lists, exports, uploads
        acts = (
            self.open, self.step, self.click, self.box, self.draw, self.bend, self.choose, self.outline, self.touch,
            self.save, self.cancel, self.judge, self.undo, self.redo, self.review, self.rename_class, self.reference,
            self.color_class, self.forget, self.frame, self.track, self.stop_tracking, self.pack_tracks,
        )  # fmt: skip
        self.acts: dict[str, Callable[..., View]] = {function.__name__: function for function in acts}

    # What the page shows.

    def act(self, view: View, shelf: Shelf, event: gr.EventData) -> list[Any]:
        """Do what a person asks for on the photo, once; the page knows from the number what is answered."""
        for one in event._data["acts"]:
            number, name, values = (one[key] for key in ("number", "act", "values"))
            if int(number) <= view.number:  # a later call came before this one
                continue
            view.names = shelf.names
            try:
                view = self.acts[name](view, *values)
            except Exception as error:
                if not isinstance(error, UserError):  # a fault of this program; what follows is done all the same
                    traceback.print_exc()
                gr.Warning(html.escape(one_line(error)), title="Not done")
            view.number = int(number)
        return self.show(view)

    def show(self, view: View) -> list[Any]:
        """All components but the lists, after anything has changed."""
        return [view, self.scene(view), self.lists.class_table(), *self.lists.search_state()]

    def scene(self, view: View) -> str:
        """What the page draws of the photo, and what can be done, as JSON."""
        workspace, project = self.workspace, self.workspace.project
        view.video = scene_video(workspace, self.lists.thumbnails, view.photo)
        scene: dict[str, Any] = {
            "number": view.number,
            "photo": view.photo,
            "archive": view.archive,
            "video": view.video,
            "url": None,
            "counts": "",
            "hint": "There is no photo here yet: add some.",
            "undo": project.next_undo,
            "redo": project.next_redo,
            "points": view.points,
            "negative_points": view.negative_points,
            "masks": scene_masks(view),
            "chosen": view.chosen,
            "corners": [] if view.mask is None else corners(view.mask),
            "items": [],
            "selected": -1,
        }
        if view.photo is not None:
            shown = workspace.shown(view.photo)
            scene["title"] = title(workspace.photos[view.photo].target)
            view.items = shown.items
            view.selected = next((item for item in view.items if same(item, view.selected)), None)
            items = sorted(view.items, key=lambda item: -mask_area(item.mask))  # a click takes the smallest
            scene["counts"], scene["reviewed"] = count_text(shown.counts), workspace.is_reviewed(view.photo)
            scene["hint"] = "" if workspace.classes else "Click on an object that you want to find."
            if shown.full:
                scene["hint"] = "A photo shows no more objects than these: start the app with a larger --max-instances."
            scene["items"] = scene_items(items, workspace.classes, project.colors)
            scene["selected"] = items.index(view.selected) if view.selected else -1
            try:
                pixels = workspace.opened.pixels(view.photo)
                scene["height"], scene["width"] = pixels.shape[:2]
                scene["url"] = address(self.lists.pictures.file(workspace.search.content(view.photo), pixels))
            except UserError as error:  # the other photos can be opened
                scene["hint"] = str(error)
        return json.dumps(scene).replace("<", "\\u003c")  # no text of it is HTML

    def tick(self, view: View, shelf: Shelf) -> list[Any]:
        """Follow the search; nothing is sent where nothing has changed.

        The photo is drawn again only where something else is found in it, and once after each click: a tick that began
        before the click may be answered after it, with another photo. The view is no output, for the same reason.
        """
        state = self.workspace.state
        if state == view.state:
            return [*[gr.skip()] * 4, *self.lists.update(shelf, view.photo)]
        new = view.photo is not None and (view.state is None or self.workspace.items(view.photo) != view.items)
        new |= scene_video(self.workspace, self.lists.thumbnails, view.photo) != view.video
        scene = self.scene(view) if new else gr.skip()
        view.state = state
        return [scene, self.lists.class_table(), *self.lists.search_state(), *self.lists.update(shelf, view.photo)]

    def load(self, view: View) -> list[Any]:
        """Open the first photo."""
        videos = [video.frame_name(0) for video in self.workspace.videos.all.values()]
        name = next(iter([*self.workspace.ordered("name"), *videos]), None)
        return self.show(View() if name is None else self.open(view, name))

    # Choosing a photo.

    def sort(self, view: View, shelf: Shelf, order: str, wanted: str) -> list[Any]:
        """Sort the photos, keep those whose names have a text, and show the first ones."""
        shelf.sort, shelf.wanted, shelf.first, shelf.photo = order, wanted, 0, view.photo
        return self.lists.update(shelf, view.photo)

    def turn(self, view: View, shelf: Shelf, by: int) -> list[Any]:
        """Show the next photos of the list, or those before."""
        shelf.first, shelf.photo = max(shelf.first + by * AT_ONCE, 0), view.photo
        return self.lists.update(shelf, view.photo)

    def open(self, view: View, name: str) -> View:
        """Open a photo."""
        self.workspace.search.open(name)
        return View(name)

    def step(self, view: View, by: int) -> View:
        """Open the next photo of the list, or the one before."""
        if not view.names:
            return view
        place = view.names.index(view.photo) + by if view.photo in view.names else 0
        return self.open(view, view.names[place % len(view.names)])

    def frame(self, view: View, number: int) -> View:
        """Open another frame of the video."""
        video, _ = self._video(view)
        return self.open(view, video.frame_name(number))

    def add_photos(self, view: View, files: list[str]) -> list[Any]:
        """Add uploaded photos, and open the first of them."""
        first, problems = None, []
        for file in files:
            try:
                place = store_upload(Path(file), self.uploads)
            except UserError as error:
                problems.append(str(error).replace(file, Path(file).name))
                continue
            name = self.workspace.search.add(place, f"{UPLOADS}/{place.name}")
            first = first or name
        if problems:
            gr.Warning(html.escape("; ".join(problems)), title="Not added")
        if first is not None:
            number, view = view.number, self.open(view, first)
            view.number = number
        return self.show(view)

    # Showing and judging objects.

    def click(self, view: View, x: int, y: int, away: bool, on_item: bool) -> View:
        """A click on the photo selects what is found there, or shows an object.

        Args:
            away: Whether the object has less than the mask.
            on_item: Whether the page showed something there: what was found a moment later is not meant.
        """
        photo, size = self._size(view)
        check_point((x, y), *size)
        if on_item and (item := self.workspace.item_at(photo, int(x), int(y))) is not None:
            return View(photo, selected=item, clicked=(x, y))
        on, off = [*view.points, *([] if away else [(x, y)])], [*view.negative_points, *([(x, y)] if away else [])]
        return View(photo, None, on, off, view.box, self.workspace.opened.masks(photo, on, off, view.box))

    def box(self, view: View, *corners: float) -> View:
        """Show an object by a box instead."""
        photo, size = self._size(view)
        box = check_box(corners, *size)
        return View(photo, box=box, masks=self.workspace.opened.masks(photo, box=box))

    def draw(self, view: View, line: list[list[float]], inside: bool) -> View:
        """Add what a line encloses to the mask, or take it away."""
        if view.mask is None:
            raise UserError("there is no outline to draw at: click on an object first")
        area = enclosed(line, view.mask.shape)
        return self._redrawn(view, view.mask | area if inside else view.mask & ~area)

    def bend(self, view: View, corners: list[list[float]], moved: list[list[float]]) -> View:
        """Change the mask where a polygon along its outline has changed; the rest keeps its details."""
        if view.mask is None:
            return view
        before, after = (enclosed(line, view.mask.shape) for line in (corners, moved))
        return self._redrawn(view, (view.mask | after & ~before) & ~(before & ~after))

    def _redrawn(self, view: View, mask: NDArray[np.bool_]) -> View:
        """The view with another mask."""
        if not mask.any():
            raise UserError("nothing would be left of the object")
        return View(view.photo, None, view.points, view.negative_points, view.box, mask[None])

    def choose(self, view: View, index: int) -> View:
        """Choose one of three masks."""
        if view.masks is not None and index in range(len(view.masks)):
            view.chosen = index
        return view

    def outline(self, view: View) -> View:
        """Show the object where something was found: its mask may be bad, or may hide another object."""
        if view.photo is None or view.clicked is None:
            return view
        return View(view.photo, points=[view.clicked], masks=self.workspace.opened.masks(view.photo, [view.clicked]))

    def touch(self, view: View) -> View:
        """Begin with the mask that was found, to draw at its outline."""
        return view if view.selected is None else View(view.photo, masks=decode_mask(view.selected.mask)[None])

    def save(self, view: View, label: str) -> View:
        """Make the object a reference."""
        if view.photo is None or view.mask is None:
            return view
        if not label:
            raise UserError("what is it? Choose a class, or type the name of a new one")
        self.workspace.show(view.photo, view.mask, check_label(label))
        return View(view.photo)

    def cancel(self, view: View) -> View:
        """Forget the object that is being shown."""
        return View(view.photo)

    def judge(self, view: View, verdict: str, *label: str) -> View:
        """Say what the selected object is."""
        if view.photo is not None and view.selected is not None and verdict in VERDICTS:
            getattr(self.workspace, verdict)(view.photo, view.selected, *map(check_label, label))
        return View(view.photo)

    def undo(self, view: View) -> View:
        """Undo."""
        self.workspace.undo()
        return View(view.photo)

    def redo(self, view: View) -> View:
        """Redo."""
        self.workspace.redo()
        return View(view.photo)

    def review(self, view: View) -> View:
        """Say that a photo was reviewed, or that it has to be again."""
        if view.photo is not None:
            self.workspace.review(view.photo)
        return view

    # The classes and their references.

    def rename_class(self, view: View, label: str, name: str) -> View:
        """Call a class otherwise."""
        self.workspace.rename_class(label, check_label(name))
        return View(view.photo)

    def color_class(self, view: View, label: str, color: str) -> View:
        """Show a class in another color."""
        self.workspace.set_color(label, color)
        return view

    def reference(self, view: View, number: int) -> View:
        """Open the photo of a reference, and select its object."""
        one = self.workspace.annotation(number)
        found = self.open(view, one.photo)
        found.selected = next((item for item in self.workspace.items(one.photo) if item.annotation == one.id), None)
        return found

    def forget(self, view: View, number: int) -> View:
        """Remove a reference."""
        self.workspace.forget(number)
        return View(view.photo)

    # The tracks in a video.

    def track(self, view: View, every: int) -> View:
        """Start to find the tracks in the video, in one frame in so many."""
        check_number("every", every, Positive)
        self.workspace.track(self._video(view)[0], every)
        return view

    def stop_tracking(self, view: View) -> View:
        """Stop that."""
        self.workspace.tracking.stop()
        return view

    def pack_tracks(self, view: View) -> View:
        """Make a ZIP file of the tracks."""
        if (tracks := self.workspace.tracking.tracks(self._video(view)[0])) is not None:
            view.archive = packed(tracks.folder, "tracks")
        return view

    def _video(self, view: View) -> tuple[Video, int]:
        """The video and the number of the open frame."""
        if (found := self.workspace.videos.of(view.photo)) is None:
            raise UserError("this photo is no frame of a video")
        return found

    def _size(self, view: View) -> tuple[str, tuple[int, int]]:
        """The open photo, and its height and width."""
        if view.photo is None:
            raise UserError("there is no photo here yet: add some")
        height, width = self.workspace.opened.pixels(view.photo).shape[:2]
        return view.photo, (height, width)

    # All photos.

    def set_threshold(self, label: str, view: View, score: float | None = None) -> list[Any]:
        """Choose the threshold of a class; None takes the automatic one again."""
        self.workspace.set_threshold(label, score)
        return self.show(view)

    def stop_or_continue(self, view: View) -> list[Any]:
        """Stop the search, or let it continue."""
        self.workspace.search.run(not self.workspace.search.progress().running)
        return self.show(view)

    def write(self, view: View, formats: list[str]) -> list[Any]:
        """Export."""
        summary = html.escape(exported(self.exports.write(formats)))
        return [f"<p>{summary}</p><p>In <code>{html.escape(str(self.exports.out.resolve()))}</code></p>"]

    def pack(self, view: View, formats: list[str]) -> list[Any]:
        """Make a ZIP file of the export, and a link that the page follows; the file is removed after a minute.

        What has changed since the last export is exported before.
        """
        with self.exports.lock:
            self.exports.update(formats)
            archive = html.escape(packed(self.exports.out, "results"))
            summary = html.escape(exported(self.exports.summary))
        return [f"<p>{summary}</p><p><a href='{archive}' download>results.zip</a> (for a minute)</p>"]


def enclosed(line: list[list[float]], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """What a line through pixels, x and y, encloses: bool [H, W]."""
    corners = np.array(line).reshape(-1, 2).astype(np.int32)
    return cv2.fillPoly(np.zeros(size, np.uint8), [corners], 1) > 0


def packed(folder: Path, name: str) -> str:
    """The address of a ZIP file with the content of a folder, for a minute."""
    archive = Path(tempfile.mkdtemp(dir=get_upload_folder()), f"{name}.zip")
    with ZipFile(archive, "w", ZIP_DEFLATED, strict_timestamps=False) as opened:  # ZIP has no dates before 1980
        for path in sorted(folder.rglob("*")):
            opened.write(path, path.relative_to(folder))
    return address(archive)


def exported(summary: Summary) -> str:
    """What was exported, and which photos were not."""
    left_out = [f"{plural(len(summary.skipped), 'photo')} left out"] if summary.skipped else []
    more = ["..."] * (len(summary.skipped) > MOST_NAMED)
    return "; ".join([str(summary), *left_out, *summary.skipped[:MOST_NAMED], *more])


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which says a user's mistake in one line and changes nothing then."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except UserError as error:
            gr.Warning(html.escape(str(error)), title="Not done")
            return gr.skip()

    return call
