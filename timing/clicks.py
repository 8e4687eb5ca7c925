"""How long a person waits in the app for the answer to a click: ``python -m timing.clicks``, from the repository.

The functions of the page are called as Gradio calls them, so that everything counts but the way to the browser and
back: the first click on a photo, which encodes it, each further click, and the outlines that show the masks. The
networks of the preset ``fast`` have seeded weights; their masks mean nothing, and take as long as others. Then photos
of drawn scenes are searched with the nano networks, an object is shown, and the time until all of them are ranked again
is measured, and that until the automatic lowest scores are there.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import read_coco
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene, write_coco
from no_time_to_train.errors import UserError
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import Settings
from no_time_to_train.networks.box_prompts import Sam2Boxes
from no_time_to_train.networks.build import build_sam2, build_vit
from no_time_to_train.networks.registry import DINOV2_NAMES, PRESETS, SAM2_NAMES, encoder_input_size
from no_time_to_train_extras.app.actions import Actions
from no_time_to_train_extras.app.exports import Exports
from no_time_to_train_extras.app.lists import Lists
from no_time_to_train_extras.app.photos import Thumbnails, find_photos
from no_time_to_train_extras.app.view import View
from no_time_to_train_extras.app.workspace import Workspace
from timing.stages import seeded

#: Heights and widths of the photos that are clicked on.
SIZES = ((427, 640), (3000, 4000))


def fast_networks() -> ReferenceSegmenter:
    """The networks of the preset ``fast`` with seeded weights."""
    preset = PRESETS["fast"]
    name, settings = DINOV2_NAMES[preset.dinov2], Settings()
    sam2 = seeded(build_sam2(SAM2_NAMES[preset.sam2]))
    encoder = Encoder(seeded(build_vit(name, encoder_input_size(name))))
    segmenter = Segmenter(encoder, MaskProposer(sam2, settings), None, settings)
    return ReferenceSegmenter(segmenter, Sam2Boxes(sam2, "seeded"), name)


def nano_networks() -> ReferenceSegmenter:
    """The nano networks, as the app uses them."""
    return ReferenceSegmenter.from_pretrained("nano", device="cpu", settings=Settings(points_per_side=24))


def open_app(segmenter: ReferenceSegmenter, photos: Path, folder: Path) -> Actions:
    """The app without a browser. Its search is not started."""
    workspace = Workspace(segmenter, *find_photos([str(photos)], folder / "uploads", folder), folder / "app")
    thumbnails = Thumbnails(folder / "thumbnails", workspace.photos)
    return Actions(workspace, Lists(workspace, thumbnails), Exports(workspace, folder / "results"), folder / "uploads")


def measure_clicks(
    segmenter: ReferenceSegmenter, height: int, width: int, clicks: int, clock: Callable[[], float]
) -> tuple[float, float, float]:
    """Seconds of the first click on a photo, and the median and the slowest of the further ones."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number in range(2):
            scene = draw_scene(np.random.default_rng(number), NOVEL_CLASSES, (height, width))
            Image.fromarray(scene.image).save(folder / f"{number}.png")
        actions = open_app(segmenter, folder, folder / "out")
        rng = np.random.default_rng(0)
        seconds: list[list[float]] = []
        for name in ("0.png", "1.png"):  # the first photo warms up
            view = actions.open(View(), name)
            actions.show(view)
            of_photo: list[float] = []
            while len(of_photo) < clicks + 1:
                x, y = rng.integers((width, height)).tolist()
                begin = clock()
                with contextlib.suppress(UserError):  # nothing is found there
                    view = actions.click(view, x, y, away=False, on_item=False)
                actions.show(view)
                of_photo.append(clock() - begin)
            seconds.append(of_photo)
        first, *others = seconds[1]
        return first, statistics.median(others), max(others)


def measure_ranking(photos: int, seed: int) -> tuple[float, float, float]:
    """Seconds of showing an object, until all photos are ranked, and until the automatic lowest scores are there."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_coco(folder, NOVEL_CLASSES, photos, seed)
        actions = open_app(nano_networks(), folder / "images", folder / "out")
        workspace, coco = actions.workspace, read_coco(folder / "instances.json")
        search = workspace.search
        search.start()
        objects = sorted(coco.anns.values(), key=lambda one: -one["area"])
        shown = {one["category_id"]: one for one in objects}
        found: list[tuple[float, float, float]] = []
        for one in [*shown.values(), *objects[:3]]:
            _wait(search.state, lambda: search.progress().done and search.settled == search.memory)
            name, label = coco.imgs[one["image_id"]]["file_name"], coco.cats[one["category_id"]]["name"]
            begin = time.perf_counter()
            workspace.show(name, coco.annToMask(one).astype(bool), label)
            saved = time.perf_counter() - begin
            _wait(search.state, lambda: search.progress().done)
            ranked = time.perf_counter() - begin
            _wait(search.state, lambda: search.settled == search.memory)
            found.append((saved, ranked, time.perf_counter() - begin))
        search.close()
        return found[-1]


def _wait(state: Any, is_so: Callable[[], bool]) -> None:
    with state:
        state.wait_for(is_so)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=10, help="Further clicks per photo.")
    parser.add_argument("--photos", type=int, default=40, help="Photos that are ranked.")
    parser.add_argument("--seed", type=int, default=1, help="The seed that draws them.")
    parser.add_argument("--networks", nargs="+", choices=("fast", "nano"), default=["fast", "nano"], help="Networks.")
    parser.add_argument("--processor-time", action="store_true", help="Clicks in seconds of the processor.")
    options = parser.parse_args()
    clock = time.process_time if options.processor_time else time.perf_counter
    print("| networks | photo | first click, s | further clicks, s | slowest, s |\n| --- | --- | ---: | ---: | ---: |")
    for name, build in (("fast", fast_networks), ("nano", nano_networks)):
        for height, width in SIZES if name in options.networks else ():
            cells = [f"{value:.2f}" for value in measure_clicks(build(), height, width, options.clicks, clock)]
            print(f"| {name} | {width}x{height} | {' | '.join(cells)} |", flush=True)
    saved, ranked, thresholds = measure_ranking(options.photos, options.seed)
    print(
        f"\nnano, {options.photos} photos: an object is saved after {saved:.2f} s, all photos are ranked after "
        f"{ranked:.2f} s, the automatic lowest scores are there after {thresholds:.2f} s"
    )


if __name__ == "__main__":
    main()
