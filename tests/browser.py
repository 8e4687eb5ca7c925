"""The mark of tests that open a browser: skipped where there is none, except in CI, where they fail."""

import os

import pytest

from timing.browser import CHROMIUM

needs_browser = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium on this machine: apt-get install chromium"
)
