"""Each setting that differs from the paper's alone, and the best ones together, on drawn scenes.

``python -m timing.ablation`` draws scenes as the demo does, finds their objects with the nano networks, with a memory
of one class at a time and with one of all eight classes, with 1, 5 and 10 shots, and prints a table of mask AP. The
networks see each scene once: every row ranks the same proposals, which are kept in ``--folder`` where one is given. The
mode ``best`` (``method/settings.py``) was chosen on the seeds 777 and 1000 to 1009. Measure on others.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from pycocotools.coco import COCO

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.rle import encode_crop
from no_time_to_train.demo.run_demo import POINTS_PER_SIDE, annotation_files
from no_time_to_train.evaluation.lvis_ap import evaluate_classes
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import classify_and_merge
from no_time_to_train.method.settings import MODES, Settings
from no_time_to_train_extras.choosing.choose_references import read_proposals
from timing.drawn_scenes import segmenter_of
from timing.report import table_row

#: Numbers of shots.
SHOTS = (1, 5, 10)

#: The settings of each row of the table: what differs from the paper's.
ROWS: list[dict[str, Any]] = [
    {},
    {"score": "cosine_iou"},
    {"suppression": "none"},
    {"suppression": "soft_nms"},
    {"box_nms_thresh": 0.7},
    {"merge_exponent": 0.0},
    {"merge_exponent": 1.0},
    {"merging": "diffusion"},
    {"merging": "diffusion", "merge_exponent": 1.0},
    {"merging": "diffusion", "suppression": "none"},
    {"score": "cosine_iou", "suppression": "soft_nms"},
    {"score": "cosine_iou", "suppression": "none"},
    {"score": "cosine_iou", "merging": "diffusion", "merge_exponent": 1.0},
    MODES["best"],
]


class Cell(NamedTuple):
    """A column of the table: shots per class, and whether the memory has all classes."""

    shots: int
    several: bool


#: AP in percent, by the name of the row and by cell.
Figures = dict[tuple[str, Cell], float]


class Scene:
    """A scene whose proposals are known.

    Args:
        image_id: Its id in the annotation file.
        proposals: Its proposals from the cache.
    """

    def __init__(self, image_id: int, proposals: DescribedProposals) -> None:
        self.image_id, self.proposals = image_id, proposals
        self.masks = proposals.upsampled_masks(torch.arange(len(proposals)))
        height, width = self.masks.shape[1:]
        self.encoded = [encode_crop(*self.masks.crop(row), height, width) for row in range(len(proposals))]

    def results(self, bank: MemoryBank, settings: Settings) -> Iterator[dict[str, Any]]:
        """The COCO result records of the instances that are found.

        Args:
            bank: The memory.
            settings: The method's numbers.
        """
        whole = self.proposals
        rows = (whole.predicted_iou > settings.pred_iou_thresh).nonzero()[:, 0]

        chosen = replace(whole, upsampled_masks=self.masks.__getitem__)[rows]
        assert bank.prototypes is not None
        candidates, _ = classify_and_merge(chosen, bank.prototypes, settings)
        for best in candidates.scores.argsort(descending=True, stable=True)[: settings.max_instances].tolist():
            yield {
                "image_id": self.image_id,
                "category_id": bank.categories[int(candidates.classes[best])].id,
                "score": float(candidates.scores[best]),
                "segmentation": self.encoded[int(rows[candidates.rows[best]])],
            }


def name_of(row: dict[str, Any]) -> str:
    """The name of a row."""
    name = ", ".join(f"`{key}: {value}`" for key, value in row.items()) or "the paper"
    return f"mode `best`: {name}" if row == MODES["best"] else name


def some_shots(bank: MemoryBank, shots: int) -> MemoryBank:
    """A memory of the first shots of each class."""
    kept = torch.tensor(sorted(shot for c in range(len(bank.categories)) for shot in bank.references_of(c)[:shots]))
    index = bank.class_index[kept]
    smaller = MemoryBank(bank.categories, bank.vectors[kept], index, bank.weights[kept])
    smaller.postprocess()
    return smaller


def ap(coco: COCO, results: list[dict[str, Any]], bank: MemoryBank) -> float:
    """COCO's AP of masks in percent, over the classes of a memory."""
    precision, _ = evaluate_classes(coco, results, bank.categories, "segm", federated=False)
    valid = precision[:, :, :, 0]
    return 100 * float(valid[valid > -1].mean())


@torch.inference_mode()
def measure_seed(seed: int, images: int, folder: Path, rows: list[dict[str, Any]], shots: Sequence[int]) -> Figures:
    """The AP of each row and cell.

    Args:
        seed: The seed of the scenes.
        images: The number of scenes.
        folder: Where the scenes and their proposals are kept.
        rows: Like ``ROWS``.
        shots: Numbers of shots, the largest one last.
    """
    lowest = min(Settings(**row).pred_iou_thresh for row in rows)
    segmenter = segmenter_of(
        folder, images, seed, shots[-1], Settings(points_per_side=POINTS_PER_SIDE, pred_iou_thresh=lowest)
    )
    _, targets = annotation_files(folder)
    coco, bank = read_coco(targets), segmenter.memory
    assert bank is not None
    entries = list(coco.imgs.values())
    found = read_proposals(entries, targets.parent / "images", segmenter, folder / "proposals")
    scenes = [Scene(entry["id"], one) for entry, one in zip(entries, found, strict=True)]
    names = [category.name for category in bank.categories]
    figures: Figures = {}
    for row in rows:
        settings = Settings(**row)
        for count in shots:
            every = some_shots(bank, count)
            single = [every.remove([other for other in names if other != name]) for name in names]
            for several, memories in ((False, single), (True, [every])):
                results = [one for memory in memories for scene in scenes for one in scene.results(memory, settings)]
                figures[name_of(row), Cell(count, several)] = ap(coco, results, every)
    return figures


def print_table(seeds: Sequence[Figures]) -> None:
    """Print the mean over the seeds, and of the differences to the first row the mean and the standard deviation."""
    names = list(dict.fromkeys(name for name, _ in seeds[0]))
    cells = list(dict.fromkeys(cell for _, cell in seeds[0]))
    heads = [
        f"{'eight classes' if cell.several else 'one class'}, {cell.shots} shot{'s' * (cell.shots > 1)}"
        for cell in cells
    ]
    print(table_row(["settings", *heads]))
    print(table_row(["---", *["---:"] * len(cells)]))
    for name in names:
        texts = [name]
        for cell in cells:
            each = [seed[name, cell] for seed in seeds]
            text, differences = (
                f"{statistics.fmean(each):.1f}",
                [seed[name, cell] - seed[names[0], cell] for seed in seeds],
            )
            spread = each if name == names[0] else differences
            if name != names[0]:
                text += f" ({statistics.fmean(differences):+.1f})"
            texts.append(text + (f" ± {statistics.stdev(spread):.1f}" if len(seeds) > 1 else ""))
        print(table_row(texts), flush=True)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--images", type=int, default=40, help="Scenes per seed.")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS, help="Numbers of shots, in ascending order.")
    parser.add_argument("--folder", type=Path, help="Keep the scenes and their proposals here for the next time.")
    options = parser.parse_args(argv)
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        print_table(
            [measure_seed(seed, options.images, folder / str(seed), ROWS, options.shots) for seed in options.seeds]
        )


if __name__ == "__main__":
    main()
