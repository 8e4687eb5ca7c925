"""Find the objects of a memory in many images: the run behind ``no-time-to-train segment``."""

import hashlib
import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from no_time_to_train.data.coco_results import from_coco_records
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.targets import TargetImage, Targets
from no_time_to_train.errors import UserError
from no_time_to_train.files import sha256
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.output_folder import OutputFolder
from no_time_to_train.reference_segmenter import ReferenceSegmenter

#: Images whose files may wait to be written while the networks continue; each keeps its masks in memory.
MAX_WAITING = 4


@dataclass
class Summary:
    """What a run did.

    Attributes:
        images: Number of images in the results, including those of an earlier, unfinished run.
        found: Number of instances per class, by the class's name.
        skipped: One line for each image that could not be read.
        interrupted: Whether Ctrl-C stopped the run.
        done_before: Number of images that an earlier, unfinished run had done.
    """

    images: int = 0
    found: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    interrupted: bool = False
    done_before: int = 0


def segment_images(
    segmenter: ReferenceSegmenter, targets: Targets, out: Path, score: float, formats: Sequence[str]
) -> Summary:
    """Find the objects of a memory in the targets, and write them to a folder (see :class:`OutputFolder`).

    Ctrl-C ends the run early, with the files of the images that are done. A run that was stopped or killed resumes: the
    networks do not see again the images that its journal holds.

    Args:
        segmenter: The networks and the memory.
        targets: The images.
        out: The folder.
        score: The lowest score of an instance, in [0, 1].
        formats: Label files to write as well, by their names in ``label_files.FORMATS``.

    Returns:
        What was done.

    Raises:
        UserError: The folder cannot be written to, or holds the journal of a run with other objects or settings.
    """
    assert segmenter.memory is not None
    categories = segmenter.memory.categories
    summary, journal = Summary(), Journal(out / "results.json")
    waiting: deque[Future[None]] = deque()

    def wait(at_most: int) -> None:
        """Wait until at most this many images are not written yet; raise the error of one that cannot be written."""
        while len(waiting) > at_most:
            waiting.popleft().result()

    try:
        with (
            journal.run(depends_on(segmenter, score)),
            closing(OutputFolder(out, segmenter.memory, formats)) as output,
            ThreadPoolExecutor(1) as writer,
        ):
            done = {record["name"]: record for record in journal.records()}
            numbers = itertools.count(1 + max(journal.done, default=-1))
            try:
                images = tqdm(_read(targets.images, summary), total=targets.count, desc="segment", unit="image")
                for target, image in images:
                    known_by, record = identity(target, image), done.get(target.name, {})
                    if known_by.items() <= record.items():
                        ids = [category.id for category in categories]
                        detections = from_coco_records(record["results"], ids, *image.shape[:2])
                        found = Instances(image, categories, detections)
                        summary.done_before += 1
                    else:
                        found = segmenter.segment(image, score)
                        journal.add(next(numbers), {**known_by, "results": found.to_coco()})
                    waiting.append(writer.submit(output.add, target, found))
                    summary.images += 1
                    summary.found.update(instance.label for instance in found)
                    wait(at_most=MAX_WAITING)
            finally:
                wait(at_most=0)
    except KeyboardInterrupt:
        summary.interrupted = True
    return summary


def depends_on(segmenter: ReferenceSegmenter, score: float) -> dict[str, Any]:
    """What the instances found in an image depend on besides its pixels, as JSON values.

    Args:
        segmenter: See :func:`segment_images`.
        score: See :func:`segment_images`.
    """
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
    """What identifies an image in the journal: its name and its pixels.

    Args:
        target: The image.
        image: Its pixels, uint8 [H, W, 3].
    """
    return {"name": target.name, "pixels": hashlib.sha256(image.tobytes()).hexdigest()}


def _read(targets: Iterable[TargetImage], summary: Summary) -> Iterator[tuple[TargetImage, NDArray[np.uint8]]]:
    """Read the targets' pixels, and list in the summary those that cannot be read."""
    for target in targets:
        try:
            image = target.read()
        except UserError as error:
            summary.skipped.append(str(error))
            continue
        yield target, image
