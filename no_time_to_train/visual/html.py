"""HTML pages and texts from the jinja2 templates in ``visual/templates``.

Every page extends ``base.html``, which has the frame and the style that the pages share.
"""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.files import atomic_write

#: Every value is escaped where a template prints it; ``tojson`` makes JSON that is safe inside a script element.
TEMPLATES = Environment(
    loader=PackageLoader("no_time_to_train.visual"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


#: The same for plain text, where nothing is escaped.
TEXTS = TEMPLATES.overlay(autoescape=False)


def render_text(template: str, **values: Any) -> str:
    """Fill in a template of plain text, such as ``explain.txt``."""
    return TEXTS.get_template(template).render(values)


def render(template: str, **values: Any) -> str:
    """Fill in a template.

    Args:
        template: File name of the template, such as ``gallery.html``.

    Returns:
        The page. What UTF-8 cannot hold, bytes of a foreign file name, is a question mark in it.
    """
    return TEMPLATES.get_template(template).render(values).encode(errors="replace").decode()


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write the page that :func:`render` makes."""
    with atomic_write(path) as file:
        file.write(render(template, **values).encode())


def jpeg_base64(picture: NDArray[np.uint8]) -> str:
    """A picture, uint8 [H, W, 3] RGB, as a JPEG file in base64, which a page can contain."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()
