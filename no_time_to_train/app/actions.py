"""What the page does when a person clicks: one call of :class:`Workspace`, and the components that show its result."""

import html
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from no_time_to_train.app.lists import AT_ONCE, Lists, Shelf
from no_time_to_train.app.photos import UPLOADS, store_upload
from no_time_to_train.app.view import View, count_text, describe, draw, same, scale_of
from no_time_to_train.app.workspace import Workspace
from no_time_to_train.data.prompts import check_label
from no_time_to_train.errors import UserError, plural
from no_time_to_train.pipeline.summary import Summary

#: What a click on the photo does while an object is shown.
ADD, TAKE, BOX = "add to the object", "take away", "box: two corners"


class Actions:
    """The functions behind the page. Each takes what the browser shows, and returns components."""

    def __init__(self, workspace: Workspace, lists: Lists, out: Path, uploads: Path) -> None:
        self.workspace, self.lists, self.out, self.uploads = workspace, lists, out, uploads

    # What the page shows.

    def show(self, view: View) -> list[Any]:
        """All components but the lists, after anything has changed."""
        workspace, project = self.workspace, self.workspace.project
        picture, title = None, "<p class='hint'>There is no photo here yet: add some.</p>"
        if view.photo is not None:
            shown = workspace.shown(view.photo)
            view.items = shown.items
            view.selected = next((item for item in view.items if same(item, view.selected)), None)
            hint = "" if workspace.classes else "<span class='hint'>Click on an object that you want to find.</span>"
            try:
                picture = draw(workspace.opened.pixels(view.photo), view, workspace.classes)
            except UserError as error:  # the other photos can be opened
                hint = f"<span class='hint'>{html.escape(str(error))}</span>"
            title = f"<b>{html.escape(view.photo)}</b> {html.escape(count_text(shown.counts))}{hint}"
        masks = [] if view.masks is None else list(view.masks)
        choices = [(f"{mask.mean():.1%}", index) for index, mask in enumerate(masks)]
        undo, redo = project.next_undo, project.next_redo
        return [
            view,
            title,
            picture,
            gr.update(visible=view.drafting),
            gr.update(choices=choices, value=view.chosen if choices else None, visible=len(choices) > 1),
            gr.update(choices=workspace.classes),
            gr.update(visible=view.selected is not None),
            "" if view.selected is None else f"<p>{html.escape(describe(view.selected))}</p>",
            gr.update(choices=workspace.classes, value=None),
            gr.update(interactive=undo is not None, value=f"Undo {undo}" if undo else "Undo"),
            gr.update(interactive=redo is not None, value=f"Redo {redo}" if redo else "Redo"),
            self.lists.class_table(),
            *self.lists.search_state(),
        ]

    def tick(self, view: View, shelf: Shelf) -> list[Any]:
        """Follow the search; nothing is sent where nothing has changed.

        The photo is drawn again only where something else is found in it, and once after each click: a tick that began
        before the click may be answered after it, with another photo. The view is no output, for the same reason.
        """
        state = self.workspace.state
        if state == view.state:
            return [*[gr.skip()] * 5, *self.lists.update(shelf, view.photo)]
        new = view.photo is not None and (view.state is None or self.workspace.items(view.photo) != view.items)
        shown = self.show(view)[1:3] if new else [gr.skip()] * 2
        view.state = state
        return [*shown, self.lists.class_table(), *self.lists.search_state(), *self.lists.update(shelf, view.photo)]

    def load(self, view: View) -> list[Any]:
        """Open the first photo."""
        return self.open(next(iter(self.workspace.ordered("name")), None))

    def open(self, name: str | None) -> list[Any]:
        """Open a photo."""
        if name is not None:
            self.workspace.search.open(name)
        return self.show(View(name))

    # Choosing a photo.

    def sort(self, view: View, shelf: Shelf, order: str) -> list[Any]:
        """Sort the photos, and show the first ones."""
        shelf.sort, shelf.first, shelf.photo = order, 0, view.photo
        return self.lists.update(shelf, view.photo)

    def turn(self, view: View, shelf: Shelf, by: int) -> list[Any]:
        """Show the next photos of the list, or those before."""
        shelf.first, shelf.photo = max(shelf.first + by * AT_ONCE, 0), view.photo
        return self.lists.update(shelf, view.photo)

    def choose_photo(self, view: View, shelf: Shelf, event: gr.SelectData) -> list[Any]:
        """Open the photo that was clicked on."""
        return self.open(shelf.names[shelf.first + event.index])

    def step(self, view: View, shelf: Shelf, by: int) -> list[Any]:
        """Open the next photo, or the one before."""
        if not shelf.names:
            return self.show(view)
        place = shelf.names.index(view.photo) if view.photo in shelf.names else 0
        return self.open(shelf.names[(place + by) % len(shelf.names)])

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
        return self.show(view) if first is None else self.open(first)

    # Showing and judging objects.

    def clicked(self, view: View, click: str, event: gr.SelectData) -> list[Any]:
        """A click on the photo selects what is found there, or shows an object."""
        if view.photo is None:
            return self.show(view)
        height, width = self.workspace.opened.pixels(view.photo).shape[:2]
        scale = scale_of(height, width)
        x, y = (
            min(max(int(place / scale), 0), side - 1) for place, side in zip(event.index, (width, height), strict=True)
        )
        if not view.drafting and (item := self.workspace.item_at(view.photo, x, y)) is not None:
            return self.show(View(view.photo, selected=item, clicked=(x, y)))
        photo, drafting = view.photo, view.drafting
        view = View(photo, None, list(view.points), list(view.negative_points), view.corner, view.box)
        if drafting and click == BOX:
            if view.corner is None:
                view.corner = x, y
                return self.show(view)
            (left, right), (top, bottom) = sorted((view.corner[0], x)), sorted((view.corner[1], y))
            view.box, view.corner, view.points, view.negative_points = (left, top, right + 1, bottom + 1), None, [], []
        elif drafting and click == TAKE:
            view.negative_points.append((x, y))
        else:
            view.points.append((x, y))
        view.masks = self.workspace.opened.masks(photo, view.points, view.negative_points, view.box)
        return self.show(view)

    def choose_mask(self, view: View, index: int) -> list[Any]:
        """Choose one of three masks."""
        view.chosen = index
        return self.show(view)

    def outline(self, view: View) -> list[Any]:
        """Show the object where something was found: its mask may be bad, or may hide another object."""
        if view.photo is None or view.clicked is None:
            return self.show(view)
        masks = self.workspace.opened.masks(view.photo, [view.clicked])
        return self.show(View(view.photo, points=[view.clicked], masks=masks))

    def save_draft(self, view: View, label: str | None) -> list[Any]:
        """Make the object a reference."""
        if view.photo is None or view.mask is None:
            return self.show(view)
        if not label:
            raise UserError("what is it? Choose a class, or type the name of a new one")
        self.workspace.show(view.photo, view.mask, check_label(label))
        return self.show(View(view.photo))

    def judge(self, view: View, verdict: str, *label: str) -> list[Any]:
        """Say what the selected object is."""
        if view.photo is not None and view.selected is not None:
            getattr(self.workspace, verdict)(view.photo, view.selected, *label)
        return self.show(View(view.photo))

    def step_back(self, view: View, way: str) -> list[Any]:
        """Undo or redo."""
        getattr(self.workspace, way)()
        return self.show(View(view.photo))

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
        summary = exported(self.workspace.export(self.out, formats))
        return [f"<p>{html.escape(summary)}</p><p>In <code>{html.escape(str(self.out.resolve()))}</code></p>"]


def exported(summary: Summary) -> str:
    """What was exported, and which photos were not."""
    left_out = [f"{plural(len(summary.skipped), 'photo')} left out"] if summary.skipped else []
    return "; ".join([str(summary), *left_out, *summary.skipped])


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
