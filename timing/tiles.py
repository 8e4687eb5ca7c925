"""Tiles against the whole image, on drawn scenes with small objects.

``python -m timing.tiles`` draws scenes of 1,280 x 1,280 pixels with objects of 2 to 5 percent of the side, finds them
with the nano networks and a memory of all eight classes (5 references each, from scenes of the demo), and prints a
table. The overlap and the rule for cut objects (``beyond/tiles.py``) were chosen on the seeds 777, 1000, 1002 and
1003. Measure on others.
"""

import argparse
import contextlib
import io
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools.coco import COCO

from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.data.rle import encode_mask, mask_box
from no_time_to_train.demo.scenes import MAX_SIDE, NOVEL_CLASSES, Scene, draw_scene
from no_time_to_train.method.beyond.tiles import target_squares
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import Settings
from timing.guided import build, figures

#: Height and width of a scene in pixels.
SIDE = 1280

#: The fewest and the most objects of a scene.
COUNTS = (20, 30)

#: The smallest and the largest longer side of an object, as shares of the scene's.
EXTENTS = (0.02, 0.05)

#: Point prompts per side of each square.
POINTS_PER_SIDE = 16


class Row(NamedTuple):
    """A way to look at an image: the name for the table, tiles per side, and point prompts per side of each square."""

    name: str
    tiles: int
    points_per_side: int


ROWS = (
    Row("1 (the paper)", 1, POINTS_PER_SIDE),
    Row("1, as many points as with 3 tiles", 1, 50),
    Row("2", 2, POINTS_PER_SIDE),
    Row("3", 3, POINTS_PER_SIDE),
)


def draw(seed: int, images: int) -> list[Scene]:
    """Scenes with small objects, whose patterns are as fine as those of the demo's scenes."""
    return [
        draw_scene(np.random.default_rng([seed, index]), NOVEL_CLASSES, (SIDE, SIDE), COUNTS, EXTENTS, MAX_SIDE)
        for index in range(images)
    ]


def truth(scenes: Iterable[Scene]) -> COCO:
    """The scenes' objects. Image i has the id i + 1, class i the category id i + 1."""
    annotations: list[dict[str, Any]] = []
    images = []
    for image_id, scene in enumerate(scenes, start=1):
        images.append({"id": image_id, "height": SIDE, "width": SIDE})
        for label, mask in zip(scene.labels.tolist(), scene.masks, strict=True):
            rle = encode_mask(mask)
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1, "iscrowd": 0}
            annotations.append({**annotation, "segmentation": rle, "bbox": mask_box(rle), "area": float(mask.sum())})
    coco = COCO()
    categories = [{"id": index + 1, "name": one.name} for index, one in enumerate(NOVEL_CLASSES)]
    coco.dataset = {"images": images, "annotations": annotations, "categories": categories}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


@torch.inference_mode()
def find(segmenter: Segmenter, scenes: Iterable[Scene], settings: Settings) -> tuple[list[dict[str, Any]], float]:
    """Find the objects of all scenes.

    Args:
        segmenter: The networks, and a memory of all classes.
        scenes: The scenes.
        settings: The method's numbers.

    Returns:
        COCO result records, and the mean number of points that were decoded.
    """
    assert segmenter.proposer is not None
    segmenter.settings, segmenter.proposer.points_per_side = settings, settings.points_per_side
    results, prompts = [], []
    for image_id, scene in enumerate(scenes, start=1):
        squares = target_squares(scene.image, segmenter.proposer.size, settings.tiles, settings.tile_overlap)
        found = segmenter.segment(squares, SIDE, SIDE)
        prompts.append(found.prompts)
        results += to_coco_records(found, image_id, [index + 1 for index in range(len(NOVEL_CLASSES))])
    return results, float(np.mean(prompts))


def measure_seed(seed: int, images: int, overlap: float) -> dict[str, dict[str, float]]:
    """``points``, ``AP``, ``AR`` and ``AR small`` of each row on the scenes of one seed."""
    with tempfile.TemporaryDirectory() as folder:
        segmenter = build(Path(folder) / "demo", 1, seed)
    scenes = draw(seed, images)
    coco, table = truth(scenes), {}
    for row in ROWS:
        settings = replace(Settings(points_per_side=row.points_per_side), tiles=row.tiles, tile_overlap=overlap)
        results, points = find(segmenter, scenes, settings)
        table[row.name] = {"points": points, **figures(coco, list(coco.imgs), results)}
    return table


def print_table(seeds: list[dict[str, dict[str, float]]]) -> None:
    """Print a table with the mean over the seeds, and the AP of each."""
    print("| tiles | points | AP | AR | AR small | AP of each seed |\n| --- | ---: | ---: | ---: | ---: | --- |")
    for name in seeds[0]:
        each = [seed[name] for seed in seeds]
        cells = [f"{np.mean([one[key] for one in each]):.1f}" for key in ("points", "AP", "AR", "AR small")]
        aps = " / ".join(f"{one['AP']:.1f}" for one in each)
        print(f"| {name} | {' | '.join(cells)} | {aps} |", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--images", type=int, default=4, help="Scenes per seed.")
    parser.add_argument("--overlap", type=float, default=Settings().tile_overlap, help="See Settings.tile_overlap.")
    parser.add_argument("--processes", type=int, default=1, help="Seeds that are measured at the same time.")
    args = parser.parse_args()
    measure = partial(measure_seed, images=args.images, overlap=args.overlap)
    with ProcessPoolExecutor(min(args.processes, len(args.seeds)), get_context("spawn")) as pool:
        print_table(list(pool.map(measure, args.seeds)))


if __name__ == "__main__":
    main()
