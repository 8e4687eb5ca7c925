"""References chosen from a pool (``sample --choose best``) against the paper's draws, on drawn scenes.

``python -m timing.choosing`` draws scenes of eight classes for a pool and for targets, chooses references from the
pool, draws others from it at random, and finds the objects of the targets with each memory and the nano networks. It
prints a table, and draws a figure like the paper's Figure 4. The way of choosing was settled on the seeds 777 and
1000. Measure on others.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from pycocotools.coco import COCO
from torch import Tensor

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import ImageId, read_coco
from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.data.datasets import BadImage, ReferenceDataset
from no_time_to_train.data.reference_sets import ReferenceSet, sample_references
from no_time_to_train.demo.run_demo import POINTS_PER_SIDE
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.files import atomic_write
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.settings import Settings
from no_time_to_train_extras.choosing.choose_references import choose_references, read_proposals
from timing.guided import figures

#: Scenes of the pool, and its instances per class at most.
SCENES, POOL = 48, 50


class Row(NamedTuple):
    """The AP of one seed with one number of shots, in percent.

    Attributes:
        seed: Of the scenes.
        shots: References per class.
        chosen: With the chosen references.
        drawn: With each of the random draws.
        whole: With all instances of the pool as references.
    """

    seed: int
    shots: int
    chosen: float
    drawn: list[float]
    whole: float


class Targets:
    """The targets of a seed, whose proposals are known.

    Args:
        coco: Their annotation file.
        image_dir: Folder of their images.
        segmenter: The networks.
        cache_dir: Folder of the proposal cache.
    """

    def __init__(self, coco: COCO, image_dir: Path, segmenter: ReferenceSegmenter, cache_dir: Path) -> None:
        self.coco, self.segmenter = coco, segmenter.segmenter
        self.proposals: dict[ImageId, DescribedProposals] = dict(
            zip(coco.imgs, read_proposals(list(coco.imgs.values()), image_dir, segmenter, cache_dir), strict=True)
        )

    def ap(self, vectors: Tensor) -> float:
        """The mask AP in percent with the prototypes of all classes, float32 [C, D]."""
        self.segmenter.remember(vectors)
        ids = list(range(1, 1 + len(vectors)))
        results = []
        for image_id, proposals in self.proposals.items():
            results += to_coco_records(self.segmenter.match_and_merge(proposals), image_id, ids)
        return figures(self.coco, list(self.coco.imgs), results)["AP"]


class Described:
    """The vectors of the instances of a pool, each described once.

    Args:
        coco: The annotation file of the pool.
        image_dir: Folder of its images.
        categories: The classes.
        segmenter: The networks.
    """

    def __init__(self, coco: COCO, image_dir: Path, categories: list[Category], segmenter: ReferenceSegmenter) -> None:
        self.coco, self.image_dir, self.categories, self.segmenter = coco, image_dir, categories, segmenter
        self.known: dict[int, Tensor] = {}

    def prototypes(self, references: ReferenceSet) -> Tensor:
        """The prototypes of a reference set, float32 [C, D]."""
        encoder = self.segmenter.segmenter.encoder
        shots = ReferenceDataset(
            self.coco, self.image_dir, self.categories, references, encoder.size, self.segmenter.context_ratio
        )
        for index, (_, shot) in enumerate(shots.shots):
            if shot["ann_ids"][0] not in self.known:
                reference = shots[index]
                assert not isinstance(reference, BadImage)
                vector, _ = self.segmenter.segmenter.describe_reference(reference.crop, reference.mask)
                self.known[shot["ann_ids"][0]] = vector
        return torch.stack(
            [
                torch.stack([self.known[shot["ann_ids"][0]] for shot in references[category.id]]).mean(dim=0)
                for category in self.categories
            ]
        )


def measure_seed(seed: int, images: int, shots: list[int], draws: int, cache_dir: Path) -> list[Row]:
    """Measure one seed: a row for each number of shots.

    Args:
        seed: Of the scenes, and of the drawing of the pool.
        images: Targets.
        shots: Numbers of references per class, ascending.
        draws: Random draws to compare with; their seeds are 0, 1, ...
        cache_dir: Folder of the proposal cache.
    """
    segmenter = ReferenceSegmenter.from_pretrained(
        "nano", device="cpu", settings=Settings(points_per_side=POINTS_PER_SIDE)
    )
    with TemporaryDirectory() as folder:
        pool_file = write_coco(Path(folder) / "pool", NOVEL_CLASSES, SCENES, 2 * seed)
        target_file = write_coco(Path(folder) / "targets", NOVEL_CLASSES, images, 2 * seed + 1)
        coco, pool_dir = read_coco(pool_file), pool_file.parent / "images"
        categories = select_categories(coco, pool_file)
        targets = Targets(read_coco(target_file), target_file.parent / "images", segmenter, cache_dir)
        described = Described(coco, pool_dir, categories, segmenter)
        pool = sample_references(coco, categories, POOL, seed, at_least=shots[-1])
        chosen, _ = choose_references(coco, pool_dir, categories, pool, shots[-1], segmenter, cache_dir)
        whole = targets.ap(described.prototypes(pool))
        rows = []
        for count in shots:
            first = {category_id: entries[:count] for category_id, entries in chosen.items()}
            drawn = [
                targets.ap(described.prototypes(sample_references(coco, categories, count, draw)))
                for draw in range(draws)
            ]
            rows.append(Row(seed, count, targets.ap(described.prototypes(first)), drawn, whole))
    return rows


def table(rows: list[Row]) -> str:
    """The rows as a table in Markdown, and their means over the seeds."""
    lines = [
        "| shots | seed | chosen | drawn: mean | std | min | max | chosen - mean | whole pool |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for shots in dict.fromkeys(row.shots for row in rows):
        cells: list[list[float]] = [
            [row.chosen, float(np.mean(row.drawn)), float(np.std(row.drawn)), min(row.drawn), max(row.drawn), row.whole]
            for row in rows
            if row.shots == shots
        ]
        seeds = [str(row.seed) for row in rows if row.shots == shots]
        for seed, values in [*zip(seeds, cells, strict=True), ("mean", np.mean(cells, axis=0))]:
            chosen, mean, std, low, high, whole = values
            figures_of_row = f"{chosen:.1f} | {mean:.1f} | {std:.1f} | {low:.1f} | {high:.1f}"
            lines.append(f"| {shots} | {seed} | {figures_of_row} | {chosen - mean:+.1f} | {whole:.1f} |")
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """Draw the AP over the number of shots, one panel per seed: each draw, their mean, and the chosen references."""
    seeds = list(dict.fromkeys(row.seed for row in rows))
    figure = Figure(figsize=(3.2 * len(seeds), 3.2), layout="constrained")
    figure.suptitle("Chosen and drawn references (drawn scenes, eight classes, nano networks)", fontsize="medium")
    panels = figure.subplots(1, len(seeds), squeeze=False, sharey=True)[0]
    for axes, seed in zip(panels, seeds, strict=True):
        of_seed = [row for row in rows if row.seed == seed]
        places = np.arange(len(of_seed))
        for place, row in zip(places, of_seed, strict=True):
            axes.scatter([place] * len(row.drawn), row.drawn, s=12, color="0.6", label="" if place else "a draw")
        axes.plot(places, [np.mean(row.drawn) for row in of_seed], "_", ms=22, color="0.2", label="mean of the draws")
        axes.plot(places, [row.chosen for row in of_seed], "D", ms=6, color="C3", label="chosen")
        axes.axhline(of_seed[0].whole, ls="--", lw=1, color="C0", label="whole pool")
        axes.set(title=f"seed {seed}", xlabel="shots", xlim=(-0.6, len(of_seed) - 0.4))
        axes.set_xticks(places, [str(row.shots) for row in of_seed])
        axes.grid(alpha=0.3, axis="y")
    panels[0].set_ylabel("mask AP (%)")
    panels[-1].legend(fontsize="x-small", loc="lower right")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=90)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--images", type=int, default=30, help="Targets per seed.")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10], help="References per class.")
    parser.add_argument("--draws", type=int, default=10, help="Random draws to compare with.")
    parser.add_argument("--processes", type=int, default=1, help="Seeds that are measured at once.")
    parser.add_argument("--cache-dir", type=Path, help="Proposal cache to keep. Default: none is kept.")
    parser.add_argument("--out", type=Path, help="Picture to draw, .png.")
    args = parser.parse_args(argv)
    rows: list[Row] = []
    with TemporaryDirectory() as folder, ProcessPoolExecutor(args.processes, get_context("spawn")) as executor:
        measure = partial(
            measure_seed,
            images=args.images,
            shots=sorted(args.shots),
            draws=args.draws,
            cache_dir=args.cache_dir or Path(folder),
        )
        for of_seed in executor.map(measure, args.seeds):
            rows += of_seed
            print(f"{table(of_seed)}\n", flush=True)
    print(table(rows))
    if args.out:
        plot(rows, args.out)


if __name__ == "__main__":
    main()
