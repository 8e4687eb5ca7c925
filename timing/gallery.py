"""How fast the gallery opens and filters in Chromium: ``python -m timing.gallery``, from the repository."""

import argparse
import statistics
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from no_time_to_train.data.instances import Instances
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.visual.gallery import Gallery
from timing.browser import Browser

#: Moves the slider through STEPS values, and returns the milliseconds that each took: script and layout.
DRAG = """(async () => {
  const slider = document.querySelector("#threshold input"), spent = [];
  for (let step = 0; step < STEPS; step++) {
    const start = performance.now();
    slider.value = 0.1 + 0.8 * step / STEPS;
    slider.dispatchEvent(new Event("input"));
    document.body.offsetHeight;
    spent.push(performance.now() - start);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  }
  return spent;
})()"""


def write_gallery(out: Path, images: int, instances: int, classes: int = 8) -> Path:
    """Write a gallery of drawn images.

    Args:
        out: Its folder.
        images: Number of images.
        instances: Instances per image.
        classes: Number of classes.

    Returns:
        The page.
    """
    rng = np.random.default_rng(0)
    categories = [Category(index + 1, f"class {index + 1}") for index in range(classes)]
    gallery = Gallery(out, MemoryBank.empty(categories, 1))
    for number in range(images):
        image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        masks = np.zeros((instances, 480, 640), np.uint8)
        for mask in masks:
            (x, y), axes, angle = (
                rng.integers(60, 420, 2).tolist(),
                rng.integers(10, 60, 2).tolist(),
                rng.uniform(0, 180),
            )
            cv2.ellipse(mask, (x, y), axes, angle, 0, 360, 1, -1)
        boxes = [[*np.argwhere(m.T).min(axis=0), *np.argwhere(m.T).max(axis=0)] for m in masks]
        detections = Detections(
            Masks.pack(masks.astype(bool)),
            torch.tensor(np.array(boxes)),
            torch.from_numpy(np.sort(rng.random(instances, np.float32))[::-1].copy()),
            torch.from_numpy(rng.integers(0, classes, instances)),
        )
        gallery.add(f"{number}.png", f"overlays/{number}.jpg", Instances(np.asarray(image), categories, detections))
    gallery.finish(f"{images} images", "no-time-to-train results filter out/")
    return out / "index.html"


def measure(browser: Browser, page: Path, steps: int = 80) -> tuple[float, list[float]]:
    """Open a gallery and move its slider.

    Args:
        browser: The browser; its window has the size to measure.
        page: The page.
        steps: How often the slider moves, from 0.1 to 0.9.

    Returns:
        Milliseconds until the first outlines are drawn, and those of each move of the slider.
    """
    browser.open(page)
    return browser.run("performance.now()"), browser.run(DRAG.replace("STEPS", str(steps)))


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=10, help="per image")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = write_gallery(Path(folder) / "out", arguments.images, arguments.instances)
        print(
            f"{arguments.images} images of {arguments.instances} instances, page of {page.stat().st_size / 1e6:.1f} MB"
        )
        browser = Browser(Path(folder) / "profile")
        for width, height in ((390, 844), (1280, 900), (2560, 1440)):
            browser.resize(width, height)
            opened, moves = measure(browser, page)
            print(
                f"{width} x {height}: open in {opened:.0f} ms; a move of the slider takes "
                f"{statistics.median(moves):.1f} ms in the median, {max(moves):.1f} ms at most"
            )
        browser.close()


if __name__ == "__main__":
    main()
