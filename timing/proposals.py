"""What proposers are worth: the grid against true boxes that are shaken, with wrong ones, and against true masks.

``python -m timing.proposals`` draws scenes as the demo does and finds their objects with the nano networks and 5 shots.
The rows are proposers and the columns ways of merging; a cell is the mask AP of all eight classes, the mean and that of
each seed. With ``--speed`` it measures instead how long 300 boxes take, next to 300 points.
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO

from no_time_to_train.api.image_proposals import ImageProposals, propose
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.images import read_rgb
from no_time_to_train.demo.run_demo import POINTS_PER_SIDE, annotation_files
from no_time_to_train.evaluation import evaluate
from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.settings import Settings
from timing.drawn_scenes import segmenter_of
from timing.report import table_row

#: Ways of merging; that of FSOD-VFM comes without non-maximum suppression. Boxes are ranked by SAM 2's predicted IoU as
#: in the paper, or by their own scores: the nano SAM 2's predicted IoUs were trained with points only, and are low.
MERGINGS: dict[str, dict[str, Any]] = {
    "soft merging": {},
    "soft merging, boxes by their scores": {"quality": "given"},
    "diffusion, boxes by their scores": {"quality": "given", "merging": "diffusion", "suppression": "none"},
}

#: By how much of its side each corner of a true box is moved, as the standard deviation in percent.
SHAKES = (0, 5, 10, 20)


def shaken(boxes: NDArray[np.float32], percent: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Boxes xyxy whose corners are moved at random by this share of the box's sides."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + rng.normal(0, percent / 100, boxes.shape) * sides
    return np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], 1)


def wrong(count: int, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random boxes of a twentieth to a half of each side."""
    corner = rng.uniform(0, 0.7, (count, 2))
    far = np.minimum(corner + rng.uniform(0.05, 0.5, (count, 2)), 1)
    return np.concatenate([corner, far], 1) * ([width, height] * 2)


def given(boxes: NDArray[Any], height: int, width: int, score: float = 0.9, masks: Masks | None = None) -> Given:
    """Boxes, clipped to the image, with one score each, which says nothing about them."""
    inside = torch.from_numpy(np.asarray(boxes, np.float32).clip(0, [width, height] * 2))
    kept = (inside[:, 2:] > inside[:, :2]).all(dim=1)
    return Given(inside, torch.full((len(inside),), score), masks)[kept.nonzero()[:, 0]]


def proposers(coco: COCO, image_id: int, height: int, width: int) -> Iterator[tuple[str, list[Given | None]]]:
    """The rows of the table: names, and what is proposed in an image."""
    rng = np.random.default_rng(image_id)
    annotations = coco.imgToAnns[image_id]
    masks = np.stack([coco.annToMask(one).astype(bool) for one in annotations])
    boxes = np.array([one["bbox"] for one in annotations], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    yield "grid", [None]
    for percent in SHAKES:
        yield f"true boxes, shaken by {percent} %", [given(shaken(boxes, percent, rng), height, width)]
    mixed = np.concatenate([shaken(boxes, 5, rng), wrong(len(boxes), height, width, rng)])
    yield "shaken by 5 %, as many wrong ones", [given(mixed, height, width)]
    yield "grid and boxes shaken by 5 %", [None, given(shaken(boxes, 5, rng), height, width)]
    yield "true masks", [given(boxes, height, width, masks=Masks.pack(masks))]


def measure(seed: int, images: int, folder: Path) -> dict[tuple[str, str], float]:
    """The mask AP of each proposer and way of merging on the scenes of a seed."""
    segmenter = segmenter_of(folder, images, seed, 5, Settings(points_per_side=POINTS_PER_SIDE))
    assert segmenter.memory is not None
    _, targets = annotation_files(folder)
    coco, results = read_coco(targets), dict[tuple[str, str], list[dict[str, Any]]]()
    for image_id, entry in coco.imgs.items():
        pixels = read_rgb(targets.parent / "images" / entry["file_name"])
        for name, sources in proposers(coco, image_id, *pixels.shape[:2]):
            by_quality: dict[str, ImageProposals] = {}
            for merging, options in MERGINGS.items():
                settings = replace(Settings(points_per_side=POINTS_PER_SIDE), **options)
                segmenter.segmenter.settings = settings
                if settings.quality not in by_quality:
                    proposed = propose(pixels, segmenter.segmenter, "float32", sources)
                    by_quality[settings.quality] = ImageProposals(pixels, None, proposed)
                found = segmenter.classify(by_quality[settings.quality], threshold=0).to_coco(image_id)
                results.setdefault((name, merging), []).extend(found)
    return {cell: average_precision(coco, found, segmenter) for cell, found in results.items()}


def average_precision(coco: COCO, results: list[dict[str, Any]], segmenter: ReferenceSegmenter) -> float:
    """Mask AP in percent."""
    assert segmenter.memory is not None
    with contextlib.redirect_stdout(io.StringIO()):
        metrics, _ = evaluate(coco, results, segmenter.memory.categories, "coco", 0.5)
    return 100 * float(metrics["segm"]["AP"] or 0)


def compare_speed(count: int = 300, rounds: int = 7) -> None:
    """Time SAM 2's masks of boxes next to those of as many points, with the nano networks and in one run."""
    segmenter = ReferenceSegmenter.from_pretrained("nano")
    proposer = segmenter.segmenter.proposer
    assert proposer is not None
    rng = np.random.default_rng(0)
    image = torch.rand(3, proposer.size, proposer.size)
    boxes = torch.from_numpy(wrong(count, proposer.size, proposer.size, rng)).float()
    points = torch.from_numpy(rng.uniform(0, proposer.size, (count, 2))).float()
    ratios = []
    with torch.inference_mode():
        encoded = proposer.encode(image)
        decode: Callable[[torch.Tensor], Any] = lambda prompts: proposer.decode(*encoded, prompts, -torch.inf)  # noqa: E731
        for prompts in (boxes, points):
            decode(prompts)
        for _ in range(rounds):
            spent = []
            for prompts in (boxes, points):
                start = time.perf_counter()
                decode(prompts)
                spent.append(time.perf_counter() - start)
            ratios.append(spent[0] / spent[1])
    print(f"{count} boxes take {statistics.median(ratios):.2f} times as long as {count} points (", end="")
    print(", ".join(f"{ratio:.2f}" for ratio in sorted(ratios)) + ")")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    if options.speed:
        compare_speed()
        return
    cells: dict[tuple[str, str], list[float]] = {}
    for seed in options.seeds:
        with TemporaryDirectory() as folder:
            for cell, value in measure(seed, options.images, Path(folder)).items():
                cells.setdefault(cell, []).append(value)
    print(table_row(["proposer", *MERGINGS]))
    print(table_row(["---"] * (1 + len(MERGINGS))))
    for name in dict.fromkeys(name for name, _ in cells):
        rows = [cells[name, merging] for merging in MERGINGS]
        texts = [f"{statistics.fmean(row):.1f} ({', '.join(f'{value:.1f}' for value in row)})" for row in rows]
        print(table_row([name, *texts]))


if __name__ == "__main__":
    main()
