"""The app's page: photos on the left, the open photo in the middle, classes and results on the right.

Every function here turns what the browser says into one call of :class:`Workspace`, and its state into components.
"""

import html
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.app.corrections import Item
from no_time_to_train.app.endpoints import Endpoints
from no_time_to_train.app.export import export
from no_time_to_train.app.photos import UPLOADS, store_upload
from no_time_to_train.app.picture import draw, scale_of, write_thumbnail
from no_time_to_train.app.workspace import Workspace
from no_time_to_train.data.prompts import check_label
from no_time_to_train.errors import UserError, plural
from no_time_to_train.visual.drawing import PALETTE

#: What a click on the photo does while an object is shown.
ADD, TAKE, BOX = "add to the object", "take away", "box: two corners"

#: Orders of the photos, by their names on the page.
ORDERS = {"name": "name", "most objects": "count", "most doubtful": "doubt"}

#: Seconds between two looks at the progress of the search.
EVERY = 1.0

#: The folder of the thumbnails.
THUMBNAILS = "thumbnails"

#: Formats of the export besides COCO, CSV, masks, the gallery and the memory, which are always written.
FORMATS = ("labelme", "yolo", "cvat-coco")

TEMPLATES = Path(__file__).parent / "templates"


@dataclass
class View:
    """What one browser shows.

    Attributes:
        photo: The open photo.
        selected: The object that was clicked on.
        points: Clicks on an object that is being shown, (x, y) in pixels of the photo.
        negative_points: Clicks next to it.
        corner: The first corner of a box.
        box: The box, x1, y1, x2, y2 in pixels.
        masks: The masks to choose from, bool [n, H, W]; None where no object is being shown.
        chosen: The number of the chosen one.
        items: The objects that are drawn.
    """

    photo: str | None = None
    selected: Item | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    negative_points: list[tuple[float, float]] = field(default_factory=list)
    corner: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    masks: NDArray[np.bool_] | None = None
    chosen: int = 0
    items: list[Item] = field(default_factory=list)

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the object that is being shown."""
        return None if self.masks is None else self.masks[self.chosen]

    def only_photo(self, photo: str | None = None) -> "View":
        """The same or another photo, with nothing selected or begun."""
        return View(photo or self.photo)


class Page:
    """Builds the page.

    Args:
        workspace: The photos.
        out: The folder of exports.
        folder: The folder of the app's own files.
    """

    def __init__(self, workspace: Workspace, out: Path, folder: Path) -> None:
        self.workspace, self.out = workspace, out
        self.thumbnails, self.uploads = folder / THUMBNAILS, folder / UPLOADS
        for place in (self.thumbnails, self.uploads):  # Gradio serves files from folders that exist when it starts
            place.mkdir(parents=True, exist_ok=True)

    def build(self) -> gr.Blocks:
        """The page, to be launched."""
        with gr.Blocks(title="No Time To Train", analytics_enabled=False, fill_width=True) as page:
            self.view, self.order = gr.State(View()), gr.State([])
            self.thresholds = gr.State([])
            with gr.Row(elem_id="columns"):
                with gr.Column(scale=1, min_width=220, elem_id="photos"):
                    self.sort = gr.Dropdown(list(ORDERS), value="name", label="Sort photos by", elem_id="sort")
                    self.gallery = gr.Gallery(
                        label="Photos", columns=2, height=640, allow_preview=False, interactive=False, buttons=[],
                        elem_id="gallery",
                    )  # fmt: skip
                    self.upload = gr.UploadButton(
                        "Add photos", file_count="multiple", file_types=["image"], size="sm", elem_id="upload"
                    )
                with gr.Column(scale=4, min_width=320):
                    self.title = gr.HTML(elem_id="title")
                    self.picture = gr.Image(
                        show_label=False, interactive=False, buttons=["fullscreen"], format="jpeg", elem_id="photo",
                        alt_text="the open photo; click on an object",
                    )  # fmt: skip
                    self.build_tools()
                with gr.Column(scale=2, min_width=260, elem_id="side"):
                    self.build_side()
            self.timer = gr.Timer(EVERY)
            self.connect(page)
            Endpoints(self.workspace, self.out).add()
        return page

    def build_tools(self) -> None:
        """The buttons below the photo."""
        with gr.Row():
            self.previous = gr.Button("Previous", size="sm", elem_id="previous")
            self.next = gr.Button("Next", size="sm", elem_id="next")
            self.undo = gr.Button("Undo", size="sm", elem_id="undo")
            self.redo = gr.Button("Redo", size="sm", elem_id="redo")
        with gr.Group(visible=False, elem_id="drafting") as self.drafting:
            with gr.Row():
                self.click = gr.Radio([ADD, TAKE, BOX], value=ADD, label="A click on the photo", elem_id="click")
                self.choice = gr.Radio([], label="Which of these?", elem_id="choice")
            with gr.Row():
                self.label = gr.Dropdown(
                    [], label="Name of the class", allow_custom_value=True, elem_id="label", info="choose or type one"
                )
                self.save = gr.Button("Save as a reference", variant="primary", elem_id="save")
                self.cancel = gr.Button("Cancel", elem_id="cancel")
        with gr.Group(visible=False, elem_id="judging") as self.judging:
            self.chosen = gr.HTML(elem_id="chosen")
            with gr.Row():
                self.right = gr.Button("Right", variant="primary", elem_id="right")
                self.wrong = gr.Button("Wrong", variant="stop", elem_id="wrong")
                self.remove = gr.Button("Remove", elem_id="remove")
            with gr.Row():
                self.other = gr.Dropdown([], label="It is a", allow_custom_value=True, elem_id="other")
                self.rename = gr.Button("Other class", elem_id="rename")

    def build_side(self) -> None:
        """Progress, classes and export."""
        self.progress = gr.HTML(elem_id="progress")
        self.stop = gr.Button("Stop", size="sm", elem_id="stop")
        self.table = gr.HTML(elem_id="classes")
        with gr.Accordion("Lowest scores", open=True):
            gr.render(inputs=self.thresholds)(self.build_sliders)
        with gr.Accordion("Export", open=False):
            self.formats = gr.CheckboxGroup(list(FORMATS), label="Label files as well", elem_id="formats")
            self.export = gr.Button("Export", elem_id="export")
            self.exported = gr.HTML(elem_id="exported")
        gr.HTML((TEMPLATES / "keys.html").read_text(encoding="utf-8"))

    def build_sliders(self, thresholds: list[tuple[str, float]]) -> None:
        """One slider per class."""
        if not thresholds:
            gr.HTML("<p class='hint'>Each class gets a slider here.</p>")
        for label, score in thresholds:
            slider = gr.Slider(0, 1, value=score, step=0.01, label=label, key=f"threshold {label}", interactive=True)

            def choose(view: View, score: float, label: str = label) -> list[Any]:
                self.workspace.set_threshold(label, score)
                return self.show(view)

            slider.release(self.guarded(choose), [self.view, slider], self.outputs, api_visibility="private")

    def connect(self, page: gr.Blocks) -> None:
        """Say which function follows which event."""
        self.outputs = [
            self.view, self.title, self.picture, self.drafting, self.choice, self.label, self.judging, self.chosen,
            self.other, self.undo, self.redo, self.table, self.progress, self.stop,
        ]  # fmt: skip
        lists = [self.gallery, self.order, self.thresholds]

        def on(event: Callable[..., Any], function: Callable[..., Any], *inputs: Any, outputs: Any = None) -> None:
            outputs = outputs or self.outputs
            event(
                self.guarded(function), [self.view, *inputs], outputs, api_visibility="private", show_progress="hidden"
            )

        on(page.load, self.load)
        on(page.load, self.lists, self.sort, self.order, self.thresholds, outputs=lists)
        seen = [self.title, self.picture, self.table, self.progress, self.stop]
        on(self.timer.tick, self.tick, outputs=seen)
        on(self.timer.tick, self.lists, self.sort, self.order, self.thresholds, outputs=lists)
        on(self.sort.change, self.lists, self.sort, self.order, self.thresholds, outputs=lists)
        on(self.upload.upload, self.add_photos, self.upload)
        on(self.gallery.select, self.choose_photo, self.order)
        on(self.previous.click, lambda view, order: self.step(view, order, -1), self.order)
        on(self.next.click, lambda view, order: self.step(view, order, 1), self.order)
        on(self.picture.select, self.clicked, self.click)
        on(self.choice.input, self.choose_mask, self.choice)
        on(self.save.click, self.save_draft, self.label)
        on(self.cancel.click, lambda view: self.show(view.only_photo()))
        for button, verdict in ((self.right, "right"), (self.wrong, "wrong"), (self.remove, "remove")):
            on(button.click, lambda view, verdict=verdict: self.judge(view, verdict))
        on(self.rename.click, lambda view, label: self.judge(view, "rename", check_label(label)), self.other)
        on(self.undo.click, lambda view: self.step_back(view, "undo"))
        on(self.redo.click, lambda view: self.step_back(view, "redo"))
        on(self.stop.click, self.stop_or_continue)
        on(self.export.click, self.write, self.formats, outputs=[self.exported])

    def guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, which says a user's mistake in one line and changes nothing then."""

        @wraps(function)
        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except UserError as error:
                gr.Warning(html.escape(str(error)), title="")
                return gr.skip()

        return call

    # What the page shows.

    def show(self, view: View) -> list[Any]:
        """All components, after anything has changed."""
        workspace, project = self.workspace, self.workspace.project
        picture, title = None, "<p class='hint'>There is no photo here yet.</p>"
        if view.photo is not None:
            view.items = items = workspace.items(view.photo)
            view.selected = next((item for item in items if same(item, view.selected)), None)
            places = [*view.points, *([view.corner] if view.corner else [])]
            pixels = workspace.pixels(view.photo)
            picture = draw(pixels, items, workspace.classes, view.selected, view.mask, places, view.negative_points)
            hint = "" if workspace.classes else " <span class='hint'>Click on an object that you want to find.</span>"
            title = f"<b>{html.escape(view.photo)}</b> {html.escape(count(items))}{hint}"
        drafting = view.masks is not None or view.corner is not None
        masks = [] if view.masks is None else list(view.masks)
        choices = [(f"{mask.mean():.1%} of the photo", index) for index, mask in enumerate(masks)]
        undo, redo = project.next_undo, project.next_redo
        return [
            view,
            title,
            picture,
            gr.update(visible=drafting),
            gr.update(choices=choices, value=view.chosen if choices else None, visible=len(choices) > 1),
            gr.update(choices=workspace.classes),
            gr.update(visible=view.selected is not None),
            "" if view.selected is None else f"<p>{html.escape(describe(view.selected))}</p>",
            gr.update(choices=workspace.classes, value=None),
            gr.update(interactive=undo is not None, value=f"Undo {undo}" if undo else "Undo"),
            gr.update(interactive=redo is not None, value=f"Redo {redo}" if redo else "Redo"),
            self.class_table(),
            *self.search_state(),
        ]

    def class_table(self) -> str:
        """The number of objects of each class, in all photos."""
        workspace = self.workspace
        counts: Counter[str] = sum(workspace.counts().values(), Counter())
        if not workspace.classes:
            return "<p class='hint'>No class yet. Click on an object, name it, and every one like it is found.</p>"
        rows = ""
        for number, label in enumerate(workspace.classes):
            color = PALETTE.by_idx(number).as_hex()
            rows += f"<tr><td><i style='background:{color}'></i>{html.escape(label)}</td><td>{counts[label]}</td></tr>"
        return f"<table><tr><th>class</th><th>objects</th></tr>{rows}</table>"

    def search_state(self) -> list[Any]:
        """The progress, and the button that stops the search."""
        progress = self.workspace.progress()
        done = f"{progress.ranked} of {plural(progress.photos, 'photo')} searched"
        left = progress.seconds_left
        if not progress.done and left:
            done += f", {f'{left / 60:.0f} minutes' if left > 90 else f'{left:.0f} seconds'} left"
        share = progress.ranked / max(progress.photos, 1)
        problems = [f"<p>{html.escape(one.problem)}</p>" for one in self.workspace.photos.values() if one.problem]
        bar = f"<div class='bar'><div style='width:{share:.0%}'></div></div><p>{done}</p>{''.join(problems[:3])}"
        button = gr.update(value="Stop" if progress.running else "Continue", interactive=not progress.done)
        return [bar, button]

    def lists(self, view: View, sort: str, order: list[Any], thresholds: list[Any]) -> list[Any]:
        """The photos with their numbers of objects, and the classes with their thresholds, where they have changed."""
        workspace = self.workspace
        counts = workspace.counts()
        new = [(name, count_text(counts[name])) for name in workspace.ordered(ORDERS[sort])]
        scores = [(label, workspace.thresholds.of(label)) for label in workspace.classes]
        photos: Any = gr.skip()
        if new != order:
            photos = [(str(self.thumbnail(name)), f"{name} {text}") for name, text in new]
        return [photos, new if new != order else gr.skip(), scores if scores != thresholds else gr.skip()]

    def thumbnail(self, name: str) -> Path:
        """The file of a photo's thumbnail, which is written where it is missing."""
        target = self.workspace.photos[name].target
        path = self.thumbnails / f"{target.stem}.jpg"
        if not path.exists():
            write_thumbnail(self.workspace.pixels(name), path)
        return path

    # What a person does.

    def load(self, view: View) -> list[Any]:
        """Open the first photo."""
        return self.open(next(iter(self.workspace.ordered("name")), None))

    def open(self, name: str | None) -> list[Any]:
        """Open a photo."""
        if name is not None:
            self.workspace.open(name)
        return self.show(View(name))

    def tick(self, view: View) -> list[Any]:
        """Follow the search; the photo is drawn again only where something else is found in it.

        The view is no output: a click may have replaced it meanwhile.
        """
        new = view.photo is not None and self.workspace.items(view.photo) != view.items
        shown = self.show(view)[1:3] if new else [gr.skip()] * 2
        return [*shown, self.class_table(), *self.search_state()]

    def add_photos(self, view: View, files: list[str]) -> list[Any]:
        """Add uploaded photos, and open the first of them."""
        first, problems = None, []
        for file in files:
            try:
                target = store_upload(Path(file), self.uploads)
            except UserError as error:
                problems.append(str(error).replace(file, Path(file).name))
                continue
            self.workspace.add_photo(target)
            first = first or target.name
        if problems:
            gr.Warning(html.escape("; ".join(problems)), title="")
        return self.show(view) if first is None else self.open(first)

    def choose_photo(self, view: View, order: list[Any], event: gr.SelectData) -> list[Any]:
        """Open the photo that was clicked on."""
        return self.open(order[event.index][0])

    def step(self, view: View, order: list[Any], by: int) -> list[Any]:
        """Open the next photo, or the one before."""
        names = [name for name, _ in order]
        if not names:
            return self.show(view)
        place = names.index(view.photo) if view.photo in names else 0
        return self.open(names[(place + by) % len(names)])

    def clicked(self, view: View, click: str, event: gr.SelectData) -> list[Any]:
        """A click on the photo selects what is found there, or shows an object."""
        if view.photo is None:
            return self.show(view)
        height, width = self.workspace.pixels(view.photo).shape[:2]
        scale = scale_of(height, width)
        x, y = (
            min(max(int(place / scale), 0), side - 1) for place, side in zip(event.index, (width, height), strict=True)
        )
        drafting = view.masks is not None or view.corner is not None
        if not drafting and (item := self.workspace.item_at(view.photo, x, y)) is not None:
            return self.show(View(view.photo, selected=item))
        photo = view.photo
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
        view.masks = self.workspace.masks(photo, view.points, view.negative_points, view.box)
        return self.show(view)

    def choose_mask(self, view: View, index: int) -> list[Any]:
        """Choose one of three masks."""
        view.chosen = index
        return self.show(view)

    def save_draft(self, view: View, label: str | None) -> list[Any]:
        """Make the object a reference."""
        if view.photo is None or view.mask is None:
            return self.show(view)
        if not label:
            raise UserError("what is it? Choose a class, or type the name of a new one")
        self.workspace.show(view.photo, view.mask, check_label(label))
        return self.show(view.only_photo())

    def judge(self, view: View, verdict: str, *label: str) -> list[Any]:
        """Say what the selected object is."""
        if view.photo is not None and view.selected is not None:
            getattr(self.workspace, verdict)(view.photo, view.selected, *label)
        return self.show(view.only_photo())

    def step_back(self, view: View, way: str) -> list[Any]:
        """Undo or redo."""
        getattr(self.workspace, way)()
        return self.show(view.only_photo())

    def stop_or_continue(self, view: View) -> list[Any]:
        """Stop the search, or let it continue."""
        self.workspace.run(not self.workspace.progress().running)
        return self.show(view)

    def write(self, view: View, formats: list[str]) -> list[Any]:
        """Export."""
        summary = export(self.workspace, self.out, formats)
        return [f"<p>{html.escape(str(summary))}: {html.escape(str(self.out))}</p>"]


def same(item: Item, other: Item | None) -> bool:
    """Whether two items are the same object of the same class."""
    return other is not None and (item.label, item.mask) == (other.label, other.mask)


def describe(item: Item) -> str:
    """An item in words."""
    return f"{item.label}, confirmed" if item.confirmed else f"{item.label}, score {item.score:.2f}: is it right?"


def count(items: list[Item]) -> str:
    """How many objects of each class there are, in words."""
    return count_text(Counter(item.label for item in items))


def count_text(counts: Counter[str]) -> str:
    """Counts in words, such as "3 boat, 1 gull"."""
    return ", ".join(f"{number} {label}" for label, number in counts.most_common())
