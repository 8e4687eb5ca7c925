"""Find a memory's objects in many images, and write what was found in every form that people use."""

import csv
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from no_time_to_train.data.coco_results import from_coco_records
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.label_files import FORMATS
from no_time_to_train.data.targets import TargetImage, Targets
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write, sha256, write_json
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.reference_segmenter import ReferenceSegmenter
from no_time_to_train.visual.drawing import PALETTE, save_picture
from no_time_to_train.visual.gallery import Gallery

COLUMNS = ["image", "instance", "class", "score", "x1", "y1", "x2", "y2", "area"]

#: Images whose files may wait to be written while the networks go on; each holds its masks in memory.
WAITING = 4


@dataclass
class Summary:
    """What a run did.

    Attributes:
        images: how many were looked through.
        found: instances of each class.
        skipped: a line for each image that could not be read.
        interrupted: it was stopped by Ctrl-C.
        done_before: how many images an earlier, unfinished run had looked through.
    """

    images: int = 0
    found: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    interrupted: bool = False
    done_before: int = 0


def segment_images(
    segmenter: ReferenceSegmenter, targets: Targets, out: Path, score: float, formats: list[str]
) -> Summary:
    """Find the memory's objects in the targets, and write them into a folder.

    ``results.json`` holds COCO results, ``images.json`` the images and categories that they refer to;
    ``instances.csv`` a line an instance; ``masks/NAME.png`` in each pixel the instance's number in the CSV, the best on
    top, 0 for none; ``overlays/NAME.jpg`` a picture; ``index.html`` a gallery. Frames of videos are kept in ``frames``.
    After Ctrl-C all these are there for the images that are done. A run that was stopped or killed goes on: images that
    its journal has are not looked through again.

    Args:
        score: the lowest score of an instance.
        formats: names of ``label_files.FORMATS``.

    Raises:
        UserError: the folder cannot be written, or holds the journal of a run with other objects or settings.
    """
    assert segmenter.memory is not None
    summary, journal = Summary(), Journal(out / "results.json")
    journal.begin(journal.open(work(segmenter, score)), rank=0)
    done = {record["name"]: record for record in journal.records()}
    numbers = itertools.count(1 + max(journal.done, default=-1))
    with closing(Output(out, segmenter.memory, formats)) as output, ThreadPoolExecutor(1) as writer:
        waiting: list[Future[None]] = []
        try:
            images = tqdm(_read(targets.images, summary), total=targets.count, desc="segment", unit="image")
            for target, image in images:
                known_by, record = identity(target, image), done.get(target.name, {})
                if known_by.items() <= record.items():
                    ids = [category.id for category in segmenter.memory.categories]
                    detections = from_coco_records(record["results"], ids, *image.shape[:2])
                    found = Instances(image, segmenter.memory.categories, detections)
                    summary.done_before += 1
                else:
                    found = segmenter.segment(image, score)
                    journal.add(next(numbers), {**known_by, "results": found.to_coco()})
                waiting.append(writer.submit(output.add, target, found))
                summary.images += 1
                summary.found.update(instance.label for instance in found)
                if len(waiting) > WAITING:
                    waiting.pop(0).result()
        except KeyboardInterrupt:
            summary.interrupted = True
        for future in waiting:
            future.result()
    if summary.interrupted:
        journal.close()
    else:
        journal.remove()
    return summary


def work(segmenter: ReferenceSegmenter, score: float) -> dict[str, Any]:
    """What the instances found in an image depend on."""
    assert segmenter.memory is not None
    assert segmenter.memory.prototypes is not None
    checkpoint = segmenter.sam2_checkpoint
    return {
        "objects": [category.name for category in segmenter.memory.categories],
        "references": hashlib.sha256(segmenter.memory.prototypes.numpy().tobytes()).hexdigest(),
        "sam2": checkpoint and sha256(checkpoint),
        "points_per_side": segmenter.segmenter.settings.points_per_side,
        "score": score,
    }


def identity(target: TargetImage, image: NDArray[np.uint8]) -> dict[str, Any]:
    """By what an image is known again."""
    return {"name": target.name, "pixels": hashlib.sha256(image.tobytes()).hexdigest()}


def _read(targets: Iterable[TargetImage], summary: Summary) -> Iterator[tuple[TargetImage, NDArray[np.uint8]]]:
    """The targets' pixels; those that cannot be read are noted and passed over."""
    for target in targets:
        try:
            image = target.read()
        except UserError as error:
            summary.skipped.append(str(error))
            continue
        yield target, image


class Output:
    """The files of a run: :meth:`add` writes those of an image, :meth:`close` those of all."""

    def __init__(self, out: Path, memory: MemoryBank, formats: list[str]) -> None:
        self.out, self.categories = out, memory.categories
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.label_files = [FORMATS[name](out, memory.categories) for name in formats]
        self.gallery = Gallery(out, memory)
        self.rows: list[list[Any]] = []
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {out} cannot be written: {error.strerror or error}") from error

    def add(self, target: TargetImage, instances: Instances) -> None:
        name, path = target.name, target.path
        if path is None:
            path = self.out / "frames" / name
            save_picture(instances.image, path)
        image_id = target.image_id if target.image_id is not None else len(self.images) + 1
        height, width = instances.image.shape[:2]
        records = instances.to_coco(image_id)
        overlay = f"overlays/{name}.jpg"
        save_picture(np.asarray(instances.plot()), self.out / overlay)
        save_mask(instances, self.out / "masks" / f"{name}.png")
        for files in self.label_files:
            files.add(name, path, image_id, instances)
        self.gallery.add(name, overlay, instances)
        for number, instance in enumerate(instances, start=1):
            area = int(instance.mask.sum())
            self.rows.append([name, number, instance.label, f"{instance.score:.4f}", *instance.box, area])
        self.images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        self.results += records

    def close(self) -> None:
        with atomic_write(self.out / "instances.csv") as file:
            table = TextIOWrapper(file, encoding="utf-8", newline="")
            csv.writer(table).writerows([COLUMNS, *self.rows])
            table.detach()
        categories = [{"id": category.id, "name": category.name} for category in self.categories]
        write_json(self.out / "results.json", self.results)
        write_json(self.out / "images.json", {"images": self.images, "annotations": [], "categories": categories})
        for files in self.label_files:
            files.finish()
        self.gallery.finish(f"{len(self.results)} instances in {len(self.images)} images")


def save_mask(instances: Instances, path: Path) -> None:
    """Write a PNG with a palette: in each pixel the number of its instance, from 1, the best on top; 0 for none."""
    numbers = np.zeros(instances.image.shape[:2], np.uint8)
    for index in reversed(range(len(instances))):
        numbers[instances[index].mask] = index + 1
    picture = Image.fromarray(numbers).convert("P")
    colours = [channel for index in range(255) for channel in PALETTE.by_idx(index).as_rgb()]
    picture.putpalette([0, 0, 0, *colours])
    with atomic_write(path) as file:
        picture.save(file, format="PNG")
