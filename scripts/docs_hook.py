"""Hook of mkdocs: what the pages, which are written for readers of the repository, need as a site.

Links to files outside ``docs/`` lead to the repository where ``repo_url`` of ``mkdocs.yml`` says where it is, and are
plain text otherwise; each of these files must exist. Equations become MathML, which browsers show without a script.
"""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert  # type: ignore[import-not-found]  # in the environment of "make docs" only
from mkdocs.exceptions import PluginError  # type: ignore[import-not-found]  # in the environment of "make docs" only

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Rewrite the links to files outside ``docs/``."""

    def outside(link: re.Match[str]) -> str:
        text, path, anchor = link["text"], link["path"], link["anchor"] or ""
        if not (ROOT / path).exists():
            raise PluginError(f"{page.file.src_path} links to ../{path}, which does not exist")
        return f"[{text}]({config.repo_url}/blob/main/{path}{anchor})" if config.repo_url else text

    return re.sub(r"\[(?P<text>[^\]]*)\]\(\.\./(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)", outside, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Make MathML of the equations, which arithmatex has marked."""

    def math(marked: re.Match[str]) -> str:
        display = "block" if marked["open"] == r"\[" else "inline"
        return convert(html.unescape(marked["tex"]), display=display)

    pattern = r'<(?P<tag>span|div) class="arithmatex">(?P<open>\\[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>'
    return re.sub(pattern, math, content, flags=re.DOTALL)
