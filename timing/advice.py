"""Whether the advice about references is right, on drawn scenes with planted faults: ``python -m timing.advice``.

Draws references as the demo does, spoils one of each class, measures all of them as ``references measure`` does, and
prints how many references get advice: of sets without a fault, of those that were spoiled, and of the others in their
sets. ``analysis/reference_report.py`` was tuned on the seeds 777 and 1000 to 1009. Measure on others.
"""

import argparse
import contextlib
import io
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.analysis.leave_one_out import measured_image, references_by_image
from no_time_to_train.analysis.measure_references import conclude, examine
from no_time_to_train.analysis.reference_report import MeasuredReference
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import annotation_mask, encode_mask
from no_time_to_train.demo.run_demo import POINTS_PER_SIDE, annotation_files, write_inputs
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.settings import MODES, ModeName, Settings
from timing.thresholds import references_of

#: The faults.
FAULTS = ("wrong label", "mask of the neighbor", "mask too small", "mask too large")

#: The area of a mask that is too small or too large, relative to the object's.
TOO_SMALL, TOO_LARGE = (0.15, 0.4), (2.5, 4.0)

#: Faults are planted in this share of the classes of a set, in one reference each.
SPOILED = 0.5

#: Sets of all classes that are measured per seed and fault; there are more of those with fewer classes.
REPEATS = 1

Mask = NDArray[np.bool_]


def grown(mask: Mask, share: float) -> Mask:
    """A mask, bool [H, W], whose border is moved evenly until its area is ``share`` times as large."""
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    depth = inside - outside  # pixels to the border
    count = min(int(share * mask.sum()), depth.size - 1)
    return np.asarray(depth > np.partition(depth, -count - 1, axis=None)[-count - 1])


def spoil(
    reference: Reference, fault: str, labels: list[str], objects: list[tuple[str, Mask]], rng: np.random.Generator
) -> Reference:
    """The reference with a fault.

    Args:
        fault: One of ``FAULTS``.
        labels: The classes of the set.
        objects: The label and the mask of every object in the image, one of another class among them.
    """
    mask = reference.read_mask()
    assert mask is not None
    if fault == "wrong label":
        wrong = [label for label in labels if label != reference.label]
        return replace(reference, label=wrong[rng.integers(len(wrong))])
    if fault == "mask of the neighbor":
        others = [other for label, other in objects if label != reference.label]
        return replace(reference, mask=encode_mask(others[rng.integers(len(others))]))
    share = rng.uniform(*(TOO_SMALL if fault == "mask too small" else TOO_LARGE))
    return replace(reference, mask=encode_mask(grown(mask, share)))


@dataclass
class Sets:
    """The references of a seed, drawn once, whose images the networks see once.

    Attributes:
        references: Of all classes, without a fault.
        objects: The label and the mask of every object in an image, by its path.
        segmenter: The networks.
    """

    references: list[Reference]
    objects: dict[Path, list[tuple[str, Mask]]]
    segmenter: ReferenceSegmenter
    proposals: dict[bytes, DescribedProposals] = field(default_factory=dict)

    def propose(self, pixels: NDArray[np.uint8], _: MemoryBank) -> DescribedProposals:
        """The proposals of an image, which are kept."""
        key = pixels.tobytes()
        if key not in self.proposals:
            self.proposals[key] = self.segmenter.propose(pixels).proposals
        return self.proposals[key]

    def measure(
        self, classes: int, fault: str | None, rng: np.random.Generator
    ) -> list[tuple[bool, MeasuredReference]]:
        """Measure the references of some classes, of which half have a fault; whether each reference has one."""
        known = sorted({one.label for one in self.references})
        labels = [known[index] for index in rng.permutation(len(known))[:classes]]
        references, spoiled = [one for one in self.references if one.label in labels], set()
        for label in labels[: round(SPOILED * classes)] if fault else ():
            others = [any(name != label for name, _ in self.objects[one.image]) for one in references]
            of_class = [number for number, one in enumerate(references) if one.label == label and others[number]]
            spoiled.add(int(rng.choice(of_class)))
        for number in spoiled:
            one = references[number]
            references[number] = spoil(one, fault or "", labels, self.objects[one.image], rng)
        bank = MemoryBank.join([self.segmenter.describer.describe(one) for one in references])
        names = [category.name for category in bank.categories]
        order = sorted(range(len(references)), key=lambda number: names.index(references[number].label))
        networks = self.segmenter.segmenter
        images = (measured_image(bank, numbers, self.propose) for numbers in references_by_image(bank))
        records = (examine(bank, image, networks.settings, networks.encoder) for image in images)
        report = conclude(bank, records, networks.settings)
        return [(number in spoiled, one) for number, one in zip(order, report.references, strict=True)]


def draw(seed: int, shots: int, mode: ModeName, folder: Path) -> Sets:
    """Draw the references of a seed, ``shots`` per class, into a folder."""
    with contextlib.redirect_stdout(io.StringIO()):
        write_inputs(folder, shots, 1, seed)
    file, _ = annotation_files(folder)
    coco = read_coco(file)
    objects = {
        file.parent / "images" / entry["file_name"]: [
            (coco.cats[one["category_id"]]["name"], annotation_mask(one, entry["height"], entry["width"]))
            for one in coco.imgToAnns[image_id]
        ]
        for image_id, entry in coco.imgs.items()
    }
    settings = Settings(points_per_side=POINTS_PER_SIDE, **MODES[mode])
    return Sets(references_of(folder), objects, ReferenceSegmenter.from_pretrained("nano", settings=settings))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--shots", type=int, default=4, help="References per class.")
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 8], help="Classes of a set.")
    parser.add_argument("--mode", choices=list(MODES), default="paper", help="The method's numbers.")
    args = parser.parse_args()
    rows: dict[tuple[int, str | None], list[tuple[bool, bool]]] = defaultdict(list)
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            sets = draw(seed, args.shots, args.mode, Path(folder) / "demo")
            for classes, fault in product(args.classes, (None, *FAULTS)):
                rng = np.random.default_rng([seed, classes])
                for _ in range(REPEATS * max(args.classes) // classes):
                    measured = sets.measure(classes, fault, rng)
                    rows[classes, fault] += [(spoiled, bool(one.advice)) for spoiled, one in measured]
    print("| classes | fault | references with it | of these with advice | of the others with advice | right |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for (classes, fault), found in rows.items():
        spoiled, others = [advised for bad, advised in found if bad], [advised for bad, advised in found if not bad]
        right = f"{sum(spoiled) / max(sum(spoiled) + sum(others), 1):.0%}" if fault else ""
        cells = classes, fault or "none", len(spoiled), share(spoiled), share(others), right
        print(f"| {' | '.join(map(str, cells))} |")


def share(advised: list[bool]) -> str:
    """How many of some references have advice."""
    return f"{sum(advised)} of {len(advised)}" if advised else ""


if __name__ == "__main__":
    main()
