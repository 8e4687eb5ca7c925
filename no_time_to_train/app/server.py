"""Serve the app: on this computer only, unless the person says otherwise."""

import os
import shutil
import tempfile
from pathlib import Path

import gradio as gr

from no_time_to_train.app.page import TEMPLATES, THUMBNAILS, Page
from no_time_to_train.app.workspace import Workspace

#: The largest file that can be uploaded.
LARGEST_UPLOAD = "50mb"

#: Fonts of the system: the page loads nothing from elsewhere.
FONTS = ["system-ui", "sans-serif"]


def serve(
    workspace: Workspace,
    out: Path,
    folder: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: tuple[str, str] | None = None,
    browser: bool = True,
    block: bool = True,
) -> gr.Blocks:
    """Serve the app until Ctrl-C.

    Args:
        port: The port; None takes the first free one from 7860 on.

    Returns:
        The page.
    """
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="no-time-to-train-")  # components read it as they are built
    page = Page(workspace, out, folder).build()
    workspace.search.start()
    script = (TEMPLATES / "keys.js").read_text(encoding="utf-8")
    page.queue(default_concurrency_limit=8).launch(
        server_name=host,
        server_port=port,
        auth=auth,
        inbrowser=browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        footer_links=[],
        allowed_paths=[str((folder / THUMBNAILS).resolve())],
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
    if block:
        print(f"open {page.local_url} in a browser; Ctrl-C ends the app", flush=True)
        try:
            page.block_thread()
        finally:
            workspace.search.close()
            shutil.rmtree(os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
    return page
