"""The page of the app, and its server. Photos are on the left, the open photo in the middle, classes on the right."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import getproxies, proxy_bypass

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.types import ASGIApp

from no_time_to_train.data.label_files import FORMATS
from no_time_to_train.errors import UserError, one_line
from no_time_to_train.files import real_path
from no_time_to_train_extras.app.actions import Actions, guarded
from no_time_to_train_extras.app.endpoints import Blocks, Endpoints
from no_time_to_train_extras.app.exports import Exports
from no_time_to_train_extras.app.guarded_app import API, THUMBNAILS, GuardedApp
from no_time_to_train_extras.app.lists import ORDERS, ClassThreshold, Lists, Shelf
from no_time_to_train_extras.app.photos import UPLOADS, Thumbnails
from no_time_to_train_extras.app.view import View
from no_time_to_train_extras.app.workspace import SLIDER_STEP, Workspace
from no_time_to_train_extras.server.request_parts import guard_clients

#: Seconds between two looks at the progress of the search.
EVERY = 1.0

#: What stands above the slider of a class, by the origin of its score.
ORIGINS = {"automatic": "{}: automatic", "chosen": "{}: chosen", "default": "{}"}

#: What stands below the sliders where a class has the default.
MORE = "<p class='hint'>A class gets an automatic score once it was shown in two photos that find each other.</p>"

#: The largest file that can be uploaded.
LARGEST_UPLOAD = "50mb"

#: Fonts of the system: the page loads nothing from elsewhere.
FONTS = ["system-ui", "sans-serif"]

TEMPLATES = Path(__file__).parent / "templates"


class Page:
    """Builds the page."""

    def __init__(self, workspace: Workspace, out: Path, folder: Path) -> None:
        self.workspace = workspace
        exports = Exports(workspace, out)
        self.endpoints = Endpoints(workspace, exports)
        lists = Lists(workspace, Thumbnails(Path(get_upload_folder()) / THUMBNAILS, workspace.photos))
        self.actions = Actions(workspace, lists, exports, folder / UPLOADS)

    def build(self) -> Blocks:
        """The page, to be launched."""
        with Blocks(title="No Time To Train", analytics_enabled=False, fill_width=True) as page:
            self.view, self.shelf, self.scores = gr.State(View()), gr.State(Shelf()), gr.State([])
            with gr.Row(elem_id="columns"):
                with gr.Column(scale=1, min_width=250, elem_id="photos"):
                    self.build_photos()
                with gr.Column(scale=4, min_width=320, elem_id="middle"):
                    self.scene = gr.HTML(
                        html_template=(TEMPLATES / "photo.html").read_text(encoding="utf-8"),
                        js_on_load="noTimeToTrain.start(props, watch, (data) => trigger('act', data))",
                        apply_default_css=False,
                    )
                with gr.Column(scale=2, min_width=260, elem_id="side"):
                    self.build_side()
            self.timer = gr.Timer(EVERY)
            self.connect(page)
            page.endpoints = self.endpoints
            self.endpoints.add()
        return page

    def build_photos(self) -> None:
        """The list of photos."""
        self.sort = gr.Dropdown(list(ORDERS), value="name", label="Sort photos by", filterable=False, elem_id="sort")
        self.wanted = gr.Textbox(label="Name", placeholder="part of a name", elem_id="wanted")
        self.gallery = gr.HTML(apply_default_css=False, elem_id="gallery")
        with gr.Row(elem_id="pages"):
            self.back = gr.Button("Back", size="sm", min_width=40, visible=False, elem_id="back")
            self.range = gr.HTML(visible=False, elem_id="range")
            self.more = gr.Button("More", size="sm", min_width=40, visible=False, elem_id="more")
        self.upload = gr.UploadButton(
            "Add photos", file_count="multiple", file_types=["image"], size="sm", elem_id="upload"
        )

    def build_side(self) -> None:
        """Progress, classes and export."""
        self.progress = gr.HTML(elem_id="progress")
        self.stop = gr.Button("Stop", size="sm", elem_id="stop")
        self.table = gr.HTML(
            html_template="<div class='classes'></div>",
            js_on_load="noTimeToTrain.table(props, watch)",
            apply_default_css=False,
            elem_id="classes",
        )
        with gr.Accordion("Thresholds", open=True, elem_id="scores"):
            gr.render(inputs=self.scores)(self.build_sliders)
        with gr.Accordion("Export", open=False):
            self.formats = gr.CheckboxGroup(list(FORMATS), label="Label files as well", elem_id="formats")
            with gr.Row():
                self.export = gr.Button("Export", min_width=90, elem_id="export")
                self.pack = gr.Button("Download", min_width=90, elem_id="download")
            self.exported = gr.HTML(elem_id="exported")
        gr.HTML((TEMPLATES / "keys.html").read_text(encoding="utf-8"))

    def build_sliders(self, scores: list[ClassThreshold]) -> None:
        """One slider per class, and a button that gives it back its automatic value."""
        if not scores:
            gr.HTML("<p class='hint'>Each class gets a slider here.</p>")
        for label, score, origin in scores:
            with gr.Row(elem_classes="score"):
                slider = gr.Slider(
                    0, 1, value=score, step=SLIDER_STEP, label=ORIGINS[origin].format(label), interactive=True,
                    buttons=[], min_width=140, scale=4, key=f"score {label}", preserved_by_key=[],
                )  # fmt: skip
                reset = gr.Button(
                    "Reset", size="sm", min_width=70, scale=0, visible=origin == "chosen", key=f"reset {label}",
                    preserved_by_key=[],
                )  # fmt: skip
            choose = partial(self.actions.set_threshold, label)
            self.on(slider.release, choose, slider)
            self.on(reset.click, choose)
        if any(score.origin == "default" for score in scores):
            gr.HTML(MORE)

    def on(
        self, event: Callable[..., Any], function: Callable[..., Any], *inputs: Any, outputs: Any = None, **more: Any
    ) -> Any:
        """Let a function follow an event; it takes the view and the values of the inputs."""
        return event(
            guarded(function),
            [self.view, *inputs],
            outputs or self.outputs,
            api_visibility="private",
            show_progress="hidden",
            **more,
        )

    def connect(self, page: gr.Blocks) -> None:
        """Say which function follows which event."""
        seen = [self.scene, self.table, self.progress, self.stop]
        self.outputs = [self.view, *seen]
        lists = [self.gallery, self.range, self.back, self.more, self.scores]
        on, do = self.on, self.actions
        on(page.load, do.load)
        on(self.timer.tick, do.tick, self.shelf, outputs=[*seen, *lists])
        # Nothing that a person does is dropped, and one follows the other.
        on(self.scene.act, do.act, self.shelf, trigger_mode="multiple", concurrency_limit=1)
        for event in (self.sort.change, self.wanted.change):
            on(event, do.sort, self.shelf, self.sort, self.wanted, outputs=lists, trigger_mode="always_last")
        on(self.back.click, partial(do.turn, by=-1), self.shelf, outputs=lists)
        on(self.more.click, partial(do.turn, by=1), self.shelf, outputs=lists)
        on(self.upload.upload, do.add_photos, self.upload)
        on(self.stop.click, do.stop_or_continue)
        on(self.export.click, do.write, self.formats, outputs=[self.exported])
        packed = on(self.pack.click, do.pack, self.formats, outputs=[self.exported])
        packed.then(None, js="() => document.querySelector('#exported a')?.click()", api_visibility="private")


def temporary_folder(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder of the one app that uses a folder; those of earlier ones, which were killed, are removed."""
    known = hashlib.sha256(f"{real_path(folder)} {folder.stat().st_ino}".encode(errors="surrogateescape")).hexdigest()
    prefix = f"no-time-to-train-{known[:16]}-"
    for old in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(old, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def serve(
    workspace: Workspace,
    out: Path,
    folder: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: tuple[str, str] | None = None,
    browser: bool = True,
    block: bool = True,
    api: ASGIApp | None = None,
) -> gr.Blocks:
    """Serve the app until Ctrl-C.

    Args:
        port: The port; None takes the first free one from 7860 on.
        api: What answers programs, see :class:`GuardedApp`.

    Returns:
        The page.
    """
    (folder / UPLOADS).mkdir(parents=True, exist_ok=True)
    place = temporary_folder(folder)
    os.environ["GRADIO_TEMP_DIR"] = place.name  # components read it as they are built
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(Path(place.name, "examples"))  # it would be in the current folder
    os.environ.pop("GRADIO_ALLOWED_PATHS", None)  # it would serve other files
    page = Page(workspace, out, folder).build()
    page.place = place  # as long as the page, and no longer than the process
    guard_clients()
    workspace.search.start()
    workspace.videos.start()
    script = (TEMPLATES / "app.js").read_text(encoding="utf-8")
    own = "localhost" if host == "0.0.0.0" else host
    if not proxy_bypass(own):  # Gradio asks its own server whether it has begun
        os.environ["no_proxy"] = ",".join([own, *filter(None, [getproxies().get("no")])])
    try:
        page.queue(default_concurrency_limit=8).launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            _app=GuardedApp(host, Path(place.name), page.endpoints.check, api),
            auth=auth,
            inbrowser=browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=False,
            footer_links=[],
            max_file_size=LARGEST_UPLOAD,
            theme=gr.themes.Default(font=FONTS, font_mono=FONTS),
            css=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
            head=f"<script>{script}</script>",
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
        )
    except Exception as error:  # no port is free, or Gradio cannot call its own server
        workspace.close()
        reason = f"{one_line(error)}; it must reach itself as {own}: check the hosts file"
        if "empty port" in str(error):  # another program was faster
            reason = "its port is in use: choose another --port"
        raise UserError(f"the app cannot start: {reason}") from error
    if block:
        programs = "" if api is None else f", and {API}/ there for programs"
        print(f"open {page.local_url} in a browser{programs}; Ctrl-C ends the app", flush=True)
        try:
            page.block_thread()
        finally:
            workspace.close()
            place.cleanup()
    return page
