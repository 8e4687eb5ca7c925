"""Find the objects of a memory in many images: the run behind ``no-time-to-train segment``."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from no_time_to_train.api.image_proposals import ImageProposals
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.images import hash_pixels
from no_time_to_train.data.proposal_files import hash_sources
from no_time_to_train.data.targets import TargetImage, Targets
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import remove_leftovers_in
from no_time_to_train.method.fast.at_once import batches
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.settings import as_recorded
from no_time_to_train.overlap import Worker, read_ahead
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.output_folder import OutputFolder
from no_time_to_train.pipeline.processes import signal_of
from no_time_to_train.pipeline.proposal_cache import hash_networks, hash_tensors
from no_time_to_train.pipeline.replace_folder import output_of_run, remove_unchanged, written_files
from no_time_to_train.pipeline.run_record import record_stage
from no_time_to_train.pipeline.summary import Summary, Thresholds
from no_time_to_train.plugins import hashes

#: The pixels of an image in which objects may be too small for one look at it as a whole.
LARGE = 4_000_000

#: Changed when the instances of a journal of an earlier version would not be what this one finds.
JOURNAL_FORMAT = 2


def segment_images(
    segmenter: ReferenceSegmenter,
    targets: Targets,
    out: Path,
    thresholds: Thresholds,
    formats: Sequence[str] = (),
    order: Sequence[str] = (),
    overwrite: bool = False,
    link: bool = False,
    share: Callable[[Journal], None] | None = None,
) -> Summary:
    """Find the objects of a memory in the targets, and write them to a folder (see :class:`OutputFolder`).

    Ctrl-C ends the run early, with the files of the images that are done. A run that was stopped or killed resumes: the
    networks do not see again the images that its journal holds. Finished results are replaced as a whole, at the end.

    Args:
        overwrite: Whether finished results in the folder may be replaced.
        share: Has several processes find the instances of all images, and returns once the journal has them.
    """
    assert segmenter.memory is not None
    summary, start = Summary(), time.time()
    try:
        with output_of_run(out, overwrite) as folder:
            journal = Journal(folder / "results.json")
            with journal.run(depends_on(segmenter)):
                remove_leftovers_in(folder)
                earlier = written_files(folder)
                output = OutputFolder(folder, segmenter.memory, thresholds, formats, order, out, summary, link)
                done_before = len(journal.items)
                try:
                    if share is not None:
                        share(journal)
                except KeyboardInterrupt:
                    summary.done_before = len(journal.items)
                    raise
                try:
                    _segment_all(segmenter, targets, journal, output)
                except KeyboardInterrupt:
                    output.finish()
                    remove_unchanged(earlier)
                    raise
                if share is not None:
                    summary.done_before = done_before
                if not summary.images:
                    raise UserError(
                        f"none of {plural(len(summary.skipped), 'image')} can be read: {summary.skipped[0]}"
                    )
                settings = asdict(segmenter.segmenter.settings)
                prompts = round(summary.prompts / summary.images, 1)
                about = {"settings": settings, "precision": segmenter.precision, "prompts_per_image": prompts}
                if segmenter.sources != [None]:
                    count = {segmenter.sources[0].name: sum(summary.found.values())} if segmenter.sources[0] else {}
                    about["instances_by_source"] = dict(output.by_source) or count
                    summary.left_out = [line for source in segmenter.sources if source for line in source.notices()]
                with record_stage(folder, "segment", {}, start, **about):
                    output.finish()
                remove_unchanged(earlier)
    except KeyboardInterrupt as error:
        summary.interrupted = signal_of(error)
    return summary


def _segment_all(segmenter: ReferenceSegmenter, targets: Targets, journal: Journal, output: OutputFolder) -> None:
    """Find the objects in all targets, or take from the journal what an earlier run found, and write their files."""
    summary = output.summary

    def follow(
        target: TargetImage,
        image: NDArray[np.uint8],
        key: str,
        record: dict[str, Any] | None,
        proposals: ImageProposals | None,
    ) -> None:
        """All that the networks are not needed for. Where there are no proposals, the journal had the record.

        It runs in the worker's thread, and nothing else uses the folder and the summary meanwhile.
        """
        if proposals is not None:
            record = record_of(segmenter, proposals)
            journal.add(key, record)
        else:
            summary.done_before += 1
        assert record is not None
        summary.prompts += record["prompts"]
        counted = output.add(target, image, record["results"])
        summary.full += counted >= segmenter.segmenter.settings.max_instances
        summary.large += (
            not counted and image.shape[0] * image.shape[1] >= LARGE and segmenter.segmenter.settings.tiles < 2
        )

    at_once = segmenter.segmenter.images.count
    images = read_ahead(_read(targets.images, summary), at_once)
    with Worker[None]() as worker:
        proposed = propose_new(segmenter, images, journal, at_once)
        for done in tqdm(proposed, total=targets.count, desc="segment", unit=" image"):
            worker.start(partial(follow, *done))
        worker.finish()


def propose_new(
    segmenter: ReferenceSegmenter, images: Iterable[tuple[TargetImage, NDArray[np.uint8]]], journal: Journal, count: int
) -> Iterator[tuple[TargetImage, NDArray[np.uint8], str, dict[str, Any] | None, ImageProposals | None]]:
    """Each image and its pixels, with its key in the journal, and its record there or else its proposals.

    Args:
        count: How many images are taken at once.
    """
    for batch in batches(images, count):
        keys = [key_of(*one) for one in batch]
        records = [journal.get(key) for key in keys]
        new = [one for one, record in zip(batch, records, strict=True) if record is None]
        proposed = segmenter.propose_each((image, target.name, target.image_id) for target, image in new)
        for (target, image), key, record in zip(batch, keys, records, strict=True):
            yield target, image, key, record, next(proposed) if record is None else None


def key_of(target: TargetImage, image: NDArray[np.uint8]) -> str:
    """What the journal knows an image by, uint8 [H, W, 3] RGB."""
    return f"{target.name} {hash_pixels(image)}"


def record_of(segmenter: ReferenceSegmenter, proposals: ImageProposals) -> dict[str, Any]:
    """What the journal keeps of an image: its instances of any score, and the points that were decoded."""
    found = segmenter.classify(proposals, threshold=0)
    return {"results": found.to_coco(), "prompts": found.detections.prompts}


def depends_on(segmenter: ReferenceSegmenter, memory: MemoryBank | None = None) -> dict[str, Any]:
    """What the instances found in an image depend on besides its pixels, as JSON values.

    The thresholds, the frames and the images that are chosen are not in it: all files are written again from the
    instances, which the journal has at any score.

    Args:
        memory: None takes that of the segmenter.
    """
    memory = memory or segmenter.memory
    assert memory is not None
    settings = as_recorded(segmenter.segmenter.settings)
    return {
        "format of the journal": JOURNAL_FORMAT,
        "objects": {category.name: category.id for category in memory.categories},
        "references": hash_tensors({name: one for name, one in vars(memory).items() if torch.is_tensor(one)}),
        "networks": hash_networks(segmenter.segmenter),
        "settings": settings,
        "precision": segmenter.precision,
        **({"compile": True} if segmenter.compiled else {}),  # only then, so that older runs resume
        **hash_sources(segmenter.sources),
        **({"with names": hash_tensors({"prototypes": segmenter.segmenter.prototypes})} if segmenter.names else {}),
        **hashes(*settings.values()),
    }


def _read(targets: Iterable[TargetImage], summary: Summary) -> Iterator[tuple[TargetImage, NDArray[np.uint8]]]:
    """Read the targets' pixels, and list in the summary those that cannot be read."""
    for target in targets:
        try:
            image = target.read()
        except UserError as error:
            summary.skipped.append(str(error))
            continue
        yield target, image
