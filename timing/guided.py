"""Guided prompts against the whole grid and against coarser grids, on drawn scenes.

``python -m timing.guided`` draws scenes as the demo does (``scripts/evaluate_nano.py``: 5 references per class), finds
their objects with the nano networks, with a memory of one class at a time and with one of all eight classes, and writes
a table to its section of ``timing/RESULTS.md``. The rule of ``guided.py`` was tuned on the seeds 777 and 1000 to 1009.
Measure on others.
"""

import argparse
import contextlib
import io
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.demo.run_demo import POINTS_PER_SIDE, annotation_files
from no_time_to_train.evaluation.coco_ap import load_results
from no_time_to_train.method.beyond.guided import SEVERAL_CLASSES, choose_points
from no_time_to_train.method.mask_proposals import point_grid
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter, classify_and_merge, describe_proposals
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.target_image import target_tensor
from timing.drawn_scenes import segmenter_of
from timing.report import RESULTS, Section, table_row

#: References per class, as in ``scripts/evaluate_nano.py``.
SHOTS = 5

#: The largest area of a small object in pixels: about one percent of a scene.
SMALL = 40**2

#: The budget at which several classes take no more points of a grid twice as fine than the plain grid has.
DENSE_BUDGET = 0.125


class Row(NamedTuple):
    """A way to choose prompts.

    Attributes:
        name: For the table.
        side: Points per side of the grid.
        budget: The budget of guided prompts; None decodes the whole grid.
    """

    name: str
    side: int
    budget: float | None = None


@dataclass
class Measured:
    """What was found with one way to choose prompts and one kind of memory.

    Attributes:
        results: COCO result records of all images.
        points: The number of points that were decoded for each image and memory.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    points: list[int] = field(default_factory=list)


#: What was measured, by the row's name and by whether the memory has all classes.
Table = dict[tuple[str, bool], Measured]
Figures = dict[tuple[str, bool], dict[str, float]]


class Target(NamedTuple):
    """An image, uint8 [H, W, 3] RGB, and its id in the annotation file."""

    image_id: int
    image: NDArray[np.uint8]


def rows_of(classes: int) -> list[Row]:
    """The rows of the table for a memory of this many classes."""
    budget = Settings().prompt_budget
    guided = min(classes, SEVERAL_CLASSES) * budget * POINTS_PER_SIDE**2
    return [
        Row("grid", POINTS_PER_SIDE),
        Row("guided", POINTS_PER_SIDE, budget),
        Row("coarser grid of as many points", round(math.sqrt(guided))),
        Row("grid, half as dense", POINTS_PER_SIDE // 2),
        Row("guided, twice as dense", 2 * POINTS_PER_SIDE, DENSE_BUDGET),
    ]


class Decoder:
    """Decodes points of one image, each once, whatever the rows that need it.

    Args:
        segmenter: The networks.
        target: The image.
    """

    def __init__(self, segmenter: Segmenter, target: Target) -> None:
        assert segmenter.proposer is not None
        self.proposer, self.settings = segmenter.proposer, segmenter.settings
        self.height, self.width = target.image.shape[:2]
        square = target_tensor(target.image, self.proposer.size)
        self.features = segmenter.encoder.feature_map(square[None])[0]
        self.encoded = self.proposer.encode(square)
        self.known: dict[int, dict[int, int]] = {}
        self.described: dict[int, DescribedProposals] = {}
        self.encoded_masks: dict[tuple[int, int], dict[str, Any]] = {}

    def prepare(self, side: int, wanted: Tensor) -> None:
        """Decode points of a grid, given by their index in ascending order; those without a proposal are dropped."""
        points = point_grid(side, self.proposer.size)[wanted]
        self.proposer.pred_iou_thresh, threshold = -math.inf, self.settings.pred_iou_thresh
        proposals = self.proposer.decode(*self.encoded, points)
        self.proposer.pred_iou_thresh = threshold
        kept = (proposals.predicted_iou > threshold) & (proposals.logits > 0).any(dim=(1, 2))
        self.known[side] = {point: row for row, point in enumerate(wanted[kept].tolist())}
        self.described[side] = describe_proposals(proposals[kept], self.features, self.height, self.width)

    def instances(self, side: int, points: Tensor, prototypes: Tensor) -> Iterator[tuple[int, float, dict[str, Any]]]:
        """The instances among the proposals of some points: class, score and RLE, as ``match_and_merge`` finds them.

        Args:
            side: The grid, which was prepared.
            points: int64 [m], indices of points in ascending order.
            prototypes: float [C, D].
        """
        rows = torch.tensor([self.known[side][point] for point in points.tolist() if point in self.known[side]])
        rows = rows.long()
        whole, settings = self.described[side], self.settings
        candidates, masks = classify_and_merge(whole[rows], prototypes, settings)
        for index in candidates.scores.argsort(descending=True, stable=True)[: settings.max_instances].tolist():
            row = int(rows[candidates.rows[index]])
            if (side, row) not in self.encoded_masks:
                mask = masks[index]
                self.encoded_masks[side, row] = encode_mask(mask)
            yield int(candidates.classes[index]), float(candidates.scores[index]), self.encoded_masks[side, row]


@torch.inference_mode()
def measure(segmenter: Segmenter, targets: Iterable[Target]) -> Table:
    """Find the instances of all images in all ways.

    Args:
        segmenter: The networks, and the prototypes of all classes.
        targets: The images.
    """
    table: Table = defaultdict(Measured)
    count = len(segmenter.prototypes)
    memories = [*([one] for one in range(count)), list(range(count))]
    for target in targets:
        decoder = Decoder(segmenter, target)
        chosen: dict[tuple[int, int], Tensor] = {}  # by memory and row
        for m, memory in enumerate(memories):
            for r, row in enumerate(rows_of(len(memory))):
                points = point_grid(row.side, decoder.proposer.size)
                chosen[m, r] = torch.arange(len(points))
                if row.budget is not None:
                    prototypes, threshold = (
                        segmenter.prototypes[memory],
                        segmenter.settings.prompt_threshold,
                    )
                    chosen[m, r] = choose_points(
                        decoder.features, prototypes, points, decoder.proposer.size, threshold, row.budget
                    )
        wanted: dict[int, set[int]] = defaultdict(set)
        for (m, r), indices in chosen.items():
            wanted[rows_of(len(memories[m]))[r].side].update(indices.tolist())
        for side, union in wanted.items():
            decoder.prepare(side, torch.tensor(sorted(union)))
        for (m, r), indices in chosen.items():
            memory = memories[m]
            row = rows_of(len(memory))[r]
            measured = table[row.name, len(memory) > 1]
            measured.points.append(len(indices))
            for class_index, score, rle in decoder.instances(row.side, indices, segmenter.prototypes[memory]):
                category = memory[class_index] + 1
                measured.results.append(
                    {"image_id": target.image_id, "category_id": category, "score": score, "segmentation": rle}
                )
    return table


def figures(coco: COCO, image_ids: list[int], results: list[dict[str, Any]]) -> dict[str, float]:
    """``AP``, ``AR`` and ``AR small`` of masks in percent, with at most 100 instances of a class per image."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(coco, load_results(coco, results, "segm"), "segm")
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10], [0, SMALL]], ["all", "small"]
        evaluator.params.maxDets, evaluator.params.imgIds = [100], image_ids
        evaluator.evaluate()
        evaluator.accumulate()
    precision, recall = evaluator.eval["precision"][..., 0, 0], evaluator.eval["recall"][..., 0]
    values = {"AP": precision, "AR": recall[:, :, 0], "AR small": recall[:, :, 1]}
    return {name: 100 * float(one[one > -1].mean()) for name, one in values.items()}


def build(folder: Path, images: int, seed: int) -> Segmenter:
    """Draw the scenes of a seed, and show the references to the nano networks."""
    return segmenter_of(folder, images, seed, SHOTS, Settings(points_per_side=POINTS_PER_SIDE)).segmenter


def scenes(folder: Path, only_small: bool) -> tuple[COCO, list[Target]]:
    """The demo's targets, or only those that have a small object."""
    _, path = annotation_files(folder)
    coco = read_coco(path)
    wanted = {truth["image_id"] for truth in coco.anns.values() if not only_small or truth["area"] <= SMALL}
    images = [(image["id"], path.parent / "images" / image["file_name"]) for image in coco.imgs.values()]
    return coco, [Target(image_id, read_rgb(file)) for image_id, file in images if image_id in wanted]


def measure_seed(seed: int, images: int, only_small: bool = False) -> Figures:
    """Measure all rows on the scenes of one seed.

    Args:
        seed: The seed.
        images: The number of scenes.
        only_small: Leave out scenes without a small object, which play no role for ``AR small``.

    Returns:
        The figures of each row, and ``points``, the mean number of points that were decoded.
    """
    with tempfile.TemporaryDirectory() as folder:
        segmenter = build(Path(folder) / "demo", images, seed)
        coco, targets = scenes(Path(folder) / "demo", only_small)
    image_ids = [target.image_id for target in targets]
    table = measure(segmenter, targets)
    return {
        key: {"points": float(np.mean(one.points)), **figures(coco, image_ids, one.results)}
        for key, one in table.items()
    }


def rows_of_figures(seeds: list[Figures]) -> list[list[str]]:
    """The rows of the table: the mean over the seeds, and the AP of each."""
    rows = []
    for name, several in sorted(seeds[0], key=lambda key: key[1]):
        each = [seed[name, several] for seed in seeds]
        means = [f"{np.mean([one[key] for one in each]):.1f}" for key in ("points", "AP", "AR", "AR small")]
        aps = " / ".join(f"{one['AP']:.1f}" for one in each)
        rows.append(["all classes" if several else "one class", name, *means, aps])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--images", type=int, default=60, help="Scenes per seed.")
    parser.add_argument(
        "--only-small",
        action="store_true",
        help="Measure only scenes with a small object: a section of its own. One scene in four has one, so that AR "
        "small takes many scenes.",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown file to write.")
    args = parser.parse_args(argv)
    found = []
    for seed in args.seeds:
        found.append(measure_seed(seed, args.images, args.only_small))
        print(f"seed {seed}", *map(table_row, rows_of_figures(found[-1:])), sep="\n", flush=True)
    section = Section(
        "Grid against guided prompts" + ", scenes with small objects" * args.only_small,
        f"python -m timing.guided{f' --only-small --images {args.images}' * args.only_small}",
        torch.device("cpu"),
        f"Nano networks, {SHOTS} references per class, {args.images} drawn scenes for each of the seeds "
        f"{', '.join(map(str, args.seeds))}{', of which only those with a small object count' * args.only_small}. "
        "Means of the seeds in percent. One class: memories of one class at a time; all classes: one memory of all. "
        f"Small objects have at most {SMALL} pixels.",
        ["memory", "prompts", "points", "AP", "AR", "AR small", "AP of each seed"],
        slice(2, -1),
    )
    for row in rows_of_figures(found):
        section.add(*row)
    section.write(args.out)


if __name__ == "__main__":
    main()
