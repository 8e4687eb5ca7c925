"""The mark of tests that open a browser: skipped where there is none, except in CI, where they fail."""

import json
import os

import pytest

from timing.app_user import App
from timing.browser import CHROMIUM

NO_BROWSER = CHROMIUM is None and not os.environ.get("CI")
HOW_TO_GET_ONE = "no Chromium on this machine: apt-get install chromium"
needs_browser = pytest.mark.skipif(NO_BROWSER, reason=HOW_TO_GET_ONE)


def steps(app: App) -> list[str]:
    """The names of the steps that are done, as the file of the app's project has them."""
    content = json.loads((app.out / "app" / "project.json").read_text())
    return [step["name"] for step in content["steps"][: content["done"]]]
