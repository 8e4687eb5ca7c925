"""References without a mask: are the objects found in plain pictures, and what do such references cost?

``python -m timing.image_prompts`` draws pictures of each class of the demo: scenes in which the class has one object,
which is the largest of the scene, takes 5 % of it or more, and has its center in the middle half of both sides; 2 to 7
objects of other classes, at random, are the distractors. It finds the object in each picture alone and in five pictures
together with the nano networks, and compares the masks with the drawn ones. Then it shows the nano networks one picture
or five of each class, with the drawn mask, with a box, as an image alone, as a whole and cut out, and measures the mask
AP of the demo's targets with all eight classes in the memory. The numbers of ``recurring.py`` were chosen on the seeds
777 and 1000 to 1005. Measure on others.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.analysis.recurring import Choice, choose_recurring
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.demo.run_demo import POINTS_PER_SIDE
from no_time_to_train.demo.scenes import MAX_SIDE, MIN_SIDE, NOVEL_CLASSES, draw_scene, write_coco
from no_time_to_train.evaluation.lvis_ap import evaluate_classes
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.settings import Settings
from timing.report import table_row

#: Pictures of a class. Those of one picture are the first of them.
PICTURES = 5

#: The class has this share of the entries in the list that objects are drawn from, so that many scenes can be used.
ENTRIES = 3

#: The smallest share of the picture that the object takes, and where its center may be.
SMALLEST, MIDDLE = 0.05, (0.25, 0.75)

#: How references are given.
FORMS = ("mask", "box", "picture", "whole", "cut-out")


class Drawn(NamedTuple):
    """A picture, uint8 [H, W, 3] RGB, and its object's mask, bool [H, W]."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


class Found(NamedTuple):
    """A mask that was found, bool [H, W], its IoU with the drawn one, and how sure the choice was."""

    mask: NDArray[np.bool_]
    iou: float
    choice: Choice


def draw_picture(rng: np.random.Generator, label: int) -> Drawn:
    """Draw scenes until one of them shows an object of a class as the docstring of this module says.

    Args:
        rng: Everything that is random comes from it.
        label: The index of the class in ``NOVEL_CLASSES``.
    """
    wanted = NOVEL_CLASSES[label]
    classes = [wanted] * ENTRIES + [other for other in NOVEL_CLASSES if other is not wanted]
    while True:
        height, width = (int(side) for side in rng.integers(MIN_SIDE, MAX_SIDE, 2, endpoint=True))
        scene = draw_scene(rng, classes, (height, width))
        (ours,) = np.nonzero(scene.labels < ENTRIES)
        areas = scene.masks.sum(axis=(1, 2))
        if len(ours) != 1 or areas.argmax() != ours[0] or areas.max() < SMALLEST * height * width:
            continue
        mask = scene.masks[ours[0]]
        y, x = (where.mean() / side for where, side in zip(np.nonzero(mask), mask.shape, strict=True))
        if all(MIDDLE[0] < center < MIDDLE[1] for center in (y, x)):
            return Drawn(scene.image, mask)


def find(segmenter: ReferenceSegmenter, pictures: Sequence[Drawn]) -> dict[int, list[Found]]:
    """The masks that are found in each picture of a class: by 1, in each alone; by ``PICTURES``, in all together."""
    described = [segmenter.describer.propose(picture.image) for picture in pictures]
    none = torch.zeros(0, segmenter.segmenter.encoder.dim)
    proposals = [one.proposals for one in described]
    with torch.inference_mode():
        choices = {
            1: [choice for one in proposals for choice in choose_recurring([one], none)],
            PICTURES: choose_recurring(proposals, none),
        }
    found: dict[int, list[Found]] = {}
    for count, chosen in choices.items():
        masks = [one.mask(choice) for one, choice in zip(described, chosen, strict=True)]
        ious = [
            float((mask & picture.mask).sum() / (mask | picture.mask).sum())
            for mask, picture in zip(masks, pictures, strict=True)
        ]
        found[count] = [Found(*parts) for parts in zip(masks, ious, chosen, strict=True)]
    return found


def memories(
    segmenter: ReferenceSegmenter, pictures: Sequence[Sequence[Drawn]], found: Sequence[dict[int, list[Found]]]
) -> dict[tuple[str, int], MemoryBank]:
    """A memory of all classes for each form of references and number of pictures."""
    banks: dict[tuple[str, int], MemoryBank] = {}
    for form in FORMS:
        for count in (1, PICTURES):
            segmenter.memory = None
            for pattern, drawn, masks in zip(NOVEL_CLASSES, pictures, found, strict=True):
                for one, mask in zip(drawn[:count], masks[count], strict=False):
                    rows, columns = np.nonzero(one.mask)
                    alpha = 255 * one.mask.astype(np.uint8)
                    cut = Image.fromarray(np.dstack([one.image, alpha])) if form == "cut-out" else one.image
                    given: dict[str, dict[str, Any]] = {
                        "mask": {"mask": one.mask},
                        "box": {"box": (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)},
                        "picture": {"mask": mask.mask},
                        "whole": {"mask": "whole"},
                        "cut-out": {"mask": cut},
                    }
                    segmenter.add_reference(pattern.name, cut, **given[form])
            segmenter.renumber({pattern.name: index for index, pattern in enumerate(NOVEL_CLASSES, start=1)})
            assert segmenter.memory is not None
            banks[form, count] = segmenter.memory
    return banks


def measure_seed(seed: int, images: int) -> tuple[dict[int, list[Found]], dict[tuple[str, int], float]]:
    """What was found in the pictures of a seed, by the number of pictures; and the AP by form and number."""
    segmenter = ReferenceSegmenter.from_pretrained("nano", settings=Settings(points_per_side=POINTS_PER_SIDE))
    pictures = [
        [draw_picture(np.random.default_rng([seed, label, number, PICTURES]), label) for number in range(PICTURES)]
        for label in range(len(NOVEL_CLASSES))
    ]
    found = [find(segmenter, drawn) for drawn in pictures]
    together = {count: [one for by_count in found for one in by_count[count]] for count in (1, PICTURES)}
    for count, every in together.items():
        print(f"seed {seed}, {count} at once: mean IoU {mean(one.iou for one in every):.3f}", flush=True)
    if not images:
        return together, {}
    banks = memories(segmenter, pictures, found)
    with TemporaryDirectory() as folder:
        coco = read_coco(write_coco(folder, NOVEL_CLASSES, images, 2 * seed + 1))
        files = {one["id"]: Path(folder) / "images" / one["file_name"] for one in coco.imgs.values()}
        targets = {image_id: read_rgb(file) for image_id, file in files.items()}
    results: dict[tuple[str, int], list[dict[str, Any]]] = {key: [] for key in banks}
    for image_id, image in targets.items():
        proposals = segmenter.propose(image).proposals
        for key, bank in banks.items():
            assert bank.prototypes is not None
            segmenter.segmenter.remember(bank.prototypes)
            instances = segmenter.segmenter.match_and_merge(proposals)
            for mask, score, index in zip(instances.masks, instances.scores, instances.classes, strict=True):
                record = {"image_id": image_id, "category_id": int(index) + 1, "score": float(score)}
                results[key].append({**record, "segmentation": encode_mask(np.asarray(mask))})
    aps = {}
    for key, records in results.items():
        precision, _ = evaluate_classes(coco, records, banks[key].categories, "segm", federated=False)
        valid = precision[:, :, :, 0]
        aps[key] = 100 * float(valid[valid > -1].mean())
    return together, aps


def print_tables(
    found: Sequence[dict[int, list[Found]]], aps: Sequence[dict[tuple[str, int], float]], images: int
) -> None:
    """Print both tables: the figures of all seeds, and of each."""
    print("\n| pictures | mean IoU | of each seed | IoU above 0.5 | said to be doubtful | wrong among these |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for count in (1, PICTURES):
        seeds = [seed[count] for seed in found]
        every = [one for seed in seeds for one in seed]
        doubtful = [one for one in every if one.choice.doubtful]
        wrong = f"{mean(one.iou <= 0.5 for one in doubtful):.0%}" if doubtful else "-"
        print(
            table_row(
                [
                    str(count),
                    f"{mean(one.iou for one in every):.3f}",
                    " / ".join(f"{mean(one.iou for one in seed):.3f}" for seed in seeds),
                    f"{mean(one.iou > 0.5 for one in every):.1%}",
                    f"{len(doubtful) / len(every):.1%}",
                    wrong,
                ]
            )
        )
    if not images:
        return
    print("\n| references | 1 picture: AP | of each seed | 5 pictures: AP | of each seed |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    for form in FORMS:
        cells = [form]
        for count in (1, PICTURES):
            each = [seed[form, count] for seed in aps]
            cells += [f"{mean(each):.1f}", " / ".join(f"{ap:.1f}" for ap in each)]
        print(table_row(cells), flush=True)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--images", type=int, default=60, help="Targets per seed; 0 measures the masks only.")
    args = parser.parse_args(argv)
    found, aps = [], []
    for seed in args.seeds:
        masks, ap = measure_seed(seed, args.images)
        found.append(masks)
        aps.append(ap)
        print_tables(found[-1:], aps[-1:], args.images)
    print("\nAll seeds")
    print_tables(found, aps, args.images)


if __name__ == "__main__":
    main()
