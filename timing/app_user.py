"""The app as a process, and a simulated user: a browser that clicks on photos, names, corrects, and reads the page."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from timing.browser import CHROMIUM

#: Milliseconds after which the page must have answered, on a busy machine.
PATIENCE = 60_000

#: Seconds after which the app must have started, on a busy machine.
STARTING = 120


#: Whether the page shows what the server answered to all that was done.
ANSWERED = "() => noTimeToTrain.state.scene.number >= noTimeToTrain.state.sent"

#: The place of a pixel of the photo on the page; null while the photo is loaded.
PLACED = """([x, y]) => {
  const image = document.querySelector("#photo img"), place = image.getBoundingClientRect();
  if (!place.width || !image.complete || !image.naturalWidth) return null;
  const scale = place.width / noTimeToTrain.state.scene.width;
  return [place.x + (x + 0.5) * scale, place.y + (y + 0.5) * scale];
}"""

#: Whether the page shows something that was found at a pixel of the photo.
FOUND = (
    "([x, y]) => { const at = ("
    + PLACED
    + ")([x, y]); return at && document.elementFromPoint(...at)?.closest('.item') != null; }"
)


def inside(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """(x, y) of the pixel of a mask that is farthest from its outline: where a person clicks."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float(x - 1), float(y - 1)


def heed_interrupts() -> None:
    """Let SIGINT end this process: a shell that starts jobs in the background lets them ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class App:
    """The app as a process, as a user starts it; a context that ends it.

    Args:
        images: The folder of photos.
        out: The folder of the project; what the process prints goes to a file next to it.
        options: Further options of the command.

    Raises:
        RuntimeError: It ended, or did not start in time.
    """

    def __init__(self, images: Path, out: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.out, self.url, self.log = out, f"http://127.0.0.1:{port}/", out.parent / f"{port}.log"
        words = ["app", "--nano", "--images", str(images), "--out", str(out), "--no-browser", "--port", str(port)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "no_time_to_train", *words, *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                preexec_fn=heed_interrupts,
            )
        deadline = time.monotonic() + STARTING
        while "in a browser" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end(signal.SIGKILL)
                raise RuntimeError(f"the app did not start: {self.log.read_text()}")
            time.sleep(0.2)

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end()

    def end(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the process, in any case after a minute."""
        self.process.send_signal(how)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class User:
    """A person in front of the app.

    Args:
        page: A page of playwright.
        url: The address of the app.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self.elsewhere: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("response", lambda one: self.problems.append(f"{one.status} {one.url}") if one.status >= 400 else None)
        page.on("request", lambda one: self.elsewhere.append(one.url) if is_elsewhere(one.url, url) else None)
        page.goto(url)
        page.locator("#photo img").wait_for()

    @property
    def title(self) -> str:
        """What stands above the photo; the page may be drawing it again."""
        self.page.locator("#title b").wait_for()
        return str(self.page.locator("#title").inner_text())

    def wait_for(self, selector: str, text: str) -> None:
        """Wait until an element says something."""
        self.page.locator(selector).filter(has_text=text).first.wait_for()

    def answered(self) -> None:
        """Wait until all that was done is answered."""
        self.page.wait_for_function(ANSWERED)

    def open(self, name: str) -> None:
        """Open a photo by its thumbnail."""
        self.page.locator("#gallery button", has_text=name).first.click()
        self.answered()
        self.page.locator("#title").filter(has_text=name).wait_for()

    def click(self, x: float, y: float) -> None:
        """Click on a pixel of the open photo."""
        self.page.mouse.click(*self.page.wait_for_function(PLACED, arg=[x, y]).json_value())

    def begin(self, x: float, y: float) -> None:
        """Click where nothing was found, so that an object is being shown."""
        self.page.wait_for_function(f"place => !({FOUND})(place)", arg=[x, y])
        self.click(x, y)
        self.page.locator("#save").wait_for(state="visible")
        self.answered()

    def name(self, field: str, label: str) -> None:
        """Type the name of a class: in the field ``label`` of a new object, or ``other`` of what was found."""
        self.page.locator(f"#{field} input").fill(label)
        self.page.keyboard.press("Tab")

    def save(self, label: str) -> None:
        """Name the object that is being shown, and save it."""
        self.name("label", label)
        self.press("save")

    def choose_mask(self, share: float) -> None:
        """Choose of several masks the one that covers most nearly this share of the photo."""
        choices = self.page.locator("#choice button")
        shares = [float(text.split("%")[0]) / 100 for text in choices.all_inner_texts()]
        if shares:
            choices.nth(min(range(len(shares)), key=lambda number: abs(shares[number] - share))).click()
            self.answered()

    def draw_box(self, left: float, top: float, right: float, bottom: float) -> None:
        """Give the object that is being shown by a box instead: two of its corners, in pixels."""
        self.page.locator("#click label", has_text="box").click()
        for x, y in ((left, top), (right, bottom)):
            self.click(x, y)
        self.answered()

    def show(self, x: float, y: float, label: str) -> None:
        """Show an object by one click."""
        self.begin(x, y)
        self.save(label)

    def select(self, x: float, y: float) -> None:
        """Click on something that was found, once the page shows it."""
        self.page.wait_for_function(FOUND, arg=[x, y])
        self.click(x, y)
        self.page.locator("#right").wait_for(state="visible", timeout=PATIENCE / 2)

    def press(self, button: str) -> None:
        """Press one of the buttons below the photo, and wait until nothing is selected or being shown."""
        self.page.locator(f"#{button}").click()
        self.answered()
        for other in ("#right", "#save"):
            self.page.locator(other).wait_for(state="hidden")


@contextmanager
def browser_page(width: int = 1400, height: int = 950, **options: Any) -> Iterator[Any]:
    """A page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser.new_page(viewport={"width": width, "height": height}, **options)
        finally:
            browser.close()


def is_elsewhere(address: str, url: str) -> bool:
    """Whether an address is not that of the app."""
    return not address.startswith((url, "data:", "blob:"))


def post(url: str, endpoint: str, data: list[Any], headers: Mapping[str, str] | None = None) -> str:
    """Call an endpoint as curl does: post, and then read the answer's stream."""
    body = json.dumps({"data": data}).encode()
    place = f"{url}gradio_api/call/{endpoint}"
    request = urllib.request.Request(place, body, {"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{place}/{event}") as stream:
        return str(stream.read().decode())


def ask(url: str, endpoint: str, *data: Any) -> Any:
    """The answer of an endpoint.

    Raises:
        RuntimeError: It is an error.
    """
    answer = post(url, endpoint, list(data))
    if "event: complete" not in answer:
        raise RuntimeError(f"{endpoint}: {answer}")
    return json.loads(answer.rsplit("data: ", 1)[1])[0]
