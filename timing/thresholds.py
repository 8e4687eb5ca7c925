"""The thresholds that references give, against the best ones, on drawn scenes: ``python -m timing.thresholds``.

Draws scenes as the demo does, measures the references of all eight classes with ``measure_references``, and prints the
mean F1 of the classes on the targets: at the measured thresholds, at the threshold of each class that is best on the
targets themselves (the oracle), and at 0.5; and the share of the classes whose precision on the targets is in the
interval that was measured, and how wide that is. ``analysis/score_thresholds.py`` was tuned on the seeds 777 and 1000
to 1009. Measure on others.
"""

import argparse
import contextlib
import io
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.analysis.annotated_proposals import annotate
from no_time_to_train.analysis.leave_one_out import FOUND_IOU, rank_without
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.data.rle import annotation_mask, encode_mask
from no_time_to_train.demo.run_demo import POINTS_PER_SIDE, annotation_files, write_inputs
from no_time_to_train.method.settings import MODES, ModeName, Settings


def f1(scores: NDArray[np.float64], right: NDArray[np.bool_], objects: int, threshold: float) -> float:
    """The F1 of a class at a threshold."""
    kept = scores >= threshold
    return float(2 * right[kept].sum() / max(int(kept.sum()) + objects, 1))


def references_of(folder: Path) -> list[Reference]:
    """The references of a demo."""
    file, _ = annotation_files(folder)
    coco, references = read_coco(file), []
    for category_id, entries in sorted(read_references(folder / "references.json").items()):
        for annotation in (coco.anns[entry["ann_ids"][0]] for entry in entries):
            entry = coco.imgs[annotation["image_id"]]
            mask = encode_mask(annotation_mask(annotation, entry["height"], entry["width"]))
            image = file.parent / "images" / entry["file_name"]
            references.append(Reference(coco.cats[category_id]["name"], image, mask))
    return references


def measure(seed: int, shots: Sequence[int], images: int, mode: ModeName, folder: Path) -> list[list[float]]:
    """For each number of shots, the mean F1 of the classes at the measured thresholds, at the best ones, and at 0.5.

    And the share of the classes whose precision is in its interval, and the interval's width.

    Args:
        seed: The seed of the scenes.
        shots: Numbers of references per class.
        images: The number of targets.
        mode: The settings.
        folder: Where the scenes are drawn.
    """
    settings = Settings(points_per_side=POINTS_PER_SIDE, **MODES[mode])
    segmenter = ReferenceSegmenter.from_pretrained("nano", settings=settings)
    reports = []
    for count in shots:
        with contextlib.redirect_stdout(io.StringIO()):
            write_inputs(folder, count, images, seed)  # with the same targets each time
        reports.append(segmenter.measure_references(references_of(folder), each=False))
    _, target_file = annotation_files(folder)
    targets = read_coco(target_file)
    labels = [category.name for category in reports[0].memory.categories]
    scores: dict[tuple[int, int], list[float]] = defaultdict(list)
    right: dict[tuple[int, int], list[bool]] = defaultdict(list)
    objects = [0] * len(labels)
    for image_id, entry in targets.imgs.items():
        annotations = targets.imgToAnns[image_id]
        classes = [labels.index(targets.cats[one["category_id"]]["name"]) for one in annotations]
        masks = [annotation_mask(one, entry["height"], entry["width"]) for one in annotations]
        image = segmenter.propose(target_file.parent / "images" / entry["file_name"])
        found = annotate(image.proposals, image.pixels.shape[:2], masks)
        for index in classes:
            objects[index] += 1
        for number, report in enumerate(reports):
            ranked = rank_without(found.proposals, report.memory, [], settings)
            waiting = set(range(len(classes)))
            for row, index, score in zip(ranked.rows, ranked.classes.tolist(), ranked.scores.tolist(), strict=True):
                hits = [one for one in waiting if classes[one] == index and found.iou[row, one] >= FOUND_IOU]
                scores[number, index].append(score)
                right[number, index].append(bool(hits))
                waiting -= {max(hits, key=lambda one: float(found.iou[row, one]))} if hits else set()
    means = []
    for number, report in enumerate(reports):
        figures = []
        for index, (label, count) in enumerate(zip(labels, objects, strict=True)):
            arrays = np.array(scores[number, index]), np.array(right[number, index], bool)
            interval = [np.nan, np.nan]
            threshold = report.classes[index].threshold
            if threshold is not None and (kept := arrays[1][arrays[0] >= threshold.score]).size:
                low, high = threshold.precision_interval
                interval = [low <= kept.mean() <= high + 1e-9, high - low]
            best = max((f1(*arrays, count, value) for value in scores[number, index]), default=0.0)
            figures.append(
                [f1(*arrays, count, report.thresholds.get(label, 0.5)), best, f1(*arrays, count, 0.5), *interval]
            )
        means.append(np.nanmean(figures, axis=0).tolist())
    return means


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10], help="References per class.")
    parser.add_argument("--images", type=int, default=40, help="Targets per seed.")
    parser.add_argument("--mode", choices=list(MODES), default="paper", help="The method's numbers.")
    args = parser.parse_args()
    print("| seed | shots | F1 measured | F1 oracle | F1 at 0.5 | in the interval | its width |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(seed, args.shots, args.images, args.mode, Path(folder) / "demo")
        for shots, values in zip(args.shots, figures, strict=True):
            print(f"| {seed} | {shots} | {' | '.join(f'{value:.3f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    main()
