"""A limit on the time of each attack: what hangs in C cannot be interrupted, so its process ends."""

import faulthandler
from collections.abc import Iterator

import pytest

#: Seconds that a test may take.
LIMIT = 120


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """End the process with a traceback if a test takes too long."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
